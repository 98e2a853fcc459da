"""What a trusted part costs and how much leaves it."""

from __future__ import annotations

from dataclasses import dataclass

from siniantrust.graph import Cut, Model, prefix_nodes


@dataclass(frozen=True, slots=True)
class PartFigures:
    """Part 1 of a model, for one item.

    Attributes:
        flops: floating-point operations.
        size_bytes: bytes that cross the cut.
        parameters: numbers that it stores.
    """

    flops: int
    size_bytes: int
    parameters: int

    @classmethod
    def of(cls, model: Model, cut: Cut) -> PartFigures:
        """Return the figures of the part before ``cut``."""
        parameters = sum(model.nodes[index].parameters for index in prefix_nodes(model, cut))
        return cls(cut.flops_before, cut.size_bytes, parameters)
