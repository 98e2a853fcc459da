"""The launching side of the enclave in TrustZone: boot the machine, one trusted application for each part."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx

from siniantrust.errors import (
    AttestationError,
    ChannelError,
    EnclaveError,
    EnclaveLostError,
    ModelError,
    SinianError,
    TrustError,
)
from siniantrust.lowering import Lowered, lower, pack, unpack
from siniantrust.trust._evidence import Evidence
from siniantrust.trust._labels import Provenance
from siniantrust.trust._sealed import OVERHEAD_BYTES
from siniantrust.trust._sealed_data import SealedData, SealOrigin, check_origin, not_opened
from siniantrust.trust._types import EnclaveInfo, EnclaveLimits, EnclaveSpec
from siniantrust.trust.optee._application import MAX_SEALED_BYTES, Session
from siniantrust.trust.optee._batch import Part, batch_items, is_batched
from siniantrust.trust.optee._build import build
from siniantrust.trust.optee._cache import Machine, find_machine
from siniantrust.trust.optee._evidence import PROTECTIONS, PROVIDER
from siniantrust.trust.optee._guest import MAX_SESSIONS, Guest
from siniantrust.trust.optee._inputs import inputs_of, require_no_prelude

# A part that computes nothing: its application is what is attested before the first real part is there.
_NO_PART = Lowered(
    source="\n".join(
        (
            "#include <stdint.h>",
            *(f"#define PART_{block}_BYTES 0" for block in ("WEIGHTS", "INPUT", "OUTPUT", "ARENA")),
            "void part_run(const void *weights, const void *input, void *output, void *arena);",
            "void part_run(const void *weights, const void *input, void *output, void *arena)",
            "{ (void)weights, (void)input, (void)output, (void)arena; }",
        )
    ),
    weights=(),
    inputs=(),
    outputs=(),
    weights_bytes=0,
    input_bytes=0,
    output_bytes=0,
    arena_bytes=0,
)


class OpteeEnclave:
    """A machine with trusted applications, each attested; see the ``Enclave`` protocol.

    One request is on its way at a time: there is one core.

    Raises:
        EnclaveError: if the machine is not set up here, does not start, or is asked for what it has not.
        AttestationError: if its evidence does not pass.
    """

    def __init__(self, spec: EnclaveSpec) -> None:
        if spec.threads != 1:
            raise EnclaveError(f"enclave 'optee': a trusted application has one thread, asked for {spec.threads}")
        self._spec = spec
        self._machine: Machine = find_machine()
        self._lock = threading.Lock()
        self._end: SinianError | None = None
        self._parts: dict[str, Part] = {}
        self._guest = Guest(self._machine)
        try:
            application = build(self._machine, _NO_PART, skeleton=b"", plain_bytes=0)
            self._base = Session(self._guest, self._machine, application, accept=spec.accept)
        except BaseException:
            self._guest.close()
            raise

    @property
    def provenance(self) -> Provenance:
        """``emulated``."""
        return Provenance.EMULATED

    @property
    def alive(self) -> bool:
        """Whether the machine runs and accepts calls."""
        return self._end is None and self._guest.alive

    def info(self) -> EnclaveInfo:
        """Describe the enclave."""
        return EnclaveInfo(
            provider=PROVIDER,
            provenance=self.provenance,
            protections=PROTECTIONS,
            memory_limit_bytes=self._spec.memory_bytes,
            pid=self._guest.pid,
            threads=self._spec.threads,
            measurement=self._base.measurement,
        )

    def limits(self) -> EnclaveLimits:
        """Return the limits. Tensors of any size travel in pieces, but have to fit the memory beside the part."""
        return EnclaveLimits(
            memory_bytes=self._spec.memory_bytes,
            message_bytes=None,
            tensors_bytes=self._spec.memory_bytes,
            sealed_bytes=MAX_SEALED_BYTES,
            parts=MAX_SESSIONS - 1,
            sessions=1,
        )

    def evidence(self, nonce: bytes) -> Evidence:
        """Challenge every application and return the evidence of the first, which holds no part.

        Raises:
            AttestationError: if the evidence of any does not pass.
        """
        with self._lock, self._ending_on_loss():
            for part in self._parts.values():
                part.session.evidence(nonce)
            return self._base.evidence(nonce)

    def load(self, name: str, skeleton: bytes, sealed: bytes, key: bytes, *, context: bytes) -> None:
        """Build the part's application, attest it, and send it the sealed weights and their key.

        A part that was loaded under the same name is ended first.

        Raises:
            TrustError: if key or context is another one, or a byte was changed.
            EnclaveError: if the part cannot be lowered, or does not fit the memory.
            AttestationError: if the application's evidence does not pass; no key was sent then.
        """
        proto = onnx.ModelProto.FromString(skeleton)
        require_no_prelude(name, proto)
        try:
            lowered = lower(proto, name=name)
        except ModelError as fault:
            raise EnclaveError(str(fault)) from None
        inputs = inputs_of(lowered)
        plain_bytes = len(sealed) - OVERHEAD_BYTES
        if plain_bytes < lowered.weights_bytes:
            raise TrustError(f"part {name}: sealed weights: {len(sealed)} bytes cannot hold this part's weights")
        application = build(self._machine, lowered, skeleton=skeleton, plain_bytes=plain_bytes)
        with self._lock, self._ending_on_loss():
            replaced = self._parts.pop(name, None)
            if replaced is not None:
                replaced.session.close()
            held_bytes = sum(part.session.memory_bytes for part in self._parts.values())
            if held_bytes + application.memory_bytes > self._spec.memory_bytes:
                raise EnclaveError(
                    f"part {name}: it needs {application.memory_bytes:,} bytes (weights {lowered.weights_bytes:,}, "
                    f"arena {lowered.arena_bytes:,}), but the enclave has {self._spec.memory_bytes:,}, of which "
                    f"{held_bytes:,} are taken; place less in the enclave"
                )
            session = Session(self._guest, self._machine, application, accept=self._spec.accept)
            try:
                session.load(name, sealed, key, context=context)
            except BaseException:
                session.close()
                raise
            self._parts[name] = Part(lowered, inputs, session, is_batched(proto))

    def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the part ``name``, one item of the batch after the other.

        Raises:
            DataError: if the inputs do not fit the part.
            ChannelError: if a record was tampered with; the enclave is closed then.
            EnclaveError: if no such part is loaded.
            EnclaveLostError: if the machine or the application died.
        """
        with self._lock, self._ending_on_loss():
            part = self._parts.get(name)
            if part is None:
                raise EnclaveError(f"enclave: no part '{name}' is loaded; loaded are: {sorted(self._parts)}")
            items = batch_items(name, part.inputs.given, inputs, batched=part.batched)
            answers = [
                unpack(
                    part.lowered.outputs,
                    part.session.run(
                        pack(part.inputs.given, item, part.inputs.given_bytes),
                        answer_bytes=part.lowered.output_bytes,
                    ),
                )
                for item in items
            ]
        if len(answers) == 1:
            return {entry: array.copy() for entry, array in answers[0].items()}
        return {slot.name: np.concatenate([answer[slot.name] for answer in answers]) for slot in part.lowered.outputs}

    @property
    def _origin(self) -> SealOrigin:
        return SealOrigin(PROVIDER, self.provenance, self._base.measurement)

    def seal(self, data: bytes, *, context: bytes) -> SealedData:
        """Seal data in the application that holds no part, under the key that OP-TEE derives for it.

        OP-TEE derives it from a constant that everybody has, where hardware has a secret burnt in: **emulated**.

        Raises:
            EnclaveError: if they are too many.
        """
        with self._lock, self._ending_on_loss():
            here = self._origin
            return SealedData(here, b"", self._base.seal(data, context=context, origin=here.to_json()))

    def unseal(self, sealed: SealedData, *, context: bytes) -> bytes:
        """Return what ``seal`` sealed.

        Raises:
            AttestationError: if the policy does not accept where it was sealed.
            TrustError: if another application sealed it, for another context, or a byte was changed.
        """
        check_origin(sealed, here=self._origin, accept=self._spec.accept)
        with self._lock, self._ending_on_loss():
            try:
                return self._base.unseal(sealed.ciphertext, context=context, origin=sealed.origin.to_json())
            except TrustError as fault:
                if type(fault) is not TrustError:
                    raise  # not of the seal, but of the session
                raise not_opened(sealed, here=self._origin, reason=str(fault)) from None

    def _check_open(self) -> None:
        if self._end is None and not self._guest.alive:
            self._finish(
                EnclaveLostError(f"enclave 'optee' (pid {self._guest.pid}): its machine ended; launch another one")
            )
        if self._end is not None:
            raise type(self._end)(str(self._end))  # a new one, because each carries its own traceback

    @contextmanager
    def _ending_on_loss(self) -> Iterator[None]:
        """Refuse calls after the end; end for good when an application or the machine is lost, or a record is false."""
        self._check_open()
        try:
            yield
        except (AttestationError, ChannelError, EnclaveLostError) as fault:
            self._finish(fault)
            raise
        except BaseException as fault:
            if not isinstance(fault, SinianError):  # an interrupt leaves half an answer
                self._finish(EnclaveError(f"enclave 'optee': closed, a call was interrupted ({type(fault).__name__})"))
            raise

    def _finish(self, error: SinianError) -> None:
        if self._end is None:
            self._end = error
            self._guest.close()

    def close(self) -> None:
        """Power the machine off, by force after ten seconds; calling it again does nothing."""
        with self._lock:
            self._finish(EnclaveError("enclave 'optee': it is closed; launch another one"))
