"""Sets of devices: which may be left, and which one stretch may take."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

Counts = tuple[int, ...]
# With more ways than this to give a stretch some of the devices left, replicas are devices of one kind only.
_MOST_WAYS = 2000


@dataclass(frozen=True)
class Crews:
    """The sets of devices that may be left, as counts per kind, and those that one stretch may take at once.

    ``replicated`` lets a stretch take several, which then share its requests.
    """

    sizes: Counts
    replicated: bool

    @cached_property
    def states(self) -> tuple[Counts, ...]:
        """All counts that may be left, a smaller set before those that hold it."""
        return tuple(itertools.product(*(range(size + 1) for size in self.sizes)))

    @cached_property
    def number(self) -> dict[Counts, int]:
        """The index of each state."""
        return {state: index for index, state in enumerate(self.states)}

    @cached_property
    def takings(self) -> tuple[Counts, ...]:
        """What one stretch may take."""
        single = [tuple(int(kind == other) for other in range(len(self.sizes))) for kind in range(len(self.sizes))]
        if not self.replicated:
            return tuple(single)
        ways = 1
        for size in self.sizes:
            ways *= (size + 1) * (size + 2) // 2
        if ways <= _MOST_WAYS:
            return self.states[1:]
        return tuple(
            tuple(count * one for one in unit)
            for unit, size in zip(single, self.sizes, strict=True)
            for count in range(1, size + 1)
        )

    @cached_property
    def steps(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Per state, the numbers of what may be taken of it, each with the number of what is left."""
        return tuple(
            tuple(
                (number, self.number[left])
                for number, taking in enumerate(self.takings)
                if min(left := tuple(map(int.__sub__, state, taking))) >= 0
            )
            for state in self.states
        )
