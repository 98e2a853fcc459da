"""Convolutions become a narrow one and a mixing of its channels."""

from __future__ import annotations

import numpy as np

from siniantrust.masking.restructure._convolutions import convolutions, take_apart
from siniantrust.masking.restructure._editor import Editor
from siniantrust.masking.restructure._pass import Pass, RestructureError, Rewritten, Subject


def run(subject: Subject) -> Rewritten:
    """Replace each convolution before the cut by one of fewer channels, ``amount`` of its rank, and a 1 x 1 one.

    The pair is the best approximation of the weights as a matrix (M, C * kernel) of that rank. A convolution that would
    get no cheaper stays.
    """
    editor = Editor(subject.model, subject.cut)
    changes = []
    for found in convolutions(editor):
        outputs, channels, *kernel = found.weights.shape
        matrix = found.weights.reshape(outputs, -1)
        rank = max(1, round(subject.amount * min(matrix.shape)))
        if rank * sum(matrix.shape) >= matrix.size:
            continue
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        scale = np.sqrt(values[:rank])
        first = (scale[:, None] * right[:rank]).reshape(rank, channels, *kernel)
        second = (left[:, :rank] * scale).reshape(outputs, rank, *[1] * len(kernel))
        dtype = found.weights.dtype
        take_apart(editor, found, first.astype(dtype), second.astype(dtype), group=1)
        changes.append(f"node '{found.node.name}': rank {min(matrix.shape)} is {rank}")
    if not changes:
        raise RestructureError(
            f"cut '{subject.cut.id}': no convolution before it gets cheaper at {subject.amount:g} of its rank"
        )
    return Rewritten(editor.finish(), subject.tensor, tuple(changes))


PASS = Pass(
    title="Low-rank convolutions",
    source="Zhang et al. 2016, Accelerating very deep convolutional networks; weights alone, without its responses",
    amount="share of the rank",
    default=0.25,
    lowest=0.01,
    highest=1.0,
    run=run,
)
