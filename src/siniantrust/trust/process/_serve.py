"""The enclave's loop: one request in, one answer out, and refusals that say why without ending the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from siniantrust.errors import DataError, EnclaveError, TrustError
from siniantrust.masking.exact.resident import ResidentProgram
from siniantrust.trust._channel import Destination, Payload, UnsendableError, as_bytes, payload
from siniantrust.trust._codec import Message, Operation, TensorSpec
from siniantrust.trust._evidence import NONCE_BYTES
from siniantrust.trust.process._common import MEMORY_REFUSAL
from siniantrust.trust.process._parts import LoadedPart, one_line, open_sealed

_MAX_PARTS = 64
_OUT_OF_MEMORY = ("bad_alloc", "failed to allocate", "cannot allocate memory")


class Endpoint(Protocol):
    """The enclave's end of an encrypted channel."""

    def prepare(self, operation: Operation, text: str = "", payloads: Sequence[Payload] = ()) -> bytes:
        """Return the message to ``send`` with ``payloads``."""

    def send(self, plain: bytes, payloads: Sequence[Payload] = ()) -> None:
        """Send a prepared message and its tensors."""

    def receive(self, destination: Destination | None = None) -> tuple[Message, dict[str, np.ndarray]]:
        """Wait for the next message and its tensors."""


class Server:
    """Answers the client that was attested to.

    Args:
        channel: the encrypted channel to it.
        weights_key: secret memory for a part's key, which rests there while the part is opened and no longer.
        threads: threads that a part computes with.
        prove: makes fresh evidence for a nonce, in the form in which it travels.
        fetch_key: asks the key broker for the key of an id; None where there is no broker.
    """

    def __init__(
        self,
        channel: Endpoint,
        *,
        weights_key: memoryview,
        threads: int,
        prove: Callable[[bytes], bytes],
        fetch_key: Callable[[str], bytes] | None = None,
    ) -> None:
        self._channel = channel
        self._weights_key = weights_key
        self._threads = threads
        self._prove = prove
        self._fetch_key = fetch_key
        self._parts: dict[str, LoadedPart | ResidentProgram] = {}

    def serve(self) -> None:
        """Serve until the client goes away.

        Raises:
            PeerClosedError: when it has.
            ChannelError: if a frame is not what the client sent, in the order in which it was sent.
        """
        while True:
            message, arrays = self._channel.receive(self._destination)
            try:
                payloads = [payload(name, array) for name, array in self._answer(message, arrays).items()]
                prepared = self._channel.prepare(Operation.DONE, payloads=payloads)
            except DataError as fault:
                self._refuse(Operation.REFUSED_DATA, fault)
            except (EnclaveError, UnsendableError) as fault:
                self._refuse(Operation.REFUSED_ENCLAVE, fault)
            except TrustError as fault:
                self._refuse(Operation.REFUSED_TRUST, fault)
            else:
                self._channel.send(prepared, payloads)

    def _refuse(self, operation: Operation, fault: Exception) -> None:
        self._channel.send(self._channel.prepare(operation, one_line(fault)))

    def _destination(self, message: Message, spec: TensorSpec) -> memoryview | None:
        """Let the weights' key go to secret memory, and everything else into new arrays."""
        is_key = message.operation is Operation.LOAD and spec.name == "key"
        if is_key and spec.size_bytes == len(self._weights_key):
            return self._weights_key
        return None

    def _answer(self, message: Message, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if message.operation is Operation.RUN:
            return self._run(message.text, arrays)
        if message.operation is Operation.LOAD:
            self._load(message.text, arrays)
            return {}
        if message.operation is Operation.EVIDENCE:
            return self._evidence(arrays)
        raise EnclaveError(f"enclave: {message.operation.name} is no request")

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        part = self._parts.get(name)
        if part is None:
            raise EnclaveError(f"enclave: no part '{name}' is loaded; loaded are: {sorted(self._parts)}")
        try:
            return part.run(inputs)
        except (DataError, TrustError):
            raise
        except Exception as fault:  # noqa: BLE001 - ONNX Runtime raises classes of its own, all of which are refusals
            raise _refusal(name, "running", fault) from None

    def _load(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        try:
            skeleton, sealed, context = (as_bytes(arrays[entry]) for entry in ("skeleton", "sealed", "context"))
        except KeyError as missing:
            raise EnclaveError(f"enclave: loading part '{name}' needs {missing}") from None
        if name not in self._parts and len(self._parts) >= _MAX_PARTS:
            raise EnclaveError(f"enclave: {_MAX_PARTS} parts are loaded, the limit; part '{name}' is one too many")
        try:
            if "key_id" in arrays:
                self._weights_key[:] = self._brokered(bytes(as_bytes(arrays["key_id"])))
            self._parts[name] = open_sealed(
                name,
                skeleton=skeleton,
                sealed=sealed,
                key=self._weights_key,
                context=context,
                threads=self._threads,
            )
        except TrustError:
            raise
        except Exception as fault:  # noqa: BLE001 - ONNX Runtime raises classes of its own, all of which are refusals
            raise _refusal(name, "loading", fault) from None
        finally:
            self._weights_key[:] = bytes(len(self._weights_key))

    def _brokered(self, key_id: bytes) -> bytes:
        if self._fetch_key is None:
            raise EnclaveError("enclave: it was started without a key broker; send the key itself")
        key = self._fetch_key(key_id.decode("ascii", "replace"))
        if len(key) != len(self._weights_key):
            raise EnclaveError(f"enclave: the broker's key has {len(key)} bytes, expected {len(self._weights_key)}")
        return key

    def _evidence(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonce = arrays.get("nonce")
        if nonce is None or nonce.dtype != np.uint8 or nonce.shape != (NONCE_BYTES,):
            raise EnclaveError(f"enclave: evidence needs a nonce of {NONCE_BYTES} bytes")
        raw = np.frombuffer(self._prove(nonce.tobytes()), np.uint8)
        return {"evidence": raw}


def _refusal(name: str, doing: str, fault: Exception) -> EnclaveError:
    text = one_line(fault)
    if isinstance(fault, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return EnclaveError(f"{MEMORY_REFUSAL}: {doing} part '{name}'")
    return EnclaveError(f"enclave: {doing} part '{name}' failed: {text}")
