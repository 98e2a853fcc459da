"""Finished pieces of an audit on disk, so that one that was killed goes on where it stopped.

The folder's name is a hash over everything that the pieces depend on: model, data, seed, budget and this package's own
code. What lies there is as private as the data, so that only its owner may read it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from siniantrust._files import sha256_bytes, write_atomic
from siniantrust.leakage._archive import read_archive, write_archive
from siniantrust.leakage._climb import Trial
from siniantrust.leakage._metrics import Metric, Scores
from siniantrust.leakage._schema import Rung, ScreenResult

_KEPT_BYTES = 20 << 30
_SCREENS = TypeAdapter(dict[str, ScreenResult])
_RUNGS = TypeAdapter(tuple[Rung, ...])


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of finished pieces; a piece that cannot be read counts as not there."""

    folder: Path

    @property
    def features(self) -> Path:
        """Where the features of one answer per item lie."""
        return self.folder / "features"

    @property
    def averaged(self) -> Path:
        """Where the mean features of several answers per item lie."""
        return self.folder / "averaged"

    def screens(self, key: str) -> dict[str, ScreenResult] | None:
        """Return the screens' results kept under ``key``."""
        try:
            return _SCREENS.validate_json(self._path("screens", key, "json").read_bytes())
        except (OSError, ValueError):
            return None

    def put_screens(self, key: str, results: Mapping[str, ScreenResult]) -> None:
        """Keep the screens' results."""
        write_atomic(self._path("screens", key, "json"), _SCREENS.dump_json(dict(results)), mode=0o600)

    def trial(self, key: str) -> Trial | None:
        """Return the trial kept under ``key``."""
        found = read_archive(self._path("trials", key, "npz"))
        if found is None:
            return None
        record, arrays = found
        scores: dict[Metric, Scores] = {
            metric: Scores(arrays[f"score {metric}"], perfect) for metric, perfect in record["perfect"].items()
        }
        return Trial(
            attack=record["attack"],
            seed=record["seed"],
            scores=scores,
            rungs=_RUNGS.validate_python(record["rungs"]),
            moves=record["moves"],
            next_budget=record["next_budget"],
            shown=arrays.get("shown"),
            leakiest=arrays.get("leakiest"),
            leakiest_rows=arrays.get("leakiest_rows"),
            detail=record["detail"],
            time_s=record["time_s"],
            declined=record["declined"],
        )

    def put_trial(self, key: str, trial: Trial) -> None:
        """Keep a trial."""
        record = {
            "attack": trial.attack,
            "seed": trial.seed,
            "perfect": {metric: scores.perfect for metric, scores in trial.scores.items()},
            "rungs": _RUNGS.dump_python(trial.rungs, mode="json"),
            "moves": dict(trial.moves),
            "next_budget": dict(trial.next_budget),
            "detail": trial.detail,
            "time_s": trial.time_s,
            "declined": trial.declined,
        }
        arrays = {f"score {metric}": scores.values for metric, scores in trial.scores.items()}
        pictures = {"shown": trial.shown, "leakiest": trial.leakiest, "leakiest_rows": trial.leakiest_rows}
        arrays |= {name: values for name, values in pictures.items() if values is not None}
        write_archive(self._path("trials", key, "npz"), record, arrays)

    def _path(self, kind: str, key: str, suffix: str) -> Path:
        return self.folder / kind / f"{sha256_bytes(key.encode())[:32]}.{suffix}"


def open_store(cache_folder: Path, content: Mapping[str, object]) -> Store:
    """Return the store in ``cache_folder`` for what depends on ``content``; make room by dropping the oldest others.

    Raises:
        OSError: if the folder cannot be made.
    """
    text = json.dumps({**content, "code": code_sha256()}, sort_keys=True)
    folder = cache_folder / sha256_bytes(text.encode())[:32]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    folder.touch()
    _prune(cache_folder, keep=folder)
    return Store(folder)


@cache
def code_sha256() -> str:
    """Return a hash over this package's own code: results of other attacks must not pass for these."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in (*sorted(root.rglob("*.py")), *sorted((root.parent / "odla" / "torch_graph").rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _prune(cache_folder: Path, *, keep: Path) -> None:
    others = [path for path in cache_folder.iterdir() if path.is_dir() and path != keep]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in (keep, *others):
        total += sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
        if total > _KEPT_BYTES and path != keep:
            shutil.rmtree(path, ignore_errors=True)
