"""Which channels of a graph belong together: to remove one, everything that makes, bends or reads it must lose it.

Each tensor's second axis holds the channels of a *space*; in a flattened tensor a channel is a run of several places.
An operator that keeps channels puts its output into its input's space; a sum of two tensors joins their spaces; a
convolution or a matrix product reads one space and makes another. Whatever this file does not know pins the spaces that
it touches: their channels stay. (DepGraph, Fang et al. 2023, finds such groups in PyTorch modules; here they are found
in the ONNX graph, whose names and nodes must come out as they went in.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx

from siniantrust.graph import Model
from siniantrust.masking.restructure._editor import attribute

_KEEPING = frozenset(
    (
        *("AveragePool", "Cast", "Clip", "Dropout", "Elu", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"),
        *("HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mish", "Relu", "Selu", "Sigmoid", "Softplus", "Tanh"),
    )
)
_JOINING = frozenset(("Add", "Mul", "Sub", "Div", "Sum", "Max", "Min"))
_FLATTENING = frozenset(("Flatten", "Reshape"))
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class Slice:
    """An axis of a stored tensor along which a space's channels lie, each as a run of ``run`` places."""

    stored: str
    axis: int
    run: int


@dataclass(slots=True)
class Space:
    """Channels that stand and fall together.

    Attributes:
        width: how many there are.
        makers: the nodes, by index, that make them from other channels.
        made: axes of stored tensors that belong to making or bending them.
        read: axes of stored tensors that belong to reading them.
        reshapes: the nodes, by index, whose stored target shape speaks of their number.
        depthwise: the convolutions, by index, that have a group for each of them.
        tensors: the tensors that hold them.
        pinned: whether they must stay.
    """

    width: int
    makers: set[int] = field(default_factory=set)
    made: list[Slice] = field(default_factory=list)
    read: list[Slice] = field(default_factory=list)
    reshapes: set[int] = field(default_factory=set)
    depthwise: set[int] = field(default_factory=set)
    tensors: set[str] = field(default_factory=set)
    pinned: bool = False


def spaces(model: Model) -> list[Space]:
    """Return the spaces of ``model`` whose channels can be removed, in the order of their makers."""
    tracer = _Tracer(model)
    for index, node in enumerate(model.proto.graph.node):
        tracer.visit(index, node)
    return tracer.free()


