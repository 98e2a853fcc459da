"""Texts that are guessed: how much of each is right, by characters and by words, and what is guessed best blindly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from siniantrust.leakage._metrics import Metric, Scores

# What a text is made of: characters, or words, which white space parts.
_UNITS: Mapping[Metric, Callable[[str], Sequence[str]]] = {"character": str, "word": str.split}
TEXT_METRICS = tuple(_UNITS)
# The commonest texts of a sample, held against a sample: more of them are hardly better.
_CANDIDATES = 256
_SAMPLE = 1000


def text_scores(guesses: Sequence[str], truth: Sequence[str]) -> dict[Metric, Scores]:
    """Score guessed texts, item by item, in both metrics."""
    return {metric: Scores(accuracy(guesses, truth, metric), perfect=1.0) for metric in _UNITS}


def accuracy(guesses: Sequence[str], truth: Sequence[str], metric: Metric) -> np.ndarray:
    """Return 1 - the error rate of each guess, (N,); 0 where there are more errors than there is text.

    Errors are insertions, deletions and substitutions (Levenshtein 1966) of characters or words, over their number in
    the truth.
    """
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    unit = _UNITS[metric]
    wanted = [unit(text) for text in truth]
    edits = process.cpdist([unit(text) for text in guesses], wanted, scorer=Levenshtein.distance, dtype=np.int32)
    return _share_right(edits, wanted)


def accuracy_of_each(guesses: Sequence[str], truth: Sequence[str], metric: Metric) -> np.ndarray:
    """Return the same for every guess of every text, (guesses, truth)."""
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    unit = _UNITS[metric]
    wanted = [unit(text) for text in truth]
    edits = process.cdist([unit(text) for text in guesses], wanted, scorer=Levenshtein.distance, dtype=np.int32)
    return _share_right(edits, wanted)


def best_text(known: Sequence[str], metric: Metric) -> str:
    """Return the one of the known texts that is most right about them all: the best answer without features."""
    candidates = [text for text, _ in Counter(known).most_common(_CANDIDATES)]
    shares = accuracy_of_each(candidates, known[:_SAMPLE], metric).mean(axis=1)
    return candidates[int(shares.argmax())]


def _share_right(edits: np.ndarray, wanted: Sequence[Sequence[str]]) -> np.ndarray:
    lengths = np.array([len(each) for each in wanted])
    right: np.ndarray = np.maximum(0.0, 1 - edits / lengths)
    return right
