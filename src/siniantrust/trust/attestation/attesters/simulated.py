"""Evidence without hardware: it shows that the pieces fit, and proves nothing against the host, which can write it."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

from siniantrust.trust._evidence import Evidence
from siniantrust.trust._labels import Provenance
from siniantrust.trust._sealing import DerivedSealing, Sealing
from siniantrust.trust._simulated_platform import simulated_platform_secret
from siniantrust.trust.attestation._roles import EvidenceBundle

PROVIDER = "service"
_LIBRARIES = ("cryptography", "numpy", "onnxruntime")


def package_measurement() -> str:
    """Return the SHA-256, in hexadecimal, of this package's sources and the versions of what they run on."""
    source = Path(__file__).resolve().parents[3]
    whole = {
        "code": {
            path.relative_to(source).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in source.rglob("*.py")
        },
        "versions": {name: version(name) for name in _LIBRARIES} | {"python": sys.version},
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


class SimulatedAttester:
    """States a measurement, signed by nobody.

    Args:
        measurement: what to state; None for ``package_measurement``.
    """

    kind = "simulated"

    def __init__(self, measurement: str | None = None) -> None:
        self._measurement = measurement or package_measurement()

    def evidence(self, binding: bytes) -> EvidenceBundle:
        """Return a statement that carries ``binding``; nonce and key are in the binding only."""
        statement = Evidence(
            provider=PROVIDER,
            provenance=Provenance.SIMULATED,
            nonce=b"",
            enclave_public_key=b"",
            report_data=binding,
            measurement=self._measurement,
        )
        return EvidenceBundle(kind=self.kind, body=statement.to_json())

    def sealing(self) -> Sealing:
        """Return sealing under a secret of this machine's that its owner can read; see ``SealingPlatform``."""
        return DerivedSealing(simulated_platform_secret(), measurement=self._measurement)
