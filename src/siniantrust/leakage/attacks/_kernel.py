"""Kernel ridge regression from features to inputs, the closed-form attacker that others build on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from siniantrust.errors import AuditError
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._encode import Sketch
from siniantrust.leakage._registry import Problem
from siniantrust.leakage._torch import tensor
from siniantrust.leakage.attacks._shortfall import shortfall

# Kernels and penalties are compared on this many items, which costs little; only the winner is solved in full.
_SEARCH_ITEMS = 800
_CHECK_ITEMS = 128
PENALTIES = tuple(10.0**power for power in range(-5, 2))
SMOOTHER_PENALTIES = (1e-4, 1e-2, 1.0)
KERNELS = ("linear", "gaussian 1", "gaussian 4", "gaussian 16")
# A smaller improvement over the mean input, as a share of its error, is rounding.
_LEAST_GAIN = 1e-3


@dataclass(frozen=True, slots=True)
class Gram:
    """Inner products of all items (attacker, validation, held-out) with the attacker's, and squared norms.

    Features are centred, scaled to unit variance, and scaled together to a mean squared norm of 1.
    """

    products: torch.Tensor = field(repr=False)
    norms: torch.Tensor = field(repr=False)
    attackers: int


@dataclass(frozen=True, slots=True)
class Regression:
    """Predictions, each (items, numbers per item). The attacker's own are leave-one-out: as good as on new items."""

    attacker: torch.Tensor = field(repr=False)
    validation: torch.Tensor = field(repr=False)
    heldout: torch.Tensor = field(repr=False)
    detail: str


def kernel_regression(problem: Problem, budget: Budget, seed: int) -> Regression:
    """Regress the inputs on the features, with the kernel and the penalty that do best on the validation items.

    Kernels: linear (ridge regression, Hoerl and Kennard 1970) and Gaussian of three widths around the median distance
    (Saunders, Gammerman, Vovk 1998). If none beats the mean input on the validation items, the mean is the answer.
    """
    known = problem.memo.get("kernel regression")
    if isinstance(known, Regression):
        return known
    result = _regress(problem, budget, seed)
    problem.memo["kernel regression"] = result
    return result


def _regress(problem: Problem, budget: Budget, seed: int) -> Regression:
    gram = gram_of(problem, budget, seed)
    count, checks = gram.attackers, len(problem.validation)
    targets = _flat(problem.attacker_targets)
    mean = targets.mean(dim=0)
    centred = targets - mean
    truth = tensor(problem.validation_targets[:_CHECK_ITEMS])
    rows = slice(count, count + len(truth))

    def loss(kernel: torch.Tensor, cross: torch.Tensor, penalty: float) -> float | None:
        """Return how far the validation items' answers fall short; None if the system is singular."""
        answers = ridge_weights(kernel, cross.T, penalty)
        if answers is None:
            return None
        found = answers.T @ centred[: len(kernel)] + mean
        value = float(shortfall(found.reshape(truth.shape), truth, image=problem.kind == "image").mean())
        return value if np.isfinite(value) else None

    few = min(_SEARCH_ITEMS, count)
    trials: list[tuple[float, str, float]] = []
    for name in KERNELS:
        kernel = kernel_matrix(gram, name, rows=slice(0, rows.stop), columns=few)
        for penalty in PENALTIES:
            value = loss(kernel[:few], kernel[rows], penalty)
            trials += [] if value is None else [(value, name, penalty)]
    image = problem.kind == "image"
    nothing = float(shortfall(mean.reshape(truth.shape[1:]).expand_as(truth), truth, image=image).mean())
    best = min(trials, default=None)
    if best is None or best[0] > (1 - _LEAST_GAIN) * nothing:
        return mean_answer(problem)

    _, name, penalty = best
    kernel = kernel_matrix(gram, name, rows=slice(None), columns=count)
    # More items usually bear a smaller penalty, unless the larger system is singular in single precision.
    finer = {each: loss(kernel[:count], kernel[rows], each) for each in (penalty, penalty / 4)}
    solved = [(value, each) for each, value in finer.items() if value is not None]
    while not solved:
        penalty *= 10
        value = loss(kernel[:count], kernel[rows], penalty)
        solved = [] if value is None else [(value, penalty)]
    penalty = min(solved)[1]
    factor = torch.linalg.cholesky(penalised(kernel[:count], penalty))
    weights = torch.cholesky_solve(centred, factor)
    inverse_diagonal = torch.cholesky_inverse(factor).diagonal()[:, None]
    predictions = kernel[count:] @ weights + mean
    return Regression(
        # The leave-one-out residual of a linear smoother in closed form (Allen 1974, PRESS).
        attacker=targets - weights / inverse_diagonal,
        validation=predictions[:checks],
        heldout=predictions[checks:],
        detail=f"{name} kernel, penalty {penalty:g}",
    )


