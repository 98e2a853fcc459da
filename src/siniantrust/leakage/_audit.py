"""The audit: every screen and every attack at every useful cut of one model, on one data set."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from siniantrust import _progress
from siniantrust._extras import require
from siniantrust._files import folder_atomic
from siniantrust.errors import AuditError
from siniantrust.graph import Cut, CutSet, Model
from siniantrust.leakage._audit_file import FILE_NAME, audit_bytes, sealed
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._choose import choose_cuts
from siniantrust.leakage._classifier import class_means, class_scores, image_classifier
from siniantrust.leakage._data import Data, check_data
from siniantrust.leakage._estimates import prior_scores
from siniantrust.leakage._features import Observed, observe
from siniantrust.leakage._observe import Observer
from siniantrust.leakage._pictures import strip_png
from siniantrust.leakage._ranking import summarise
from siniantrust.leakage._registry import Attack, Problem, Screen, ScreenView, list_attacks, list_screens
from siniantrust.leakage._schema import AttackSummary, Audit, CutAudit, DataDescription, Estimate, ScreenResult
from siniantrust.leakage._split import Split, split_items
from siniantrust.leakage._suite import Judge, best_of, run_attack, suite_converged
from siniantrust.leakage._targets import data_kind, data_range, shrink, shrink_factor, unit_scale

_ORIGINALS = "originals.png"


@dataclass(frozen=True, slots=True)
class _Setting:
    """What stays the same for all cuts of one audit. ``targets`` are in the split's order, in unit scale."""

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
        return len(self.split.attacker)

    @property
    def known(self) -> int:
        """Items that are not held out."""
        return self.attackers + len(self.split.validation)


def audit(
    model: Model,
    data: Data,
    *,
    cuts: CutSet,
    out: Path,
    seed: int = 0,
    attacks: Sequence[str] | None = None,
    screens: Sequence[str] | None = None,
    include_fusable: bool = False,
    max_cuts: int | None = None,
    budget: Budget | None = None,
    progress: _progress.Step | None = None,
) -> Audit:
    """Measure what leaks at the cuts of ``model`` and write ``audit.json`` and pictures to the folder ``out``.

    The items are split into the attacker's, a validation set and a held-out set. One pass computes the features of all
    cuts; then every screen and every attack runs at every useful cut. The same seed gives the same figures.

    Args:
        model: The model to audit.
        data: Items of its private input.
        cuts: The model's cuts; those that cannot be audited end up in ``skipped`` with the reason.
        out: Folder to write; an earlier audit there is replaced.
        seed: Seed of the split, the attacks and the bootstrap.
        attacks: Names of the attacks to run; None for all.
        screens: Names of the screens to run; None for all.
        include_fusable: Also audit cuts that only separate a fusable activation.
        max_cuts: Audit at most so many cuts, spread evenly.
        budget: How much work to do; None for the ``quick`` preset.
        progress: Called with one unit for the features and one per screen and attack at a cut; None draws a bar.

    Raises:
        DataError: if the data do not fit the model or are too few.
        AuditError: if a name is unknown, no cut can be audited, or ``out`` cannot be written.
        MissingExtraError: if torch, scipy or pillow is not installed.
    """
    started = time.monotonic()
    budget = budget or Budget.preset("quick")
    for module in ("torch", "scipy.stats", "PIL.Image"):
        require(module, extra="leakage")
    chosen_attacks, chosen_screens = list_attacks(attacks), list_screens(screens)
    if not chosen_attacks:
        raise AuditError("an audit needs at least one attack: screens alone decide nothing")
    check_data(data, model, origin="given")
    kept, skipped = choose_cuts(model, cuts, include_fusable=include_fusable, max_cuts=max_cuts)
    if not kept:
        raise AuditError(f"model {model.name}: none of its {len(cuts.cuts)} cuts can be audited")
    _check_folder(out)
    split = split_items(len(data), budget, seed=seed)
    threads = budget.threads or len(os.sched_getaffinity(0))
    setting = _setting(data, split, budget, seed)
    watched = list(dict.fromkeys(name for cut in kept for name in cut.tensors))
    units = 1 + len(kept) * (len(chosen_attacks) + len(chosen_screens))
    bar = nullcontext(progress) if progress is not None else _progress.progress("audit", units)
    with (
        _writing(out) as folder,
        bar as step,
        _torch_threads(threads),
        Observer(model, watched, threads=threads) as observer,
        Observer(model, (), threads=threads) as plain,
        observe(
            observer,
            {name: array[split.order] for name, array in data.arrays().items()},
            watched,
            budget,
            seed=seed,
            step=step,
        ) as observed,
    ):
        skipped |= {
            cut.id: next(observed.refused[name] for name in cut.tensors if name in observed.refused)
            for cut in kept
            if any(name in observed.refused for name in cut.tensors)
        }
        usable = [cut for cut in kept if cut.id not in skipped]
        classify = image_classifier(plain, model, data, setting.low, setting.high)
        audited = []
        for index, cut in enumerate(usable):
            view = _view(observed, cut, setting, classify, model.flops)
            screened = _screen(chosen_screens, view, setting, step, cut.id)
            audited.append(_attack(chosen_attacks, observed, cut, screened, setting, step, (folder, index)))
        if setting.kind == "image":
            (folder / _ORIGINALS).write_bytes(strip_png(setting.judge.originals))
        accuracy, class_prior = _predictions(model, data, observed, setting)
        result = sealed(
            Audit(
                id="",
                model_name=model.name,
                model_sha256=model.sha256,
                data=_description(data, setting),
                seed=seed,
                tolerance=budget.tolerance,
                cuts=tuple(audited),
                skipped=skipped,
                screens=summarise(chosen_screens, audited),
                attacks={
                    name: AttackSummary(title=attack.title, source=attack.source, knowledge=attack.knowledge)
                    for name, attack in chosen_attacks.items()
                },
                originals_picture=_ORIGINALS if setting.kind == "image" else None,
                class_mean_prior=class_prior,
                heldout_accuracy=accuracy,
                machine=_machine(threads),
                time_s=time.monotonic() - started,
            )
        )
        (folder / FILE_NAME).write_bytes(audit_bytes(result))
    return result
