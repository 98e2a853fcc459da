"""Checkpoints: whole or not at all, read without running code from them, and of one run only."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from siniantrust._files import write_atomic
from siniantrust.masking.retrain._recipe import RetrainError

_FORMAT = 1


def save_checkpoint(path: Path, run: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write ``state`` of the run that ``run`` describes.

    Raises:
        RetrainError: if it cannot be written; a checkpoint that was there is still whole.
    """
    stream = io.BytesIO()
    torch.save({"format": _FORMAT, "run": dict(run), "state": dict(state)}, stream)
    try:
        write_atomic(path, stream.getvalue())
    except OSError as error:
        raise RetrainError(
            f"checkpoint {path}: cannot be written ({error.strerror or error}); the one before it, if any, is whole: "
            "make room and start again to go on from there"
        ) from error


def load_checkpoint(path: Path, run: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
    """Return the state that ``save_checkpoint`` wrote for the same run; None if there is no file.

    Raises:
        RetrainError: if the file is damaged, or of another run; what differs is named.
    """
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RetrainError(f"checkpoint {path}: cannot be read ({error.strerror or error})") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise RetrainError(f"checkpoint {path}: damaged, or no checkpoint; delete it to begin anew") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise RetrainError(f"checkpoint {path}: not of this version's format; delete it to begin anew")
    found, state = content["run"], content["state"]
    for name in sorted(run.keys() | found.keys()):
        if run.get(name) != found.get(name):
            raise RetrainError(
                f"checkpoint {path}: of another run: {name} is {found.get(name)} there and {run.get(name)} here; "
                "delete it, or name another file"
            )
    return dict(state)
