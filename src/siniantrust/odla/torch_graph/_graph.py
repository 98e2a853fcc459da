"""The runner: which nodes are needed, whether each can be run, and running them in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import inliner

from siniantrust.errors import DataError, DeviceError
from siniantrust.odla._device import Unsupported
from siniantrust.odla._text import one_line
from siniantrust.odla.torch_graph._table import Call, make_call, operators, why_not

if TYPE_CHECKING:
    import torch


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's element type by numpy's name of it, as ``graph.Tensor.dtype`` holds it; imports torch.

    Raises:
        DeviceError: if torch has no such type.
    """
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise DeviceError(f"PyTorch has no element type {name}")
    return found


@dataclass(frozen=True, slots=True)
class _Plan:
    """The nodes to run, in order, and after each the values that no later one reads."""

    nodes: tuple[int, ...]
    done_with: tuple[tuple[str, ...], ...]


class TorchGraph:
    """An ONNX graph that PyTorch runs, from any of its tensors to any others; gradients flow to what is given.

    Dropout and batch normalisation act as in inference, but for the nodes that ``run`` is told to train. Rounding
    operators (Round, Floor, Ceil, Sign, QuantizeLinear) have a straight-through gradient, that of the identity (Bengio,
    Léonard, Courville 2013); a cast to integers has none. Random operators draw from torch's generator on every run;
    their ``seed`` is ignored.

    Weights are made on torch's default device when they are first needed, and kept. They are given like any other
    value, so that a caller who trains passes its own: ``graph.run(values | weights, wanted)``.

    Args:
        proto: A checked model whose nodes are in topological order, as ``graph.Model`` and ``graph.Part`` hold it;
            its own functions are inlined.

    Example:
        >>> graph = TorchGraph(model.proto)
        >>> inner = graph.run({"x": images}, ["relu1"])
        >>> answer = graph.run(inner, ["y"])["y"]
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
        opset = next((entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}), 1)
        self._nodes = list(proto.graph.node)
        self._calls: list[Call] = [make_call(node, opset) for node in self._nodes]
        self._stored = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._makers = {name: index for index, node in enumerate(self._nodes) for name in node.output if name}
        self._plans: dict[tuple[frozenset[str], tuple[str, ...]], _Plan] = {}
        self._weights: dict[str, torch.Tensor] = {}

    def weights(self) -> dict[str, torch.Tensor]:
        """Return all stored tensors of the model by name, on the device where they are used."""
        return {name: self._weight(name) for name in self._stored}

    def supports(self, given: Collection[str], wanted: Sequence[str]) -> list[Unsupported]:
        """Return the nodes between the tensors ``given`` and ``wanted`` that cannot be run; empty if all can.

        Raises:
            DataError: if ``wanted`` cannot be computed from ``given``, whatever the operators.
        """
        plan = self._plan(frozenset(given), tuple(wanted))
        refused = []
        for index in plan.nodes:
            node = self._nodes[index]
            reason = why_not(node, self._calls[index])
            if reason is not None:
                refused.append(Unsupported(node.name, node.op_type, reason))
        return refused

    def run(
        self, values: Mapping[str, torch.Tensor], wanted: Sequence[str], *, training: Collection[str] = ()
    ) -> dict[str, torch.Tensor]:
        """Return the tensors ``wanted`` by name, computed from ``values`` by the nodes between them only.

        Args:
            values: Tensors by name: inputs, inner tensors, or weights to use in place of the stored ones.
            wanted: Names of any tensors of the graph.
            training: First outputs of the nodes that act as in training: Dropout drops; batch normalisation goes by
                the batch's statistics, and moves the running ones that it is given, in place.

        Raises:
            DataError: if a tensor that is needed is neither given, nor stored, nor computed from those.
            DeviceError: if a node cannot be run, before any is; or if torch refuses its inputs.
        """
        if refused := self.supports(values, wanted):
            first = refused[0]
            more = f" (and {len(refused) - 1} more nodes)" if len(refused) > 1 else ""
            raise DeviceError(f"node '{first.node}': PyTorch cannot run {first.op_type} here: {first.reason}{more}")
        plan = self._plan(frozenset(values), tuple(wanted))
        known = dict(values)
        for index, done_with in zip(plan.nodes, plan.done_with, strict=True):
            node = self._nodes[index]
            inputs = [self._value(known, name) for name in node.input]
            results = self._apply(index, inputs, training=node.output[0] in training)
            known.update((name, result) for name, result in zip(node.output, results, strict=False) if name)
            for name in done_with:
                known.pop(name, None)
        return {name: known[name] if name in known else self._weight(name) for name in wanted}

    def _apply(self, index: int, inputs: list[torch.Tensor | None], *, training: bool) -> tuple[torch.Tensor, ...]:
        node = self._nodes[index]
        acting = operators()[node.op_type]
        function = acting.train if training and acting.train is not None else acting.run
        try:
            result = function(self._calls[index], *inputs)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise DeviceError(f"node '{node.name}': {node.op_type}: {one_line(error)}") from error
        return result if isinstance(result, tuple) else (result,)

    def _value(self, known: Mapping[str, torch.Tensor], name: str) -> torch.Tensor | None:
        if not name:
            return None
        return known[name] if name in known else self._weight(name)

    def _weight(self, name: str) -> torch.Tensor:
        if name not in self._weights:
            from siniantrust.odla.torch_graph._types import from_proto

            self._weights[name] = from_proto(self._stored[name])
        return self._weights[name]

    def _plan(self, given: frozenset[str], wanted: tuple[str, ...]) -> _Plan:
        key = (given, wanted)
        if key not in self._plans:
            self._plans[key] = self._make_plan(given, wanted)
        return self._plans[key]

    def _make_plan(self, given: frozenset[str], wanted: tuple[str, ...]) -> _Plan:
        needed: set[int] = set()
        open_names = [(name, "the caller") for name in wanted]
        while open_names:
            name, reader = open_names.pop()
            if name in given or name in self._stored:
                continue
            if name not in self._makers:
                raise DataError(
                    f"tensor '{name}', which {reader} needs, is neither given nor stored nor made by a node; "
                    f"given are {', '.join(sorted(given)) or 'none'}"
                )
            index = self._makers[name]
            if index not in needed:
                needed.add(index)
                node = self._nodes[index]
                open_names += [(source, f"node '{node.name}'") for source in node.input if source]
        nodes = tuple(sorted(needed))
        last = {name: index for index in nodes for name in self._nodes[index].input}
        last |= {name: index for index in nodes for name in self._nodes[index].output if name not in last}
        done_with: dict[int, list[str]] = {}
        for name, index in last.items():
            if name and name not in wanted:
                done_with.setdefault(index, []).append(name)
        return _Plan(nodes, tuple(tuple(done_with.get(index, ())) for index in nodes))
