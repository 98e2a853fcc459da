"""An edge's link to the cloud: calls that are safe to repeat, repeated while the cloud does not answer."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

from siniantrust.collab import _methods as methods
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._attest import Attestation
from siniantrust.collab._config import EdgeConfig
from siniantrust.collab._errors import CloudLostError, JoinAgainError, RefusedError, WaitingError
from siniantrust.collab._tls import load_grpc, open_channel, read_certificate
from siniantrust.trust.attestation import NONCE_BYTES

_CALL_S = 120.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_ANSWER_BYTES = 1 << 30


class Link:
    """Calls the cloud.

    Args:
        config: the edge's configuration.
        agreement: what the edge knows of the run.
        attestation: what the edge shows, and what it asks of the cloud.
    """

    def __init__(self, config: EdgeConfig, agreement: Agreement, attestation: Attestation) -> None:
        self._config = config
        self._agreement = agreement
        self._attestation = attestation
        self._cloud_spki = read_certificate(config.cloud_certificate)[2]
        self._channel: Any = None
        self.sent_bytes = 0
        self.received_bytes = 0
        self.tensor_bytes = 0
        self.calls: Counter[str] = Counter()
        self.provenance = ""

    def join(self, steps: list[int]) -> pb.JoinAnswer:
        """Attest both sides, agree, and return where to go on.

        Raises:
            RefusedError: if either side refuses the other.
            CloudLostError: if the cloud does not answer for ``give_up_s``.
        """
        while True:
            nonce = os.urandom(NONCE_BYTES)
            hello = self.call(methods.HELLO, pb.HelloRequest(nonce=nonce))
            self.provenance = self._attestation.appraise(
                hello.evidence, name="the cloud", nonce=nonce, role="cloud", spki=self._cloud_spki
            )
            request = pb.JoinRequest(
                nonce=hello.nonce,
                evidence=self._attestation.show(hello.nonce, role="edge"),
                agreement=self._agreement.text,
                agreement_sha256=self._agreement.sha256,
                steps=steps,
            )
            try:
                answer: pb.JoinAnswer = self.call(methods.JOIN, request)
            except JoinAgainError:  # a nonce is good for one call, whose answer may have been lost
                continue
            return answer

    def call(self, method: methods.Method, request: Any) -> Any:
        """Call until there is an answer.

        Raises:
            RefusedError: if the cloud refuses.
            JoinAgainError: if it asks to join again.
            CloudLostError: if it does not answer for ``give_up_s``.
        """
        data = request.SerializeToString()
        self.tensor_bytes += sum(len(tensor.data) for tensor in getattr(request, "tensors", ()))
        give_up_s = time.monotonic() + self._config.give_up_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                raw = self._once(method, data)
                break
            except WaitingError:
                give_up_s = time.monotonic() + self._config.give_up_s
            except CloudLostError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        answer = method.answer.FromString(raw)
        self.tensor_bytes += sum(len(tensor.data) for tensor in getattr(answer, "tensors", ()))
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _once(self, method: methods.Method, data: bytes) -> bytes:
        grpc = load_grpc()
        if self._channel is None:
            config = self._config
            self._channel = open_channel(
                config.cloud,
                key=config.key,
                certificate=config.certificate,
                peer=config.cloud_certificate,
                message_bytes=_ANSWER_BYTES,
            )
        self.sent_bytes += len(data)
        self.calls[method.name] += 1
        try:
            raw: bytes = self._channel.unary_unary(method.path, _registered_method=False)(data, timeout=_CALL_S)
        except grpc.RpcError as fault:
            raise self._translated(grpc.StatusCode, fault) from None
        self.received_bytes += len(raw)
        return raw

    def _translated(self, codes: Any, fault: Any) -> Exception:
        code, details = fault.code(), " ".join((fault.details() or "").split())
        cloud = f"cloud {self._config.cloud}"
        if code is codes.FAILED_PRECONDITION:
            return JoinAgainError(details)
        if code is codes.OUT_OF_RANGE:
            return WaitingError(details)
        if code is codes.INVALID_ARGUMENT:
            return RefusedError(f"{cloud} refused: {details}")
        if code is codes.RESOURCE_EXHAUSTED and "larger than max" in details:
            return RefusedError(f"{cloud} refused: {details}; make batch smaller, or its message_bytes larger")
        if "handshake failed" in details:
            return RefusedError(f"{cloud}: its certificate is not {self._config.cloud_certificate}, or not for TLS 1.3")
        self.close()  # a new connection for the next call, which does not wait as long as this one would
        return CloudLostError(f"{cloud} does not answer: {code.name}: {details}")
