"""Checkpoints of one side: the last two, each whole and for one run only."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from siniantrust.collab._checked_file import read_checked, write_checked
from siniantrust.collab._errors import CollabError

_KEPT = 2


class Checkpoints:
    """What one side of a run can go back to.

    A side is never more than one checkpoint ahead of another one, so that two are enough to have one in common.

    Args:
        folder: where they lie.
        agreement: the run's SHA-256.
    """

    def __init__(self, folder: Path, agreement: str) -> None:
        self._folder = folder
        self._agreement = agreement

    def steps(self) -> list[int]:
        """Return the steps that there are checkpoints of, ascending."""
        return sorted(int(path.stem) for path in self._folder.glob("*.checkpoint"))

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint; it is on the disk when this returns, and older ones but the last are gone.

        Raises:
            OSError: if it cannot be written; the older ones are still there then.
        """
        buffer = io.BytesIO()
        torch.save({"agreement": self._agreement, "step": step, "state": state}, buffer)
        write_checked(self._path(step), buffer.getvalue())
        for old in self.steps()[:-_KEPT]:
            self._path(old).unlink()

    def load(self, step: int) -> dict[str, Any]:
        """Return the state at ``step`` and forget the later ones, which are to be computed again.

        Raises:
            CollabError: if it is damaged, or of another run.
        """
        path = self._path(step)
        found = torch.load(io.BytesIO(read_checked(path)), weights_only=True)
        if found["agreement"] != self._agreement:
            raise CollabError(
                f"checkpoint {path}: it is of another run ({found['agreement'][:16]}…, this one is "
                f"{self._agreement[:16]}…); give this run a folder of its own"
            )
        if found["step"] != step:
            raise CollabError(f"checkpoint {path}: it is of step {found['step']}, not {step}")
        for later in self.steps():
            if later > step:
                self._path(later).unlink()
        state: dict[str, Any] = found["state"]
        return state

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:09d}.checkpoint"
