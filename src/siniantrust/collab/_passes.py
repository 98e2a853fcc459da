"""How often an item's values may have left in split learning: what the accounting of noise rests on."""

from __future__ import annotations

import json
from pathlib import Path

from siniantrust._files import write_atomic

_FILE = "passes.json"


class Passes:
    """Counts an item's passes: one for each epoch, and one for each epoch that a step done once more is in.

    A step that is repeated exactly sends nothing new. Whether it was is not known after a kill, so that each repetition
    counts; what the cloud asks for in excess is in the epsilon.

    Args:
        folder: the edge's folder, where repetitions are kept.
        per_epoch: steps in which every item takes part once at most.
    """

    def __init__(self, folder: Path, *, per_epoch: int) -> None:
        self._path = folder / _FILE
        self._per_epoch = per_epoch
        self.is_first_start = not self._path.exists()
        self._repeated: int = 0 if self.is_first_start else json.loads(self._path.read_text())

    def repeat(self, step: int, reached: int) -> None:
        """Note, before anything leaves, that the steps behind ``step`` up to ``reached`` may be done once more."""
        if reached > step:
            self._repeated += (reached - 1) // self._per_epoch - step // self._per_epoch + 1
        write_atomic(self._path, json.dumps(self._repeated).encode())

    def total(self, steps: int) -> int:
        """Return the passes of a run of ``steps``, at most."""
        return -(-steps // self._per_epoch) + self._repeated
