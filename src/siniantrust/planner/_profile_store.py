"""Profiles kept on disk: a device is measured once for a model, until the device or its software changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from siniantrust._files import sha256_bytes, write_atomic
from siniantrust.odla import NodeProfile

_VERSION = 1


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    latency_s: dict[str, float]
    total_s: float
    basis: str
    day: str


class ProfileStore:
    """A folder of profiles, one file each, named after a hash of model and device identity.

    A device's identity changes whenever a profile would no longer hold. A file that cannot be read is measured anew.
    """

    def __init__(self, folder: Path | None, *, measure_again: bool = False) -> None:
        """Keep profiles in ``folder``; None keeps nothing. With ``measure_again`` those in it only get replaced."""
        self._folder = folder
        self._measure_again = measure_again

    def get(self, model_sha256: str, identity: str) -> NodeProfile | None:
        """Return the profile of a model on a device, if it was measured before."""
        path = self._path(model_sha256, identity)
        if path is None or self._measure_again or not path.exists():
            return None
        try:
            kept = _Kept.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
        return NodeProfile(kept.latency_s, kept.total_s, f"{kept.basis}; measured on {kept.day}")

    def put(self, model_sha256: str, identity: str, found: NodeProfile) -> None:
        """Keep a profile."""
        path = self._path(model_sha256, identity)
        if path is not None:
            day = datetime.now(UTC).date().isoformat()
            kept = _Kept(latency_s=dict(found.latency_s), total_s=found.total_s, basis=found.basis, day=day)
            write_atomic(path, kept.model_dump_json().encode(), mode=0o600)

    def _path(self, model_sha256: str, identity: str) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{sha256_bytes(json.dumps([_VERSION, model_sha256, identity]).encode())}.json"
