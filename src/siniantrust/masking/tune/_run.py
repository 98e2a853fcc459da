"""The search: trials in processes of their own, kept in Optuna's journal, so that a killed search goes on."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from siniantrust._extras import require
from siniantrust._files import sole_user, write_atomic
from siniantrust._progress import progress
from siniantrust.errors import SinianError
from siniantrust.graph import Model
from siniantrust.leakage import Data
from siniantrust.masking.tune._record import Point, Tuning
from siniantrust.masking.tune._search import NO_MASK, Limits, Search, TuneError
from siniantrust.masking.tune._trial import Choice, Found, attempt

if TYPE_CHECKING:
    import optuna

_JOURNAL = "study.journal"
_NAME = "tune"
_REIDENTIFICATION = "reidentification"
# Of the most leakage, accuracy, FLOPs and bytes, in this order.
_DIRECTIONS: tuple[Literal["minimize", "maximize"], ...] = ("minimize", "maximize", "minimize", "minimize")

_shared: dict[str, Any] = {}


def tune(
    model: Model,
    data: Data,
    search: Search,
    *,
    trials: int,
    out: Path,
    limits: Limits | None = None,
    workers: int = 1,
) -> Tuning:
    """Try ``trials`` compositions in all, those that the folder already holds included, and return what was found.

    Optuna proposes them (multi-objective TPE; Ozaki et al. 2022) by the highest leakage, the accuracy on held-out
    items, Part 1's FLOPs and the bytes that cross. A quick audit overlooks what a stronger attacker finds: what is
    chosen from the front has to be audited with the whole suite before it is used.

    Args:
        model: The model as it is, which every trial is trained to answer like.
        data: As for an audit, with labels; accuracy and leakage are of its held-out items.
        search: What to choose among.
        trials: How many trials the folder is to hold in the end, failed ones included.
        out: Folder of the search. The same call goes on in it.
        limits: What a point is to keep to; it is only said of each whether it does.
        workers: Trials that run beside each other, each on one thread.

    Raises:
        TuneError: if there are no labels, the folder holds another search or is in use, or no trial was carried
            through.
        MissingExtraError: if optuna or torch is not installed.
    """
    require("optuna", extra="tune")
    require("torch", extra="leakage")
    if data.labels is None:
        raise TuneError("data: a search needs labels, to say what accuracy a mask costs")
    if trials < 1 or workers < 1:
        raise TuneError(f"search: expected at least one trial and one worker, found {trials} and {workers}")
    (out / "trials").mkdir(parents=True, exist_ok=True)
    refusal = TuneError(f"folder {out}: another search is running in it; wait for it, or name another folder")
    with sole_user(out, refusal):
        study = _opened(out, search, model, data)
        left = trials - len(study.get_trials(deepcopy=False))
        context = multiprocessing.get_context("spawn")
        with (
            progress("trials", max(left, 0)) as step,
            ProcessPoolExecutor(workers, context, _prepare, (model, data, search, out)) as pool,
        ):
            first = trials - max(left, 0)
            try:
                for done in as_completed([pool.submit(_one, first + index) for index in range(max(left, 0))]):
                    step(done.result())
            except BrokenProcessPool:
                raise TuneError(f"folder {out}: a worker died (out of memory?); start again to go on") from None
        return _tuning(_study(out), model, limits or Limits())


def _study(out: Path, seed: int = 0) -> optuna.Study:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=_NAME,
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(out / _JOURNAL))),
        directions=_DIRECTIONS,
        sampler=optuna.samplers.TPESampler(seed=seed),
        load_if_exists=True,
    )


def _opened(out: Path, search: Search, model: Model, data: Data) -> optuna.Study:
    """Open the folder's study, give up the trials that a killed search left, and check that it is the same search."""
    import optuna

    study = _study(out)
    described = {"model": model.sha256, "data": data.sha256(), **{k: repr(v) for k, v in asdict(search).items()}}
    held = study.user_attrs.get("search")
    if held is None:
        study.set_user_attr("search", described)
    else:
        for name, value in described.items():
            if held.get(name) != value:
                raise TuneError(
                    f"folder {out}: it holds another search: {name} is {held.get(name)} there and {value} here; "
                    "name another folder"
                )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _prepare(model: Model, data: Data, search: Search, out: Path) -> None:
    """Set up a worker."""
    import torch

    torch.set_num_threads(1)
    _shared.update(model=model, data=data, search=search, out=out)


def _one(index: int) -> str:
    """Run one trial in a worker and return a line on it."""
    from optuna.trial import TrialState

    search: Search = _shared["search"]
    study = _study(_shared["out"], seed=search.seed * 100_003 + index)
    trial = study.ask()
    try:
        found = _attempted(trial, search)
    except SinianError as error:
        trial.set_user_attr("failed", str(error))
        study.tell(trial, state=TrialState.FAIL)
        return f"trial {trial.number}: {error}"
    write_atomic(_shared["out"] / "trials" / f"{trial.number}.onnx", found.proto.SerializeToString(deterministic=True))
    highest = max(found.leakage.values())
    study.tell(trial, [highest, found.accuracy, float(found.flops), float(found.size_bytes)])
    return f"trial {trial.number}: leakage {highest:.2f}, accuracy {found.accuracy:.3f}"


def _attempted(trial: optuna.Trial, search: Search) -> Found:
    """Let Optuna choose, try it, and keep all that was found in the trial."""
    mask = trial.suggest_categorical("mask", search.masks)
    choice = Choice(
        cut=trial.suggest_categorical("cut", search.cuts),
        mask=mask,
        strength=0.0
        if mask == NO_MASK
        else trial.suggest_float("strength", search.weakest, search.strongest, log=True),
        kept_channels=trial.suggest_categorical("kept_channels", search.kept_channels),
        crossing_channels=trial.suggest_categorical("crossing_channels", search.crossing_channels),
    )
    with TemporaryDirectory(prefix="sinian-tune-") as folder:
        found = attempt(_shared["model"], _shared["data"], search, choice, Path(folder))
    trial.set_user_attr("found", asdict(choice) | found.figures())
    return found


def _tuning(study: optuna.Study, model: Model, limits: Limits) -> Tuning:
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.values is not None]
    failed = {
        trial.number: str(trial.user_attrs.get("failed", "interrupted"))
        for trial in study.get_trials(deepcopy=False)
        if trial.values is None
    }
    if not done:
        reason = next(iter(failed.values()), "there was none")
        raise TuneError(f"no trial was carried through; the first failed so: {reason}")
    front = {trial.number for trial in study.best_trials}
    original = float(done[0].user_attrs["found"]["accuracy_original"])
    points = []
    for trial in done:
        found = dict(trial.user_attrs["found"])
        lost = 100 * (found.pop("accuracy_original") - found["accuracy"])
        others = [value for name, value in found["leakage"].items() if name != _REIDENTIFICATION]
        within = (
            max(others, default=0.0) <= limits.leakage
            and found["leakage"].get(_REIDENTIFICATION, 0.0) <= limits.reidentification
            and lost <= limits.lost_points
        )
        points.append(
            Point(number=trial.number, lost_points=lost, on_front=trial.number in front, within=within, **found)
        )
    points.sort(key=lambda point: max(point.leakage.values()))
    return Tuning(model.sha256, original, asdict(limits), tuple(points), failed)
