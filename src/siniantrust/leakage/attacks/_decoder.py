"""Training of decoders: networks that learn what a closed-form reconstruction still lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._metrics import has_ssim
from siniantrust.leakage._parallel import seeded
from siniantrust.leakage._registry import Problem, Reconstruction
from siniantrust.leakage._similarity import ssim
from siniantrust.leakage._torch import array, generator, tensor
from siniantrust.leakage.attacks._kernel import Regression
from siniantrust.leakage.attacks._networks import ArrayDecoder, ImageDecoder

_LEARNING_RATE = 3e-3
_CHECK_STEPS = 50
_CHUNK_ITEMS = 250
# Where so little is left to learn, training is a waste.
_SOLVED = 1e-3

Term = Callable[[Sequence[torch.Tensor], torch.Tensor, torch.Tensor], torch.Tensor]
"""A further term of the loss, from a batch's features, the decoder's answer and the true inputs."""


def train_decoder(
    problem: Problem, base: Regression, budget: Budget, seed: int, *, term: Term | None = None
) -> Reconstruction:
    """Train a decoder on the attacker's items and return its held-out answers.

    The loss is the squared error over the prior's, plus 1 - SSIM for images, plus ``term``. Adam with a one-cycle
    learning rate (Smith, Topin 2018). The state that did best on the validation items, by the loss without ``term``, is
    kept, the untrained one among them.
    """
    target = problem.attacker_targets.shape[1:]
    bases = [part.reshape(-1, *target) for part in (base.attacker, base.validation, base.heldout)]
    truth, checks = tensor(problem.attacker_targets), tensor(problem.validation_targets)
    prior_error = float((truth - truth.mean(dim=0)).square().mean()) or 1.0
    structural = has_ssim(target, problem.kind)

    def loss(answer: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        value = (answer - wanted).square().mean() / prior_error
        return value + 1 - ssim(answer, wanted).mean() if structural else value

    with seeded(seed):
        kind = ImageDecoder if problem.kind == "image" else ArrayDecoder
        decoder = kind(problem.attacker.shapes, target, budget.width)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=_LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=budget.steps + 1)
    source = generator(seed)
    started = time.monotonic()
    first = best = float(loss(bases[1], checks))
    steps = budget.steps if first > _SOLVED else 0
    kept, done = _copy(decoder), 0
    for done in range(1, steps + 1):
        rows = torch.randint(0, len(truth), (budget.batch_items,), generator=source)
        features = load(problem.attacker, rows)
        answer = decoder(features, bases[0][rows])
        error = loss(answer, truth[rows])
        if term is not None:
            error = error + term(features, answer, truth[rows])
        optimiser.zero_grad()
        torch.autograd.backward(error)
        optimiser.step()
        schedule.step()
        late = time.monotonic() - started > budget.attack_time_s
        if done % _CHECK_STEPS == 0 or done == steps or late:
            value = float(loss(_answer(decoder, problem.validation, bases[1]), checks))
            if value < best:
                best, kept = value, _copy(decoder)
        if late:
            break
    decoder.load_state_dict(kept)
    heldout = array(_answer(decoder, problem.heldout, bases[2]))
    detail = f"{base.detail}; {done} steps, validation loss {first:.3f} to {best:.3f}"
    stopped = done < steps
    if stopped:
        detail += f", stopped at {budget.attack_time_s:g} s of {steps} steps"
    # The attacker knows the range of a pixel.
    return Reconstruction(heldout.clip(0, 1) if problem.kind == "image" else heldout, detail, stopped)


def load(features: FeatureSet, rows: torch.Tensor | slice) -> list[torch.Tensor]:
    """Return rows of each of the cut's tensors, (rows, *shape)."""
    index = array(rows) if isinstance(rows, torch.Tensor) else rows
    return [tensor(features.tensor(number, index)) for number in range(len(features.stores))]


def _copy(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _answer(decoder: nn.Module, features: FeatureSet, base: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(
            [
                decoder(load(features, slice(start, start + _CHUNK_ITEMS)), base[start : start + _CHUNK_ITEMS])
                for start in range(0, len(features), _CHUNK_ITEMS)
            ]
        )
