"""What lies before each cut and what flows across it, for all cuts in one pass over the graph.

Every node gets a bit mask with one bit per cut: set where the node is in that cut's prefix. One backward pass of
big-integer ORs fills all masks, with no copy of the graph per cut. Cuts come sorted by depth, so a node's membership
changes only a few times along them: sums over all prefixes are running sums of those changes, linear in the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from siniantrust.errors import PlanError
from siniantrust.graph import Model

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Flow:
    """The graph seen from its prefixes: one per cut, and last, at index ``whole``, the one that holds every node.

    Attributes:
        model: the model.
        ids: the cuts' ids, by index.
        whole: the index of the whole model.
        node_masks: per node, the mask of the prefixes that hold it.
        made: tensor to the mask of prefixes in which it exists; an input exists in all.
        read: tensor to the masks of the nodes that read it.
        private: tensors that depend on a secret input.
        crossing: per prefix, the tensors made inside and read outside, in order of making.
        contained_in: per cut, the mask of prefixes that contain its prefix, itself among them.
    """

    model: Model
    ids: tuple[str, ...]
    whole: int
    node_masks: tuple[int, ...]
    made: Mapping[str, int]
    read: Mapping[str, tuple[int, ...]]
    private: frozenset[str]
    crossing: tuple[tuple[str, ...], ...]
    contained_in: tuple[int, ...]

    @cached_property
    def everywhere(self) -> int:
        """The mask with all bits set."""
        return (2 << self.whole) - 1

    @cached_property
    def changes(self) -> tuple[IndexArray, IndexArray, FloatArray]:
        """Where membership changes along the prefixes: node, prefix, and +1 (enters) or -1 (leaves)."""
        nodes: list[int] = []
        prefixes: list[int] = []
        signs: list[float] = []
        for index, mask in enumerate(self.node_masks):
            for prefix in bits((mask ^ (mask << 1)) & self.everywhere):
                nodes.append(index)
                prefixes.append(prefix)
                signs.append(1.0 if mask >> prefix & 1 else -1.0)
        return np.asarray(nodes, dtype=np.intp), np.asarray(prefixes, dtype=np.intp), np.asarray(signs)

    @cached_property
    def nodes_inside(self) -> FloatArray:
        """Number of nodes in every prefix."""
        return self.summed([1.0] * len(self.node_masks))

    @cached_property
    def weights(self) -> FloatArray:
        """Parameter bytes of every prefix."""
        return self.summed([node.parameter_bytes for node in self.model.nodes])

    @cached_property
    def dying(self) -> Sequence[Sequence[str]]:
        """Per node, the tensors that nothing reads after it: those it reads last, and those it makes for nobody."""
        last = {tensor.name: 0 for tensor in self.model.inputs}
        for node in self.model.nodes:
            last.update(dict.fromkeys(node.outputs, node.index))
            last.update({name: node.index for name in node.inputs if name in last})
        dying: list[list[str]] = [[] for _ in self.model.nodes]
        for name, index in last.items():
            dying[index].append(name)
        return dying

    @cached_property
    def live_bytes(self) -> FloatArray:
        """Bytes alive while each node of the whole model runs."""
        kept = {tensor.name for tensor in self.model.outputs}
        current = sum(tensor.size_bytes for tensor in self.model.inputs)
        live = np.zeros(len(self.model.nodes))
        for node in self.model.nodes:
            current += sum(map(self.size, node.outputs))
            live[node.index] = current
            current -= sum(self.size(name) for name in self.dying[node.index] if name not in kept)
        return live

    @cached_property
    def crossing_bytes(self) -> FloatArray:
        """Bytes of the tensors made inside and read outside, for every prefix."""
        return np.asarray([sum(map(self.size, names)) for names in self.crossing], dtype=np.float64)

    def contained(self, prefix: int) -> int:
        """Mask of the cuts whose prefix lies within ``prefix``, itself among them."""
        return sum(1 << index for index, mask in enumerate(self.contained_in) if mask >> prefix & 1)

    def summed(self, per_node: Sequence[float]) -> FloatArray:
        """Sum a quantity per node over every prefix; the last element is the whole model's."""
        nodes, prefixes, signs = self.changes
        steps = np.zeros(self.whole + 1)
        np.add.at(steps, prefixes, signs * np.asarray(per_node, dtype=np.float64)[nodes])
        return np.cumsum(steps)

    def at(self, mask: int, prefixes: IndexArray) -> BoolArray:
        """Read the bits of ``mask`` at ``prefixes``."""
        if len(prefixes) == 1:
            return np.asarray([bool(mask >> int(prefixes[0]) & 1)])
        packed = np.frombuffer(mask.to_bytes(self.whole // 8 + 1, "little"), dtype=np.uint8)
        return np.unpackbits(packed, bitorder="little", count=self.whole + 1).astype(np.bool_)[prefixes]

    def positions(self, mask: int) -> IndexArray:
        """Return the positions of the set bits of ``mask``, ascending."""
        return np.flatnonzero(self.at(mask, np.arange(self.whole + 1)))

    def size(self, tensor: str) -> int:
        """Bytes of a tensor of one batch item; 0 where its shape is known at run time only."""
        return self._sizes.get(tensor, 0)

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        return {name: tensor.size_bytes for name, tensor in self.model.tensors.items()}

    def made_in(self, tensor: str) -> int:
        """Mask of the prefixes in which a tensor exists; a constant that is an output exists in the whole model."""
        return self.made.get(tensor, 1 << self.whole)

    def read_in(self, tensor: str) -> int:
        """Mask of the prefixes inside which ``tensor`` is read."""
        return union(self.read.get(tensor, ()))

    def read_between(self, tensor: str, start: int) -> int:
        """Mask of the ends b such that a node outside prefix ``start`` and inside prefix b reads ``tensor``."""
        return union(mask for mask in self.read.get(tensor, ()) if not mask >> start & 1)

    def read_after(self, tensor: str) -> int:
        """Mask of the prefixes outside which ``tensor`` is read."""
        return self._read_after.get(tensor, 0)

    @cached_property
    def _read_after(self) -> Mapping[str, int]:
        return {tensor: union(~mask & self.everywhere for mask in readers) for tensor, readers in self.read.items()}


def trace_flow(model: Model, cuts: Mapping[str, Sequence[str]], *, public_inputs: Iterable[str]) -> Flow:
    """Find the prefixes of all cuts (id to tensors), and which tensors depend on an input that is not public.

    Raises:
        PlanError: if a cut names a tensor that the model does not have.
    """
    inputs = {tensor.name for tensor in model.inputs}
    for cut_id, tensors in cuts.items():
        unknown = [name for name in tensors if name not in model.producers and name not in inputs]
        if unknown or not tensors:
            raise PlanError(f"cut '{cut_id}': the model has no tensor named {unknown[:1]}; enumerate its cuts again")
    masks = _prefix_masks(model, list(cuts.values()))
    whole = len(cuts)
    everywhere = (2 << whole) - 1
    made = dict.fromkeys((tensor.name for tensor in model.inputs), everywhere)
    read: dict[str, list[int]] = {}
    private = inputs - set(public_inputs)
    for node, mask in zip(model.nodes, masks, strict=True):
        for name in dict.fromkeys(node.inputs):
            if name in made:
                read.setdefault(name, []).append(mask)
        for name in node.outputs:
            made[name] = mask
            if not private.isdisjoint(node.inputs):
                private.add(name)
    return Flow(
        model=model,
        ids=tuple(cuts),
        whole=whole,
        node_masks=tuple(masks),
        made=made,
        read={name: tuple(found) for name, found in read.items()},
        private=frozenset(private),
        crossing=_crossing(made, read, inputs, whole),
        contained_in=tuple(_common(made, tensors, everywhere) for tensors in cuts.values()),
    )


def _crossing(
    made: Mapping[str, int], read: Mapping[str, Sequence[int]], inputs: set[str], whole: int
) -> tuple[tuple[str, ...], ...]:
    """List, per prefix, the tensors made inside and read outside."""
    found: list[list[str]] = [[] for _ in range(whole + 1)]
    for name, mask in made.items():
        if name not in inputs:
            for prefix in bits(mask & union(~reader for reader in read.get(name, ()))):
                found[prefix].append(name)
    return tuple(map(tuple, found))


def _common(made: Mapping[str, int], tensors: Iterable[str], everywhere: int) -> int:
    """Return the mask of the prefixes in which all of ``tensors`` exist."""
    common = everywhere
    for name in tensors:
        common &= made[name]
    return common


def _prefix_masks(model: Model, cuts: Sequence[Sequence[str]]) -> list[int]:
    """Spread each cut's bit from the makers of its tensors to all their ancestors; every node gets the last bit."""
    masks = [1 << len(cuts)] * len(model.nodes)
    for bit, tensors in enumerate(cuts):
        for name in tensors:
            if name in model.producers:
                masks[model.producers[name]] |= 1 << bit
    for node in reversed(model.nodes):
        for name in node.inputs:
            if name in model.producers:
                masks[model.producers[name]] |= masks[node.index]
    return masks


def bits(mask: int) -> Iterator[int]:
    """Yield the positions of the set bits, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def union(masks: Iterable[int]) -> int:
    """OR all masks together."""
    result = 0
    for mask in masks:
        result |= mask
    return result
