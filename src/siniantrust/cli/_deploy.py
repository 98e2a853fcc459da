"""Commands that deploy: build, run, serve, export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import siniantrust as st
from siniantrust.cli._options import BundleFolder, Devices, Dims, Json, Keys, ModelFile, parse_devices, parse_dims
from siniantrust.cli._show import milliseconds, show_json, show_line, show_table
from siniantrust.errors import DataError, SinianError

if TYPE_CHECKING:
    import numpy as np

    from siniantrust.runtime import Observer, RunRecord, Session

# What accompanies the items of an audit's data is not for the model.
_BESIDE = ("labels", "y", "heldout", "attribute", "transcript", "sample_rate")


def build(
    model: ModelFile,
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.json of `sinian plan`.")],
    *,
    audit_folder: Annotated[
        Path | None, typer.Option("--audit", "-a", help="The audit that the plan rests on.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("deploy"),
    ahead_of_time: Annotated[
        bool, typer.Option("--ahead-of-time", help="Also compile the untrusted parts now, for the plan's devices.")
    ] = False,
    lineage: Annotated[str | None, typer.Option(help="Name of what has versions; default: the model's name.")] = None,
    version: Annotated[
        int | None,
        typer.Option(
            min=1, help="Once opened, older ones are refused; default: the newest opened with this key store."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The audit's data, to quantise layers under pads on.")
    ] = None,
    keys: Keys = None,
    dim: Dims = None,
    as_json: Json = False,
) -> None:
    """Write the deployable folder: parts, sealed weights, manifest, signature."""
    from siniantrust.bundle import KeyStore, load_bundle

    keystore = KeyStore(keys)
    whole = st.load(model, dims=parse_dims(dim))
    st.build(
        whole,
        plan,
        out,
        audit=audit_folder,
        keystore=keystore,
        ahead_of_time=ahead_of_time,
        lineage=lineage,
        version=version,
        data=data,
    )
    built = load_bundle(out, keystore=keystore)
    if as_json:
        shown = {"bundle_id": built.id, "lineage": built.manifest.lineage, "version": built.manifest.version}
        show_json({**shown, "path": str(out), "files": sorted(built.manifest.files)})
        return
    show_line(f"bundle {built.id} written to {out}; its weight key is in {keystore.path}")
    show_line(f"version {built.manifest.version} of {built.manifest.lineage}: once opened, older ones are refused")


def run(
    bundle: BundleFolder,
    data: Annotated[Path, typer.Argument(metavar="DATA", help=".npy or .npz with one row per item.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=".npz file for the outputs.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Items per request, where the model leaves it free.")] = 1,
    against: Annotated[Path | None, typer.Option(help="The uncut ONNX model to compare with.")] = None,
    record: Annotated[Path | None, typer.Option(help="run.json for the report; needs --against.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Chrome trace (JSON) of the run, for ui.perfetto.dev or chrome://tracing.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics on 127.0.0.1 while it runs.")
    ] = None,
    device: Devices = None,
    keys: Keys = None,
    dim: Dims = None,
    as_json: Json = False,
) -> None:
    """Run a bundle over data: the private part in the enclave, the rest on its devices."""
    from siniantrust.bundle import KeyStore
    from siniantrust.runtime import compare_terms

    if record is not None and against is None:
        raise SinianError("run: --record compares with the uncut model; give it with --against")
    if out is not None and out.suffix != ".npz":
        raise DataError(f"output {out}: expected a name that ends with .npz")
    keystore = KeyStore(keys)
    with (
        _observed(trace, metrics_port, quiet=as_json) as observers,
        st.open(bundle, keystore=keystore, devices=parse_devices(device), observers=observers) as session,
    ):
        inputs, labels = _read_inputs(data, session)
        measured = None
        if against is not None:
            from siniantrust.runtime import record_run

            whole = st.load(against, dims=parse_dims(dim))
            measured, outputs = record_run(session, whole, inputs, labels=labels, keystore=keystore, batch_items=batch)
            if record is not None:
                measured.save(record)
        else:
            outputs = session.run_batched(inputs, batch_items=batch)
        enclave = session.enclave_info()
        prediction = session.bundle.plan.prediction
    if out is not None:
        _save_outputs(out, outputs)
    count = len(next(iter(outputs.values())))
    if as_json:
        shown = {"count": count, "outputs": {name: list(array.shape) for name, array in outputs.items()}}
        shown |= {"enclave": enclave.provider, "provenance": enclave.provenance.value}
        if measured is not None:
            terms = compare_terms(prediction, measured.measured)
            shown |= {"run": measured.model_dump(mode="json"), "terms": [asdict(term) for term in terms]}
        show_json(shown)
        return
    show_line(f"{count} items through the {enclave.provider} enclave ({enclave.provenance.value})")
    if measured is not None:
        _show_measured(measured)
        show_table(
            ("term", "where", "predicted#", "measured#"),
            (
                (term.what, term.where, _figure(term.predicted_s), _figure(term.measured_s))
                for term in compare_terms(prediction, measured.measured)
            ),
        )
    if out is not None:
        show_line(f"outputs written to {out}")


@contextmanager
def _observed(trace: Path | None, metrics_port: int | None, *, quiet: bool) -> Iterator[list[Observer]]:
    """Yield what watches the session; at the end, write what is to be written."""
    from siniantrust.runtime import MetricsServer, PrometheusMetrics, TraceRecorder

    observers: list[Observer] = []
    with ExitStack() as stack:
        if metrics_port is not None:
            metrics = PrometheusMetrics()
            server = stack.enter_context(MetricsServer(metrics, metrics_port))
            observers.append(metrics)
            if not quiet:
                show_line(f"metrics at http://127.0.0.1:{server.port}/metrics")
        timeline = TraceRecorder()
        if trace is not None:
            observers.append(timeline)
        yield observers
    if trace is not None:
        timeline.save(trace)
        if not quiet:
            show_line(f"timeline written to {trace}; open it at https://ui.perfetto.dev or chrome://tracing")


def _show_measured(measured: RunRecord) -> None:
    show_line(f"largest difference from the uncut model: {measured.max_abs_difference:.3g}")
    if measured.accuracy is not None:
        show_line(f"accuracy: {measured.accuracy:.4f} (uncut {measured.accuracy_uncut:.4f})")
    show_line(
        f"latency: {milliseconds(measured.measured.latency_s)} (uncut {milliseconds(measured.uncut_latency_s)}); "
        f"in the pipeline one answer every {milliseconds(measured.measured.period_s)}"
    )


def _figure(latency_s: float | None) -> str:
    return "-" if latency_s is None else milliseconds(latency_s)


def _read_inputs(path: Path, session: Session) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Read one array per input, and labels if there are any."""
    from siniantrust.leakage import read_arrays

    names = [tensor.name for tensor in session.inputs]
    arrays = read_arrays(path)
    beside = {key: arrays.pop(key) for key in _BESIDE if key in arrays and key not in names}
    labels = beside.get("labels", beside.get("y"))
    if len(names) == 1 and len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}, labels
    if set(arrays) != set(names):
        raise DataError(f"data {path}: expected {names}, found {sorted(arrays)}")
    return arrays, labels


