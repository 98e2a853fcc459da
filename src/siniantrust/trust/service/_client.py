"""The client's side: an enclave that runs elsewhere, behind the ``Enclave`` protocol."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from math import inf
from typing import ClassVar

import numpy as np

from siniantrust.errors import (
    AttestationError,
    ChannelError,
    DataError,
    EnclaveError,
    EnclaveLostError,
    SinianError,
    TrustError,
)
from siniantrust.trust._channel import Payload, PeerClosedError, UnsendableError, payload
from siniantrust.trust._codec import Operation
from siniantrust.trust._evidence import NONCE_BYTES, Evidence
from siniantrust.trust._labels import Provenance
from siniantrust.trust._protections import ACTIVE
from siniantrust.trust._seal_call import seal_by, unseal_by
from siniantrust.trust._sealed_data import SealedData, SealOrigin
from siniantrust.trust._types import EnclaveInfo, EnclaveLimits, EnclaveSpec
from siniantrust.trust.attestation import AttestationResult, ReferenceValues, Tier, bind
from siniantrust.trust.attestation._bundle_file import evidence_from_json
from siniantrust.trust.attestation._rely import rely_on
from siniantrust.trust.service._channel import TlsChannel
from siniantrust.trust.service._limits import heed, limits_from_json
from siniantrust.trust.tls import Address, Limits, connect, fingerprint, parse_address

_REFUSALS: dict[Operation, type[SinianError]] = {
    Operation.REFUSED_DATA: DataError,
    Operation.REFUSED_TRUST: TrustError,
    Operation.REFUSED_ENCLAVE: EnclaveError,
}
# What the service may do to its client: take long to answer, but not for ever.
_LIMITS = Limits(idle_s=600.0, lifetime_s=inf, requests_per_s=inf)


class ServiceEnclave:
    """An enclave service at ``spec.address``; see the ``Enclave`` protocol. One request is on its way at a time.

    It is whatever its evidence says, once that was appraised against ``spec.reference``: the provider's name says no
    more than which kinds of evidence are admitted.
    """

    kinds: ClassVar[tuple[str, ...] | None] = None
    """Kinds of evidence that this provider admits; None for every kind that has a verifier."""

    def __init__(self, spec: EnclaveSpec) -> None:
        self._spec = spec
        address, self._reference = self.wanted(spec)
        self._name = f"{spec.provider} enclave at {address}"
        self._lock = threading.Lock()
        self._end: SinianError | None = None
        self._connection = connect(address, limits=_LIMITS)
        self._channel = TlsChannel(self._connection)
        self._limits: EnclaveLimits | None = None
        try:
            self._result, _ = self._attest(os.urandom(NONCE_BYTES))
            self._limits = self.limits()
        except BaseException:
            self.close()
            raise

    @classmethod
    def wanted(cls, spec: EnclaveSpec) -> tuple[Address, ReferenceValues]:
        """Return where the enclave is and what it is held to.

        Raises:
            EnclaveError: if the spec does not say where.
            AttestationError: if it has no reference values, or some for evidence that this provider does not admit.
            ChannelError: if the address is none.
        """
        provider, reference = spec.provider, spec.reference
        if spec.address is None:
            raise EnclaveError(f'{provider} enclave: where it runs is not said; write: [enclave] address = "HOST:PORT"')
        if reference is None:
            raise AttestationError(
                f"{provider} enclave: nothing is accepted without reference values; write: [enclave.reference]"
            )
        if cls.kinds is not None and reference.kind not in cls.kinds:
            raise AttestationError(
                f"{provider} enclave: expected reference values of kind {' or '.join(cls.kinds)}, "
                f"found {reference.kind!r}"
            )
        return parse_address(spec.address), reference

    @property
    def provenance(self) -> Provenance:
        """Where the claims of its evidence come from."""
        return self._result.provenance

    @property
    def alive(self) -> bool:
        """Whether it accepts calls, as far as is known."""
        return self._end is None

    def info(self) -> EnclaveInfo:
        """Describe the enclave: the claims of its trust vector stand for its protections."""
        return EnclaveInfo(
            provider=self._spec.provider,
            provenance=self.provenance,
            protections={
                str(claim): ACTIVE if tier is Tier.AFFIRMING else f"missing: {tier.name.lower()}"
                for claim, tier in self._result.vector.items()
            },
            memory_limit_bytes=self._spec.memory_bytes,
            pid=None,
            threads=self._spec.threads,
            measurement=self._measurement,
        )

    @property
    def _measurement(self) -> str:
        """The claims that the reference values name, which alone say what this is."""
        named = sorted(self._reference.accepted.keys() & self._result.claims.keys())
        return ", ".join(f"{name} {self._result.claims[name]}" for name in named)

    def limits(self) -> EnclaveLimits:
        """Return the limits that the service states.

        Raises:
            ChannelError: if its answer is none; the session ends then.
        """
        answer = self._call(Operation.LIMITS, "", [])
        try:
            return limits_from_json(answer.get("limits", np.empty(0, np.uint8)).tobytes())
        except ChannelError as fault:
            raise self._finish(ChannelError(f"{self._name}: {fault}")) from None

    def _attest(self, nonce: bytes) -> tuple[AttestationResult, bytes]:
        """Ask for evidence bound to ``nonce`` and to the key of the certificate that this end saw; appraise it."""
        binding = bind(nonce, self._connection.peer_spki)
        answer = self._call(Operation.EVIDENCE, "", [payload("nonce", np.frombuffer(nonce, np.uint8))])
        evidence = evidence_from_json(answer.get("evidence", np.empty(0)).tobytes())
        result = rely_on(
            evidence, name=self._name, binding=binding, reference=self._reference, accept=self._spec.accept
        )
        return result, binding

    def evidence(self, nonce: bytes) -> Evidence:
        """Return fresh evidence for ``nonce`` (32 bytes), appraised against the same reference values as at launch.

        In it, the SHA-256 of the certificate's key stands for the enclave's key.

        Raises:
            AttestationError: if it does not pass; the enclave is closed then.
            EnclaveError: if the nonce has another length.
        """
        if len(nonce) != NONCE_BYTES:
            raise EnclaveError(f"{self._name}: evidence needs a nonce of {NONCE_BYTES} bytes, found {len(nonce)}")
        try:
            result, binding = self._attest(nonce)
        except AttestationError as fault:
            self._finish(AttestationError(f"{self._name}: closed, because its evidence failed ({fault})"))
            raise
        return Evidence(
            provider=self._spec.provider,
            provenance=result.provenance,
            nonce=nonce,
            enclave_public_key=bytes.fromhex(fingerprint(self._connection.peer_spki)),
            report_data=binding,
            measurement=", ".join(f"{name} {value}" for name, value in sorted(result.claims.items())),
            protections=self.info().protections,
            statement=f"{result.kind} evidence, {result.provenance}, appraised at {result.appraised_at.isoformat()}",
        )

    def load(self, name: str, skeleton: bytes, sealed: bytes, key: bytes, *, context: bytes) -> None:
        """Send a sealed part and its key; the enclave opens the seal.

        Raises:
            TrustError: if key or context is another one, or a byte was changed.
            EnclaveError: if the enclave cannot run the part.
        """
        self._load(name, {"skeleton": skeleton, "sealed": sealed, "context": context, "key": key})

    def load_brokered(self, name: str, skeleton: bytes, sealed: bytes, key_id: str, *, context: bytes) -> None:
        """Send a sealed part; the enclave asks its key broker for the key; see ``BrokeredEnclave``."""
        self._load(name, {"skeleton": skeleton, "sealed": sealed, "context": context, "key_id": key_id.encode()})

    def _load(self, name: str, parts: Mapping[str, bytes]) -> None:
        payloads = [payload(entry, np.frombuffer(data, np.uint8)) for entry, data in parts.items()]
        try:
            self._call(Operation.LOAD, name, payloads)
        except UnsendableError as fault:
            raise EnclaveError(f"part {name}: {fault}") from None

    def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the part ``name``.

        Raises:
            DataError: if the inputs do not fit the part.
            EnclaveError: if no such part is loaded, or it fails.
            EnclaveLostError: if the service is gone or ended the session.
        """
        try:
            payloads = [payload(entry, np.asarray(array)) for entry, array in inputs.items()]
            return self._call(Operation.RUN, name, payloads)
        except UnsendableError as fault:
            raise DataError(f"part {name}: {fault}") from None

    @property
    def _origin(self) -> SealOrigin:
        return SealOrigin(self._spec.provider, self.provenance, self._measurement)

    def seal(self, data: bytes, *, context: bytes) -> SealedData:
        """Have the service seal data, with the sealing of its platform: an SGX enclave's or a TPM's own.

        Raises:
            EnclaveError: if the platform has none, or the data are too many.
        """
        return seal_by(self._call, data, here=self._origin, context=context)

    def unseal(self, sealed: SealedData, *, context: bytes) -> bytes:
        """Return what ``seal`` sealed.

        Raises:
            AttestationError: if the policy does not accept where it was sealed.
            TrustError: if another enclave or platform sealed it, for another context, or a byte was changed.
            EnclaveError: if the platform has no sealing.
        """
        return unseal_by(self._call, sealed, here=self._origin, context=context, accept=self._spec.accept)

    def _call(self, operation: Operation, text: str, payloads: list[Payload]) -> dict[str, np.ndarray]:
        with self._lock:
            self._check_open()
            plain = self._channel.prepare(operation, text, payloads)
            if self._limits is not None:
                heed(self._limits, plain, payloads)
            try:
                self._channel.send(plain, payloads)
                message, arrays = self._channel.receive()
            except PeerClosedError:
                raise self._finish(EnclaveLostError(f"{self._name}: it is gone; launch it again")) from None
            except ChannelError as fault:
                raise self._finish(ChannelError(f"{self._name}: {fault}")) from None
            except BaseException as fault:
                # An interrupt leaves half a frame: what comes next could not be told apart.
                self._finish(EnclaveError(f"{self._name}: closed, a call was interrupted ({type(fault).__name__})"))
                raise
        if message.operation is Operation.DONE:
            return arrays
        if message.operation in _REFUSALS:
            raise _REFUSALS[message.operation](message.text)
        if message.operation is Operation.ENDED:
            raise self._finish(EnclaveLostError(f"{self._name}: it ended the session ({message.text})"))
        raise self._finish(ChannelError(f"{self._name}: it answered {message.operation.name}, which is no answer"))

    def _check_open(self) -> None:
        if self._end is not None:
            raise type(self._end)(str(self._end))  # a new one, because each carries its own traceback

    def _finish(self, error: SinianError) -> SinianError:
        if self._end is None:
            self._end = error
            self._connection.close()
        return error

    def close(self) -> None:
        """End the session, and with it the enclave's keys and parts; calling it again does nothing."""
        self._connection.cut()  # a call that is on its way in another thread ends first
        with self._lock:
            self._finish(EnclaveError(f"{self._name}: it is closed; launch another one"))