def smoother(
    problem: Problem, budget: Budget, seed: int, score: Callable[[torch.Tensor], float]
) -> tuple[torch.Tensor, str]:
    """Return kernel ridge regression as a matrix from the attacker's targets to answers, and what it is called.

    It is (validation and held-out items, attacker's items): an answer is the matrix times any targets, however many
    classes these tell apart. ``score`` of the rows of the validation items is what kernel and penalty are chosen by,
    first on some of the attacker's items: its argument then has only the first columns.
    """
    gram, checks = gram_of(problem, budget, seed), len(problem.validation)
    few = slice(0, gram.attackers + checks)
    trials = []
    for name in KERNELS:
        for penalty in SMOOTHER_PENALTIES:
            matrix = _smoother(gram, name, penalty, rows=few, columns=min(_SEARCH_ITEMS, gram.attackers))
            if matrix is not None:
                trials.append((score(matrix), name, penalty))
    _, name, penalty = max(trials, key=lambda trial: trial[0])
    best: tuple[float, torch.Tensor, float] | None = None
    # More items usually bear a smaller penalty.
    for finer in (penalty, penalty / 10):
        matrix = _smoother(gram, name, finer, rows=slice(None), columns=gram.attackers)
        if matrix is not None and (best is None or score(matrix[:checks]) > best[0]):
            best = (score(matrix[:checks]), matrix, finer)
    if best is None:
        raise AuditError(f"the {name} kernel of {gram.attackers} items is singular in single precision")
    return best[1], f"{name} kernel, penalty {best[2]:g}"


def _smoother(gram: Gram, name: str, penalty: float, *, rows: slice, columns: int) -> torch.Tensor | None:
    kernel = kernel_matrix(gram, name, rows=rows, columns=columns)
    factor, info = torch.linalg.cholesky_ex(penalised(kernel[:columns], penalty))
    if int(info) != 0:
        return None
    matrix = torch.cholesky_solve(kernel[gram.attackers :].T, factor).T
    return matrix if bool(matrix.isfinite().all()) else None


def mean_answer(problem: Problem) -> Regression:
    """Return the mean input of the attacker's items as the answer to everything."""
    mean = _flat(problem.attacker_targets).mean(dim=0)
    return Regression(
        attacker=mean.expand(len(problem.attacker), -1),
        validation=mean.expand(len(problem.validation), -1),
        heldout=mean.expand(len(problem.heldout), -1),
        detail="nothing learned: the mean input does better on validation items",
    )


def gram_of(problem: Problem, budget: Budget, seed: int) -> Gram:
    """Return the inner products of the problem's features; those of half a problem are taken from the whole."""
    known = problem.memo.get("gram")
    if isinstance(known, Gram):
        return known
    if problem.whole is not None:
        whole, count = gram_of(problem.whole, budget, seed), len(problem.attacker)
        rows = torch.cat([torch.arange(count), torch.arange(whole.attackers, len(whole.products))])
        gram = Gram(whole.products[rows][:, :count], whole.norms[rows], count)
    else:
        rows = tensor(_standardised(problem, budget, seed))
        count = len(problem.attacker)
        rows = rows / rows[:count].square().sum(dim=1).mean().clamp_min(1e-12).sqrt()
        gram = Gram(rows @ rows[:count].T, rows.square().sum(dim=1), count)
    problem.memo["gram"] = gram
    return gram


def _standardised(problem: Problem, budget: Budget, seed: int) -> np.ndarray:
    """Return all items' features, float32 (items, at most ``kernel_features``), standardised over the attacker's."""
    width, count = problem.attacker.width, len(problem.attacker)
    total, squares = np.zeros(width), np.zeros(width)
    for chunk in problem.attacker.chunks():
        total += chunk.sum(axis=0, dtype=np.float64)
        squares += np.square(chunk, dtype=np.float64).sum(axis=0)
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # A number that hardly moves is mostly rounding; it is not blown up to the size of the others.
    scale = np.maximum(spread, 1e-3 * spread.max() + 1e-12)
    mean, scale = mean.astype(np.float32), scale.astype(np.float32)
    sketch = Sketch.make(width, budget.kernel_features, seed) if width > budget.kernel_features else None
    rows = []
    for part in (problem.attacker, problem.validation, problem.heldout):
        for chunk in part.chunks():
            standard = (chunk - mean) / scale
            rows.append(standard if sketch is None else sketch.apply(standard))
    return np.concatenate(rows)


def kernel_matrix(gram: Gram, name: str, *, rows: slice, columns: int) -> torch.Tensor:
    """Return the kernel ``name`` between ``rows`` of all items and the first ``columns`` of the attacker's."""
    products = gram.products[rows, :columns]
    if name == "linear":
        # The constant: without it an item's centred features would be minus the sum of all others, and what is left
        # out would be predicted from these exactly.
        return products + 1
    distances = (gram.norms[rows, None] + gram.norms[None, :columns] - 2 * products).clamp_min(0)
    typical = distances[: min(columns, 500), : min(columns, 500)].median().clamp_min(1e-12)
    return torch.exp(-distances / (float(name.split()[1]) * typical))


def penalised(kernel: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return a kernel matrix (n, n) with ``penalty`` on its diagonal."""
    return kernel + penalty * torch.eye(len(kernel))


def ridge_weights(kernel: torch.Tensor, targets: torch.Tensor, penalty: float) -> torch.Tensor | None:
    """Return the weights of kernel ridge regression; None if the system is singular in single precision."""
    factor, info = torch.linalg.cholesky_ex(penalised(kernel, penalty))
    if int(info) != 0:
        return None
    weights = torch.cholesky_solve(targets, factor)
    return weights if bool(weights.isfinite().all()) else None


def _flat(targets: np.ndarray) -> torch.Tensor:
    return tensor(targets.reshape(len(targets), -1))
