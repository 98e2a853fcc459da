"""The search: Optuna proposes trials here and is told of them here; they run elsewhere. A killed search goes on."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from siniantrust._extras import require
from siniantrust._files import sole_user, write_atomic
from siniantrust._progress import Step, progress
from siniantrust.graph import Model
from siniantrust.leakage import Data
from siniantrust.masking.tune._places import Dropped, Place, Task, cluster, processes
from siniantrust.masking.tune._record import Point, Tuning
from siniantrust.masking.tune._search import Choice, Limits, Search, TuneError, corners, has_strength
from siniantrust.masking.tune._trial import Found, accuracy_of

if TYPE_CHECKING:
    import optuna

_JOURNAL = "study.journal"
_NAME = "tune"
_REPEATED = "repeated"
_MOST_ASKED = 50
# Beyond any limit, in multiples of it.
_FAR = 1000.0
# Of the most leakage, accuracy, FLOPs and bytes, in this order.
_DIRECTIONS: tuple[Literal["minimize", "maximize"], ...] = ("minimize", "maximize", "minimize", "minimize")


def tune(
    model: Model,
    data: Data,
    search: Search,
    *,
    trials: int,
    out: Path,
    limits: Limits | None = None,
    workers: int = 1,
    ray: str | None = None,
) -> Tuning:
    """Try ``trials`` compositions in all, those that the folder already holds included, and return what was found.

    It begins at the search's corners; then Optuna proposes (multi-objective TPE; Ozaki et al. 2022) by the highest
    leakage, the accuracy on held-out items, Part 1's FLOPs and the bytes that cross, with the limits as constraints:
    first towards what keeps to them, then along the front. A trial that loses too much accuracy is given up before it
    is attacked. A quick audit overlooks what a stronger attacker finds: what is chosen from the front has to be audited
    with the whole suite before it is used.

    Args:
        model: The model as it is, which every trial is trained to answer like.
        data: As for an audit, with labels; accuracy and leakage are of its held-out items.
        search: What to choose among.
        trials: How many trials the folder is to hold in the end, failed ones included.
        out: Folder of the search. The same call goes on in it.
        limits: What a point is to keep to.
        workers: Trials that run beside each other, each on one thread.
        ray: Address (host:port) of the head of the Ray cluster on which they run; None for processes here.

    Raises:
        TuneError: if there are no labels, the folder holds another search or is in use, a worker dies, or no trial was
            carried through.
        DeviceError: if there is no Ray cluster at that address.
        MissingExtraError: if optuna or torch is not installed, or Ray where it is asked for.
    """
    require("optuna", extra="tune")
    require("torch", extra="leakage")
    if data.labels is None:
        raise TuneError("data: a search needs labels, to say what accuracy a mask costs")
    if trials < 1 or workers < 1:
        raise TuneError(f"search: expected at least one trial and one worker, found {trials} and {workers}")
    refusal = TuneError(f"folder {out}: another search is running in it; wait for it, or name another folder")
    with sole_user(out, refusal):
        (out / "trials").mkdir(exist_ok=True)
        limits = limits or Limits()
        study = _opened(out, search, model, data)
        left = max(trials - len(_ended(study)), 0)
        original = accuracy_of(model, data)
        if left:
            task = Task(model, data, search, original)
            opened = processes(task, workers) if ray is None else cluster(task, ray)
            with progress("trials", left) as step, opened as place:
                _try(study, task, place, limits, out=out, left=left, workers=workers, step=step)
        return _tuning(study, model, original, limits)


def _try(
    study: optuna.Study, task: Task, place: Place, limits: Limits, *, out: Path, left: int, workers: int, step: Step
) -> None:
    """Keep ``workers`` trials running until ``left`` more are done."""
    running: dict[Future[Found | Dropped], optuna.Trial] = {}
    tried = {Choice(**trial.user_attrs["choice"]) for trial in _ended(study) if "choice" in trial.user_attrs}
    while left or running:
        while left and len(running) < workers:
            trial, choice = _fresh(study, task.search, tried)
            running[place.submit(choice)] = trial
            tried.add(choice)
            left -= 1
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            try:
                found = future.result()
            except place.lost as fault:
                raise TuneError(
                    f"folder {out}: a worker died (out of memory?): {type(fault).__name__}; start again to go on"
                ) from fault
            trial = running.pop(future)
            for name, beyond in _beyond(found, task.original, limits).items():
                trial.set_constraint(name, beyond)
            step(_tell(study, trial, found, out))


def _beyond(found: Found | Dropped, original: float, limits: Limits) -> dict[str, float]:
    """Return how far a trial is beyond the limits: of those that keep to none, Optuna takes the least for the best."""
    if isinstance(found, Dropped):
        return {"given_up": _FAR} if found.given_up else {}
    multiples = limits.multiples(found.leakage, 100 * (original - found.accuracy))
    return {name: multiple - 1 for name, multiple in multiples.items()}


def _fresh(study: optuna.Study, search: Search, tried: AbstractSet[Choice]) -> tuple[optuna.Trial, Choice]:
    """Ask for a choice that was not tried; what Optuna proposes again is no trial of the search.

    Without a strength there are few choices, and the best one is proposed again and again: then one is drawn at
    random. Where hardly any is left, one is tried again.
    """
    from optuna.samplers import RandomSampler
    from optuna.trial import TrialState

    proposes = study.sampler
    try:
        for asked in range(_MOST_ASKED):
            trial = study.ask()
            choice = _chosen(trial, search)
            if choice not in tried or asked + 1 == _MOST_ASKED:
                break
            trial.set_user_attr(_REPEATED, value=True)
            study.tell(trial, state=TrialState.FAIL)
            study.sampler = RandomSampler(seed=trial.number)
    finally:
        study.sampler = proposes
    return trial, choice


def _chosen(trial: optuna.Trial, search: Search) -> Choice:
    """Let Optuna choose, and keep what it chose in the trial."""
    mask = trial.suggest_categorical("mask", search.masks)
    choice = Choice(
        cut=trial.suggest_categorical("cut", search.cuts),
        mask=mask,
        strength=trial.suggest_float("strength", search.weakest, search.strongest, log=True)
        if has_strength(mask)
        else 0.0,
        kept_channels=trial.suggest_categorical("kept_channels", search.kept_channels),
        crossing_channels=trial.suggest_categorical("crossing_channels", search.crossing_channels),
        penalty=trial.suggest_categorical("penalty", search.penalties),
    )
    trial.set_user_attr("choice", asdict(choice))
    return choice


def _tell(study: optuna.Study, trial: optuna.Trial, found: Found | Dropped, out: Path) -> str:
    """Tell Optuna what a trial found, keep its model, and return a line on it."""
    from optuna.trial import TrialState

    if isinstance(found, Dropped):
        trial.set_user_attr("reason", found.reason)
        study.tell(trial, state=TrialState.PRUNED if found.given_up else TrialState.FAIL)
        return f"trial {trial.number}: {found.reason}"
    write_atomic(out / "trials" / f"{trial.number}.onnx", found.onnx)
    trial.set_user_attr("found", found.figures())
    highest = max(found.leakage.values())
    study.tell(trial, [highest, found.accuracy, float(found.flops), float(found.size_bytes)])
    return f"trial {trial.number}: leakage {highest:.2f}, accuracy {found.accuracy:.3f}"


def _opened(out: Path, search: Search, model: Model, data: Data) -> optuna.Study:
    """Open the folder's study, give up the trials that a killed search left, and check that it is the same search."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=_NAME,
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(out / _JOURNAL))),
        directions=_DIRECTIONS,
        load_if_exists=True,
    )
    described = {"model": model.sha256, "data": data.sha256(), **{k: repr(v) for k, v in asdict(search).items()}}
    held = study.user_attrs.get("search")
    if held is None:
        study.set_user_attr("search", described)
        for choice in corners(search):
            study.enqueue_trial({name: value for name, value in asdict(choice).items() if value or name != "strength"})
    else:
        for name, value in described.items():
            if held.get(name) != value:
                raise TuneError(
                    f"folder {out}: it holds another search: {name} is {held.get(name)} there and {value} here; "
                    "name another folder"
                )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    # A search that goes on draws other numbers than it began with.
    seed = search.seed * 100_003 + len(study.get_trials(deepcopy=False))
    starts = len(corners(search))
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=starts, constant_liar=True)
    return study


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that were run, however they ended."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not trial.user_attrs.get(_REPEATED)
    ]


