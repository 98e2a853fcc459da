"""A small recogniser: a network over time that spells what it sees, trained without being told when what is said."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._parallel import seeded
from siniantrust.leakage._torch import generator
from siniantrust.leakage.attacks._frames import Frames

_WIDTH = 4
_DILATIONS = (1, 2, 4)
_DROPOUT = 0.1
_RATE = 8e-3
# A step of so small a network costs little, and it takes many before anything is spelt.
_STEPS = 10
_CHECK_STEPS = 20
_CHUNK_ITEMS = 250
# Numbers of the table over frames and letters in which the loss of a batch is summed.
_TABLE = 1 << 24
_LEAST_FRAMES = 64
_FRAMES_PER_LETTER = 2
_BLANK = 0


@dataclass(frozen=True, slots=True)
class Spelling:
    """What was spelt for the validation items and then the held-out ones, how, and whether the time ran out."""

    texts: list[str] = field(repr=False)
    detail: str
    stopped: bool


class _Recogniser(nn.Module):
    """Frames of one or more views to characters: dilated convolutions over time, each beside an open way.

    ``views`` are the frames and the numbers per frame of each. A view with fewer frames than are spelt gets filters of
    its own for every part of a frame.
    """

    def __init__(self, views: Sequence[tuple[int, int]], frames: int, classes: int, width: int) -> None:
        super().__init__()
        self.parts = [math.ceil(frames / steps) for steps, _ in views]
        self.places = [
            torch.arange(frames) * (parts * steps) // frames
            for parts, (steps, _) in zip(self.parts, views, strict=True)
        ]
        self.views = nn.ModuleList(
            nn.Linear(numbers, parts * width) for parts, (_, numbers) in zip(self.parts, views, strict=True)
        )
        self.place = nn.Parameter(torch.zeros(frames, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in _DILATIONS)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, padding=step, dilation=step) for step in _DILATIONS)
        self.head = nn.Linear(width, classes)

    def forward(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logarithms of probabilities (N, frames, classes) for views (N, steps, numbers)."""
        signal = self.place.expand(len(views[0]), -1, -1)
        for values, filters, parts, places in zip(views, self.views, self.parts, self.places, strict=True):
            seen = filters(functional.dropout(values, _DROPOUT, self.training))
            signal = signal + seen.reshape(len(values), values.shape[1] * parts, -1)[:, places]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            signal = signal + functional.gelu(layer(norm(signal).transpose(1, 2))).transpose(1, 2)
        return functional.log_softmax(self.head(functional.gelu(signal)), dim=2)


def frames_for(texts: Sequence[str]) -> int:
    """Return how many frames the longest of the texts is spelt in."""
    return max(_LEAST_FRAMES, _FRAMES_PER_LETTER * max(map(len, texts)))


def spell(
    views: Sequence[Frames],
    texts: Sequence[str],
    budget: Budget,
    seed: int,
    score: Callable[[list[str]], float],
) -> Spelling:
    """Train a recogniser on the attacker's ``texts`` and let it spell those of the other items.

    The loss sums over all ways to spread the text over the frames (connectionist temporal classification: Graves,
    Fernández, Gomez and Schmidhuber, ICML 2006). Kept is the state with the best ``score`` of the validation items'
    texts.
    """
    letters = sorted(set("".join(texts)))
    number = {letter: place for place, letter in enumerate(letters, start=_BLANK + 1)}
    spelt = [torch.tensor([number[letter] for letter in text]) for text in texts]
    lengths = torch.tensor([len(text) for text in texts])
    frames, width, steps = frames_for(texts), _WIDTH * budget.width, _STEPS * budget.steps
    batch = min(budget.batch_items, max(1, _TABLE // (frames * 2 * int(lengths.max()))))
    with seeded(seed):
        shapes = [(view.attacker.shape[1], view.attacker.shape[2]) for view in views]
        network = _Recogniser(shapes, frames, len(letters) + 1, width)
        optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps + 1)
        source, started, best, kept = generator(seed), time.monotonic(), -1.0, {}
        for done in range(1, steps + 1):
            rows = torch.randint(0, len(texts), (batch,), generator=source)
            found = network([view.attacker[rows] for view in views]).transpose(0, 1)
            wanted = torch.cat([spelt[row] for row in rows.tolist()])
            optimiser.zero_grad()
            torch.autograd.backward(
                functional.ctc_loss(found, wanted, torch.full((batch,), frames), lengths[rows], zero_infinity=True)
            )
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            late = time.monotonic() - started > budget.attack_time_s
            if done % _CHECK_STEPS == 0 or done == steps or late:
                share = score(_texts(network, [view.validation for view in views], letters))
                if share >= best:
                    best, kept = share, {name: value.clone() for name, value in network.state_dict().items()}
            if late:
                break
    network.load_state_dict(kept)
    answer = _texts(network, [view.asked for view in views], letters)
    return Spelling(answer, f"recogniser of width {width}, {done} steps", stopped=done < steps)


def _texts(network: _Recogniser, views: Sequence[torch.Tensor], letters: Sequence[str]) -> list[str]:
    """Return what the likeliest character of each frame spells: repeats are one, and blanks are none."""
    network.eval()
    with torch.no_grad():
        pieces = [torch.split(view, _CHUNK_ITEMS) for view in views]
        numbers = torch.cat([network(piece).argmax(dim=2) for piece in zip(*pieces, strict=True)]).tolist()
    network.train()
    return ["".join(_collapsed(row, letters)) for row in numbers]


def _collapsed(row: Sequence[int], letters: Sequence[str]) -> list[str]:
    before = [_BLANK, *row[:-1]]
    return [letters[here - 1] for here, last in zip(row, before, strict=True) if here not in (last, _BLANK)]
