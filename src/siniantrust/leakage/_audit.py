"""The audit: every screen and every attack at every useful cut of one model, on one data set."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from siniantrust import _progress
from siniantrust._extras import require
from siniantrust._files import folder_atomic
from siniantrust.errors import AuditError
from siniantrust.graph import Cut, CutSet, Model
from siniantrust.leakage._audit_file import FILE_NAME, audit_bytes, sealed
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._choose import choose_cuts
from siniantrust.leakage._climb import Trial
from siniantrust.leakage._data import Data, check_data
from siniantrust.leakage._doubts import doubt_of, require_answers
from siniantrust.leakage._downstream import NAME, SUMMARY, with_downstream
from siniantrust.leakage._estimates import estimates
from siniantrust.leakage._features import Observed
from siniantrust.leakage._metrics import Metric, Scores
from siniantrust.leakage._mirror import with_mirror_images
from siniantrust.leakage._parallel import Cluster
from siniantrust.leakage._pictures import strip_png
from siniantrust.leakage._prepare import make_study, opened_store
from siniantrust.leakage._priors import PRIOR_TITLES
from siniantrust.leakage._ranking import summarise
from siniantrust.leakage._registry import Attack, list_attacks, list_screens
from siniantrust.leakage._result import Pictures, cut_audit, summaries
from siniantrust.leakage._schema import Audit, CutAudit, PriorSummary
from siniantrust.leakage._setting import Setting, describe_data, make_setting
from siniantrust.leakage._split import split_items
from siniantrust.leakage._tasks import Tasks

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
    bounds: Mapping[str, float] | None = None,
    cache: Path | None = None,
    cluster: Cluster = "processes",
    progress: _progress.Step | None = None,
) -> Audit:
    """Measure what leaks at the cuts of ``model`` and write ``audit.json`` and pictures to the folder ``out``.

    The items are split into the attacker's, a validation set and a held-out set. One pass computes the features of all
    cuts; then every screen and every attack runs at every useful cut, in several processes. The same seed gives the
    same figures.

    Args:
        model: The model to audit.
        data: Items of its private input.
        cuts: The model's cuts; those that cannot be audited end up in ``skipped`` with the reason.
        out: Folder to write; an earlier audit there is replaced.
        seed: Seed of the split, the first run of each attack and the bootstrap.
        attacks: Names of the attacks to run; None for all.
        screens: Names of the screens to run; None for all.
        include_fusable: Also audit cuts that only separate a fusable activation.
        max_cuts: Audit at most so many cuts, spread evenly.
        budget: How much work to do; None for the ``quick`` preset.
        bounds: Leakage allowed, by metric. A cut that surely leaks more (by the ridge probe's or an attack's lower
            bound) is given up early; it is never passed early. None gives every cut the whole suite.
        cache: Folder where features and finished work are kept, so that a killed audit goes on; None keeps nothing.
        cluster: Where the work runs: in processes here, or on the Ray cluster that Ray finds.
        progress: Called as the work goes on; None draws a bar.

    Raises:
        DataError: if the data do not fit the model or are too few.
        AuditError: if a name is unknown, an attack is asked for that the data do not allow, no cut can be audited, a
            worker dies, or a folder cannot be written.
        MissingExtraError: if torch, scipy, joblib, pillow or rapidfuzz is not installed.
    """
    started = time.monotonic()
    budget = budget or Budget.preset("quick")
    for module in ("torch", "scipy.stats", "PIL.Image", "joblib", "rapidfuzz"):
        require(module, extra="leakage")
    chosen_attacks, left_out = _chosen(attacks, budget)
    chosen_screens = list_screens(screens)
    check_data(data, model, origin="given")
    kept, skipped = choose_cuts(model, cuts, include_fusable=include_fusable, max_cuts=max_cuts)
    if not kept:
        raise AuditError(f"model {model.name}: none of its {len(cuts.cuts)} cuts can be audited")
    split = split_items(len(data), budget, seed=seed, marked=data.heldout)
    given = data
    data, split = with_mirror_images(given, split, most=budget.attacker_items << budget.max_doublings)
    setting = make_setting(data, split, budget, seed=seed)
    if attacks is not None:
        _check_applicable(chosen_attacks, setting)
    threads = budget.threads or len(os.sched_getaffinity(0))
    total = 1 + len(kept) * (1 + max(budget.seeds, 1))
    bar = nullcontext(progress) if progress is not None else _progress.progress("audit", total)
    with _writing(out) as folder, opened_store(model, data, kept, setting, cache) as store, bar as step:
        study = make_study(model, data, kept, setting, store, threads, step)
        outputs = study.observed.outputs[model.outputs[0].name]
        require_answers(outputs, model.outputs[0].name)
        refused = _refused(kept, study.observed)
        skipped |= refused
        usable = [cut for cut in kept if cut.id not in refused]
        if not usable:
            raise AuditError(f"model {model.name}: none of its cuts can be audited: {next(iter(refused.values()))}")
        tasks = Tasks(study, usable, chosen_attacks, chosen_screens, bounds or {}, threads, cluster, step)
        screened = tasks.screens()
        trials, cut_short = tasks.attacks(screened)
        stronger = setting.stronger_priors(outputs)
        pictures = Pictures(folder, setting)
        audited: list[CutAudit] = []
        for index, cut in enumerate(usable):
            found = cut_audit(
                cut,
                index,
                screened[cut.id],
                trials[cut.id],
                cut_short.get(cut.id),
                setting,
                stronger,
                pictures,
            )
            if found is None:
                skipped[cut.id] = "no attack of the suite can be mounted here, so that nothing is known of it"
            else:
                doubt = doubt_of(cut.tensors, study.observed.stores, outputs)
                sound = found.converged and doubt is None
                audited.append(found.model_copy(update={"doubt": doubt, "converged": sound}))
        if not audited:
            every = (trial for found in trials.values() for each in found for trial in each.trials)
            raise _unassailable(model, every)
        measured = [cut for cut in usable if cut.id not in skipped]
        audited = with_downstream(model, measured, audited, tolerance=budget.tolerance)
        if setting.kind == "image":
            (folder / _ORIGINALS).write_bytes(strip_png(setting.judge.originals))
        result = sealed(
            Audit(
                id="",
                model_name=model.name,
                model_sha256=model.sha256,
                data=describe_data(given, setting),
                seed=seed,
                tolerance=budget.tolerance,
                cuts=tuple(_known_beyond(cut, bounds or {}) for cut in audited),
                skipped=skipped,
                screens=summarise(chosen_screens, audited),
                attacks=summaries(chosen_attacks, audited, repeats=budget.repeats)
                | ({NAME: SUMMARY} if any(NAME in cut.attacks for cut in audited) else {}),
                originals_picture=_ORIGINALS if setting.kind == "image" else None,
                priors=_priors(stronger, setting),
                seeds=budget.seeds,
                budget=asdict(budget),
                left_out=left_out,
                bounds=dict(bounds or {}),
                averaged_queries=None if study.averaged is None else budget.repeats,
                heldout_accuracy=setting.accuracy(outputs),
                machine=_machine(threads, cluster),
                time_s=time.monotonic() - started,
            )
        )
        (folder / FILE_NAME).write_bytes(audit_bytes(result))
    return result


def _unassailable(model: Model, trials: Iterable[Trial]) -> AuditError:
    reasons = dict.fromkeys(f"{trial.attack}: {trial.declined}" for trial in trials)
    named = f" ({'; '.join(reasons)})" if reasons else ""
    return AuditError(f"model {model.name}: no attack can be mounted at any of its cuts{named}")


def _priors(stronger: Mapping[str, Mapping[Metric, Scores]], setting: Setting) -> dict[str, PriorSummary]:
    """Return what the attackers without features reach who know more than the mean."""
    return {
        name: PriorSummary(title=PRIOR_TITLES[name], leakage=estimates(scores, setting.judge.prior, seed=setting.seed))
        for name, scores in stronger.items()
    }


def _known_beyond(cut: CutAudit, bounds: Mapping[str, float]) -> CutAudit:
    """Return a cut that was given up early with the figures that excluded it: in other metrics hardly anything ran."""
    beyond = {metric for metric, bound in bounds.items() if metric in cut.leakage and cut.leakage[metric].upper > bound}
    if cut.cut_short is None or not beyond:
        return cut
    return cut.model_copy(
        update={
            "leakage": {metric: figure for metric, figure in cut.leakage.items() if metric in beyond},
            "best_attack": {metric: name for metric, name in cut.best_attack.items() if metric in beyond},
            "over_priors": {
                prior: {metric: figure for metric, figure in figures.items() if metric in beyond}
                for prior, figures in cut.over_priors.items()
            },
        }
    )


def _chosen(names: Sequence[str] | None, budget: Budget) -> tuple[dict[str, Attack], dict[str, str]]:
    """Return the attacks to run, and why others are left out: those that the budget has no time for."""
    attacks = list_attacks(names)
    limit = budget.max_weight if names is None else None
    kept = {name: attack for name, attack in attacks.items() if limit is None or attack.weight <= limit}
    if not kept:
        raise AuditError("an audit needs at least one attack: screens alone decide nothing")
    return kept, {
        name: f"too dear for this budget: {attack.cost}" for name, attack in attacks.items() if name not in kept
    }


def _check_applicable(attacks: Mapping[str, Attack], setting: Setting) -> None:
    """Refuse an attack that was asked for by name and that these data do not allow."""
    for name, attack in attacks.items():
        if setting.kind not in attack.kinds:
            raise AuditError(f"attack {name}: it reconstructs {', '.join(attack.kinds)}; these data are {setting.kind}")
    if "attribute" in attacks and setting.attribute is None:
        raise AuditError("attack attribute: it needs a private label; give integers (N,) under the key 'attribute'")
    if "transcript" in attacks and setting.transcript is None:
        raise AuditError("attack transcript: it needs what is said or written; give text (N,) under 'transcript'")


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


def _machine(threads: int, cluster: Cluster) -> str:
    import torch

    graphics = f"GPU {torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {graphics}{threads} threads"
        f"{' and Ray' if cluster == 'ray' else ''}, Python {platform.python_version()}, torch {torch.__version__}"
    )
