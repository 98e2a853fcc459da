"""A width for every layer of the trusted part, found by trying."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from siniantrust.graph import Model, load_model, prefix_nodes
from siniantrust.masking._find_cut import find_cut
from siniantrust.masking.restructure._channels import Space, spaces
from siniantrust.masking.restructure._importance import importances
from siniantrust.masking.restructure._observe import observe
from siniantrust.masking.restructure._pass import Pass, RestructureError, Rewritten, Subject
from siniantrust.masking.restructure._remove import remove_channels

_TRIES_PER_SPACE = 8
_ITEMS = 256
# A depthwise convolution of one channel is an ordinary one, and its channel another group.
_LEAST = 2


def run(subject: Subject) -> Rewritten:
    """Remove channels until Part 1 costs the share ``amount`` of its FLOPs, each time where answers suffer least.

    In each round every group of channels is narrowed by an eighth of its width, its least important ones, and the one
    is taken whose narrowing changes the model's answers least for each FLOP that it saves.
    """
    inputs = {name: values[:_ITEMS] for name, values in subject.inputs.items()}
    answer = subject.model.outputs[0].name
    wanted = observe(subject.model, inputs, answer)
    goal = subject.amount * subject.cut.flops_before
    steps = {_key(subject.model, space): max(1, space.width // _TRIES_PER_SPACE) for space in _mine(subject)}
    widths = {_key(subject.model, space): space.width for space in _mine(subject)}
    current = subject
    while current.cut.flops_before > goal:
        found = _mine(current)
        tries = []
        for space, values in zip(found, importances(current.model, found, inputs), strict=True):
            count = space.width - steps[_key(current.model, space)]
            if count < _LEAST:
                continue
            kept = np.sort(np.argsort(-values, kind="stable")[:count])
            model = load_model(remove_channels(current.model, current.cut, [(space, kept)]))
            cut = find_cut(model, [current.tensor])
            saved = current.cut.flops_before - cut.flops_before
            harm = float(np.square(observe(model, inputs, answer) - wanted).mean())
            if saved > 0:
                tries.append((harm / saved, model, cut))
        if not tries:
            raise RestructureError(
                f"cut '{subject.cut.id}': with all groups narrowed Part 1 still costs "
                f"{current.cut.flops_before / subject.cut.flops_before:.0%} of its FLOPs, above {subject.amount:.0%}"
            )
        _, model, cut = min(tries, key=lambda each: each[0])
        current = replace(current, model=model, cut=cut)
    changes = [
        f"node {_key(current.model, space)}: {widths[_key(current.model, space)]} channels are {space.width}"
        for space in _mine(current)
        if space.width < widths[_key(current.model, space)]
    ]
    if not changes:
        raise RestructureError(f"cut '{subject.cut.id}': Part 1 costs no more than {subject.amount:.0%} of itself")
    return Rewritten(current.model.proto, current.tensor, tuple(changes))


def _mine(subject: Subject) -> list[Space]:
    trusted = set(prefix_nodes(subject.model, subject.cut))
    return [space for space in spaces(subject.model) if space.makers <= trusted]


def _key(model: Model, space: Space) -> str:
    return ", ".join(f"'{model.nodes[index].name}'" for index in sorted(space.makers))


PASS = Pass(
    title="Width search",
    source="Yang et al. 2018, NetAdapt, without its short training between rounds",
    amount="share of Part 1's FLOPs that stays",
    default=0.5,
    lowest=0.01,
    highest=0.99,
    run=run,
)
