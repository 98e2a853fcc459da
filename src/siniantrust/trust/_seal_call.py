"""Sealing by request: what a client sends to an enclave that answers messages, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from siniantrust.errors import EnclaveError, TrustError
from siniantrust.trust._channel import Payload, UnsendableError, payload
from siniantrust.trust._codec import Operation
from siniantrust.trust._labels import Provenance
from siniantrust.trust._sealed_data import SealedData, SealOrigin, check_origin, not_opened


class Call(Protocol):
    """Sends a request and returns the tensors of the answer."""

    def __call__(self, operation: Operation, text: str, payloads: list[Payload], /) -> dict[str, np.ndarray]:
        """Raise the error of a refusal."""


def seal_by(call: Call, data: bytes, *, here: SealOrigin, context: bytes, secret: bytes = b"") -> SealedData:
    """Have an enclave seal data.

    Args:
        call: sends to the enclave.
        data: what to seal.
        here: which enclave it is, as it was attested.
        context: what for.
        secret: the platform's, where the client plays it.

    Raises:
        EnclaveError: if it cannot, or they are too many.
    """
    wanted = {"data": data, "origin": here.to_json(), "context": context}
    answer = _send(call, Operation.SEAL, wanted, secret)
    try:
        return SealedData(here, answer["kept"].tobytes(), answer["sealed"].tobytes())
    except KeyError as missing:
        raise EnclaveError(f"enclave '{here.provider}': its answer to sealing lacks {missing}") from None


def unseal_by(
    call: Call,
    sealed: SealedData,
    *,
    here: SealOrigin,
    context: bytes,
    accept: tuple[Provenance, ...],
    secret: bytes = b"",
) -> bytes:
    """Have an enclave open sealed data; ``accept`` is the policy's, the rest as in ``seal_by``.

    Raises:
        AttestationError: if the policy does not accept where they were sealed.
        TrustError: if they do not open there.
        EnclaveError: if the enclave cannot unseal.
    """
    check_origin(sealed, here=here, accept=accept)
    wanted = {
        "sealed": sealed.ciphertext,
        "kept": sealed.kept,
        "origin": sealed.origin.to_json(),
        "context": context,
    }
    try:
        answer = _send(call, Operation.UNSEAL, wanted, secret)
    except EnclaveError:
        raise
    except TrustError as fault:
        if type(fault) is not TrustError:
            raise  # the session ended
        raise not_opened(sealed, here=here, reason=str(fault)) from None
    if "data" not in answer:
        raise EnclaveError(f"enclave '{here.provider}': its answer to unsealing has no data")
    return answer["data"].tobytes()


def _send(call: Call, operation: Operation, wanted: Mapping[str, bytes], secret: bytes) -> dict[str, np.ndarray]:
    with_secret = {**wanted, "key": secret} if secret else wanted
    payloads = [payload(name, np.frombuffer(data, np.uint8)) for name, data in with_secret.items()]
    try:
        return call(operation, "", payloads)
    except UnsendableError as fault:
        raise EnclaveError(f"sealed data: {fault}") from None
