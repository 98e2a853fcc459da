"""What a graph makes of drawn numbers alone, where that has a law of its own and can be drawn at once."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper, numpy_helper

# Where the even numbers that a logarithm is taken of may begin: what is left out has this probability.
_MOST_LEFT_OUT = 1e-6
_UNIFORM = ("RandomUniform", "RandomUniformLike")


@dataclass(frozen=True, slots=True)
class Composed:
    """A value that has a law of its own.

    Attributes:
        law: with offset and factor, as a reserved input's name has it.
        draws: the random operators, which draw numbers of the value's own shape.
        inner: outputs of the nodes that nothing else reads; the value is the last one's.
    """

    law: str
    draws: tuple[onnx.NodeProto, ...]
    inner: frozenset[str]


def composed_laws(graph: onnx.GraphProto) -> dict[str, Composed]:
    """Return the values of ``graph`` that are drawn by a composed law, by name.

    ``laplace``: ln U - ln V with U and V even on (0, 1), a Laplace number of scale 1 (a difference of two exponential
    ones); times a stored number. ``bernoulli``: the floor of U + p, which is 1 with probability p and else 0; times a
    stored number.
    """
    view = _View(graph)
    found: dict[str, Composed] = {}
    for node in graph.node:
        made = view.laplace(node) or view.bernoulli(node)
        if made is not None:
            law, number, draws, inner = made
            last, factor = view.scaled(node)
            found[last] = Composed(f"{law}:{number!r}:{factor!r}", draws, frozenset({*inner, node.output[0]}))
    return found


_Made = tuple[str, float, tuple[onnx.NodeProto, ...], tuple[str, ...]]


class _View:
    """A graph with who makes and who reads each value."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._makers = {output: node for node in graph.node for output in node.output}
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}

    def laplace(self, node: onnx.NodeProto) -> _Made | None:
        """Return a difference of two logarithms of even numbers."""
        logs = [self._only(name, ("Log",)) for name in node.input] if node.op_type == "Sub" else []
        draws = [None if log is None else self._only(log.input[0], _UNIFORM) for log in logs]
        if not draws or any(draw is None or not _begins_at_nothing(draw) for draw in draws):
            return None
        first, second = (draw for draw in draws if draw is not None)
        alike = first.input[:] == second.input[:] and _settings(first) == _settings(second)
        inner = (*node.input, first.output[0], second.output[0])
        return ("laplace", 0.0, (first, second), inner) if alike else None

    def bernoulli(self, node: onnx.NodeProto) -> _Made | None:
        """Return the floor of an even number and a share."""
        added = self._only(node.input[0], ("Add",)) if node.op_type == "Floor" else None
        draw = None if added is None else self._only(added.input[0], _UNIFORM)
        share = None if added is None else self._number(added.input[1])
        if draw is None or share is None or not 0 <= share <= 1 or _settings(draw) != (0.0, 1.0):
            return None
        return "bernoulli", share, (draw,), (node.input[0], draw.output[0])

    def scaled(self, node: onnx.NodeProto) -> tuple[str, float]:
        """Return the value and factor of a product with a stored number that alone reads a node; else its own and 1."""
        value = node.output[0]
        (reader, *more) = self._readers.get(value, [node])
        factor = self._number(reader.input[1]) if reader.op_type == "Mul" and reader.input[0] == value else None
        if more or value in self._outputs or factor is None:
            return value, 1.0
        return reader.output[0], factor

    def _only(self, name: str, kinds: tuple[str, ...]) -> onnx.NodeProto | None:
        """Return the node of one of these kinds that makes a value which is read once."""
        maker = self._makers.get(name)
        alone = len(self._readers[name]) == 1 and name not in self._outputs
        return maker if maker is not None and maker.op_type in kinds and alone else None

    def _number(self, name: str) -> float | None:
        """Return a stored number."""
        if name not in self._stored:
            return None
        values = numpy_helper.to_array(self._stored[name])
        return float(values.reshape(-1)[0]) if values.size == 1 else None


def _settings(draw: onnx.NodeProto) -> tuple[float, float]:
    found = {entry.name: helper.get_attribute_value(entry) for entry in draw.attribute}
    return found.get("low", 0.0), found.get("high", 1.0)


def _begins_at_nothing(draw: onnx.NodeProto) -> bool:
    low, high = _settings(draw)
    return 0 <= low <= _MOST_LEFT_OUT and high == 1
