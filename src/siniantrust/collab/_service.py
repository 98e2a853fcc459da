"""The cloud's gRPC service: who calls, how often, and what each error is on the wire."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from siniantrust.collab import _methods as methods
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import require_agreement
from siniantrust.collab._attest import Attestation
from siniantrust.collab._coordinator import Coordinator
from siniantrust.collab._errors import CollabError, JoinAgainError, RefusedError, WaitingError
from siniantrust.collab._tls import load_grpc, peer_name, read_certificate
from siniantrust.collab._wire import to_messages
from siniantrust.errors import AttestationError
from siniantrust.trust.attestation import NONCE_BYTES
from siniantrust.trust.tls import TokenBucket

# One, and one of before that the edge has given up and that has not been noticed yet.
CALLS_AT_A_TIME = 2
# Well below how long an edge waits for an answer, so that it can tell a cloud that waits from one that is lost.
_LONGEST_WAIT_S = 60.0
_log = logging.getLogger(__name__)


class RateError(CollabError):
    """An edge calls too often; it may call again later."""


class Service:
    """Answers edges.

    Args:
        coordinator: what is done with what they send.
        attestation: what the cloud shows, and what it asks of edges.
    """

    def __init__(self, coordinator: Coordinator, attestation: Attestation) -> None:
        self._coordinator = coordinator
        self._attestation = attestation
        limits = coordinator.config.limits
        self._spkis = {edge.name: read_certificate(edge.certificate)[2] for edge in coordinator.config.edge}
        self._rates = {name: TokenBucket(limits.requests_per_s, limits.burst) for name in self._spkis}
        self._nonces: dict[str, bytes] = {}
        self._admitted: set[str] = set()
        self._open: Counter[str] = Counter()
        self._mutex = threading.Lock()

    def handler(self) -> Any:
        """Return the generic gRPC handler."""
        grpc = load_grpc()
        answers: dict[methods.Method, Callable[[str, Any, Any], Any]] = {
            methods.HELLO: self._hello,
            methods.JOIN: self._join,
            methods.UPLOAD: self._upload,
            methods.STEP: self._step,
            methods.FETCH: self._fetch,
        }
        return grpc.method_handlers_generic_handler(
            methods.SERVICE,
            {
                method.name: grpc.unary_unary_rpc_method_handler(self._guarded(grpc, method, answer))
                for method, answer in answers.items()
            },
        )

    def _guarded(
        self, grpc: Any, method: methods.Method, answer: Callable[[str, Any, Any], Any]
    ) -> Callable[[bytes, Any], bytes]:
        codes = grpc.StatusCode

        def handle(data: bytes, context: Any) -> bytes:
            edge = peer_name(context, self._spkis)
            try:
                return self._call(edge, method, answer, data, context)
            except JoinAgainError as fault:
                code, reason = codes.FAILED_PRECONDITION, str(fault)
            except WaitingError as fault:
                code, reason = codes.OUT_OF_RANGE, str(fault)
            except RateError as fault:
                code, reason = codes.RESOURCE_EXHAUSTED, str(fault)
            except (RefusedError, AttestationError) as fault:
                _log.warning("refused: %s", fault)
                code, reason = codes.INVALID_ARGUMENT, str(fault)
            except OSError as fault:
                code, reason = codes.ABORTED, f"the cloud cannot write: {fault.strerror}"
                _log.warning("edge '%s': %s", edge, reason)
            context.abort(code, reason)
            raise AssertionError  # abort has raised

        return handle

    def _call(
        self,
        edge: str | None,
        method: methods.Method,
        answer: Callable[[str, Any, Any], Any],
        data: bytes,
        context: Any,
    ) -> bytes:
        from google.protobuf.message import DecodeError

        if edge is None:
            raise RefusedError("the certificate is of no edge of this run, or the connection is older than TLS 1.3")
        with self._within_limits(edge):
            self._coordinator.seen(edge)
            try:
                request = method.request.FromString(data)
            except (DecodeError, UnicodeDecodeError):
                raise RefusedError(f"edge '{edge}': {len(data)} bytes are no {method.name} request") from None
            done: bytes = answer(edge, request, context).SerializeToString()
            self._coordinator.seen(edge)
            return done

    @contextmanager
    def _within_limits(self, edge: str) -> Iterator[None]:
        """Hold one of the edge's calls open; calls wait for other edges, which must find a thread to come in."""
        with self._mutex:
            if not self._rates[edge].take():
                raise RateError(
                    f"edge '{edge}': over {self._coordinator.config.limits.requests_per_s:g} calls a second"
                )
            if self._open[edge] >= CALLS_AT_A_TIME:
                raise RateError(f"edge '{edge}': over {CALLS_AT_A_TIME} calls at a time")
            self._open[edge] += 1
        try:
            yield
        finally:
            with self._mutex:
                self._open[edge] -= 1

    def _hello(self, edge: str, request: Any, context: Any) -> Any:
        _ = context
        nonce = os.urandom(NONCE_BYTES)
        with self._mutex:
            self._nonces[edge] = nonce
        return pb.HelloAnswer(nonce=nonce, evidence=self._attestation.show(request.nonce, role="cloud"))

    def _join(self, edge: str, request: Any, context: Any) -> Any:
        with self._mutex:
            nonce = self._nonces.pop(edge, None)
        if nonce is None or nonce != request.nonce:
            raise JoinAgainError(f"edge '{edge}': its nonce was used or never given; say hello again")
        name = f"edge '{edge}'"
        provenance = self._attestation.appraise(
            request.evidence, name=name, nonce=nonce, role="edge", spki=self._spkis[edge]
        )
        require_agreement(self._coordinator.agreement, request.agreement, request.agreement_sha256, edge=edge)
        self._coordinator.provenances[edge] = provenance
        self._admitted.add(edge)
        generation, step = self._coordinator.join(edge, set(request.steps), _wanted(edge, context))
        return pb.JoinAnswer(generation=generation, step=step)

    def _upload(self, edge: str, request: Any, context: Any) -> Any:
        _ = context
        return self._contributed(edge, lambda: pb.UploadAnswer(chunks_held=self._coordinator.upload(edge, request)))

    def _step(self, edge: str, request: Any, context: Any) -> Any:
        def answer() -> Any:
            found = pb.StepAnswer()
            to_messages(self._coordinator.step(edge, request, _wanted(edge, context)), found.tensors)
            return found

        return self._contributed(edge, answer)

    def _fetch(self, edge: str, request: Any, context: Any) -> Any:
        _ = context
        self._require_admitted(edge)
        return self._coordinator.fetch(edge, request.offset)

    def _contributed(self, edge: str, answer: Callable[[], Any]) -> Any:
        """Take a contribution; an edge whose contribution is not what it should be takes part no more."""
        self._require_admitted(edge)
        try:
            return answer()
        except RefusedError as fault:
            self._coordinator.leave_out(edge, str(fault))
            raise

    def _require_admitted(self, edge: str) -> None:
        if edge not in self._admitted:
            raise JoinAgainError(f"edge '{edge}' has not joined")


def _wanted(edge: str, context: Any) -> Callable[[], bool]:
    """Return what says whether the edge still waits for its call; it raises WaitingError when it has waited long."""
    end_s = time.monotonic() + _LONGEST_WAIT_S

    def is_wanted() -> bool:
        if time.monotonic() > end_s:
            raise WaitingError(f"edge '{edge}': others are awaited; call again")
        found: bool = context.is_active()
        return found

    return is_wanted
