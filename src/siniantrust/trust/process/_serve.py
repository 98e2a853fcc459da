"""The enclave's loop: one request in, one answer out, and refusals that say why without ending the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from siniantrust.errors import ChannelError, DataError, EnclaveError, TrustError
from siniantrust.masking.exact.resident import ResidentProgram
from siniantrust.trust._channel import Destination, Payload, UnsendableError, as_bytes, payload
from siniantrust.trust._codec import Message, Operation, TensorSpec
from siniantrust.trust._evidence import NONCE_BYTES
from siniantrust.trust._sealed import SealError
from siniantrust.trust._sealing import Sealing, open_data, seal_data
from siniantrust.trust.process._common import MAX_PARTS, MEMORY_REFUSAL
from siniantrust.trust.process._noise import NoiseSource
from siniantrust.trust.process._parts import LoadedPart, one_line, open_sealed

_WITH_KEY = (Operation.LOAD, Operation.SEAL, Operation.UNSEAL)
_OUT_OF_MEMORY = ("bad_alloc", "failed to allocate", "cannot allocate memory")


class TamperedError(ChannelError):
    """What was sealed does not open under the key that the broker keeps for it: somebody changed it on its way."""


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
        key: secret memory for the key that comes with a request, which rests there until it is answered.
        threads: threads that a part computes with.
        prove: makes fresh evidence for a nonce, in the form in which it travels.
        sealing: gives the platform's sealing; the key of the request may be the platform's secret.
        limits: what is enforced on the client, in the form in which it travels.
        fetch_key: asks the key broker for the key of an id; None where there is no broker.
    """

    def __init__(
        self,
        channel: Endpoint,
        *,
        key: memoryview,
        threads: int,
        prove: Callable[[bytes], bytes],
        sealing: Callable[[], Sealing],
        limits: bytes = b"",
        fetch_key: Callable[[str], bytes] | None = None,
    ) -> None:
        self._channel = channel
        self._key = key
        self._threads = threads
        self._prove = prove
        self._sealing = sealing
        self._limits = limits
        self._fetch_key = fetch_key
        self._noise = NoiseSource()
        self._parts: dict[str, LoadedPart | ResidentProgram] = {}

    def serve(self) -> None:
        """Serve until the client goes away.

        Raises:
            PeerClosedError: when it has.
            ChannelError: if a frame is not what the client sent, in the order in which it was sent; or if sealed
                weights were tampered with (``TamperedError``), which only with a broker's key is sure.
        """
        while True:
            message, arrays = self._channel.receive(self._destination)
            try:
                payloads = [payload(name, array) for name, array in self._answer(message, arrays).items()]
                prepared = self._channel.prepare(Operation.DONE, payloads=payloads)
            except TamperedError:
                raise
            except DataError as fault:
                self._refuse(Operation.REFUSED_DATA, fault)
            except (EnclaveError, UnsendableError) as fault:
                self._refuse(Operation.REFUSED_ENCLAVE, fault)
            except TrustError as fault:
                self._refuse(Operation.REFUSED_TRUST, fault)
            else:
                self._channel.send(prepared, payloads)
                self._draw_ahead(message)
            finally:
                self._key[:] = bytes(len(self._key))

    def _draw_ahead(self, answered: Message) -> None:
        """Draw the next run's noise while the client works on the answer."""
        part = self._parts.get(answered.text) if answered.operation is Operation.RUN else None
        if isinstance(part, LoadedPart):
            with suppress(Exception):  # the next run draws it then, and can say what is wrong
                part.draw_ahead()

    def _refuse(self, operation: Operation, fault: Exception) -> None:
        self._channel.send(self._channel.prepare(operation, one_line(fault)))

    def _destination(self, message: Message, spec: TensorSpec) -> memoryview | None:
        """Let a key go to secret memory, and everything else into new arrays."""
        is_key = message.operation in _WITH_KEY and spec.name == "key"
        if is_key and spec.size_bytes == len(self._key):
            return self._key
        return None

    def _answer(self, message: Message, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if message.operation is Operation.RUN:
            return self._run(message.text, arrays)
        if message.operation is Operation.LOAD:
            self._load(message.text, arrays)
            return {}
        if message.operation is Operation.EVIDENCE:
            return self._evidence(arrays)
        if message.operation is Operation.SEAL:
            return self._seal(arrays)
        if message.operation is Operation.UNSEAL:
            return self._unseal(arrays)
        if message.operation is Operation.LIMITS:
            return {"limits": np.frombuffer(self._limits, np.uint8)}
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
        skeleton, sealed, context = _needed(f"loading part '{name}'", arrays, "skeleton", "sealed", "context")
        if name not in self._parts and len(self._parts) >= MAX_PARTS:
            raise EnclaveError(f"enclave: {MAX_PARTS} parts are loaded, the limit; part '{name}' is one too many")
        try:
            if "key_id" in arrays:
                self._key[:] = self._brokered(bytes(as_bytes(arrays["key_id"])))
            self._parts[name] = open_sealed(
                name,
                skeleton=skeleton,
                sealed=sealed,
                key=self._key,
                context=context,
                threads=self._threads,
                noise=self._noise,
            )
        except SealError as fault:
            if "key_id" in arrays:
                raise TamperedError(f"part '{name}': {fault}") from None
            raise
        except TrustError:
            raise
        except Exception as fault:  # noqa: BLE001 - ONNX Runtime raises classes of its own, all of which are refusals
            raise _refusal(name, "loading", fault) from None

    def _brokered(self, key_id: bytes) -> bytes:
        if self._fetch_key is None:
            raise EnclaveError("enclave: it was started without a key broker; send the key itself")
        key = self._fetch_key(key_id.decode("ascii", "replace"))
        if len(key) != len(self._key):
            raise EnclaveError(f"enclave: the broker's key has {len(key)} bytes, expected {len(self._key)}")
        return key

    def _evidence(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonce = arrays.get("nonce")
        if nonce is None or nonce.dtype != np.uint8 or nonce.shape != (NONCE_BYTES,):
            raise EnclaveError(f"enclave: evidence needs a nonce of {NONCE_BYTES} bytes")
        raw = np.frombuffer(self._prove(nonce.tobytes()), np.uint8)
        return {"evidence": raw}

    def _seal(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        origin, context, data = map(bytes, _needed("sealing", arrays, "origin", "context", "data"))
        kept, sealed = seal_data(self._sealing(), data, origin=origin, context=context)
        return {"kept": np.frombuffer(kept, np.uint8), "sealed": np.frombuffer(sealed, np.uint8)}

    def _unseal(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        origin, context, kept, sealed = _needed("unsealing", arrays, "origin", "context", "kept", "sealed")
        data = open_data(self._sealing(), sealed, kept=bytes(kept), origin=bytes(origin), context=bytes(context))
        return {"data": np.frombuffer(data, np.uint8)}


def _needed(doing: str, arrays: dict[str, np.ndarray], *names: str) -> list[memoryview]:
    """Return what a request has to bring, as bytes."""
    for name in names:
        if name not in arrays:
            raise EnclaveError(f"enclave: {doing} needs '{name}'")
    return [as_bytes(arrays[name]) for name in names]


def _refusal(name: str, doing: str, fault: Exception) -> EnclaveError:
    text = one_line(fault)
    if isinstance(fault, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return EnclaveError(f"{MEMORY_REFUSAL}: {doing} part '{name}'")
    return EnclaveError(f"enclave: {doing} part '{name}' failed: {text}")
