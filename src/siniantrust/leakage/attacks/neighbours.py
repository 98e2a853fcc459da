"""Nearest neighbours: the answer is what the attacker knows that looks alike in the features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, Problem, Reconstruction

if TYPE_CHECKING:
    import torch

_COUNTS = (1, 2, 4, 8, 16, 32)
_WHITENED = (16, 64, 256)
# As many validation items decide between the distances as well as all of them, at a fraction of the time.
_CHECK_ITEMS = 96


def run(problem: Problem, budget: Budget, _seed: int) -> Reconstruction:
    """Answer with the mean of the attacker's items nearest in the features, each weighted by 1 / squared distance.

    How many, and by which distance (Euclidean between standardised features, cosine, or Euclidean between 16 to 256
    whitened principal components), is chosen on the validation items. Tokens are those of the nearest item.
    """
    from siniantrust.leakage._torch import array, tensor

    known, checks = tensor(problem.attacker_targets), tensor(problem.validation_targets[:_CHECK_ITEMS])
    counts = (1,) if problem.kind == "token" else tuple(count for count in _COUNTS if count <= len(known))
    rows = slice(len(known), len(known) + len(checks))
    asked = len(known) + len(problem.validation)
    best: tuple[float, str, int, torch.Tensor] | None = None
    for metric, distances in _distances(problem, budget):
        for count in counts:
            answer = _mean(distances[rows], known, count)
            if problem.kind == "token":
                loss = float((answer != checks).double().mean())
            else:
                loss = _shortfall(answer, checks, image=problem.kind == "image")
            if best is None or loss < best[0]:
                best = (loss, metric, count, distances[asked:])
    if best is None:
        raise ValueError("there is always a distance")
    _, metric, count, distances = best
    return Reconstruction(array(_mean(distances, known, count)), f"{count} nearest, {metric}")


def _distances(problem: Problem, budget: Budget) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names of distances with those of all items to the attacker's, squared, (items, attacker's items)."""
    import torch

    from siniantrust.leakage.attacks._coordinates import coordinates
    from siniantrust.leakage.attacks._kernel import gram_of

    gram = gram_of(problem, budget, 0)
    norms = gram.norms
    yield "Euclidean", (norms[:, None] + norms[None, : gram.attackers] - 2 * gram.products).clamp_min(0)
    lengths = norms.clamp_min(1e-12).sqrt()
    yield "cosine", (1 - gram.products / lengths[:, None] / lengths[None, : gram.attackers]).clamp_min(0)
    whitened = coordinates(gram, max(_WHITENED))
    for width in _WHITENED:
        if width == min(_WHITENED) or width <= whitened.shape[1]:
            # The strongest components come last.
            part = whitened[:, -width:]
            yield f"{part.shape[1]} whitened components", torch.cdist(part, part[: gram.attackers]).square()


def _mean(distances: torch.Tensor, known: torch.Tensor, count: int) -> torch.Tensor:
    nearest, rows = distances.topk(count, dim=1, largest=False)
    if count == 1:
        return known[rows[:, 0]]
    weights = 1 / (nearest + 1e-3 * nearest.mean().clamp_min(1e-9))
    weights = weights / weights.sum(dim=1, keepdim=True)
    answer = known[rows[:, 0]] * 0
    for rank in range(count):
        answer = answer + known[rows[:, rank]] * weights[:, rank].reshape(-1, *[1] * (known.ndim - 1))
    return answer


def _shortfall(answer: torch.Tensor, truth: torch.Tensor, *, image: bool) -> float:
    from siniantrust.leakage.attacks._shortfall import shortfall

    return float(shortfall(answer, truth, image=image).mean())


ATTACK = Attack(
    title="Nearest neighbours (retrieval)",
    source="Cover and Hart 1967; distance weights Dudani 1976",
    knowledge=(
        "black box: data of the same distribution, at best of the same people, and the features that the trusted side "
        "answers for them; honest but curious"
    ),
    cost="seconds at a cut: distances between all items",
    run=run,
    varies=False,
    kinds=("image", "array", "token"),
    weight=1.2,
)
