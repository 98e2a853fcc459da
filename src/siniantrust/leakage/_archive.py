"""Arrays and a record in one file, written whole or not at all, and not believed if damaged."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from siniantrust._files import write_atomic

_RECORD = "record"


def write_archive(path: Path, record: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays`` and a record that JSON can hold, for their owner's eyes only."""
    stream = io.BytesIO()
    text = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
    np.savez_compressed(stream, allow_pickle=False, **{_RECORD: text}, **arrays)
    write_atomic(path, stream.getvalue(), mode=0o600)


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Return record and arrays; None if the file is not there or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = dict(archive)
        return json.loads(bytes(arrays.pop(_RECORD)).decode()), arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
