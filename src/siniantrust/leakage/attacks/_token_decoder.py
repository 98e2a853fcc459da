"""A small transformer from features to tokens."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.nn import functional

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._parallel import seeded
from siniantrust.leakage._registry import Problem
from siniantrust.leakage._torch import generator
from siniantrust.leakage.attacks._coordinates import coordinates
from siniantrust.leakage.attacks._kernel import gram_of
from siniantrust.leakage.attacks._tokens import Sequences, Tokens

_COMPONENTS = 256
_HEADS = 4
_RATE = 3e-3
# A step of so small a network costs little.
_STEPS = 4
_CHECK_STEPS = 25
_CHUNK_ITEMS = 250


class _TokenDecoder(nn.Module):
    """One layer of a transformer over the positions; every position starts from its features, or from all of them."""

    def __init__(self, numbers: int, length: int, classes: int, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(numbers, width)
        self.place = nn.Parameter(torch.randn(1, length, width) * 0.1)
        self.layer = nn.TransformerEncoderLayer(
            width, _HEADS, dim_feedforward=2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, classes)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return logits (N, length, classes) for vectors (N, length or 1, numbers)."""
        logits: torch.Tensor = self.head(self.layer(self.inputs(vectors) + self.place))
        return logits


def train_token_decoder(
    problem: Problem, tokens: Tokens, found: Sequences | None, budget: Budget, seed: int
) -> tuple[torch.Tensor, str, bool]:
    """Return places of tokens (validation and held-out items, length) as a trained transformer guesses them.

    With them come how it was done, and whether the time ran out before.

    Without a sequence axis (``found`` is None) it reads the whitened principal components of all features. Kept is the
    state that did best on the validation items.
    """
    count = len(tokens.known)
    if found is None:
        vectors = coordinates(gram_of(problem, budget, seed), _COMPONENTS)[:, None]
        known, asked = vectors[:count], vectors[count:]
    else:
        known, asked = found.attacker, found.asked
    width, length = _HEADS * budget.width, tokens.known.shape[1]
    with seeded(seed):
        decoder = _TokenDecoder(known.shape[2], length, len(tokens.vocabulary), width)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=_RATE, weight_decay=1e-2)
    steps = _STEPS * budget.steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps + 1)
    source, checks = generator(seed), len(tokens.checks)
    started, best, kept = time.monotonic(), -1.0, {}
    for done in range(1, steps + 1):
        rows = torch.randint(0, count, (budget.batch_items,), generator=source)
        logits = decoder(known[rows])
        optimiser.zero_grad()
        torch.autograd.backward(functional.cross_entropy(logits.flatten(0, 1), tokens.known[rows].flatten()))
        optimiser.step()
        schedule.step()
        late = time.monotonic() - started > budget.attack_time_s
        if done % _CHECK_STEPS == 0 or done == steps or late:
            share = tokens.right(_answer(decoder, asked[:checks]))
            if share > best:
                best, kept = share, {name: value.clone() for name, value in decoder.state_dict().items()}
        if late:
            break
    decoder.load_state_dict(kept)
    return _answer(decoder, asked), f"transformer of width {width}, {done} steps", done < steps


def _answer(decoder: nn.Module, vectors: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([decoder(part).argmax(dim=2) for part in torch.split(vectors, _CHUNK_ITEMS)])
