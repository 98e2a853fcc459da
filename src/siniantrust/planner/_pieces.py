"""A model taken apart, so that its pieces can be timed: what lies between two cuts, and what a cut itself costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from siniantrust.graph import Cut, CutSet, Model, Node, Part, Tensor, split
from siniantrust.odla import Arrays, Device

MOST_PIECES = 8


@dataclass(frozen=True)
class Specimen:
    """A model whole and in pieces, with inputs for either."""

    model: Model
    cuts: CutSet
    seed: int
    here: Device = field(repr=False)
    _fed: dict[tuple[tuple[str, ...], ...], list[Arrays]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def whole(self) -> Part:
        """The whole model as a part."""
        model = self.model
        names = tuple(node.name for node in model.nodes)
        return Part("whole", model.proto, model.inputs, model.outputs, names, model.batch_symbol)

    @cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        """One item of random inputs."""
        return _random_inputs(self.model.inputs, self.seed)

    def pieces(self, most: int = MOST_PIECES) -> tuple[Part, ...]:
        """Return at most so many parts of about equal size, one behind the other."""
        return split(self.model, even_cuts(self.model, self.cuts, most))

    def nodes(self, part: Part) -> list[Node]:
        """Return the nodes of a part."""
        return [self._by_name[name] for name in part.node_names]

    @cached_property
    def _by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.model.nodes}

    def fed(self, parts: tuple[Part, ...]) -> list[Arrays]:
        """Return the inputs of each part, by running one after the other here, once for the same parts.

        Raises:
            DeviceError: if this machine cannot run one of them.
        """
        key = tuple(part.node_names for part in parts)
        if key not in self._fed:
            self._fed[key] = self._run_through(parts)
        return self._fed[key]

    def _run_through(self, parts: tuple[Part, ...]) -> list[Arrays]:
        values = dict(self.inputs)
        found: list[Arrays] = []
        for part in parts:
            found.append({tensor.name: values[tensor.name] for tensor in part.inputs})
            if part is not parts[-1]:
                executable = self.here.compile(part)
                values |= executable.run(found[-1])
                executable.close()
        return found


def moved_bytes(part: Part) -> tuple[int, int]:
    """Return the bytes that a part takes and gives."""
    return sum(tensor.size_bytes for tensor in part.inputs), sum(tensor.size_bytes for tensor in part.outputs)


def even_cuts(model: Model, cuts: CutSet, most: int = MOST_PIECES) -> list[Cut]:
    """Choose up to ``most - 1`` single-tensor cuts that share FLOPs and nodes out as evenly as they can."""
    single = [cut for cut in cuts.cuts if len(cut.tensors) == 1 and not cut.fusable and _passes(model, cut)]
    if not single:
        return []
    flops, nodes = max(model.flops, 1), len(model.nodes)
    shares = np.array([(cut.flops_before / flops + cut.nodes_before / nodes) / 2 for cut in single])
    nearest = {int(np.abs(shares - step / most).argmin()) for step in range(1, most)}
    return [single[index] for index in sorted(nearest)]


def _passes(model: Model, cut: Cut) -> bool:
    """Return whether devices take the tensor at a cut: numpy's own kinds of numbers."""
    return np.dtype(model.tensors[cut.tensors[0]].dtype).kind in "fiub"


def _random_inputs(tensors: tuple[Tensor, ...], seed: int) -> dict[str, np.ndarray]:
    """Make one item per input: normal numbers, and zeros for integers, which may be indices."""
    generator = np.random.default_rng(seed)
    made = {}
    for tensor in tensors:
        dtype = np.dtype(tensor.dtype)
        if dtype.kind == "f":
            made[tensor.name] = generator.standard_normal(tensor.shape).astype(dtype)
        elif dtype.kind == "O":
            made[tensor.name] = np.full(tensor.shape, "", dtype=object)
        else:
            made[tensor.name] = np.zeros(tensor.shape, dtype=dtype)
    return made
