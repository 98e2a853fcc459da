"""A session over a bundle: launched, attested, pipelined, moving, observed."""

from siniantrust.runtime._compare import ComparedTerm, compare_terms
from siniantrust.runtime._exporter import exporter
from siniantrust.runtime._holder import enclave_spec
from siniantrust.runtime._measure import describe_machine, record_run
from siniantrust.runtime._observe import Call, Move, Observer, Stock
from siniantrust.runtime._prometheus import MetricsServer, PrometheusMetrics
from siniantrust.runtime._record import RunRecord
from siniantrust.runtime._request_cost import measure_request
from siniantrust.runtime._session import Session, open_session
from siniantrust.runtime._spans import OpenTelemetrySpans
from siniantrust.runtime._stages import Span, device_spec
from siniantrust.runtime._trace import TraceRecorder

__all__ = [
    "Call",
    "ComparedTerm",
    "MetricsServer",
    "Move",
    "Observer",
    "OpenTelemetrySpans",
    "PrometheusMetrics",
    "RunRecord",
    "Session",
    "Span",
    "Stock",
    "TraceRecorder",
    "compare_terms",
    "describe_machine",
    "device_spec",
    "enclave_spec",
    "exporter",
    "measure_request",
    "open_session",
    "record_run",
]
