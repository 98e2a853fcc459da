"""An ONNX model as a torch module: its stored numbers become parameters, and go back into the same graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext

import onnx
import torch
from onnx import helper, numpy_helper

from siniantrust.errors import DataError, DeviceError
from siniantrust.odla.torch_graph._differentiable import differentiable_weights
from siniantrust.odla.torch_graph._graph import TorchGraph
from siniantrust.odla.torch_graph._types import from_proto

_MEAN, _VARIANCE = 3, 4


class TrainableGraph(torch.nn.Module):
    """An ONNX model that trains in PyTorch, and is the same ONNX model afterwards but for its numbers.

    Nothing is translated into layers: ``TorchGraph`` runs the nodes themselves, so ``to_proto`` has only numbers to
    write back. Parameters are the stored floating tensors of rank one or more through which a gradient can reach an
    output, unless they are settings of their operator (see ``differentiable_weights``). Running statistics of batch
    normalisation are buffers; they move in training mode, with torch's formula, while Dropout drops. The other stored
    tensors are buffers too.

    A node of batch normalisation whose statistics are frozen, or no stored tensors, acts as in inference always.

    Args:
        proto: A checked model whose nodes are in topological order, as ``graph.Model`` and ``graph.Part`` hold it.
        frozen: Names of stored tensors that stay as they are.

    Raises:
        DeviceError: if operators cannot be run, or stand between every weight and the outputs; all are named.
        DataError: if a name in ``frozen`` is no stored tensor.

    Example:
        >>> network = TrainableGraph(model.proto)
        >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> (logits,) = network.train()(images)
        >>> torch.nn.functional.cross_entropy(logits, labels).backward()
        >>> optimiser.step()
        >>> onnx.save(network.to_proto(), "trained.onnx")
    """

    def __init__(self, proto: onnx.ModelProto, *, frozen: Collection[str] = ()) -> None:
        super().__init__()
        stored = {tensor.name: tensor for tensor in proto.graph.initializer}
        if unknown := sorted(set(frozen) - set(stored)):
            raise DataError(f"no stored tensor is called '{unknown[0]}', so it cannot be frozen")
        self._proto = onnx.ModelProto()
        self._proto.CopyFrom(proto)
        self._graph = TorchGraph(proto)
        self._inputs = [value.name for value in proto.graph.input if value.name not in stored]
        self._outputs = [value.name for value in proto.graph.output]
        if refused := self._graph.supports(self._inputs, self._outputs):
            listed = "; ".join(f"node '{each.node}' ({each.op_type}): {each.reason}" for each in refused)
            raise DeviceError(f"the model cannot be trained: PyTorch cannot run {listed}")
        moving, self._training_nodes = _training_nodes(proto, set(stored) - set(frozen))
        trained = differentiable_weights(proto, self._outputs) - moving - set(frozen)
        self._moving = tuple(name for name in stored if name in moving)
        for name, tensor in stored.items():
            values = from_proto(tensor)
            if name in trained:
                self.register_parameter(_key(name), torch.nn.Parameter(values))
            else:
                self.register_buffer(_key(name), values, persistent=name in moving)
        self._names = tuple(stored)
        self._trained = tuple(name for name in stored if name in trained)

    def named_weights(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the parameters by the names that the ONNX model gives them."""
        for name in self._trained:
            yield name, self.get_parameter(_key(name))

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the model's outputs, in its order, for its inputs, in its order; the batch may be of any size.

        Raises:
            DataError: if there are more or fewer inputs than the model has.
            DeviceError: if torch refuses a node's inputs; the node is named.
        """
        if len(inputs) != len(self._inputs):
            raise DataError(f"the model has {len(self._inputs)} inputs ({', '.join(self._inputs)}), not {len(inputs)}")
        found = self.run(dict(zip(self._inputs, inputs, strict=True)), self._outputs)
        return tuple(found[name] for name in self._outputs)

    def run(self, values: Mapping[str, torch.Tensor], wanted: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the tensors ``wanted`` by name, computed from any others by the nodes between them only.

        Raises:
            DataError: if a tensor that is needed is neither given, nor stored, nor computed from those.
            DeviceError: if torch refuses a node's inputs; the node is named.
        """
        stored = {name: self._stored(name) for name in self._names}
        # What nodes make anew (shapes, ranges, noise) has to lie where their inputs lie. Saying so slows every call.
        device = next(iter(values.values())).device
        with nullcontext() if device == torch.get_default_device() else device:
            return self._graph.run(
                stored | dict(values), wanted, training=self._training_nodes if self.training else ()
            )

    def to_proto(self) -> onnx.ModelProto:
        """Return the model as it was given, with the numbers as they are now, in the element types they had."""
        trained = onnx.ModelProto()
        trained.CopyFrom(self._proto)
        changed = {*self._trained, *self._moving}
        for tensor in trained.graph.initializer:
            if tensor.name in changed:
                values = self._stored(tensor.name).detach().cpu().double().numpy()
                dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
                tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), tensor.name))
        return trained

    def _stored(self, name: str) -> torch.Tensor:
        values: torch.Tensor = getattr(self, _key(name))
        return values


def _training_nodes(proto: onnx.ModelProto, free: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the running statistics that move, and the first outputs of the nodes that act as in training."""
    moving: set[str] = set()
    nodes: set[str] = set()
    for node in proto.graph.node:
        if node.op_type == "Dropout":
            nodes.add(node.output[0])
        elif node.op_type == "BatchNormalization":
            statistics = {node.input[_MEAN], node.input[_VARIANCE]}
            if statistics <= set(free):
                moving |= statistics
                nodes.add(node.output[0])
    return frozenset(moving), frozenset(nodes)


def _key(name: str) -> str:
    """Return a name that torch takes for a parameter: it allows no dots and no attributes of modules."""
    return "onnx:" + name.replace("%", "%25").replace(".", "%2E")
