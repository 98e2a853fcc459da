"""Evidence of an SGX enclave through Gramine's pseudo-files: write ``user_report_data``, read ``quote``.

Untested on hardware: the protocol was written from Gramine's documentation and tested against files that behave so.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

from siniantrust.errors import AttestationError
from siniantrust.trust._sealing import DerivedSealing, Sealing
from siniantrust.trust.attestation._roles import BINDING_BYTES, EvidenceBundle

ROOT = Path("/dev/attestation")
KEY_BYTES = 16
# In an ECDSA quote (version 3): 48 bytes of header, then the enclave's report, whose last 64 bytes are its report data.
_REPORT_DATA = slice(48 + 320, 48 + 384)
# The processor's sealing key for MRENCLAVE (EGETKEY), by Gramine's name for it.
_SEALING_KEY = "keys/_sgx_mrenclave"
_KEY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class GramineAttester:
    """Asks Gramine for quotes. The files are the enclave's own; one lock keeps its threads apart.

    Args:
        root: the pseudo-files' directory.

    Raises:
        AttestationError: if this does not run in Gramine with DCAP attestation.
    """

    kind = "sgx"

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._lock = threading.Lock()
        found = self._read("attestation_type").strip().decode("ascii", "replace")
        if found != "dcap":
            raise AttestationError(
                f"{root}: expected attestation type dcap, found {found[:40]!r}; "
                'write sgx.remote_attestation = "dcap" in the manifest'
            )

    def evidence(self, binding: bytes) -> EvidenceBundle:
        """Return a fresh quote that carries ``binding``.

        Raises:
            AttestationError: if Gramine gives none, or one that carries something else.
        """
        if len(binding) != BINDING_BYTES:
            raise AttestationError(f"{self._root}: expected {BINDING_BYTES} bytes to bind, found {len(binding)}")
        with self._lock:
            self._write("user_report_data", binding)
            quote = self._read("quote")
        if quote[_REPORT_DATA] != binding:
            raise AttestationError(
                f"{self._root}: the quote carries other report data than was written; another thread or library of "
                "this enclave wrote its own meanwhile"
            )
        return EvidenceBundle(kind=self.kind, body=quote)

    def sealing(self) -> Sealing:
        """Return sealing under the processor's key for this MRENCLAVE; see ``SealingPlatform``.

        Raises:
            AttestationError: if Gramine gives no such key.
        """
        key = self._read(_SEALING_KEY)
        if len(key) != KEY_BYTES:
            raise AttestationError(
                f"{self._root / _SEALING_KEY}: expected a key of {KEY_BYTES} bytes, found {len(key)}"
            )
        return DerivedSealing(key, measurement="")

    def provision(self, name: str, key: bytes) -> None:
        """Give Gramine the key of its encrypted files that name ``key_name = name``.

        Raises:
            AttestationError: if the name or the key is none of Gramine's, or it refuses.
        """
        if not _KEY_NAME.fullmatch(name) or len(key) != KEY_BYTES:
            raise AttestationError(
                f"{self._root}: expected a key of {KEY_BYTES} bytes with a name of a-z, 0-9, _ and -, "
                f"found {len(key)} bytes for {name[:40]!r}"
            )
        self._write(f"keys/{name}", key)

    def _read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except OSError as fault:
            raise AttestationError(
                f"{self._root / name}: cannot be read ({fault.strerror}); this needs an enclave of Gramine"
            ) from None

    def _write(self, name: str, data: bytes) -> None:
        try:
            (self._root / name).write_bytes(data)
        except OSError as fault:
            raise AttestationError(f"{self._root / name}: cannot be written ({fault.strerror})") from None
