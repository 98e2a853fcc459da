"""What a TPM does for the enclave that it measured: data keys sealed to the register of the measurements."""

from __future__ import annotations

import os
from collections.abc import Mapping

from siniantrust.errors import TrustError
from siniantrust.trust.attestation.tpm2._device import Tpm
from siniantrust.trust.attestation.tpm2._seal import seal, unseal

_KEY_BYTES = 32


class TpmSealing:
    """Random keys, sealed by a TPM to registers; see ``siniantrust.trust._sealing.Sealing``.

    Args:
        tpm: the TPM.
        registers: values that the registers must hold when a key is given back.
    """

    def __init__(self, tpm: Tpm, registers: Mapping[int, bytes]) -> None:
        self._tpm = tpm
        self._registers = registers

    def new_key(self) -> tuple[bytes, bytes]:
        """Return a random key, and the TPM's object that holds it."""
        key = os.urandom(_KEY_BYTES)
        return key, seal(self._tpm, key, self._registers)

    def key_again(self, kept: bytes) -> bytes:
        """Return the key that the TPM's object holds; see ``Sealing``.

        Raises:
            TpmError: if the registers hold other values now, or another TPM sealed it, or it was changed.
            TrustError: if it holds no key.
        """
        key = unseal(self._tpm, kept)
        if len(key) != _KEY_BYTES:
            raise TrustError(f"sealed data: expected a key of {_KEY_BYTES} bytes from the TPM, found {len(key)}")
        return key
