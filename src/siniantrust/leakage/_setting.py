"""What stays the same at all cuts of one audit: who has which items, what is reconstructed, and what judges it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from siniantrust.graph import Cut
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._classifier import class_means, class_scores
from siniantrust.leakage._data import Data
from siniantrust.leakage._estimates import prior_scores
from siniantrust.leakage._features import Observed
from siniantrust.leakage._registry import Classifier, Problem, ScreenView
from siniantrust.leakage._schema import DataDescription, Estimate
from siniantrust.leakage._split import Split
from siniantrust.leakage._suite import Judge
from siniantrust.leakage._targets import data_kind, data_range, shrink, shrink_factor, unit_scale


@dataclass(frozen=True, slots=True)
class Setting:
    """``targets`` (items in the split's order, *target shape) are in unit scale: ``low`` is 0 and ``high`` is 1."""

    kind: Literal["image", "array"]
    split: Split
    targets: np.ndarray = field(repr=False)
    low: float
    high: float
    judge: Judge
    budget: Budget
    seed: int

    @property
    def attackers(self) -> int:
        """Number of the attacker's items, which come first."""
        return len(self.split.attacker)

    @property
    def known(self) -> int:
        """Number of items that are not held out: the attacker's and the validation items."""
        return self.attackers + len(self.split.validation)

    def problem(self, observed: Observed, cut: Cut) -> Problem:
        """Return what an attacker at ``cut`` has."""
        first, second, total = self.attackers, self.known, len(self.targets)
        return Problem(
            kind=self.kind,
            attacker=observed.features(cut.tensors, 0, first),
            attacker_targets=self.targets[:first],
            validation=observed.features(cut.tensors, first, second),
            validation_targets=self.targets[first:second],
            heldout=observed.features(cut.tensors, second, total),
        )

    def view(self, observed: Observed, cut: Cut, classify: Classifier | None, flops: int) -> ScreenView:
        """Return what a screen at ``cut`` looks at: held-out items, as many as the budget allows."""
        count = min(self.budget.screen_items, len(self.split.heldout))
        return ScreenView(
            kind=self.kind,
            features=observed.features(cut.tensors, self.known, self.known + count),
            inputs=self.targets[self.known : self.known + count],
            classify=classify,
            classify_flops=flops,
        )

    def class_prior(self, outputs: np.ndarray) -> dict[str, Estimate] | None:
        """Return what the predicted class alone gives away; None if ``outputs`` (items, ...) are no class scores."""
        scores = class_scores(outputs)
        if scores is None:
            return None
        classes = scores.argmax(axis=1)
        first = self.attackers
        return self.judge.leakage(class_means(self.targets[:first], classes[:first], classes[self.known :]))

    def accuracy(self, outputs: np.ndarray, labels: np.ndarray | None) -> float | None:
        """Return the model's accuracy on the held-out items; None without labels or class scores."""
        scores = class_scores(outputs)
        if scores is None or labels is None:
            return None
        return float((scores[self.known :].argmax(axis=1) == labels[self.split.heldout]).mean())


def make_setting(data: Data, split: Split, budget: Budget, *, seed: int) -> Setting:
    """Bring the inputs to unit scale (and images to the budget's size) and score the prior attacker."""
    inputs = data.inputs[split.order]
    attackers, known = len(split.attacker), len(split.attacker) + len(split.validation)
    kind = data_kind(inputs.shape[1:])
    low, high = data_range(inputs[:attackers])
    targets = unit_scale(inputs, low, high)
    if kind == "image":
        targets = shrink(targets, shrink_factor(inputs.shape[1:], budget.max_side))
    originals = targets[known:]
    judge = Judge(originals=originals, prior=prior_scores(targets[:attackers], originals, kind), kind=kind, seed=seed)
    return Setting(kind=kind, split=split, targets=targets, low=low, high=high, judge=judge, budget=budget, seed=seed)


def describe_data(data: Data, setting: Setting) -> DataDescription:
    """Return the record of the data and of the split."""
    return DataDescription(
        sha256=data.sha256(),
        kind=setting.kind,
        input_name=data.input_name,
        item_shape=data.inputs.shape[1:],
        attacker_count=len(setting.split.attacker),
        validation_count=len(setting.split.validation),
        heldout_count=len(setting.split.heldout),
        target_shape=setting.targets.shape[1:],
        data_range=setting.high - setting.low,
    )
