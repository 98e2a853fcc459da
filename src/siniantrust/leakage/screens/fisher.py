"""Diagonal Fisher information leakage: how precisely any unbiased attacker could estimate the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._registry import InapplicableError, Screen, ScreenScore, ScreenView

if TYPE_CHECKING:
    import torch

    from siniantrust.leakage._registry import WhiteBox

_ITEMS, _PROBES, _REPEATS = 12, 4, 8
NOMINAL_NOISE = 0.01
"""Noise that deterministic features are taken to have, as a share of their own standard deviation."""
# Smallest information that is told from none, so that figures stay finite.
_LEAST = 1e-12


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return log10 of dFIL, the mean Fisher information about one number of the input (unit scale).

    dFIL(x) = Tr(I(x)) / d for an input of d numbers. With Gaussian noise of variance s_j² on feature j and J the
    Jacobian, I = J^T diag(1/s²) J; its trace is the mean of ||v^T diag(1/s) J||² over random signs v (Hutchinson 1989),
    a few backward passes. Every unbiased reconstruction then has E||x - x'||² / d >= 1 / dFIL(x); by Jensen's
    inequality the mean over items is at least 1 / mean dFIL, which is ``mse_bound``.

    The noise is measured: features of the same inputs are asked for eight times, and s_j² is half the mean squared
    difference of two answers, over repeats and items. The bound holds if the noise is additive and Gaussian, for
    unbiased attackers only: one who knows the distribution of inputs is biased towards it and may do better.

    Where a feature does not vary, the information is infinite. It is then computed for a nominal noise of 1 % of the
    features' own standard deviation, ``nominal_noise`` is 1, and the bound does NOT hold: nobody adds that noise.

    Raw: ``dfil``, ``mse_bound``, ``nominal_noise`` (1 or 0). None if the network is not known or has no gradient.
    """
    if view.white_box is None or view.kind == "token":
        return None
    from siniantrust.leakage._parallel import seeded
    from siniantrust.leakage._torch import tensor

    targets = tensor(view.inputs[: min(_ITEMS, budget.screen_items)].copy())
    try:
        with seeded(seed):
            network = view.white_box()
            scales, nominal = _noise(network, targets)
            trace = _trace(network, targets, scales, seed=seed)
    except InapplicableError:
        return None
    dfil = max(trace / targets[0].numel(), _LEAST)
    return ScreenScore(
        score=math.log10(dfil), raw={"dfil": dfil, "mse_bound": 1 / dfil, "nominal_noise": float(nominal)}
    )


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the logarithm of the information has reached its plateau."""
    return plateau([entry.score for entry in scores])


def _noise(network: WhiteBox, targets: torch.Tensor) -> tuple[list[torch.Tensor], bool]:
    """Return each feature's standard deviation for the same input, and whether any had to be nominal."""
    import torch

    with torch.no_grad():
        answers = [network.features(targets) for _ in range(_REPEATS)]
    scales, nominal = [], False
    for repeated in zip(*answers, strict=True):
        stacked = torch.stack(repeated).double()
        # The unbiased variance is half the mean squared difference of pairs.
        measured = stacked.var(dim=0).mean(dim=0).sqrt()
        # What differs by rounding alone is no noise.
        spread = stacked.std()
        fixed = measured <= 1e-6 * spread
        nominal = nominal or bool(fixed.any())
        scales.append(torch.where(fixed, NOMINAL_NOISE * spread, measured))
    return scales, nominal


def _trace(network: WhiteBox, targets: torch.Tensor, scales: Sequence[torch.Tensor], *, seed: int) -> float:
    """Return the trace of the Fisher information, the mean over items."""
    import torch

    from siniantrust.leakage._torch import generator

    signs = generator(seed)
    varied = targets.clone().requires_grad_()
    features = network.features(varied)
    reached = [(value, scale) for value, scale in zip(features, scales, strict=True) if value.requires_grad]
    if not reached:
        return 0.0
    total = 0.0
    for _ in range(_PROBES):
        weights = []
        for value, scale in reached:
            sign = torch.randint(0, 2, value.shape, generator=signs).to(value.dtype) * 2 - 1
            # A tensor that is constant over all inputs has no spread, and nothing to tell.
            weights.append(torch.where(scale > 0, sign / scale, 0.0).to(value.dtype))
        (gradient,) = torch.autograd.grad(
            [value for value, _ in reached], varied, weights, retain_graph=True, materialize_grads=True
        )
        total += float(gradient.double().square().flatten(1).sum(dim=1).mean())
    return total / _PROBES


SCREEN = Screen(
    title="Diagonal Fisher information leakage (dFIL)",
    source=(
        "Maeng, Guo, Kariyappa and Suh, Bounding the Invertibility of Privacy-preserving Instance Encoding using "
        "Fisher Information, NeurIPS 2023"
    ),
    cost="a dozen items through the first part nine times, and four backward passes",
    score=score,
    pick=pick,
)
