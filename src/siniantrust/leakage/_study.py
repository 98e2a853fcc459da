"""Everything that the work at one cut needs, in a form that can be sent to another process."""

from __future__ import annotations

from dataclasses import dataclass, field

from siniantrust.graph import Cut, Model
from siniantrust.leakage._climb import Problems
from siniantrust.leakage._features import Observed
from siniantrust.leakage._registry import Classifier, Problem, ScreenView, WhiteBox
from siniantrust.leakage._setting import Setting
from siniantrust.leakage._store import Store


@dataclass(frozen=True, slots=True)
class Study:
    """One model on one data set, observed. ``averaged`` has the mean of several answers where answers are random."""

    model: Model
    input_name: str
    setting: Setting
    observed: Observed
    averaged: Observed | None
    store: Store = field(repr=False)

    def problems(self, cut: Cut, *, averaged: bool) -> Problems:
        """Return what an attacker at ``cut`` has, who asks once for each item or averages several answers."""
        observed = self.averaged if averaged else self.observed
        if observed is None:
            raise ValueError("the answers of this model are not random")
        setting = self.setting
        first, second, total = setting.attackers, setting.known, len(setting.targets)
        return Problems(
            Problem(
                kind=setting.kind,
                attacker=observed.features(cut.tensors, 0, first),
                attacker_targets=setting.targets[:first],
                validation=observed.features(cut.tensors, first, second),
                validation_targets=setting.targets[first:second],
                heldout=observed.features(cut.tensors, second, total),
                attacker_labels=None if setting.labels is None else setting.labels[:first],
                attacker_attribute=None if setting.attribute is None else setting.attribute[:first],
                validation_attribute=None if setting.attribute is None else setting.attribute[first:second],
                attacker_transcript=None if setting.transcript is None else setting.transcript[:first],
                validation_transcript=None if setting.transcript is None else setting.transcript[first:second],
                white_box=None if setting.sound or setting.kind == "token" else _WhiteBoxOf(self, cut, observed),
            )
        )

    def view(self, cut: Cut, classify: Classifier | None) -> ScreenView:
        """Return what a screen at ``cut`` looks at: held-out items, as many as the budget allows."""
        setting = self.setting
        count = min(setting.budget.screen_items, len(setting.split.heldout))
        rows = slice(setting.known, setting.known + count)
        return ScreenView(
            kind=setting.kind,
            features=self.observed.features(cut.tensors, rows.start, rows.stop),
            inputs=setting.targets[rows],
            classify=classify,
            classify_flops=self.model.flops,
            white_box=None if setting.sound or setting.kind == "token" else _WhiteBoxOf(self, cut, self.observed),
            labels=None if setting.labels is None else setting.labels[rows],
        )


@dataclass(frozen=True, slots=True)
class _WhiteBoxOf:
    """Makes the network around one cut when an attack asks for it."""

    study: Study
    cut: Cut
    observed: Observed

    def __call__(self) -> WhiteBox:
        from siniantrust.leakage._whitebox import white_box

        setting = self.study.setting
        return white_box(
            self.study.model,
            self.cut,
            self.study.input_name,
            [self.observed.encoders[name] for name in self.cut.tensors],
            low=setting.low,
            high=setting.high,
            shrink=setting.factor,
        )
