"""Transcription: what is said or written in the input, recognised from its features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._registry import Attack, InapplicableError, Problem, Transcription

Score = Callable[[Sequence[str]], float]


@dataclass(frozen=True, slots=True)
class _Trial:
    """Texts of the validation items and then the held-out ones, how they came about, and if the time ran out before."""

    texts: list[str] = field(repr=False)
    detail: str
    stopped: bool = False


def run(problem: Problem, budget: Budget, seed: int) -> Transcription:
    """Answer with whatever is most right about the validation items, by characters and words together.

    They are: what a recogniser spells that is trained on the features over time and, where the items are pictures or
    sounds, on the columns of their reconstruction; the same as the nearest words, or the nearest whole texts, that the
    attacker has seen; and a vote of the attacker's texts by kernel ridge regression. The best text for all items is the
    answer if none does better.

    Raises:
        InapplicableError: if the data name no transcript.
    """
    from siniantrust.leakage._transcripts import TEXT_METRICS, accuracy, best_text

    if problem.attacker_transcript is None or problem.validation_transcript is None:
        raise InapplicableError("the data name no transcript (key 'transcript')")
    known, checks = problem.attacker_transcript.tolist(), problem.validation_transcript.tolist()

    def score(texts: Sequence[str]) -> float:
        asked = texts[: len(checks)]
        return float(np.mean([accuracy(asked, checks, metric).mean() for metric in TEXT_METRICS]))

    items = len(checks) + len(problem.heldout)
    trials = [
        _Trial([best_text(known, metric)] * items, "nothing learned: one text for all") for metric in TEXT_METRICS
    ]
    first = max(score(trial.texts) for trial in trials)
    trials.append(_vote(problem, known, budget, seed, score))
    trials += _spelt(problem, known, budget, seed, score)
    best = max(trials, key=lambda trial: score(trial.texts))
    return Transcription(
        tuple(best.texts[len(checks) :]),
        f"{best.detail}; {score(best.texts):.0%} right on validation items, one text for all {first:.0%}",
        any(trial.stopped for trial in trials),
    )


def _vote(problem: Problem, known: Sequence[str], budget: Budget, seed: int, score: Score) -> _Trial:
    """Return for each item the text that the attacker's items with like features speak for most."""
    import torch

    from siniantrust.leakage._torch import tensor
    from siniantrust.leakage.attacks._kernel import smoother

    texts, places = np.unique(np.array(known), return_inverse=True)
    classes = tensor(places.astype(np.int64))

    def voted(matrix: torch.Tensor) -> list[str]:
        votes = torch.zeros(len(matrix), len(texts)).index_add_(1, classes[: matrix.shape[1]], matrix)
        return [str(texts[place]) for place in votes.argmax(dim=1).tolist()]

    matrix, how = smoother(problem, budget, seed, lambda trial: score(voted(trial)))
    return _Trial(voted(matrix), f"vote of {len(texts)} texts seen, {how}")


def _spelt(problem: Problem, known: Sequence[str], budget: Budget, seed: int, score: Score) -> Iterator[_Trial]:
    """Yield what a recogniser spells: as it is, in words seen, and as whole texts seen."""
    from siniantrust.leakage.attacks._frames import feature_frames, picture_frames
    from siniantrust.leakage.attacks._recogniser import frames_for, spell
    from siniantrust.leakage.attacks._warm import warm_start

    most = frames_for(known)
    views = feature_frames(problem, budget, seed, most=most)
    if problem.kind == "image":
        views += picture_frames(warm_start(problem, budget), problem.attacker_targets.shape[1:], most=most)
    found = spell(views, known, budget, seed, score)
    yield _Trial(found.texts, found.detail, found.stopped)
    words, texts = sorted({word for text in known for word in text.split()}), sorted(set(known))
    in_words = [" ".join(_nearest(word, words) for word in text.split()) for text in found.texts]
    yield _Trial(in_words, f"{found.detail}, in words seen")
    yield _Trial([_nearest(text, texts) for text in found.texts], f"{found.detail}, as texts seen")


def _nearest(text: str, known: Sequence[str]) -> str:
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    found: str = process.extractOne(text, known, scorer=Levenshtein.distance)[0]
    return found


ATTACK = Attack(
    title="Transcription (recogniser trained on features, and a vote of known texts)",
    source="Graves, Fernández, Gomez and Schmidhuber, ICML 2006 (connectionist temporal classification)",
    knowledge=(
        "black box: data of the same distribution with what is said or written in them and the features that the "
        "trusted side answers for them; trains a network on them; honest but curious"
    ),
    cost="a minute at a cut, or as long as the budget says: gradient steps of a small network",
    run=run,
    kinds=("image", "array", "token"),
    trained=True,
    weight=1.5,
)
