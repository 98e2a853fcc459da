"""The keys that data are sealed with: a platform gives them to the enclave that it measured, and to no other.

This is the enclave's side. A key is made for each piece of data, and what gives it back to the same measurement on the
same platform is *kept* beside the data: it is no secret.
"""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from siniantrust.errors import EnclaveError, TrustError
from siniantrust.trust import _sealed
from siniantrust.trust._secret import wipe

MAX_SEALED_BYTES = 1 << 20
_SALT_BYTES = 32
_INFO = b"siniantrust sealing 1 "


class Sealing(Protocol):
    """What a platform does for the enclave that it measured."""

    def new_key(self) -> tuple[bytes, bytes]:
        """Return a new key of 32 bytes, and what gives it back."""

    def key_again(self, kept: bytes) -> bytes:
        """Return the key that came with ``kept``, or another one if that was changed.

        Raises:
            TrustError: if it is not this platform's, or for another measurement, where that can be told.
        """


@runtime_checkable
class SealingPlatform(Protocol):
    """What an attester has beside evidence if its platform can seal."""

    def sealing(self) -> Sealing:
        """Return the platform's sealing.

        Raises:
            TrustError: if it gives none.
        """


def sealing_of(platform: object) -> Sealing:
    """Return the sealing of an attester's platform.

    Raises:
        EnclaveError: if it has none.
    """
    if not isinstance(platform, SealingPlatform):
        raise EnclaveError(
            "enclave: its platform has no sealing; keep the data under a key of the key broker (sinian seal)"
        )
    return platform.sealing()


class DerivedSealing:
    """Keys by HKDF-SHA256 from a secret that the platform gives to this measurement, or to this machine, only.

    Args:
        secret: the platform's secret; it is read for each key.
        measurement: what the keys are for, where the secret itself is not bound to it.
    """

    def __init__(self, secret: bytes | memoryview, *, measurement: str) -> None:
        if not any(secret):
            raise EnclaveError("enclave: its platform gives no secret to derive sealing keys from")
        self._secret = secret
        self._info = _INFO + measurement.encode()

    def new_key(self) -> tuple[bytes, bytes]:
        """Return a key for a random salt, and the salt."""
        salt = os.urandom(_SALT_BYTES)
        return self.key_again(salt), salt

    def key_again(self, kept: bytes) -> bytes:
        """Return the key for a salt; see ``Sealing``."""
        if len(kept) != _SALT_BYTES:
            raise TrustError(f"sealed data: expected a salt of {_SALT_BYTES} bytes, found {len(kept)}")
        return HKDF(algorithm=SHA256(), length=_sealed.KEY_BYTES, salt=kept, info=self._info).derive(self._secret)


def seal_data(sealing: Sealing, data: bytes, *, origin: bytes, context: bytes) -> tuple[bytes, bytes]:
    """Return what gives the key back, and the data under it, bound to ``origin`` and ``context``.

    Raises:
        EnclaveError: if they are too many.
    """
    if len(data) > MAX_SEALED_BYTES:
        raise EnclaveError(f"enclave: at most {MAX_SEALED_BYTES} bytes are sealed at once, found {len(data)}")
    key, kept = sealing.new_key()
    try:
        return kept, _sealed.seal_bytes(data, skeleton=origin, key=key, context=context)
    finally:
        wipe(key)


def open_data(sealing: Sealing, sealed: memoryview, *, kept: bytes, origin: bytes, context: bytes) -> memoryview:
    """Open sealed data (writable) in place, and return the view of them.

    Raises:
        TrustError: if they were sealed elsewhere, for something else, or changed.
    """
    key = sealing.key_again(kept)
    try:
        return _sealed.open_in_place(sealed, skeleton=origin, key=key, context=context)
    finally:
        wipe(key)
