"""OpenTelemetry spans of a session: one for each request, and below it one for each call of a part."""

from __future__ import annotations

import threading
import time
from typing import Any

from siniantrust._extras import require
from siniantrust.runtime._observe import Call, Move, Observer

_NS = 1_000_000_000


class OpenTelemetrySpans(Observer):
    """Makes spans: ``siniantrust.request`` with a child ``siniantrust.part`` for each call, ``siniantrust.move``.

    A request's span is a child of the span that its caller was in. Attributes are names, numbers of requests, sizes in
    bytes and kinds of errors.

    Args:
        provider: an ``opentelemetry.sdk.trace.TracerProvider``; None for the process's global one.

    Raises:
        MissingExtraError: if OpenTelemetry is not installed.
    """

    def __init__(self, provider: Any = None) -> None:
        self._trace = require("opentelemetry.trace", extra="observe")
        self._tracer = self._trace.get_tracer("siniantrust", tracer_provider=provider)
        # Spans bear the time of day; calls are timed by a clock that never jumps.
        self._offset_ns = time.time_ns() - round(time.perf_counter() * _NS)
        self._lock = threading.Lock()
        self._open: dict[int, Any] = {}

    def on_begin(self, request: int, start_s: float) -> None:
        """Begin a request's span, below the caller's."""
        attributes = {"siniantrust.request": request}
        span = self._tracer.start_span("siniantrust.request", start_time=self._ns(start_s), attributes=attributes)
        with self._lock:
            self._open[request] = span

    def on_end(self, request: int, start_s: float, end_s: float, error: str | None) -> None:  # noqa: ARG002 - an observer's signature
        """End a request's span."""
        with self._lock:
            span = self._open.pop(request, None)
        if span is not None:
            self._end(span, end_s, error)

    def on_call(self, call: Call) -> None:
        """Make a call's span, below its request's."""
        with self._lock:
            parent = None if call.request is None else self._open.get(call.request)
        if parent is None:
            return
        attributes = {
            "siniantrust.part": call.part,
            "siniantrust.device": call.device,
            "siniantrust.waited_s": call.start_s - call.ready_s,
            "siniantrust.sent_bytes": call.sent_bytes,
            "siniantrust.received_bytes": call.received_bytes,
        }
        below = self._trace.set_span_in_context(parent)
        start_ns = self._ns(call.start_s)
        span = self._tracer.start_span("siniantrust.part", context=below, start_time=start_ns, attributes=attributes)
        self._end(span, call.end_s, call.error)

    def on_move(self, move: Move) -> None:
        """Make a span without length for a move; its reason may hold addresses, and stays out."""
        attributes = {
            "siniantrust.part": move.part,
            "siniantrust.source": move.source or "",
            "siniantrust.target": move.target,
            "siniantrust.cause": move.cause,
        }
        at_ns = self._ns(move.at_s)
        self._tracer.start_span("siniantrust.move", start_time=at_ns, attributes=attributes).end(at_ns)

    def _end(self, span: Any, end_s: float, error: str | None) -> None:
        if error is not None:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, error))
        span.end(self._ns(end_s))

    def _ns(self, time_s: float) -> int:
        return round(time_s * _NS) + self._offset_ns
