"""The audit: every screen and every attack at every useful cut of one model, on one data set."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from siniantrust import _progress
from siniantrust._extras import require
from siniantrust._files import folder_atomic
from siniantrust.errors import AuditError
from siniantrust.graph import Cut, CutSet, Model
from siniantrust.leakage._audit_file import FILE_NAME, audit_bytes, sealed
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._choose import choose_cuts
from siniantrust.leakage._classifier import image_classifier
from siniantrust.leakage._data import Data, check_data
from siniantrust.leakage._downstream import NAME, SUMMARY, with_downstream
from siniantrust.leakage._features import Observed, observe
from siniantrust.leakage._observe import Observer
from siniantrust.leakage._parallel import one_at_a_time, run_all, workers_for
from siniantrust.leakage._pictures import strip_png
from siniantrust.leakage._ranking import summarise
from siniantrust.leakage._registry import Attack, Screen, ScreenView, list_attacks, list_screens
from siniantrust.leakage._schema import AttackSummary, Audit, CutAudit, ScreenResult
from siniantrust.leakage._setting import Setting, describe_data, make_setting
from siniantrust.leakage._split import split_items
from siniantrust.leakage._suite import best_of, run_attack, suite_converged

_ORIGINALS = "originals.png"


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
    split = split_items(len(data), budget, seed=seed, marked=data.heldout)
    setting = make_setting(data, split, budget, seed=seed)
    threads = budget.threads or len(os.sched_getaffinity(0))
    units = 1 + len(kept) * (len(chosen_attacks) + len(chosen_screens))
    bar = nullcontext(progress) if progress is not None else _progress.progress("audit", units)
    with _writing(out) as folder, bar as step:
        run = _Run(setting, chosen_attacks, chosen_screens, folder, one_at_a_time(step))
        with _observed(model, data, kept, setting, threads, step) as observed:
            skipped |= _refused(kept, observed)
            usable = [cut for cut in kept if cut.id not in skipped]
            if not usable:
                raise AuditError(f"model {model.name}: none of its cuts can be audited: {next(iter(skipped.values()))}")
            with Observer(model, (), threads=threads) as plain:
                classify = image_classifier(plain, model, data, setting.low, setting.high)

                def at_cut(index: int, cut: Cut) -> CutAudit:
                    return run.at_cut(observed, cut, setting.view(observed, cut, classify, model.flops), index)

                workers = workers_for(
                    len(usable),
                    items=len(setting.targets),
                    attackers=setting.attackers,
                    threads=threads,
                    budget=budget,
                )
                audited = run_all(at_cut, usable, workers=workers, threads=threads)
            audited = with_downstream(model, usable, audited, tolerance=budget.tolerance)
            outputs = observed.outputs[model.outputs[0].name]
        if setting.kind == "image":
            (folder / _ORIGINALS).write_bytes(strip_png(setting.judge.originals))
        result = sealed(
            Audit(
                id="",
                model_name=model.name,
                model_sha256=model.sha256,
                data=describe_data(data, setting),
                seed=seed,
                tolerance=budget.tolerance,
                cuts=tuple(audited),
                skipped=skipped,
                screens=summarise(chosen_screens, audited),
                attacks={
                    name: AttackSummary(title=attack.title, source=attack.source, knowledge=attack.knowledge)
                    for name, attack in chosen_attacks.items()
                }
                | ({NAME: SUMMARY} if any(NAME in cut.attacks for cut in audited) else {}),
                originals_picture=_ORIGINALS if setting.kind == "image" else None,
                class_mean_prior=setting.class_prior(outputs),
                heldout_accuracy=setting.accuracy(outputs, data.labels),
                machine=_machine(threads),
                time_s=time.monotonic() - started,
            )
        )
        (folder / FILE_NAME).write_bytes(audit_bytes(result))
    return result


class _Run:
    """The screens and attacks of one audit, and where their pictures go."""

    def __init__(
        self,
        setting: Setting,
        attacks: Mapping[str, Attack],
        screens: Mapping[str, Screen],
        folder: Path,
        step: _progress.Step,
    ) -> None:
        self._setting = setting
        self._attacks = attacks
        self._screens = screens
        self._folder = folder
        self._step = step

    def at_cut(self, observed: Observed, cut: Cut, view: ScreenView, index: int) -> CutAudit:
        """Run everything at one cut; ``index`` numbers its pictures."""
        setting = self._setting
        screened: dict[str, ScreenResult] = {}
        for name, screen in self._screens.items():
            started = time.monotonic()
            found = screen.score(view, setting.budget, setting.seed)
            if found is not None:
                screened[name] = ScreenResult(score=found.score, raw=found.raw, time_s=time.monotonic() - started)
            self._step(f"{cut.id}: {name}")
        problem = setting.problem(observed, cut)
        half = problem.half()
        results = {}
        for name, attack in self._attacks.items():
            result, answer = run_attack(attack, problem, half, setting.judge, setting.budget, seed=setting.seed)
            if setting.kind == "image":
                picture = f"cut{index:03d}-{name}.png"
                (self._folder / picture).write_bytes(strip_png(answer))
                result = result.model_copy(update={"picture": picture})
            results[name] = result
            self._step(f"{cut.id}: {name}")
        leakage, best = best_of(results)
        return CutAudit(
            cut_id=cut.id,
            tensors=cut.tensors,
            screens=screened,
            attacks=results,
            leakage=leakage,
            best_attack=best,
            converged=suite_converged(results, tolerance=setting.budget.tolerance),
        )


@contextmanager
def _observed(
    model: Model, data: Data, cuts: Sequence[Cut], setting: Setting, threads: int, step: _progress.Step
) -> Iterator[Observed]:
    watched = list(dict.fromkeys(name for cut in cuts for name in cut.tensors))
    inputs = {name: array[setting.split.order] for name, array in data.arrays().items()}
    with (
        Observer(model, watched, threads=threads) as observer,
        observe(observer, inputs, watched, setting.budget, seed=setting.seed, step=step) as observed,
    ):
        yield observed


def _refused(cuts: Sequence[Cut], observed: Observed) -> dict[str, str]:
    """Return the reason for each cut one of whose tensors could not be observed."""
    reasons = ((cut.id, [observed.refused[name] for name in cut.tensors if name in observed.refused]) for cut in cuts)
    return {cut_id: found[0] for cut_id, found in reasons if found}


@contextmanager
def _writing(out: Path) -> Iterator[Path]:
    """Yield a folder that replaces ``out`` at the end; refuse to replace anything that is no audit."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / FILE_NAME).is_file())):
        raise AuditError(f"audit folder {out}: exists and is no audit; name a new folder, or remove it first")
    try:
        with folder_atomic(out) as folder:
            yield folder
    except OSError as error:
        raise AuditError(f"audit folder {out}: cannot be written ({error.strerror or error})") from error


def _machine(threads: int) -> str:
    import torch

    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {threads} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