def _tuning(study: optuna.Study, model: Model, original: float, limits: Limits) -> Tuning:
    from optuna.trial import TrialState

    ended = _ended(study)
    done = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    dropped = {
        state: {
            trial.number: str(trial.user_attrs.get("reason", "interrupted")) for trial in ended if trial.state == state
        }
        for state in (TrialState.FAIL, TrialState.PRUNED)
    }
    if not done:
        reason = next((why for kind in dropped.values() for why in kind.values()), "there was none")
        raise TuneError(f"no trial was carried through; the first failed so: {reason}")
    front = _front(done)
    points = []
    for trial in done:
        figures = {**trial.user_attrs["choice"], **trial.user_attrs["found"]}
        lost = 100 * (original - figures["accuracy"])
        within = max(limits.multiples(figures["leakage"], lost).values()) <= 1
        points.append(
            Point(number=trial.number, lost_points=lost, on_front=trial.number in front, within=within, **figures)
        )
    points.sort(key=lambda point: max(point.leakage.values()))
    return Tuning(
        model_sha256=model.sha256,
        accuracy_original=original,
        limits=asdict(limits),
        points=tuple(points),
        failed=dropped[TrialState.FAIL],
        given_up=dropped[TrialState.PRUNED],
    )


def _front(done: Sequence[optuna.trial.FrozenTrial]) -> set[int]:
    """Return the numbers of the trials than which no other is as good in all four figures, and better in one.

    Optuna's own front leaves out what is beyond the limits.
    """
    signs = [1 if direction == "minimize" else -1 for direction in _DIRECTIONS]
    costs = np.array([trial.values for trial in done]) * signs
    beaten = [bool(((costs <= mine).all(axis=1) & (costs < mine).any(axis=1)).any()) for mine in costs]
    return {trial.number for trial, is_beaten in zip(done, beaten, strict=True) if not is_beaten}
