"""The broker's keys at rest: each sealed under the master key, together with what it is released for."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from siniantrust._files import folder_atomic, write_atomic
from siniantrust.errors import TrustError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation import ReferenceValues, reference_from_table, reference_to_table
from siniantrust.trust.broker._log import DecisionLog
from siniantrust.trust.tls import Identity

_MASTER = "master.key"
_IDENTITY = "identity.pem"
_KEYS = "keys"
_MASTER_BYTES = 32
_NONCE_BYTES = 12
_MAX_FILE_BYTES = 256 << 10
_MAX_KEY_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """A key, and to whom it may go.

    Attributes:
        key_id: its name; for a bundle's weight key, the bundle's id.
        lineage: name of what has versions, for example the model; all its versions share one counter.
        version: this one's, from 1.
        reference: what the evidence of an enclave must match.
        accept: where that evidence may come from.
        key: the key itself.
    """

    key_id: str
    lineage: str
    version: int
    reference: ReferenceValues
    accept: tuple[Provenance, ...]
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse names and numbers that no entry may have."""
        for name in (self.key_id, self.lineage):
            if not _NAME.fullmatch(name):
                raise TrustError(
                    f"key {name[:40]!r}: expected a name of letters, digits, '.', '_' and '-', at most 100 of them"
                )
        if self.version < 1:
            raise TrustError(f"key {self.key_id}: expected a version from 1, found {self.version}")
        if not 1 <= len(self.key) <= _MAX_KEY_BYTES:
            raise TrustError(f"key {self.key_id}: expected 1 to {_MAX_KEY_BYTES} bytes, found {len(self.key)}")


class Store:
    """A folder that only its owner may look into (mode 0700): master key, TLS identity, sealed keys and the log.

    Raises:
        TrustError: if it is not there, others may read it, or its log was tampered with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise TrustError(f"key broker {path}: there is no store; make one with: sinian keys init --store {path}")
        if mode := stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise TrustError(f"key broker {path}: others may look into it ({mode:04o}); run: chmod 700 {path}")
        master = _read_private(path / _MASTER)
        if len(master) != _MASTER_BYTES:
            raise TrustError(f"{path / _MASTER}: expected {_MASTER_BYTES} bytes, found {len(master)}")
        self._sealing = _derive(master, b"keys")
        self.identity = Identity.from_pem(_read_private(path / _IDENTITY), origin=str(path / _IDENTITY))
        self.log = DecisionLog(path, key=_derive(master, b"log"))

    @classmethod
    def create(cls, path: Path) -> Store:
        """Make a store with fresh keys.

        Raises:
            TrustError: if something is there already, or it cannot be written.
        """
        if path.exists():
            raise TrustError(f"key broker {path}: something is there already; choose another path")
        master = secrets.token_bytes(_MASTER_BYTES)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with folder_atomic(path) as folder:
                folder.chmod(0o700)
                write_atomic(folder / _MASTER, master, mode=0o600)
                write_atomic(folder / _IDENTITY, Identity.fresh().key_pem(), mode=0o600)
                (folder / _KEYS).mkdir(mode=0o700)
                DecisionLog.create(folder, key=_derive(master, b"log"))
        except OSError as fault:
            raise TrustError(f"key broker {path}: cannot be written ({fault.strerror})") from None
        return cls(path)

    def put(self, entry: KeyEntry) -> None:
        """Seal and keep a key."""
        about = _about(entry)
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + AESGCM(self._sealing).encrypt(nonce, entry.key, about)
        whole = {**json.loads(about), "sealed": sealed.hex()}
        write_atomic(self._key_path(entry.key_id), json.dumps(whole, sort_keys=True, indent=1).encode(), mode=0o600)

    def get(self, key_id: str) -> KeyEntry | None:
        """Return a key, or None if there is none of that name.

        Raises:
            TrustError: if its file was altered.
        """
        if not _NAME.fullmatch(key_id):
            return None
        path = self._key_path(key_id)
        return _open(path, _read_private(path), self._sealing) if path.exists() else None

    def key_ids(self) -> list[str]:
        """Return the names of all keys."""
        return sorted(path.stem for path in (self.path / _KEYS).glob("*.json"))

    def _key_path(self, key_id: str) -> Path:
        return self.path / _KEYS / f"{key_id}.json"


def _derive(master: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, b"siniantrust key broker " + purpose).derive(master)


def _about(entry: KeyEntry) -> bytes:
    """Return all of an entry but its key, in one form only."""
    about = {
        "key_id": entry.key_id,
        "lineage": entry.lineage,
        "version": entry.version,
        "reference": reference_to_table(entry.reference),
        "accept": [str(each) for each in entry.accept],
    }
    return json.dumps(about, sort_keys=True).encode()


def _open(path: Path, raw: bytes, sealing: bytes) -> KeyEntry:
    try:
        whole: Mapping[str, Any] = json.loads(raw)
        about = {name: value for name, value in whole.items() if name != "sealed"}
        sealed = bytes.fromhex(whole["sealed"])
        if sealed.hex() != whole["sealed"]:
            raise ValueError("its form")  # noqa: TRY301 - every fault takes the same exit below
        key = AESGCM(sealing).decrypt(
            sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], json.dumps(about, sort_keys=True).encode()
        )
        entry = KeyEntry(
            key_id=about["key_id"],
            lineage=about["lineage"],
            version=about["version"],
            reference=reference_from_table(about["reference"], origin=str(path)),
            accept=tuple(map(Provenance, about["accept"])),
            key=key,
        )
    except (InvalidTag, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TrustError(f"key {path}: it was altered, or sealed by another broker; refused") from None
    if path.stem != entry.key_id:
        raise TrustError(f"key {path}: it is the file of {entry.key_id}; refused")
    return entry


def _read_private(path: Path) -> bytes:
    """Read a small file through one handle, on which its mode is checked as well."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as fault:
        raise TrustError(f"{path}: cannot be read ({fault.strerror})") from None
    with os.fdopen(handle, "rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise TrustError(f"{path}: others may read it (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}")
        return stream.read(_MAX_FILE_BYTES)
