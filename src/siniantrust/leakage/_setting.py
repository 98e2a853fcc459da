"""What stays the same at all cuts of one audit: who has which items, what is reconstructed, and what judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._classifier import class_scores
from siniantrust.leakage._data import Data
from siniantrust.leakage._judge import Judge
from siniantrust.leakage._metrics import Metric, Scores
from siniantrust.leakage._priors import (
    attribute_prior,
    class_prior,
    class_text_prior,
    nearest_prior,
    nearest_text_prior,
    prior_scores,
    text_prior,
)
from siniantrust.leakage._schema import DataDescription
from siniantrust.leakage._split import Split
from siniantrust.leakage._targets import Kind, data_kind, data_range, shrink, shrink_factor, sound_pictures, unit_scale


@dataclass(frozen=True, slots=True)
class Setting:
    """``targets`` (items in the split's order, *target shape) are in unit scale: ``low`` is 0 and ``high`` is 1.

    ``factor`` is by how much images were averaged down. ``labels``, ``attribute`` and ``transcript`` are in the split's
    order too.
    """

    kind: Kind
    split: Split
    targets: np.ndarray = field(repr=False)
    low: float
    high: float
    factor: int
    judge: Judge
    budget: Budget
    seed: int
    labels: np.ndarray | None = field(default=None, repr=False)
    attribute: np.ndarray | None = field(default=None, repr=False)
    transcript: np.ndarray | None = field(default=None, repr=False)
    sound: bool = False

    @property
    def attackers(self) -> int:
        """Number of the attacker's items, which come first."""
        return len(self.split.attacker)

    @property
    def known(self) -> int:
        """Number of items that are not held out: the attacker's and the validation items."""
        return self.attackers + len(self.split.validation)

    def stronger_priors(self, outputs: np.ndarray) -> Mapping[str, Mapping[Metric, Scores]]:
        """Score the attackers without features who know more than the mean.

        ``outputs`` (items, ...) are the model's; where they are no class scores, there is no class to go by.
        """
        first = self.attackers
        known, originals = self.targets[:first], self.targets[self.known :]
        texts = None if self.transcript is None else (self.transcript[:first], self.transcript[self.known :])
        found = {"nearest": dict(nearest_prior(known, originals, self.kind))}
        if texts is not None:
            found["nearest"] |= nearest_text_prior(*texts)
        scores = class_scores(outputs)
        if scores is not None:
            classes = scores.argmax(axis=1)
            seen, asked = classes[:first], classes[self.known :]
            found["class mean"] = dict(class_prior(known, seen, originals, asked, self.kind))
            if texts is not None:
                found["class mean"] |= class_text_prior(texts[0], seen, texts[1], asked)
        return found

    def accuracy(self, outputs: np.ndarray) -> float | None:
        """Return the model's accuracy on the held-out items; None without labels or class scores."""
        scores = class_scores(outputs)
        if scores is None or self.labels is None:
            return None
        return float((scores[self.known :].argmax(axis=1) == self.labels[self.known :]).mean())


def make_setting(data: Data, split: Split, budget: Budget, *, seed: int) -> Setting:
    """Bring the inputs to unit scale (and images to the budget's size) and score the prior attacker.

    Sounds become pictures: their spectrograms are what the attacks reconstruct.
    """
    inputs = data.inputs[split.order]
    attackers, known = len(split.attacker), len(split.attacker) + len(split.validation)
    low, high, factor = 0.0, 1.0, 1
    kind: Kind
    if data.sample_rate_hz is not None:
        kind, targets = "image", sound_pictures(inputs, data.sample_rate_hz, attackers=attackers)
    elif inputs.dtype.kind in "iu" and inputs.dtype != np.uint8:
        kind, targets = "token", inputs
    else:
        kind = data_kind(inputs.shape[1:])
        low, high = data_range(inputs[:attackers])
        targets = unit_scale(inputs, low, high)
        if kind == "image":
            factor = shrink_factor(inputs.shape[1:], budget.max_side)
            targets = shrink(targets, factor)
    originals = targets[known:]
    prior = dict(prior_scores(targets[:attackers], originals, kind))
    labels = None if data.labels is None else data.labels[split.order]
    attribute = None if data.attribute is None else data.attribute[split.order]
    if attribute is not None:
        prior["attribute"] = attribute_prior(attribute[:attackers], attribute[known:])
    transcript = None if data.transcript is None else data.transcript[split.order]
    if transcript is not None:
        prior |= text_prior(transcript[:attackers], transcript[known:])
    judge = Judge(
        originals=originals,
        prior=prior,
        kind=kind,
        seed=seed,
        attribute=None if attribute is None else attribute[known:],
        transcript=None if transcript is None else transcript[known:],
    )
    return Setting(
        kind=kind,
        split=split,
        targets=targets,
        low=low,
        high=high,
        factor=factor,
        judge=judge,
        budget=budget,
        seed=seed,
        labels=labels,
        attribute=attribute,
        transcript=transcript,
        sound=data.sample_rate_hz is not None,
    )


def describe_data(data: Data, setting: Setting) -> DataDescription:
    """Return the record of ``data``, as they were given, and of the split."""
    mirrored = int((setting.split.attacker >= len(data)).sum())
    return DataDescription(
        sha256=data.sha256(),
        kind=setting.kind,
        sample_rate_hz=data.sample_rate_hz,
        input_name=data.input_name,
        item_shape=data.inputs.shape[1:],
        attacker_count=len(setting.split.attacker) - mirrored,
        mirrored_count=mirrored,
        validation_count=len(setting.split.validation),
        heldout_count=len(setting.split.heldout),
        target_shape=setting.targets.shape[1:],
        data_range=setting.high - setting.low,
    )
