"""Convolutions become one window for each channel and a mixing of channels."""

from __future__ import annotations

import numpy as np

from siniantrust.masking.restructure._convolutions import convolutions, take_apart
from siniantrust.masking.restructure._editor import Editor
from siniantrust.masking.restructure._pass import Pass, RestructureError, Rewritten, Subject

_MOST_TERMS = 8


def run(subject: Subject) -> Rewritten:
    """Replace each convolution before the cut by a depthwise one of ``amount`` windows a channel and a 1 x 1 one.

    For each input channel the weights (M, kernel) are approximated by their first singular vectors, which is the best
    such pair there is. A convolution that would get no cheaper stays.
    """
    terms = round(subject.amount)
    editor = Editor(subject.model, subject.cut)
    changes = []
    for found in convolutions(editor):
        outputs, channels, *kernel = found.weights.shape
        size = int(np.prod(kernel))
        if terms * (size + outputs) >= size * outputs or terms > min(size, outputs):
            continue
        # For each input channel: outputs by places of the window.
        left, values, right = np.linalg.svd(np.moveaxis(found.weights.reshape(outputs, channels, size), 1, 0), False)
        scale = np.sqrt(values[:, :terms])
        windows = scale[:, :, None] * right[:, :terms]
        mixing = left[:, :, :terms] * scale[:, None]
        take_apart(
            editor,
            found,
            windows.reshape(channels * terms, 1, *kernel).astype(found.weights.dtype),
            np.moveaxis(mixing, 0, 1)
            .reshape(outputs, channels * terms, *[1] * len(kernel))
            .astype(found.weights.dtype),
            group=channels,
        )
        changes.append(f"node '{found.node.name}': {outputs} x {channels} windows are {channels * terms} and a mixing")
    if not changes:
        raise RestructureError(f"cut '{subject.cut.id}': no convolution before it gets cheaper when it is separated")
    return Rewritten(editor.finish(), subject.tensor, tuple(changes))


PASS = Pass(
    title="Depthwise-separable convolutions",
    source="Howard et al. 2017, MobileNets; weights from singular vectors as in Guo et al. 2018, Network decoupling",
    amount="windows for each input channel",
    default=1,
    lowest=1,
    highest=_MOST_TERMS,
    run=run,
)
