"""A cut of a model by what the user calls it: its id, or the tensors that cross."""

from __future__ import annotations

from collections.abc import Sequence

from siniantrust.graph import Cut, Model, enumerate_cuts
from siniantrust.masking._site import MaskError


def find_cut(model: Model, names: Sequence[str]) -> Cut:
    """Return the cut whose id is the one name given, or whose tensors are exactly the names.

    Raises:
        MaskError: if the model has no such cut; the tensors at which it can be cut are named.
    """
    found = enumerate_cuts(model)
    for cut in found.cuts:
        if set(cut.tensors) == set(names) or [cut.id] == list(names):
            return cut
    single = [cut.tensors[0] for cut in found.cuts if len(cut.tensors) == 1 and not cut.fusable]
    raise MaskError(
        f"model '{model.name}': {', '.join(names)} is no cut; one tensor crosses at {', '.join(single) or 'none'} "
        "(`sinian inspect` lists all cuts)"
    )
