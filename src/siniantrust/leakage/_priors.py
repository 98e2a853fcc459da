"""Attackers who see no features: what can be guessed without looking, which leakage is corrected for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from siniantrust.leakage._metrics import Metric, Scores, measure
from siniantrust.leakage._products import products
from siniantrust.leakage._transcripts import TEXT_METRICS, accuracy, accuracy_of_each, best_text

PRIOR_TITLES = {
    "class mean": "the mean, or the most central text, of the attacker's items of the class that the model predicts",
    "nearest": "the attacker's own item that is nearest to the original, chosen by someone who sees it",
}

_CHUNK_ITEMS = 256


def central(items: np.ndarray, kind: str) -> np.ndarray:
    """Return the one answer (*shape) that is best without features: the mean, or each position's commonest token."""
    if kind != "token":
        mean: np.ndarray = items.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean
    flat = items.reshape(len(items), -1)
    common = []
    for column in flat.T:
        values, counts = np.unique(column, return_counts=True)
        common.append(values[counts.argmax()])
    return np.asarray(common, dtype=items.dtype).reshape(items.shape[1:])


def prior_scores(attacker_targets: np.ndarray, originals: np.ndarray, kind: str) -> dict[Metric, Scores]:
    """Score the prior attacker, who sees no features and answers every item alike."""
    answer = central(attacker_targets, kind)
    scores = measure(np.broadcast_to(answer, originals.shape), originals, kind)
    # The same answer for all items is right once in a gallery of N, whichever item it happens to be near.
    chance = np.full(len(originals), 1 / len(originals))
    scores["reidentification"] = Scores(chance, perfect=1.0)
    return scores


def attribute_prior(attacker_attribute: np.ndarray, truth: np.ndarray) -> Scores:
    """Score the guess that every held-out item has the attacker's commonest label."""
    values, counts = np.unique(attacker_attribute, return_counts=True)
    return Scores((truth == values[counts.argmax()]).astype(np.float64), perfect=1.0)


def class_prior(
    attacker_targets: np.ndarray,
    attacker_classes: np.ndarray,
    originals: np.ndarray,
    classes: np.ndarray,
    kind: str,
) -> Mapping[Metric, Scores]:
    """Score the attacker who sees only the predicted class; a class that they never saw gets the answer for all."""
    answers = np.empty(originals.shape, dtype=attacker_targets.dtype)
    for label in np.unique(classes):
        members = attacker_targets[attacker_classes == label]
        answers[classes == label] = central(members if len(members) else attacker_targets, kind)
    return measure(answers, originals, kind)


def nearest_prior(attacker_targets: np.ndarray, originals: np.ndarray, kind: str) -> Mapping[Metric, Scores]:
    """Score the best answer that the attacker's own items contain: the one nearest to each original.

    No attacker knows which it is. What leaks beyond this prior is detail that the attacker did not already have.
    """
    known, wanted = (items.reshape(len(items), -1) for items in (attacker_targets, originals))
    distances = _differing if kind == "token" else _squared_distances
    nearest = [
        distances(wanted[start : start + _CHUNK_ITEMS], known).argmin(axis=1)
        for start in range(0, len(wanted), _CHUNK_ITEMS)
    ]
    return measure(attacker_targets[np.concatenate(nearest)], originals, kind)


def text_prior(known: np.ndarray, truth: np.ndarray) -> dict[Metric, Scores]:
    """Score the attacker who answers every item with the same text: the best one for their own, in each metric."""
    return _text_scores(lambda metric: [best_text(known.tolist(), metric)] * len(truth), truth)


def class_text_prior(
    known: np.ndarray, known_classes: np.ndarray, truth: np.ndarray, classes: np.ndarray
) -> dict[Metric, Scores]:
    """Score the attacker who answers with the best text for the predicted class; for a class never seen, for all."""

    def answers(metric: Metric) -> list[str]:
        best = {}
        for label in np.unique(classes):
            members = known[known_classes == label]
            best[label] = best_text((members if len(members) else known).tolist(), metric)
        return [best[label] for label in classes]

    return _text_scores(answers, truth)


def nearest_text_prior(known: np.ndarray, truth: np.ndarray) -> dict[Metric, Scores]:
    """Score the attacker's own text that is nearest to each of the originals."""
    texts = list(dict.fromkeys(known.tolist()))

    def answers(metric: Metric) -> list[str]:
        return [texts[place] for place in accuracy_of_each(texts, truth.tolist(), metric).argmax(axis=0)]

    return _text_scores(answers, truth)


def _text_scores(answers: Callable[[Metric], Sequence[str]], truth: np.ndarray) -> dict[Metric, Scores]:
    return {metric: Scores(accuracy(answers(metric), truth.tolist(), metric), perfect=1.0) for metric in TEXT_METRICS}


def _squared_distances(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    squares: np.ndarray = (known**2).sum(axis=1)[None, :] - 2 * products(wanted, known)
    return squares


def _differing(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.stack([(row[None, :] != known).sum(axis=1) for row in wanted])