def _save_outputs(path: Path, outputs: dict[str, np.ndarray]) -> None:
    import io

    import numpy as np

    from siniantrust._files import write_atomic

    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **outputs)
    try:
        write_atomic(path, stream.getvalue())
    except OSError as fault:
        raise SinianError(f"output {path}: cannot be written ({fault.strerror}); give another path") from None


def serve(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A bundle (all its untrusted parts), a part's folder, or an ONNX file."),
    ],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for REST; 0 picks a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0 picks a free one.")] = 8001,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to compute with; default: every core.")] = None,
    provider: Annotated[str, typer.Option(help="ONNX Runtime execution provider.")] = "CPU",
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
    token_env: Annotated[str | None, typer.Option(help="Variable with the bearer token that callers present.")] = None,
) -> None:
    """Serve untrusted parts by the Open Inference Protocol (KServe v2), over REST and gRPC."""
    from siniantrust.odla import DeviceSpec
    from siniantrust.odla.oip import Endpoints
    from siniantrust.odla.oip import serve as serve_parts

    def ready(endpoints: Endpoints) -> None:
        served = ", ".join(f"{name} version {version[:16]}" for name, version in endpoints.models.items())
        show_line(f"serving {served} at {endpoints.http_url} and {endpoints.grpc_url}; stop with Ctrl-C")
        for warning in endpoints.warnings:
            show_line(f"warning: {warning}")

    options: dict[str, str | int | float | bool] = {"provider": provider, "spinning": False}
    if threads is not None:
        options["threads"] = threads
    serve_parts(
        path,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        device=DeviceSpec("server", options=options),
        tls_cert=tls_cert,
        tls_key=tls_key,
        token_env=token_env,
        ready=ready,
    )


def export(
    bundle: BundleFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; nothing may be in it.")],
    *,
    triton: Annotated[bool, typer.Option("--triton", help="As a model repository for NVIDIA's Triton server.")] = False,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch that the server takes.")] = 32,
    kserve: Annotated[
        str | None, typer.Option(metavar="URI", help="Also write an InferenceService for a repository at this URI.")
    ] = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Write the untrusted parts in the form that another server takes."""
    from siniantrust.bundle import KeyStore, export_triton

    if not triton:
        raise SinianError("export: name the form, which is --triton")
    parts = export_triton(bundle, out, keystore=KeyStore(keys), max_batch=max_batch, kserve_uri=kserve)
    if as_json:
        show_json({"path": str(out), "models": list(parts)})
        return
    show_line(f"{', '.join(parts)} written to {out}; serve with: tritonserver --model-repository={out}")
