"""Refusing old bundles: for each lineage, the newest version that was opened, in a file or in a TPM.

A bundle's version and lineage stand in its signed manifest. Whoever opens it counts up to its version *before* the
weight key leaves the key store: a program killed in between may have retired older versions without having used this
one, never the other way round, and this one opens again.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from siniantrust._files import write_atomic
from siniantrust.bundle._keys import KeyStore
from siniantrust.bundle._manifest import LINEAGE
from siniantrust.errors import TrustError
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import Reference
from siniantrust.trust.attestation.tpm2 import (
    CounterPlace,
    FileCounter,
    Tpm,
    TpmCounter,
    admit_version,
    parse_public,
    set_up_counter,
)

_FOLDER = "versions"


class _TpmRecord(BaseModel):
    """A ``CounterPlace`` at rest; without it, what a TPM says of its counter is not believed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    index: int
    base: int
    ak: str


def default_lineage(model_name: str) -> str:
    """Return the lineage of a model's bundles, unless their builder names another."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", model_name).lstrip("._-")[:100] or "model"


def newest_version(keystore: KeyStore, lineage: str) -> int:
    """Return the newest version of a lineage that was opened with this key store; 0 for none.

    Raises:
        TrustError: if the lineage is no name, or the record holds something else than a number.
    """
    return FileCounter(_path(keystore, lineage, "newest")).value()


def admit(keystore: KeyStore, *, lineage: str, version: int, tpm: str | None = None) -> None:
    """Admit a bundle that is about to be used, and remember its version.

    Args:
        keystore: where the versions that were opened are recorded.
        lineage: the bundle's, from its signed manifest.
        version: as above.
        tpm: where the TPM is whose counter decides as well; None for the record alone, which is as strong as the file
            system that it lies on.

    Raises:
        TrustError: if a newer version was admitted before, or the TPM's counter was not set up.
    """
    name = f"bundle, lineage {lineage}"
    with _exclusive(keystore):
        if tpm is not None:
            place = _read_place(_path(keystore, lineage, "tpm"), lineage)
            with Tpm(tpm) as connection:
                admit_version(TpmCounter(connection, ak=place.ak, base=place.base, index=place.index), version, name)
        admit_version(FileCounter(_path(keystore, lineage, "newest")), version, name)


def set_up_tpm(
    keystore: KeyStore, *, lineage: str, where: str, reference: Reference, now: datetime | None = None
) -> Provenance:
    """Make a counter for a lineage in a TPM, which goes on from the newest version in the key store's record.

    Args:
        keystore: of whoever opens the bundles.
        lineage: whose versions are counted.
        where: as for ``Tpm``.
        reference: of kind ``tpm2``: anchors, one of which has to vouch for the TPM, and what it may be.
        now: time of the check; None for now.

    Returns:
        What the anchor says that the TPM is.

    Raises:
        TrustError: if there is a counter already, or no room for one in the TPM.
        AttestationError: if no anchor vouches for the TPM, or it is nothing that the reference accepts.
    """
    path = _path(keystore, lineage, "tpm")
    with _exclusive(keystore), Tpm(where) as tpm:
        if path.exists():
            raise TrustError(f"{path}: {lineage} has a counter in a TPM already; to give it up, remove this file")
        place, provenance = set_up_counter(
            tpm, version=newest_version(keystore, lineage), reference=reference, now=now or datetime.now(UTC)
        )
        record = _TpmRecord(index=place.index, base=place.base, ak=place.ak.encode().hex())
        write_atomic(path, record.model_dump_json().encode() + b"\n", mode=0o600)
    return provenance


def _read_place(path: Path, lineage: str) -> CounterPlace:
    try:
        record = _TpmRecord.model_validate_json(path.read_bytes())
        return CounterPlace(index=record.index, base=record.base, ak=parse_public(bytes.fromhex(record.ak)))
    except FileNotFoundError:
        raise TrustError(
            f"{path}: the policy asks for a TPM's counter, and {lineage} has none; set it up with: sinian counter"
        ) from None
    except (ValidationError, ValueError):
        raise TrustError(f"{path}: expected where the TPM's counter is, found something else; put it back") from None


def _path(keystore: KeyStore, lineage: str, kind: str) -> Path:
    if not re.fullmatch(LINEAGE, lineage):
        raise TrustError(
            f"lineage {lineage[:40]!r}: expected a name of letters, digits, '.', '_' and '-', at most 100 of them"
        )
    return keystore.path / _FOLDER / f"{lineage}.{kind}"


@contextmanager
def _exclusive(keystore: KeyStore) -> Iterator[None]:
    """Hold the records: two programs that open bundles at once come one after the other."""
    path = keystore.private_folder(_FOLDER) / "lock"
    try:
        with path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise TrustError(f"keystore {path.parent}: versions cannot be recorded ({error.strerror})") from None
