"""Where activations lie in one block of memory: those that live at the same time never overlap.

The largest tensors are placed first, each at the lowest offset that is free for its whole life ("greedy by size",
Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Life:
    """A tensor that is alive from step ``first`` to step ``last``, both included."""

    size_bytes: int
    first: int
    last: int


def place(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Return each tensor's offset, and the bytes that all of them need together."""
    offsets = [0] * len(lives)
    placed: list[int] = []
    for index in sorted(range(len(lives)), key=lambda index: -lives[index].size_bytes):
        life = lives[index]
        taken = sorted(
            (offsets[other], offsets[other] + lives[other].size_bytes)
            for other in placed
            if lives[other].first <= life.last and life.first <= lives[other].last
        )
        at = 0
        for begin, end in taken:
            if at + life.size_bytes <= begin:
                break
            at = max(at, -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        offsets[index] = at
        placed.append(index)
    return offsets, max((at + life.size_bytes for at, life in zip(offsets, lives, strict=True)), default=0)
