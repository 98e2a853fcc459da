"""Channels of the trusted part that matter least are removed, everywhere."""

from __future__ import annotations

import numpy as np

from siniantrust.graph import prefix_nodes
from siniantrust.masking.restructure._channels import spaces
from siniantrust.masking.restructure._importance import importances
from siniantrust.masking.restructure._pass import Pass, RestructureError, Rewritten, Subject
from siniantrust.masking.restructure._remove import remove_channels


def run(subject: Subject) -> Rewritten:
    """Keep the share ``amount``, rounded up, of every group of channels that Part 1 makes: the most important ones."""
    trusted = set(prefix_nodes(subject.model, subject.cut))
    found = [space for space in spaces(subject.model) if space.makers <= trusted and space.width > 1]
    kept = []
    changes = []
    for space, values in zip(found, importances(subject.model, found, subject.inputs), strict=True):
        count = max(1, int(np.ceil(subject.amount * space.width)))
        if count < space.width:
            kept.append((space, np.sort(np.argsort(-values, kind="stable")[:count])))
            names = ", ".join(f"'{subject.model.nodes[index].name}'" for index in sorted(space.makers))
            changes.append(f"node {names}: {space.width} channels are {count}")
    if not kept:
        raise RestructureError(f"cut '{subject.cut.id}': before it there are no channels that could be removed")
    return Rewritten(remove_channels(subject.model, subject.cut, kept), subject.tensor, tuple(changes))


PASS = Pass(
    title="Channel pruning",
    source="Molchanov et al. 2019, Importance estimation for neural network pruning; Fang et al. 2023, DepGraph",
    amount="share of the channels that stay",
    default=0.5,
    lowest=0.01,
    highest=0.99,
    run=run,
)
