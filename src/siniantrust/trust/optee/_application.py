"""The host's side of one trusted application: installed, attested, and talked to under keys of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from enum import IntEnum

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from siniantrust.errors import ChannelError, EnclaveError, EnclaveLostError, TrustError
from siniantrust.trust import _handshake
from siniantrust.trust._cipher import TAG_BYTES, Kind
from siniantrust.trust._evidence import (
    NONCE_BYTES,
    PUBLIC_KEY_BYTES,
    Evidence,
    ReferenceValues,
    appraise,
)
from siniantrust.trust._labels import Provenance
from siniantrust.trust._sealed import HEAD_BYTES, OVERHEAD_BYTES
from siniantrust.trust._secret import SecretMemory
from siniantrust.trust.optee._build import Application
from siniantrust.trust.optee._cache import Machine
from siniantrust.trust.optee._evidence import PROTECTIONS, PROVIDER, STATEMENT, measure
from siniantrust.trust.optee._guest import OUT_OF_MEMORY, Guest, TeeFault
from siniantrust.trust.optee._records import RECORD_BYTES, Records, sealed_bytes

# What the application's own channel.h, main.c and seal.h say.
MAX_SEALED_BYTES = 16 << 10
_HELLO, _CALL = 0, 1
_REPORT_MAGIC = b"SINIAN-OP-TEE-01"
_REPORT = struct.Struct(f"{len(_REPORT_MAGIC)}s{PUBLIC_KEY_BYTES}s32s")
_REQUEST = struct.Struct("<II32s32s")
_STATUS_BYTES = 8
_PIECE_BYTES = 8 * RECORD_BYTES
_DONE, _REFUSED_SEAL, _REFUSED_FORMAT = 0, 1, 2
_NOTHING = bytes(32)
_EMPTY = memoryview(b"")
_MAC_INVALID = 0xFFFF3071


class _Operation(IntEnum):
    LOAD = 1
    WEIGHTS = 2
    INPUT = 3
    RUN = 4
    OUTPUT = 5
    EVIDENCE = 6
    SEAL = 7
    UNSEAL = 8


class Session:
    """An open session with an application, whose evidence has passed.

    Raises:
        EnclaveError: if the secure world refuses the application, or has no memory for it.
        AttestationError: if its evidence does not pass.
        EnclaveLostError: if the machine is gone.
    """

    def __init__(
        self, guest: Guest, machine: Machine, application: Application, *, accept: tuple[Provenance, ...]
    ) -> None:
        self._guest = guest
        self._machine = machine
        self._application = application
        self._accept = accept
        self._reference = ReferenceValues(PROVIDER, measure(machine, application.uuid, application.sha256))
        self._handle = self._open()
        self._secret = SecretMemory()
        try:
            self._attest()
        except BaseException:
            self.close()
            raise

    @property
    def memory_bytes(self) -> int:
        """What the application's part holds."""
        return self._application.memory_bytes

    @property
    def measurement(self) -> str:
        """What the application was attested to be."""
        return self._reference.measurement

    def _open(self) -> int:
        application = self._application
        try:
            self._installed_sha256 = self._guest.install(application.uuid, application.signed)
            return self._guest.open(application.uuid)
        except TeeFault as fault:
            if fault.code == OUT_OF_MEMORY:
                raise EnclaveError(
                    f"enclave 'optee': the secure world has no memory for an application of {self.memory_bytes:,} "
                    "bytes beside those that are loaded; place less in the enclave"
                ) from None
            raise EnclaveError(f"enclave 'optee': the secure world refuses the application ({fault})") from None

    def _attest(self) -> None:
        private = X25519PrivateKey.generate()
        self._client_key = _handshake.public_bytes(private)
        nonce = os.urandom(NONCE_BYTES)
        hello = _handshake.client_hello(nonce, self._client_key)
        try:
            report = bytes(self._guest.invoke(self._handle, _HELLO, hello, most=_REPORT.size))
        except TeeFault as fault:
            raise EnclaveError(f"enclave 'optee': the application refuses a session ({fault})") from None
        evidence = self._evidence(report, nonce)
        ciphers = _handshake.derive(
            private, evidence.enclave_public_key, hello=hello, evidence=report, secret=self._secret
        )
        self._records = Records(ciphers.to_enclave, ciphers.to_client)

    def _evidence(self, report: bytes, nonce: bytes) -> Evidence:
        """Make evidence of an application's report and of what the guest says that it installed, and appraise it."""
        if len(report) != _REPORT.size or not report.startswith(_REPORT_MAGIC):
            raise ChannelError(
                f"enclave 'optee': expected a report of {_REPORT.size} bytes, found {len(report)} other ones"
            )
        _, public_key, report_data = _REPORT.unpack(report)
        evidence = Evidence(
            provider=PROVIDER,
            provenance=Provenance.EMULATED,
            nonce=nonce,
            enclave_public_key=public_key,
            report_data=report_data,
            measurement=measure(self._machine, self._application.uuid, self._installed_sha256),
            protections=PROTECTIONS,
            statement=STATEMENT,
        )
        appraise(
            evidence,
            nonce=nonce,
            client_public_key=self._client_key,
            reference=self._reference,
            accept=self._accept,
        )
        return evidence

    def evidence(self, nonce: bytes) -> Evidence:
        """Return fresh evidence for ``nonce``, appraised against the same reference values as at launch.

        Raises:
            AttestationError: if it does not pass.
            EnclaveError: if the nonce has another length.
        """
        if len(nonce) != NONCE_BYTES:
            raise EnclaveError(f"enclave: evidence needs a nonce of {NONCE_BYTES} bytes")
        _, report = self._call(_Operation.EVIDENCE, nonce, answer_bytes=_REPORT.size)
        return self._evidence(report, nonce)

    def load(self, name: str, sealed: bytes, key: bytes, *, context: bytes) -> None:
        """Send sealed weights and their key; the application opens the seal.

        Raises:
            TrustError: if key, context or skeleton is another one, or a byte was changed.
            EnclaveError: if what was sealed does not fit the part.
        """
        ends = sealed[:HEAD_BYTES] + sealed[-TAG_BYTES:]
        status, _ = self._call(_Operation.LOAD, hashlib.sha256(context).digest(), key=key, in_clear=ends)
        for piece in _pieces(memoryview(sealed)[HEAD_BYTES:-TAG_BYTES]):
            if status == _DONE:
                status, _ = self._call(_Operation.WEIGHTS, in_clear=piece)
        if status == _REFUSED_SEAL:
            raise TrustError(
                f"part {name}: sealed weights: they do not open; the key or the context is another one, or the file "
                "was changed"
            )
        if status == _REFUSED_FORMAT:
            raise EnclaveError(f"part {name}: the sealed weights are not those of the part's skeleton; seal it again")

    def run(self, block: bytes | bytearray, *, answer_bytes: int) -> bytes:
        """Run the part on a block of inputs; return the block of outputs."""
        *before, last = _pieces(memoryview(block))
        for number, piece in enumerate(before):
            self._call(_Operation.INPUT, offset=number * _PIECE_BYTES, payload=piece)
        outputs = bytearray()
        operation, payload, offset = _Operation.RUN, last, len(before) * _PIECE_BYTES
        while True:
            room = min(answer_bytes - len(outputs), _PIECE_BYTES)
            outputs += self._call(operation, offset=offset, payload=payload, answer_bytes=room)[1]
            if len(outputs) == answer_bytes:
                return bytes(outputs)
            operation, payload, offset = _Operation.OUTPUT, _EMPTY, len(outputs)

    def seal(self, data: bytes, *, context: bytes, origin: bytes) -> bytes:
        """Have the application seal data, under the key that OP-TEE derives for it.

        Raises:
            EnclaveError: if they are too many.
        """
        if len(data) > MAX_SEALED_BYTES:
            raise EnclaveError(
                f"enclave 'optee': at most {MAX_SEALED_BYTES} bytes are sealed at once, found {len(data)}"
            )
        return self._other_form(_Operation.SEAL, data, context, origin, len(data) + OVERHEAD_BYTES)

    def unseal(self, sealed: bytes, *, context: bytes, origin: bytes) -> bytes:
        """Have the application open what it sealed.

        Raises:
            TrustError: if another application sealed it, or for something else, or a byte was changed.
        """
        if not OVERHEAD_BYTES <= len(sealed) <= MAX_SEALED_BYTES + OVERHEAD_BYTES:
            raise TrustError(f"{len(sealed)} bytes are not in the sealed form")
        return self._other_form(_Operation.UNSEAL, sealed, context, origin, len(sealed) - OVERHEAD_BYTES)

    def _other_form(
        self, operation: _Operation, block: bytes, context: bytes, origin: bytes, answer_bytes: int
    ) -> bytes:
        status, answer = self._call(
            operation,
            hashlib.sha256(context).digest(),
            key=hashlib.sha256(origin).digest(),
            offset=len(block),
            payload=memoryview(block),
            answer_bytes=answer_bytes,
        )
        if status != _DONE:
            raise TrustError("the application refuses the seal")
        return answer

    def _call(
        self,
        operation: _Operation,
        hash_or_nonce: bytes = _NOTHING,
        *,
        key: bytes = _NOTHING,
        offset: int = 0,
        payload: memoryview = _EMPTY,
        in_clear: bytes | memoryview = b"",
        answer_bytes: int = 0,
    ) -> tuple[int, bytes]:
        """Send a request and what goes with it; return the status and what came back.

        Raises:
            ChannelError: if a record does not authenticate, here or there; the session must end then.
            EnclaveError: if the application did not understand.
            EnclaveLostError: if the application or the machine died.
        """
        records = self._records
        message = records.seal(Kind.CONTROL, _REQUEST.pack(operation, offset, hash_or_nonce, key))
        message += records.seal_block(payload) + in_clear
        most = _STATUS_BYTES + TAG_BYTES + sealed_bytes(answer_bytes)
        try:
            answer = memoryview(self._guest.invoke(self._handle, _CALL, message, most=most))
        except TeeFault as fault:
            raise self._ended(fault) from None
        if len(answer) < _STATUS_BYTES + TAG_BYTES:
            raise ChannelError(f"enclave 'optee': an answer of {len(answer)} bytes is no answer")
        status = records.open(Kind.CONTROL, answer[: _STATUS_BYTES + TAG_BYTES])[0]
        rest = answer[_STATUS_BYTES + TAG_BYTES :]
        if status != _DONE:
            answer_bytes = 0
        if len(rest) != sealed_bytes(answer_bytes):
            raise ChannelError(f"enclave 'optee': expected {answer_bytes} sealed bytes, found {len(rest)} bytes")
        if status not in {_DONE, _REFUSED_SEAL, _REFUSED_FORMAT}:
            raise EnclaveError("enclave 'optee': the application refuses the request; load its weights first")
        return status, records.open_block(rest)

    @staticmethod
    def _ended(fault: TeeFault) -> TrustError:
        if fault.code == _MAC_INVALID:
            return ChannelError("enclave 'optee': a record does not authenticate there; the session ends here")
        return EnclaveLostError(f"enclave 'optee': the application ended the session ({fault}); launch another one")

    def close(self) -> None:
        """End the session, and forget the keys."""
        with contextlib.suppress(TeeFault, EnclaveLostError):
            self._guest.close_session(self._handle)
        self._secret.close()


def _pieces(block: memoryview) -> list[memoryview]:
    """Return a block in pieces, at least one."""
    return [block[at : at + _PIECE_BYTES] for at in range(0, max(len(block), 1), _PIECE_BYTES)]
