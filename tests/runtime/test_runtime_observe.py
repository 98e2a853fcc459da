from __future__ import annotations

import importlib
import json
import re
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Timer

import pytest
from runtime_deployments import Deployment

from siniantrust.errors import DataError, DeviceLostError, MissingExtraError, SinianError
from siniantrust.runtime import (
    Call,
    MetricsServer,
    Observer,
    OpenTelemetrySpans,
    PrometheusMetrics,
    Session,
    TraceRecorder,
    open_session,
)

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs/observability.md"


def _open(deployment: Deployment, observers: Sequence[Observer]) -> Session:
    return open_session(deployment.path, keystore=deployment.keystore, observers=observers)


def _fail_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise DeviceLostError("unplugged")

    seat = session.stages[1]._roster.seat("cloud")  # type: ignore[attr-defined]
    seat.open()
    monkeypatch.setattr(seat._current.executable, "run", gone)


def test_metrics_are_scraped_over_http(vector_deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape of the real endpoint has requests, errors, latencies, bytes and queues as they were, and no values."""
    pytest.importorskip("prometheus_client", reason="the extra 'observe' is not installed")
    metrics = PrometheusMetrics()
    inputs = vector_deployment.inputs(4)
    with MetricsServer(metrics, 0) as server, _open(vector_deployment, [metrics]) as session:
        for _ in range(5):
            session.run(inputs)
        list(session.stream([inputs] * 3))
        _fail_once(session, monkeypatch)
        with pytest.raises(DeviceLostError):
            session.run(inputs)
        with pytest.raises(DataError):
            session.run({})
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    found = dict(re.findall(r"^(siniantrust\S+) (\S+)$", text, re.MULTILINE))
    assert float(found["siniantrust_requests_total"]) == 8
    assert float(found['siniantrust_errors_total{kind="DeviceLostError"}']) == 1
    assert float(found['siniantrust_errors_total{kind="DataError"}']) == 1
    assert float(found['siniantrust_call_errors_total{device="cloud",kind="DeviceLostError",part="part2"}']) == 1
    assert float(found['siniantrust_call_latency_seconds_count{device="cloud",part="part2"}']) == 8
    assert float(found["siniantrust_request_latency_seconds_count"]) == 8
    crossed = float(found['siniantrust_crossing_bytes_total{device="cloud",direction="in",part="part2"}'])
    assert crossed == 8 * 4 * 8 * 4  # requests x rows x floats x bytes
    assert {float(value) for name, value in found.items() if name.startswith("siniantrust_queue_length")} == {0.0}


def test_every_metric_is_documented() -> None:
    """docs/observability.md names the metrics that there are, and no others."""
    pytest.importorskip("prometheus_client", reason="the extra 'observe' is not installed")
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in PrometheusMetrics().registry.collect()
    }
    assert set(re.findall(r"^\| `(siniantrust_\w+)`", _DOCUMENT.read_text(), re.MULTILINE)) == families


def test_a_metrics_port_in_use_is_one_line() -> None:
    """A port that another server has is an error that names it."""
    pytest.importorskip("prometheus_client", reason="the extra 'observe' is not installed")
    with (
        MetricsServer(PrometheusMetrics(), 0) as server,
        pytest.raises(SinianError, match=f"metrics: port {server.port} at 127.0.0.1 cannot be had"),
    ):
        MetricsServer(PrometheusMetrics(), server.port)


def test_spans_have_the_requests_over_their_parts(
    vector_deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is a span below its caller's, with a child per part; a failure is an error without its message."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra 'observe' is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with _open(vector_deployment, [OpenTelemetrySpans(provider)]) as session:
        with provider.get_tracer("test").start_as_current_span("caller"):
            session.run(vector_deployment.inputs())
        list(session.stream([vector_deployment.inputs()] * 2))
        _fail_once(session, monkeypatch)
        with pytest.raises(DeviceLostError):
            session.run(vector_deployment.inputs())
    spans = exporter.get_finished_spans()
    by_id = {context.span_id: span for span in spans if (context := span.get_span_context()) is not None}
    requests = [span for span in spans if span.name == "siniantrust.request"]
    assert len(requests) == 4
    for request in requests:
        below = [span for span in spans if span.parent is not None and by_id[span.parent.span_id] is request]
        children = sorted(below, key=lambda span: span.start_time or 0)
        places = [
            tuple((child.attributes or {})[f"siniantrust.{key}"] for key in ("part", "device")) for child in children
        ]
        assert places == [("part1", "enclave"), ("part2", "cloud")]
        times = [(span.start_time or 0, span.end_time or 0) for span in (request, *children)]
        assert all(times[0][0] <= start <= end <= times[0][1] for start, end in times)
    caller = requests[0].parent
    assert caller is not None
    assert by_id[caller.span_id].name == "caller"
    assert not requests[-1].status.is_ok
    assert requests[-1].status.description == "DeviceLostError"


@pytest.mark.parametrize(
    ("make", "module"), [(PrometheusMetrics, "prometheus_client"), (OpenTelemetrySpans, "opentele")]
)
def test_a_missing_extra_is_one_line(make: type[Observer], module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries the error is the `pip install` that brings them."""
    real = importlib.import_module

    def absent(name: str) -> object:
        if name.startswith(module):
            raise ModuleNotFoundError(name=name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"run: pip install 'siniantrust\[observe\]'"):
        make()


def test_an_observer_that_fails_harms_no_request(
    vector_deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of an observer is logged, and the answer comes all the same."""

    class Broken(Observer):
        def on_call(self, call: Call) -> None:
            raise ZeroDivisionError(call.part)

    with _open(vector_deployment, [Broken()]) as session:
        assert session.run(vector_deployment.inputs())
    assert "observer Broken failed" in caplog.text


def test_a_trace_has_every_request_and_call(vector_deployment: Deployment, tmp_path: Path) -> None:
    """The timeline is in Chrome's format: blocks per device that do not overlap, and asynchronous ones in pairs."""
    recorder = TraceRecorder()
    with _open(vector_deployment, [recorder]) as session:
        list(session.stream([vector_deployment.inputs(1, seed=seed) for seed in range(6)]))
    recorder.save(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    events = trace["traceEvents"]
    rows = {event["args"]["name"]: event["pid"] for event in events if event["ph"] == "M"}
    assert set(rows) == {"requests", "enclave", "cloud"}
    for device, part in (("enclave", "part1"), ("cloud", "part2")):
        blocks = [event for event in events if event["ph"] == "X" and event["pid"] == rows[device]]
        assert sorted(block["args"]["request"] for block in blocks) == list(range(6))
        assert {block["args"]["part"] for block in blocks} == {part}
        lanes: dict[int, float] = {}
        for block in sorted(blocks, key=lambda block: block["ts"]):
            assert block["ts"] >= lanes.get(block["tid"], 0.0) - 0.01
            lanes[block["tid"]] = block["ts"] + block["dur"]
    begins = sorted((event["cat"], event["name"], event["id"]) for event in events if event["ph"] == "b")
    ends = sorted((event["cat"], event["name"], event["id"]) for event in events if event["ph"] == "e")
    assert begins == ends
    assert len([each for each in begins if each[0] == "request"]) == 6


def test_a_trace_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """An error of the file system is one line that names the file."""
    (tmp_path / "none").write_text("")
    with pytest.raises(SinianError, match=r"trace .*none.*: cannot be written \("):
        TraceRecorder().save(tmp_path / "none" / "trace.json")


def test_a_dropped_stream_leaves_no_queue(vector_deployment: Deployment) -> None:
    """Requests of a stream that is closed early are ended, and nothing waits any more."""
    lengths: dict[str, int] = {}
    ended: list[str | None] = []
    is_closing = Event()

    class Watch(Observer):
        def on_queue(self, part: str, waiting: int) -> None:
            lengths[part] = waiting

        def on_call(self, call: Call) -> None:
            # The first answer comes; what follows it is still under way when the stream is closed.
            if call.request:
                is_closing.wait(30)

        def on_end(self, request: int, start_s: float, end_s: float, error: str | None) -> None:  # noqa: ARG002 - an observer's signature
            ended.append(error)

    with _open(vector_deployment, [Watch()]) as session:
        stream = session.stream(vector_deployment.inputs(1, seed=seed) for seed in range(1000))
        next(stream)
        # Closing waits for the calls under way, so another thread lets them go, when closing has begun.
        Timer(1.0, is_closing.set).start()
        stream.close()
    assert set(lengths.values()) == {0}
    assert "Dropped" in ended
