"""What an application's evidence says, and what it is worth."""

from __future__ import annotations

import hashlib
import json

from siniantrust.trust.optee._cache import Machine

PROVIDER = "optee"
STATEMENT = (
    "emulated: QEMU plays ARM TrustZone, and this build of OP-TEE has no attestation key; the provider itself "
    "installed the application and says so, which proves nothing to a third party and nothing against the host"
)
PROTECTIONS = {
    "secure_world": "active",
    "application_signature": "missing: signed with the kit's test key, which everybody has",
    "attestation_key": "missing: not in this build of OP-TEE",
    "sealing_key": "missing: OP-TEE derives it from a constant, for want of a fuse; everybody can",
    "hardware": "missing: QEMU emulates it, and the host sees all of its memory",
}


def measure(machine: Machine, uuid: str, sha256: str) -> str:
    """Return the measurement of an application: SHA-256 over its name, its signed file, and what runs it."""
    whole = {
        "application": uuid,
        "application_sha256": sha256,
        "firmware_sha256": machine.firmware_sha256,
        "optee": machine.optee_version,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
