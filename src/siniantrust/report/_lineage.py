"""How the planned model came to be: trainings and a search, each bound to it by SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siniantrust._files import sha256_bytes
from siniantrust.report._read import ReportError, read_record
from siniantrust.report._training_input import CloudRead, EdgeRead, RetrainingRead, TrainingRead
from siniantrust.report._tune_input import PointRead, TuningRead


@dataclass(frozen=True)
class Lineage:
    """What led to the planned model. ``chosen`` is the search's trial that it comes from, where it is one of them.

    ``files`` are (name, SHA-256) of what was read.
    """

    trainings: tuple[RetrainingRead | EdgeRead | CloudRead, ...] = ()
    tuning: TuningRead | None = None
    chosen: PointRead | None = None
    files: tuple[tuple[str, str], ...] = ()


def load_lineage(trainings: Sequence[Path], tune: Path | None, *, plan: Path, model_sha256: str) -> Lineage:
    """Read every training.json and a search's tune.json; check that they lead to the plan's model.

    A training must end in the plan's model, or in the one that another re-training began from. A search must have begun
    from one of these models, or have one of them as a trial.

    Raises:
        ReportError: if one cannot be read, is malformed, or leads to another model.
    """
    files, found = [], []
    for path in trainings:
        record, data = read_record(path, TrainingRead, kind="training", error=ReportError)
        found.append(record.root)
        files.append((source_name(path), sha256_bytes(data)))
    models = {model_sha256}
    for _ in found:
        models |= {
            each.model_sha256 for each in found if isinstance(each, RetrainingRead) and each.trained_sha256 in models
        }
    for path, each in zip(trainings, found, strict=True):
        if each.trained_sha256 not in models:
            raise ReportError(
                f"training {path}: expected one that ends in the model of {plan} (SHA-256 {model_sha256[:16]}…), found "
                f"one that ends in {each.trained_sha256[:16]}…; give files that were made from one model"
            )
    if tune is None:
        return Lineage(trainings=tuple(found), files=tuple(files))
    path = tune / "tune.json"
    tuning, data = read_record(path, TuningRead, kind="search", error=ReportError)
    files.append((source_name(path), sha256_bytes(data)))
    chosen = next((point for point in tuning.points if point.model_sha256 in models), None)
    if chosen is None and tuning.model_sha256 not in models:
        raise ReportError(
            f"search {path}: expected one of the model of {plan} (SHA-256 {model_sha256[:16]}…) or with it among its "
            f"trials, found one of {tuning.model_sha256[:16]}…; if a trial was trained further, give that training too"
        )
    return Lineage(trainings=tuple(found), tuning=tuning, chosen=chosen, files=tuple(files))


def source_name(path: Path) -> str:
    """Return a file's name with its folder's, since several are called alike."""
    return str(Path(path.parent.name) / path.name)
