"""Prometheus metrics of a session: labels are names of parts and devices, and of a tensor only its size counts."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from siniantrust._extras import require
from siniantrust.errors import SinianError
from siniantrust.runtime._observe import Call, Move, Observer, Stock

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class PrometheusMetrics(Observer):
    """Counts what a session does; docs/observability.md names the metrics.

    Args:
        registry: a ``prometheus_client.CollectorRegistry``; None for one of its own.

    Raises:
        MissingExtraError: if prometheus-client is not installed.
    """

    def __init__(self, registry: Any = None) -> None:
        library = require("prometheus_client", extra="observe")
        self.registry = library.CollectorRegistry() if registry is None else registry
        at = {"registry": self.registry}
        place = ("part", "device")
        self._requests = library.Counter("siniantrust_requests", "Requests that were answered.", **at)
        self._errors = library.Counter("siniantrust_errors", "Requests that ended with an error.", ("kind",), **at)
        self._request_s = library.Histogram(
            "siniantrust_request_latency_seconds", "From a request's arrival to its end.", buckets=_BUCKETS_S, **at
        )
        self._call_s = library.Histogram(
            "siniantrust_call_latency_seconds", "Time of a part on a device.", place, buckets=_BUCKETS_S, **at
        )
        self._call_errors = library.Counter(
            "siniantrust_call_errors", "Calls of a part that a device failed.", (*place, "kind"), **at
        )
        self._bytes = library.Counter(
            "siniantrust_crossing_bytes", "Bytes of tensors handed to and from a device.", (*place, "direction"), **at
        )
        self._waiting = library.Gauge("siniantrust_queue_length", "Requests that wait for a part.", ("part",), **at)
        self._moves = library.Counter(
            "siniantrust_migrations", "Moves of a part between devices.", ("part", "source", "target", "cause"), **at
        )
        self._stock = library.Gauge("siniantrust_pad_stock_items", "Items with prepared pads.", ("part",), **at)
        self._prepared = library.Gauge("siniantrust_pads_prepared", "Items prepared since launch.", ("part",), **at)
        self._prepare_s = library.Gauge(
            "siniantrust_pad_prepare_cpu_seconds", "Processor time of preparing them.", ("part",), **at
        )
        self._refill_s = library.Histogram(
            "siniantrust_pad_refill_seconds", "Time of preparing one item.", ("part",), buckets=_BUCKETS_S, **at
        )
        self._ran_dry = library.Gauge("siniantrust_pad_stock_dry", "Items that found no pads.", ("part",), **at)
        self._refused = library.Gauge("siniantrust_answers_refused", "Answers that failed a check.", ("part",), **at)

    def on_end(self, request: int, start_s: float, end_s: float, error: str | None) -> None:  # noqa: ARG002 - an observer's signature
        """Count a request and its latency, or its error."""
        if error is None:
            self._requests.inc()
            self._request_s.observe(end_s - start_s)
        else:
            self._errors.labels(error).inc()

    def on_call(self, call: Call) -> None:
        """Count a call, its latency and what crossed."""
        if call.error is not None:
            self._call_errors.labels(call.part, call.device, call.error).inc()
            return
        self._call_s.labels(call.part, call.device).observe(call.end_s - call.start_s)
        self._bytes.labels(call.part, call.device, "in").inc(call.sent_bytes)
        self._bytes.labels(call.part, call.device, "out").inc(call.received_bytes)

    def on_queue(self, part: str, waiting: int) -> None:
        """Note a queue's length."""
        self._waiting.labels(part).set(waiting)

    def on_move(self, move: Move) -> None:
        """Count a move."""
        self._moves.labels(move.part, move.source or "", move.target, move.cause).inc()

    def on_stock(self, stock: Stock) -> None:
        """Note what is in stock, and what preparing it took."""
        self._stock.labels(stock.part).set(stock.level)
        self._prepared.labels(stock.part).set(stock.prepared)
        self._prepare_s.labels(stock.part).set(stock.prepare_s)
        self._refill_s.labels(stock.part).observe(stock.took_s)
        self._ran_dry.labels(stock.part).set(stock.ran_dry)
        self._refused.labels(stock.part).set(stock.refused)


class MetricsServer:
    """Serves a registry's metrics over HTTP at ``/metrics`` until it is closed; a context manager.

    Args:
        metrics: what to serve.
        port: port to listen on; 0 picks a free one, which ``port`` then says.
        host: address to listen on. Names of parts and devices, sizes and times are readable to whoever reaches it.

    Raises:
        SinianError: if the port cannot be had.
    """

    def __init__(self, metrics: PrometheusMetrics, port: int, *, host: str = "127.0.0.1") -> None:
        library = require("prometheus_client", extra="observe")
        try:
            self._server, self._thread = library.start_http_server(port, addr=host, registry=metrics.registry)
        except OSError as fault:
            raise SinianError(
                f"metrics: port {port} at {host} cannot be had ({fault.strerror}); give another"
            ) from None
        self.port = int(self._server.server_port)
        self._lock = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        """Stop serving; calling it again does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self.close()
