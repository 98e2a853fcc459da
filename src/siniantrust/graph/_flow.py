"""The graph as integers: which node makes which value, who reads it; constants left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.graph._types import Model


@dataclass(frozen=True)
class Flow:
    """Values and nodes by number; nodes are in topological order.

    Attributes:
        names: name of each value. Model inputs come first.
        inputs: how many of the values are model inputs.
        producer: node that makes each value; -1 for a model input.
        readers: nodes that read each value, ascending.
        is_output: whether a value is an output of the model.
        reads: values that each node reads (no constants).
        makes: values that each node makes and that something needs.
        depends: whether each node depends on a model input; one that does not (a random source, say) is free to move.
        size_bytes: bytes of each value for one item; None where its shape is unknown, so that it cannot be cut.
        flops: FLOPs of each node.
    """

    names: Sequence[str]
    inputs: int
    producer: Sequence[int]
    readers: Sequence[Sequence[int]]
    is_output: Sequence[bool]
    reads: Sequence[Sequence[int]]
    makes: Sequence[Sequence[int]]
    depends: Sequence[bool]
    size_bytes: Sequence[int | None]
    flops: Sequence[int]

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.reads)


def flow_of(model: Model) -> Flow:
    """Number the values and nodes of ``model``; values that nothing reads, outputs apart, are left out."""
    ends = {tensor.name for tensor in model.outputs}
    names = [tensor.name for tensor in model.inputs]
    producer = [-1] * len(names)
    for node in model.nodes:
        for name in node.outputs:
            if name in model.consumers or name in ends:
                names.append(name)
                producer.append(node.index)
    number = {name: index for index, name in enumerate(names)}
    reads = [[number[name] for name in dict.fromkeys(node.inputs) if name in number] for node in model.nodes]
    makes: list[list[int]] = [[] for _ in model.nodes]
    readers: list[list[int]] = [[] for _ in names]
    for value, node_index in enumerate(producer):
        if node_index >= 0:
            makes[node_index].append(value)
    for index, values in enumerate(reads):
        for value in values:
            readers[value].append(index)
    depends: list[bool] = []
    for values in reads:
        depends.append(any(producer[value] < 0 or depends[producer[value]] for value in values))
    tensors = [model.tensors.get(name) for name in names]
    return Flow(
        names=names,
        inputs=len(model.inputs),
        producer=producer,
        readers=readers,
        is_output=[name in ends for name in names],
        reads=reads,
        makes=makes,
        depends=depends,
        size_bytes=[None if tensor is None or tensor.dtype == "object" else tensor.size_bytes for tensor in tensors],
        flops=[node.flops for node in model.nodes],
    )
