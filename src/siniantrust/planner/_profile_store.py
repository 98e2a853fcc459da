"""Profiles kept on disk: a device is measured once for a model, until the device or its software changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from siniantrust._files import sha256_bytes, write_atomic
from siniantrust.odla import DeviceInfo, DeviceSpec
from siniantrust.planner._costs import DeviceProfile

# How profiles are measured; a profile of another number does not hold.
_VERSION = 3


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    version: int
    identity: str
    day: str
    profile: dict[str, Any]


class ProfileStore:
    """A folder of profiles, one file for each model and device of the policy.

    A device's identity (hardware, versions, options) is kept with its profile. A profile of another identity is out of
    date: it is measured anew, and the new one says what it replaces. So is a file that cannot be read.
    """

    def __init__(self, folder: Path | None, *, measure_again: bool = False) -> None:
        """Keep profiles in ``folder``; None keeps nothing. With ``measure_again`` those in it only get replaced."""
        self._folder = folder
        self._measure_again = measure_again

    def get(self, model_sha256: str, spec: DeviceSpec, info: DeviceInfo) -> tuple[DeviceProfile | None, str]:
        """Return the profile of a model on a device if one holds, and else why one that is kept does not."""
        path = self._path(model_sha256, spec)
        if path is None or self._measure_again or not path.exists():
            return None, ""
        try:
            kept = _Kept.model_validate_json(path.read_bytes())
            if kept.version != _VERSION:
                return None, _outdated(kept, f"it has version {kept.version}, {_VERSION} is read")
            if kept.identity != info.identity:
                return None, _outdated(kept, f"it was measured on {kept.identity}, and this is {info.identity}")
            found = DeviceProfile.model_validate(kept.profile)
        except (OSError, ValidationError):
            return None, f"measured anew, since the profile kept in {path.name} is damaged"
        return found.noted(f"measured on {kept.day}"), ""

    def put(self, model_sha256: str, spec: DeviceSpec, info: DeviceInfo, found: DeviceProfile) -> None:
        """Keep a profile."""
        path = self._path(model_sha256, spec)
        if path is not None:
            day = datetime.now(UTC).date().isoformat()
            kept = _Kept(version=_VERSION, identity=info.identity, day=day, profile=found.model_dump())
            write_atomic(path, kept.model_dump_json().encode(), mode=0o600)

    def _path(self, model_sha256: str, spec: DeviceSpec) -> Path | None:
        """Return the file of a model on a device, whatever the policy calls it."""
        if self._folder is None:
            return None
        key = json.dumps([model_sha256, spec.backend, sorted(spec.options.items())])
        return self._folder / f"{sha256_bytes(key.encode())}.json"


def _outdated(kept: _Kept, reason: str) -> str:
    return f"measured anew, since the profile of {kept.day} is out of date: {reason}"
