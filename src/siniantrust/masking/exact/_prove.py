"""Which layers have bounds that can be proven, before anything is calibrated: weights and sizes alone decide that."""

from __future__ import annotations

from collections.abc import Iterable

from siniantrust.errors import PlanError
from siniantrust.graph import Model
from siniantrust.masking.exact._affine import fold_affine
from siniantrust.masking.exact._offer import make_layer


def unprovable(model: Model, names: Iterable[str]) -> dict[str, str]:
    """Return why layers cannot be quantised with a proof, by the names of those nodes; ``names`` are offerable ones."""
    wanted = set(names)
    found: dict[str, str] = {}
    for node in model.nodes:
        if node.name in wanted:
            try:
                layer, _, _ = fold_affine(model, make_layer(model, node, input_scale=1.0))
                layer.check()
            except PlanError as fault:
                found[node.name] = str(fault)
    return found
