"""What the head of a program's file tells the host, who has no key for the body: what it is to relay, and to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from siniantrust.masking.exact._program_file import FAULTS, limbs_of, malformed, parsed
from siniantrust.masking.exact._stages import Correction


@dataclass(frozen=True, slots=True)
class Computed:
    """A node that devices compute, the value that they get for it, and the result that it is part of."""

    node: str
    entry: str
    exit: str


@dataclass(frozen=True, slots=True)
class Outline:
    """What the host has to know of one exchange: nodes that are computed, entries, and what belongs to results."""

    nodes: tuple[Computed, ...]
    entries: tuple[str, ...]
    corrections: tuple[Correction, ...]


def read_outline(head: bytes) -> tuple[Outline, ...]:
    """Return what the head says of each exchange.

    Raises:
        TrustError: if it is malformed.
    """
    raw = parsed(head)
    try:
        return tuple(_outline(each) for each in raw["exchanges"])
    except FAULTS as fault:
        raise malformed(fault) from None


def _outline(raw: Mapping[str, Any]) -> Outline:
    shapes, layers, joins, limbs = raw["shapes"], raw["layers"], raw["joins"], limbs_of(raw)
    nodes = []
    for layer in layers:
        parts = [(part["node"], part["value"]) for part in joins.get(layer["entry"], ())]
        for node, entry in parts or [(layer["name"], layer["entry"])]:
            nodes.append(Computed(str(node), str(entry), str(layer["exit"])))
    return Outline(
        nodes=tuple(nodes),
        entries=tuple(raw["entries"]),
        corrections=tuple(
            Correction(str(layer["exit"]), limbs, math.prod(shapes[layer["exit"]][1:])) for layer in layers
        ),
    )
