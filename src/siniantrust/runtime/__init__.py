"""A session over a bundle: launched, attested, pipelined, observed."""

from siniantrust.runtime._exporter import exporter
from siniantrust.runtime._measure import describe_machine, record_run
from siniantrust.runtime._record import RunRecord
from siniantrust.runtime._session import Session, open_session
from siniantrust.runtime._stages import Span, device_spec, enclave_spec

__all__ = [
    "RunRecord",
    "Session",
    "Span",
    "describe_machine",
    "device_spec",
    "enclave_spec",
    "exporter",
    "open_session",
    "record_run",
]
