"""Evidence of a confidential guest (Intel TDX, AMD SEV-SNP) through Linux's configfs-tsm report interface, Linux 6.7.

Untested on hardware: the protocol was written from the kernel's description in
``Documentation/ABI/testing/configfs-tsm``, and tested against files that behave so.
"""

from __future__ import annotations

import errno
import secrets
from pathlib import Path

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._roles import BINDING_BYTES, EvidenceBundle
from siniantrust.trust.attestation.attesters._snp_certificates import read_certificates

ROOT = Path("/sys/kernel/config/tsm/report")
_KINDS = {"tdx_guest": "tdx", "sev_guest": "sev-snp"}
_TRIES = 5
_BUSY = {errno.EAGAIN, errno.EBUSY, errno.EINTR}


class _ConflictError(Exception):
    """Somebody else used the entry meanwhile, or the platform is busy."""


class ConfigfsTsmAttester:
    """Asks the kernel for reports, through an entry of its own for each.

    Args:
        root: the interface's directory.

    Raises:
        AttestationError: if the kernel has no such interface, or a provider that is not known here.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        entry = self._make_entry()
        try:
            provider = self._text(entry / "provider")
        finally:
            entry.rmdir()
        if provider not in _KINDS:
            raise AttestationError(f"{root}: provider {provider[:40]!r} is not known; there are: {', '.join(_KINDS)}")
        self.kind = _KINDS[provider]

    def evidence(self, binding: bytes) -> EvidenceBundle:
        """Return a fresh report that carries ``binding``; on SEV-SNP with the certificates that the host hands out.

        Raises:
            AttestationError: if the kernel gives none, or the entry was used by somebody else each time.
        """
        if len(binding) != BINDING_BYTES:
            raise AttestationError(f"{self._root}: expected {BINDING_BYTES} bytes to bind, found {len(binding)}")
        entry = self._make_entry()
        try:
            for _ in range(_TRIES):
                try:
                    return self._report(entry, binding)
                except _ConflictError:
                    continue
        finally:
            entry.rmdir()
        raise AttestationError(f"{self._root}: no report in {_TRIES} tries; the platform is busy, try again later")

    def _make_entry(self) -> Path:
        entry = self._root / f"siniantrust-{secrets.token_hex(8)}"
        try:
            entry.mkdir()
        except OSError as fault:
            raise AttestationError(
                f"{self._root}: no report can be asked for ({fault.strerror}); this needs a confidential guest with "
                "Linux 6.7 or newer, configfs mounted, and root"
            ) from None
        return entry

    def _report(self, entry: Path, binding: bytes) -> EvidenceBundle:
        before = self._generation(entry)
        try:
            (entry / "inblob").write_bytes(binding)
            body = (entry / "outblob").read_bytes()
        except OSError as fault:
            if fault.errno in _BUSY:
                raise _ConflictError from None
            raise AttestationError(f"{self._root}: the kernel gives no report ({fault.strerror})") from None
        try:
            added = (entry / "auxblob").read_bytes()
        except OSError:  # a provider that adds nothing may lack the file, or refuse to read it
            added = b""
        # Each write counts one generation; were it not ours alone, the report could be of another writer's bytes.
        if self._generation(entry) != before + 1:
            raise _ConflictError
        if not body:
            raise AttestationError(f"{self._root}: the kernel gives an empty report")
        return EvidenceBundle(
            kind=self.kind, body=body, endorsements=read_certificates(added) if self.kind == "sev-snp" else {}
        )

    def _generation(self, entry: Path) -> int:
        text = self._text(entry / "generation")
        if not text.isdecimal():
            raise AttestationError(f"{self._root}: expected a number as generation, found {text[:40]!r}")
        return int(text)

    def _text(self, path: Path) -> str:
        try:
            return path.read_bytes().strip().decode("ascii", "replace")
        except OSError as fault:
            raise AttestationError(f"{path}: cannot be read ({fault.strerror})") from None
