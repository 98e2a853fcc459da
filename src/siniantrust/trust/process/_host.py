"""The launching side of the process enclave: attest, then talk to it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from siniantrust.errors import AttestationError, ChannelError, DataError, EnclaveError, SinianError, TrustError
from siniantrust.trust import _handshake, _protections
from siniantrust.trust._channel import SLOTS, Channel, Payload, PeerClosedError, UnsendableError, payload
from siniantrust.trust._codec import MAX_MESSAGE_BYTES, Operation
from siniantrust.trust._evidence import NONCE_BYTES, Evidence, appraise, parse_evidence
from siniantrust.trust._labels import Provenance
from siniantrust.trust._seal_call import seal_by, unseal_by
from siniantrust.trust._sealed_data import SealedData, SealOrigin
from siniantrust.trust._sealing import MAX_SEALED_BYTES
from siniantrust.trust._secret import SecretMemory
from siniantrust.trust._simulated_platform import simulated_platform_secret
from siniantrust.trust._types import EnclaveInfo, EnclaveLimits, EnclaveSpec
from siniantrust.trust.process import _launcher, _measure
from siniantrust.trust.process._common import MAX_PARTS, MEMORY_REFUSAL, PROVIDER
from siniantrust.trust.process._ending import explain, over_memory

_MAX_HELLO_BYTES = 64 << 10
_HELLO_TIMEOUT_S = 60.0
_GRACE_S = 2.0
_REFUSALS: dict[Operation, type[SinianError]] = {
    Operation.REFUSED_DATA: DataError,
    Operation.REFUSED_TRUST: TrustError,
    Operation.REFUSED_ENCLAVE: EnclaveError,
}


class ProcessEnclave:
    """A launched and attested process enclave; see the ``Enclave`` protocol.

    Two requests may be on their way at once: while the enclave computes one, another thread already encrypts the next.
    Answers come in the order of the requests.
    """

    def __init__(self, spec: EnclaveSpec) -> None:
        _protections.check_names(spec.allow_missing)
        self._spec = spec
        self._slots = threading.BoundedSemaphore(SLOTS)
        self._sending = threading.Lock()
        self._turn = threading.Condition()
        self._issued = 0
        self._answered = 0
        self._ending = threading.Lock()
        self._end: SinianError | None = None
        self._secret = SecretMemory()
        self._process = _launcher.start(spec)
        try:
            self._evidence, self._channel = self._attest()
        except BaseException as fault:
            self._finish(EnclaveError(f"{self._name}: refused at launch ({fault})"))
            raise

    @property
    def _name(self) -> str:
        return self._process.name

    @property
    def provenance(self) -> Provenance:
        """``simulated``."""
        return Provenance.SIMULATED

    @property
    def alive(self) -> bool:
        """Whether it still runs and accepts calls."""
        return self._end is None and self._process.supervisor.poll() is None

    def info(self) -> EnclaveInfo:
        """Describe the enclave as its evidence did at launch."""
        return EnclaveInfo(
            provider=PROVIDER,
            provenance=self.provenance,
            protections=dict(self._evidence.protections),
            memory_limit_bytes=self._spec.memory_bytes,
            pid=self._process.pid,
            threads=self._spec.threads,
            measurement=self._evidence.measurement,
        )

    def limits(self) -> EnclaveLimits:
        """Return the limits. Its one client is who launched it, which no rate or time holds back."""
        return EnclaveLimits(
            memory_bytes=self._spec.memory_bytes,
            message_bytes=MAX_MESSAGE_BYTES,
            tensors_bytes=self._channel.slot_bytes,
            sealed_bytes=MAX_SEALED_BYTES,
            parts=MAX_PARTS,
            sessions=1,
        )

    def _attest(self) -> tuple[Evidence, Channel]:
        """Challenge the enclave, appraise its evidence, and only then derive the session's keys."""
        connection = self._process.connection
        private = X25519PrivateKey.generate()
        self._client_public_key = _handshake.public_bytes(private)
        nonce = os.urandom(NONCE_BYTES)
        hello = _handshake.client_hello(nonce, self._client_public_key)
        connection.settimeout(_HELLO_TIMEOUT_S)
        try:
            connection.send(hello)
            self._reference = _measure.reference_values(self._spec)  # while the enclave is still importing
            raw = connection.recv(_MAX_HELLO_BYTES)
        except TimeoutError:
            raise EnclaveError(f"{self._name}: it sent no evidence within {_HELLO_TIMEOUT_S:.0f} s") from None
        except OSError:
            raw = b""
        if not raw:
            raise self._lost()
        connection.settimeout(None)
        evidence = parse_evidence(raw)
        self._appraise(evidence, nonce)
        _protections.require(evidence.protections, allow_missing=self._spec.allow_missing)
        ciphers = _handshake.derive(
            private, evidence.enclave_public_key, hello=hello, evidence=raw, secret=self._secret
        )
        channel = Channel(
            connection,
            outgoing=self._process.outgoing,
            incoming=self._process.incoming,
            sealer=ciphers.to_enclave,
            opener=ciphers.to_client,
        )
        return evidence, channel

    def _appraise(self, evidence: Evidence, nonce: bytes) -> None:
        appraise(
            evidence,
            nonce=nonce,
            client_public_key=self._client_public_key,
            reference=self._reference,
            accept=self._spec.accept,
        )

    def evidence(self, nonce: bytes) -> Evidence:
        """Return fresh evidence for ``nonce`` (32 bytes), appraised against the same reference values as at launch.

        Raises:
            AttestationError: if it does not pass; the enclave is ended then.
            EnclaveError: if the enclave refuses, for example a nonce of another length.
        """
        answer = self._call(Operation.EVIDENCE, "", [payload("nonce", np.frombuffer(nonce, np.uint8))])
        try:
            fresh = parse_evidence(answer.get("evidence", np.empty(0)).tobytes())
            self._appraise(fresh, nonce)
        except AttestationError as fault:
            self._finish(AttestationError(f"{self._name}: ended, because its evidence failed ({fault})"))
            raise
        return fresh

    def load(self, name: str, skeleton: bytes, sealed: bytes, key: bytes, *, context: bytes) -> None:
        """Send a sealed part and its key; the enclave opens the seal with the key in secret memory.

        Raises:
            TrustError: if key or context is another one, or a byte was changed.
            EnclaveError: if the enclave cannot run the part, or its memory does not suffice.
        """
        parts = {"skeleton": skeleton, "sealed": sealed, "context": context, "key": key}
        payloads = [payload(entry, np.frombuffer(data, np.uint8)) for entry, data in parts.items()]
        try:
            self._call(Operation.LOAD, name, payloads)
        except UnsendableError as fault:
            raise EnclaveError(f"part {name}: {fault}") from None

    def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the part ``name``.

        Raises:
            DataError: if the inputs do not fit the part.
            ChannelError: if a frame was tampered with; the enclave is closed then.
            EnclaveError: if no such part is loaded, it fails, or the enclave's memory does not suffice.
        """
        try:
            payloads = [payload(entry, np.asarray(array)) for entry, array in inputs.items()]
            return self._call(Operation.RUN, name, payloads)
        except UnsendableError as fault:
            raise DataError(f"part {name}: {fault}") from None

    @property
    def _origin(self) -> SealOrigin:
        return SealOrigin(PROVIDER, self.provenance, self._evidence.measurement)

    def seal(self, data: bytes, *, context: bytes) -> SealedData:
        """Seal data in the enclave, under a secret of this machine's that its owner can read: **simulated**.

        Raises:
            EnclaveError: if they are too many, or the secret cannot be kept.
        """
        return seal_by(self._call, data, here=self._origin, context=context, secret=simulated_platform_secret())

    def unseal(self, sealed: SealedData, *, context: bytes) -> bytes:
        """Return what ``seal`` sealed.

        Raises:
            AttestationError: if the policy does not accept where it was sealed.
            TrustError: if another enclave or machine sealed it, for another context, or a byte was changed.
        """
        return unseal_by(
            self._call,
            sealed,
            here=self._origin,
            context=context,
            accept=self._spec.accept,
            secret=simulated_platform_secret(),
        )

    def _call(self, operation: Operation, text: str, payloads: Sequence[Payload]) -> dict[str, np.ndarray]:
        """Send one request, wait for its turn, and return the tensors of its answer."""
        with self._slots:
            with self._sending:
                self._check_open()
                plain = self._channel.prepare(operation, text, payloads)
                ticket = self._issued
                try:
                    self._channel.send(plain, payloads)
                except BaseException as fault:  # noqa: BLE001 - an interrupt leaves half a frame, too
                    raise self._broken(fault) from None
                self._issued += 1
            try:
                with self._turn:
                    while self._answered != ticket and self._end is None:
                        self._turn.wait()
                self._check_open()
                message, arrays = self._channel.receive()
                if operation is Operation.LOAD:
                    self._channel.release_outgoing(ticket)
            except BaseException as fault:  # noqa: BLE001 - as above
                raise self._broken(fault) from None
            with self._turn:
                self._answered += 1
                self._turn.notify_all()
        if message.operation is Operation.DONE:
            return arrays
        raise self._refusal(message.operation, message.text)

    def _check_open(self) -> None:
        if self._end is not None:
            raise type(self._end)(str(self._end))  # a new one, because each carries its own traceback

    def _refusal(self, operation: Operation, text: str) -> SinianError:
        if operation not in _REFUSALS:
            return self._finish(ChannelError(f"{self._name}: it answered with {operation.name}, which is no answer"))
        if text.startswith(MEMORY_REFUSAL):
            text = f"{over_memory(self._name, self._spec)} ({text})"
        return _REFUSALS[operation](text)

    def _broken(self, fault: BaseException) -> BaseException:
        """End the session after a frame that was not sent or received whole: what comes next could not be told apart.

        Returns:
            The error to raise.
        """
        if isinstance(fault, PeerClosedError):
            return self._lost()
        if isinstance(fault, ChannelError):
            return self._finish(ChannelError(f"{self._name}: {fault}"))
        self._check_open()
        self._finish(EnclaveError(f"{self._name}: closed, because a call was interrupted ({type(fault).__name__})"))
        return fault

    def _lost(self) -> SinianError:
        """Find out why the enclave is gone; return the error to raise."""
        code = self._process.wait(_GRACE_S)
        return self._finish(explain(self._process, self._process.end() if code is None else code, self._spec))

    def _finish(self, error: SinianError) -> SinianError:
        """End the enclave for good and forget the keys; return the first error that ended it."""
        with self._ending:
            if self._end is None:
                self._end = error
                self._dispose()
            first = self._end
        with self._turn:
            self._turn.notify_all()
        return first

    def _dispose(self) -> None:
        self._process.end()
        self._process.clean_up()
        self._secret.close()

    def close(self) -> None:
        """End the enclave: let it finish and forget its keys by itself, and kill it after two seconds."""
        with self._ending:
            if self._end is not None:
                return
            self._end = EnclaveError(f"{self._name}: it is closed; launch another one")
            with contextlib.suppress(OSError):
                self._process.connection.shutdown(socket.SHUT_WR)
            self._process.wait(_GRACE_S)
            self._dispose()
        with self._turn:
            self._turn.notify_all()
