"""Local ridge regression: one linear filter from each position's features to the pixels there."""

from __future__ import annotations

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, InapplicableError, Problem, Reconstruction

_MAP_RANK = 3


def run(problem: Problem, budget: Budget, _seed: int) -> Reconstruction:
    """Reconstruct images from feature maps by least squares over positions; see ``local_regression``.

    Every position of every item is an example, so that hardly any items are needed, however large the images.

    Raises:
        InapplicableError: if none of the cut's tensors is a map (channels, height, width).
    """
    from siniantrust.leakage._torch import array
    from siniantrust.leakage.attacks._patches import local_regression

    if all(len(shape) != _MAP_RANK for shape in problem.attacker.shapes):
        raise InapplicableError("none of the cut's tensors is a map: what is at which position is not known")
    found = local_regression(problem, budget, 0)
    images = array(found.heldout).reshape(-1, *problem.attacker_targets.shape[1:])
    return Reconstruction(images.clip(0, 1), found.detail)


ATTACK = Attack(
    title="Local ridge regression (a linear filter over positions)",
    source=(
        "Hoerl and Kennard 1970, over neighbourhoods instead of items: the linear case of the deconvolutional decoder "
        "of Dosovitskiy and Brox, CVPR 2016"
    ),
    knowledge=(
        "black box: a few items of the same distribution and the features that the trusted side answers for them; "
        "honest but curious"
    ),
    cost="seconds at a cut: one system of some hundred equations",
    run=run,
    varies=False,
    kinds=("image",),
    weight=0.5,
)
