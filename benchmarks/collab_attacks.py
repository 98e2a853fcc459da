"""Attacks on split learning with and without the edge's protection, on scikit-learn's handwritten digits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from results_file import Bar, Outcome
from sklearn.datasets import load_digits
from torch import nn

from siniantrust.collab._errors import HijackError
from siniantrust.collab._hijack import LEAST_GAP, HijackDetector, similarity_gap
from siniantrust.collab._privacy import Noise, clipped
from siniantrust.collab.attacks.fsha import HijackingCloud
from siniantrust.collab.attacks.label_leakage import direction_labels
from siniantrust.collab.attacks.unsplit import unsplit

_BATCH = 64
_ITEMS, _PUBLIC = 900, 700
_CLASSES = 10


def run(*, quick: bool) -> Outcome:
    """Run each attack on an edge without protection, and on one with it."""
    torch.set_num_threads(1)
    images, labels = _digits()
    hijacking, noticed = _hijacking(images, labels, steps=40 if quick else 1200)
    rows = [
        *hijacking,
        _unsplit(images, rounds=2 if quick else 60),
        _labels(images, labels, steps=40 if quick else 300),
    ]
    return Outcome(
        title="Attacks on split learning",
        method=(
            f"Digits of 8 x 8; the edge has {_ITEMS}, the hijacking cloud {_PUBLIC} others, figures are on the rest. "
            "Part 1 is two convolutions and a pooling (UnSplit: one convolution). *FSHA*: mean squared error of what "
            "is made of unseen digits' features. *UnSplit*: share of 16 images that what was made is most like. "
            "*Labels*: share named from the gradients that an edge with Part 3 sends, given two known labels of each "
            "class. Protection: the watch over gradients; clip and noise of 0.2; clip and noise of 1."
        ),
        rows=rows,
        bars=[Bar("FSHA: steps until it is noticed", 20, noticed)],
        remarks=[
            "The watch lets the first 20 steps pass: the error after 20 steps says what Part 1 gives away by then.",
            f"It accuses below a gap of {LEAST_GAP}; the table has the hijacking cloud's most, the honest one's least.",
        ],
    )


def _digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return (found.images / 16).astype(np.float32)[order, None], found.target[order].astype(np.int64)


def _part_one() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 8, 3, padding=1), nn.ReLU()
    )


def _middle() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, _CLASSES))


def _train(
    images: np.ndarray,
    labels: np.ndarray,
    steps: int,
    gradient: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    after: Callable[[int, nn.Sequential, np.ndarray, np.ndarray], None],
) -> nn.Sequential:
    """Train Part 1 with the gradients that a cloud gives, as an edge does."""
    part = _part_one()
    optimiser = torch.optim.Adam(part.parameters(), 1e-3)
    generator = np.random.default_rng(0)
    for step in range(1, steps + 1):
        rows = generator.choice(_ITEMS, _BATCH)
        features = part(torch.from_numpy(images[rows]))
        found = gradient(features.detach(), torch.from_numpy(labels[rows]))
        optimiser.zero_grad()
        features.backward(found)
        optimiser.step()
        after(step, part, found.numpy(), labels[rows])
    return part


def _hijacking(images: np.ndarray, labels: np.ndarray, *, steps: int) -> tuple[list[dict[str, object]], float]:
    public, unseen = (torch.from_numpy(images[a:b]) for a, b in ((_ITEMS, _ITEMS + _PUBLIC), (_ITEMS + _PUBLIC, None)))
    attacker = HijackingCloud(public, (8, 4, 4), seed=0)
    prior = _error(public.mean(0, keepdim=True).expand_as(unseen), unseen)
    detector, noticed, errors = HijackDetector(), [], {}
    gaps: dict[str, list[float]] = {"honest": [], "hijacking": []}

    def watch(step: int, part: nn.Sequential, found: np.ndarray, of: np.ndarray) -> None:
        gaps["hijacking"].append(similarity_gap(found, of) or 0.0)
        try:
            detector.observe(found, of, step=step)
        except HijackError:
            noticed.append(step)
        if step in {20, steps}:
            with torch.no_grad():
                errors[step] = _error(attacker.invert(part(unseen)), unseen)

    _train(images, labels, steps, lambda features, _: attacker.gradient(features), watch)
    torch.manual_seed(0)
    middle = _middle()
    optimiser = torch.optim.Adam(middle.parameters(), 1e-3)

    def honest(features: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        wanted = features.requires_grad_()
        optimiser.zero_grad()
        nn.functional.cross_entropy(middle(wanted), of).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        assert wanted.grad is not None  # noqa: S101 - the loss depends on it
        return wanted.grad

    def note(_step: int, _part: nn.Sequential, found: np.ndarray, of: np.ndarray) -> None:
        gaps["honest"].append(similarity_gap(found, of) or 0.0)

    _train(images, labels, min(steps, 600), honest, note)
    means = {name: np.convolve(found, np.ones(20) / 20, "valid") for name, found in gaps.items()}
    first = float(noticed[0]) if noticed else float("inf")
    rows = [
        _row("FSHA: noticed at step", "never", first),
        _row(f"FSHA: error (guessing {prior:.3f}) after {steps} steps, 20 steps", errors[steps], errors[20]),
        _row(
            "gap: hijacking, at most; honest, at least", float(means["hijacking"].max()), float(means["honest"].min())
        ),
    ]
    return rows, first


def _unsplit(images: np.ndarray, *, rounds: int) -> dict[str, object]:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())

    some = torch.from_numpy(images[:16])
    torch.manual_seed(9)
    with torch.no_grad():
        features = make()(some)
    clip = float(features.flatten(1).norm(dim=1).median())
    with tempfile.TemporaryDirectory() as folder:
        noise = Noise(Path(folder)).normal(features, "activations", 1)
    found = []
    for seen in (features, clipped(features, clip) + 0.2 * clip * noise):
        made = unsplit(seen, make, (1, 8, 8), rounds=rounds, inner=15, seed=5).flatten(1).numpy()
        alike = np.abs(np.corrcoef(made, some.flatten(1).numpy())[:16, 16:])
        found.append(float((alike.argmax(1) == np.arange(16)).mean()))
    return _row("UnSplit: share of images found (chance 0.06)", *found)


def _labels(images: np.ndarray, labels: np.ndarray, *, steps: int) -> dict[str, object]:
    torch.manual_seed(0)
    net = nn.Sequential(_part_one(), nn.Flatten(), nn.Linear(128, 64), nn.ReLU())
    last = nn.Linear(64, _CLASSES)
    optimiser = torch.optim.Adam([*net.parameters(), *last.parameters()], 1e-3)
    generator = np.random.default_rng(0)
    rows = np.arange(_BATCH)
    gradients = torch.zeros(0)
    for _ in range(steps):
        rows = generator.choice(_ITEMS, 4 * _BATCH, replace=False)
        middle = net(torch.from_numpy(images[rows]))
        middle.retain_grad()
        optimiser.zero_grad()
        nn.functional.cross_entropy(last(middle), torch.from_numpy(labels[rows])).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        gradients = middle.grad
    of = labels[rows]
    known = np.concatenate([np.flatnonzero(of == each)[:2] for each in range(_CLASSES)])
    rest = np.setdiff1d(np.arange(len(of)), known)
    clip = float(gradients.flatten(1).norm(dim=1).median())
    noise = torch.from_numpy(generator.normal(size=gradients.shape).astype(np.float32))
    found = [
        float((direction_labels(shown[rest], shown[known], of[known]) == of[rest]).mean())
        for shown in (gradients.numpy(), (clipped(gradients, clip) + clip * noise).numpy())
    ]
    return _row("Labels from gradients (chance 0.1)", *found)


def _error(made: torch.Tensor, images: torch.Tensor) -> float:
    return float(((made - images) ** 2).mean())


def _row(what: str, plain: object, protected: object) -> dict[str, object]:
    return {"attack": what, "without protection": plain, "protected": protected}
