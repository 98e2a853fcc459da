"""What both sides must agree on before anything is sent: a JSON object and its SHA-256."""

from __future__ import annotations

import json
from dataclasses import dataclass

from siniantrust._files import sha256_bytes
from siniantrust.collab._config import TrainingSection
from siniantrust.collab._errors import RefusedError
from siniantrust.collab._task import Task, digests_of, shapes_of

_VERSION = 3
_MAX_CHARACTERS = 10_000
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Agreement:
    """Names and values, in a form that has one spelling."""

    text: str

    @property
    def sha256(self) -> str:
        """What identifies the run: checkpoints and features carry it."""
        return sha256_bytes(self.text.encode())


def agreement_of(training: TrainingSection, task: Task) -> Agreement:
    """Return what one side knows of the run; nothing in it depends on where files lie."""
    terms = training.model_dump(mode="json", exclude={"model"})
    terms |= {
        "protocol": _VERSION,
        "model": task.source_sha256,
        "parts": digests_of(task),
        "shapes": shapes_of(task),
        "mask": task.mask_sha256,
    }
    return Agreement(json.dumps(terms, sort_keys=True))


def require_agreement(own: Agreement, text: str, sha256: str, *, edge: str) -> None:
    """Compare an edge's agreement with the cloud's own.

    Raises:
        RefusedError: naming what they differ in, with both values.
    """
    if len(text) > _MAX_CHARACTERS or sha256_bytes(text.encode()) != sha256:
        raise RefusedError(f"edge '{edge}': its agreement is not what its SHA-256 says")
    if text == own.text:
        return
    try:
        theirs = json.loads(text)
    except (ValueError, RecursionError):
        theirs = None
    if not isinstance(theirs, dict):
        raise RefusedError(f"edge '{edge}': its agreement is no JSON object")
    mine = json.loads(own.text)
    odd = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    # What the model is explains why its parts differ.
    first = next((name for name in ("protocol", "model", "mask", *odd) if name in odd), "its form")
    raise RefusedError(
        f"edge '{edge}' disagrees on {first[:40]}: the cloud has {_shown(mine.get(first))}, "
        f"the edge has {_shown(theirs.get(first))}; give both the same [training] and [mask]"
    )


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