class _Tracer:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._stored = {tensor.name: tuple(tensor.dims) for tensor in model.proto.graph.initializer}
        self._place: dict[str, tuple[Space, int]] = {}
        self._all: list[Space] = []
        readers: dict[str, int] = {}
        for node in model.proto.graph.node:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
        self._shared = {name for name in self._stored if readers.get(name, 0) > 1}
        for tensor in model.inputs:
            self._new(tensor.name).pinned = True

    def visit(self, index: int, node: onnx.NodeProto) -> None:
        activations = [name for name in node.input if name and name not in self._stored]
        outputs = [name for name in node.output if name]
        if not (self._known(index, node, activations) if len(outputs) == 1 else False):
            for name in (*activations, *outputs):
                self._space(name).pinned = True

    def free(self) -> list[Space]:
        for output in self._model.outputs:
            self._space(output.name).pinned = True
        found = []
        for space in self._all:
            touched = {each.stored for each in (*space.made, *space.read)}
            if not space.pinned and space.makers and not touched & self._shared:
                found.append(space)
        return sorted(found, key=lambda space: min(space.makers))

    def _known(self, index: int, node: onnx.NodeProto, activations: list[str]) -> bool:
        """Enter a node; return False for one whose channels cannot be followed."""
        kind, output = node.op_type, node.output[0]
        if kind in ("Conv", "Gemm", "MatMul"):
            return self._product(index, node)
        if kind in _KEEPING and activations == [node.input[0]]:
            return self._same(output, node.input[0])
        if kind == "BatchNormalization" and activations == [node.input[0]]:
            self._bent(node.input[0], node.input[1:])
            return self._same(output, node.input[0])
        if kind in _JOINING and activations:
            return self._joined(node, activations)
        if kind in _FLATTENING and activations == [node.input[0]]:
            return self._flattened(index, node)
        return kind == "ReduceMean" and self._pooled(node, activations)

    def _product(self, index: int, node: onnx.NodeProto) -> bool:
        values, weights, *bias = node.input
        shape = self._stored.get(weights, ())
        if len(shape) < _MATRIX or values in self._stored or any(name not in self._stored for name in bias):
            return False
        if node.op_type == "Conv":
            group = attribute(node, "group", 1)
            if group > 1:
                if not group == shape[0] == self._model.tensors[values].shape[1]:
                    return False
                self._bent(values, [weights, *bias])
                self._space(values).depthwise.add(index)
                return self._same(node.output[0], values)
            into, out = 1, 0
        else:
            transposed = bool(attribute(node, "transB", 0))
            into, out = (1, 0) if transposed else (0, 1)
            flat = len(self._model.tensors[values].shape) == _MATRIX == len(shape)
            if not flat or attribute(node, "transA", 0) or any(len(self._stored[name]) != 1 for name in bias):
                return False
        space, run = self._found(values)
        space.read.append(Slice(weights, into, run))
        new = self._new(node.output[0])
        new.makers.add(index)
        new.made += [Slice(weights, out, 1), *(Slice(name, 0, 1) for name in bias)]
        return True

    def _joined(self, node: onnx.NodeProto, activations: list[str]) -> bool:
        shape = self._model.tensors[node.output[0]].shape
        first = activations[0]
        if any(self._model.tensors[name].shape != shape for name in activations):
            return False
        for name in (each for each in node.input if each in self._stored):
            found = self._stored[name]
            axis = 1 - (len(shape) - len(found))
            if axis >= 0 and found[axis : axis + 1] == (shape[1],):
                space, run = self._found(first)
                space.made.append(Slice(name, axis, run))
            elif any(size != 1 for size in found[max(axis, 0) : axis + 1]):
                return False
        for name in activations[1:]:
            self._join(first, name)
        return self._same(node.output[0], first)

    def _flattened(self, index: int, node: onnx.NodeProto) -> bool:
        before, after = (self._model.tensors[name].shape for name in (node.input[0], node.output[0]))
        if len(before) < _MATRIX or len(after) != _MATRIX or before[0] != after[0]:
            return False
        space, run = self._found(node.input[0])
        if after[1] % before[1]:
            return False
        self._place[node.output[0]] = space, run * (after[1] // before[1])
        space.tensors.add(node.output[0])
        if node.op_type == "Reshape":
            space.reshapes.add(index)
        return True

    def _pooled(self, node: onnx.NodeProto, activations: list[str]) -> bool:
        before, after = (self._model.tensors[name].shape for name in (activations[0], node.output[0]))
        kept = after[:_MATRIX] == before[:_MATRIX] and all(size == 1 for size in after[_MATRIX:])
        return len(activations) == 1 and len(before) > _MATRIX and kept and self._same(node.output[0], activations[0])

    def _bent(self, values: str, stored: Iterable[str]) -> None:
        """Enter stored tensors whose first axis holds the channels of ``values``."""
        space, run = self._found(values)
        space.made += [Slice(name, 0, run) for name in stored if name in self._stored]

    def _same(self, output: str, source: str) -> bool:
        space, run = self._found(source)
        self._place[output] = space, run
        space.tensors.add(output)
        return True

    def _new(self, name: str) -> Space:
        shape = self._model.tensors[name].shape if name in self._model.tensors else ()
        space = Space(shape[1] if len(shape) >= _MATRIX else 0, tensors={name})
        space.pinned = not space.width
        self._place[name] = space, 1
        self._all.append(space)
        return space

    def _found(self, name: str) -> tuple[Space, int]:
        if name not in self._place:
            self._new(name).pinned = True
        return self._place[name]

    def _space(self, name: str) -> Space:
        return self._found(name)[0]

    def _join(self, first: str, second: str) -> None:
        (one, run), (other, other_run) = self._found(first), self._found(second)
        if one is other:
            return
        one.makers |= other.makers
        one.made += other.made
        one.read += other.read
        one.reshapes |= other.reshapes
        one.depthwise |= other.depthwise
        one.tensors |= other.tensors
        one.pinned |= other.pinned or run != other_run or one.width != other.width
        self._all.remove(other)
        for name, (space, each) in self._place.items():
            if space is other:
                self._place[name] = one, each
