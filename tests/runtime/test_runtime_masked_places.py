"""Layers under pads elsewhere: the enclave in a service, the device at a server, figures for Prometheus and a run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from exact_models import downsampling_network
from masked_deployments import MaskedDeployment, deploy_masked
from planner_models import chain_model
from remote_cases import LOOPBACK, MEASUREMENT, REFERENCE, running

from siniantrust._files import sha256_bytes
from siniantrust.bundle import load_bundle
from siniantrust.errors import BundleError
from siniantrust.graph import load_model
from siniantrust.odla import DeviceSpec
from siniantrust.planner import load_plan
from siniantrust.runtime import PrometheusMetrics, compare_terms, record_run
from siniantrust.trust.attestation import reference_to_table
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.service import EnclaveService


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> MaskedDeployment:
    """Return a deployment with every layer under pads."""
    return deploy_masked(tmp_path_factory.mktemp("masked"))


def test_pads_in_an_enclave_service(tmp_path: Path) -> None:
    """A service holds pads and requests as the process enclave does, by the same calls."""
    with running(EnclaveService(SimulatedAttester(MEASUREMENT), LOOPBACK)) as address:
        enclave = {
            "provider": "service",
            "accept": ["simulated"],
            "address": str(address),
            "reference": reference_to_table(REFERENCE),
        }
        deployment = deploy_masked(tmp_path, enclave=enclave)
        inputs = deployment.inputs(2)
        with deployment.open() as session:
            assert session.masked is not None
            session.masked.fill(30.0)
            np.testing.assert_array_equal(session.run(inputs)["y"], deployment.quantised(inputs))
            assert session.masked.status().meter.ran_dry == 0
            assert session.masked.quarantined == {}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_pads_and_what_is_behind_the_cut_at_one_server(tmp_path: Path, protocol: str) -> None:
    """One server over the bundle computes each exchange, in residues, and part 2, as a device here would."""
    pytest.importorskip("grpc", reason="the extra 'serve' is not installed")
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    from siniantrust.odla.oip import Server

    deployment = deploy_masked(tmp_path, mask="auto", cut="p")
    inputs = deployment.inputs(3)
    with deployment.open() as session:
        expected = session.run(inputs)["y"]
    with Server(deployment.path) as served:
        assert list(served.models) == ["part1-exchange0", "part1-exchange1", "part2"]
        url = served.grpc_url if protocol == "grpc" else served.http_url
        with deployment.open({"cloud": DeviceSpec("cloud", backend="remote", options={"url": url})}) as session:
            assert {info.backend for info in session.device_infos()} == {"remote"}
            found = session.run(inputs)["y"]
            assert session.masked is not None
            assert session.masked.quarantined == {}
    np.testing.assert_array_equal(found, expected)


def test_one_exchange_can_be_served_alone(tmp_path: Path) -> None:
    """A folder of the bundle is served as before, under the exchange's name."""
    pytest.importorskip("grpc", reason="the extra 'serve' is not installed")
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    from siniantrust.odla.oip import Server

    deployment = deploy_masked(tmp_path, model=chain_model(4))
    inputs = deployment.inputs(3)
    with (
        Server(deployment.path / "part1" / "exchange0") as served,
        deployment.open({"cloud": DeviceSpec("cloud", backend="remote", options={"url": served.grpc_url})}) as session,
    ):
        assert list(served.models) == ["part1-exchange0"]
        np.testing.assert_array_equal(session.run(inputs)["t3"], deployment.quantised(inputs))


def test_prometheus_has_the_stock_and_its_cost(deployment: MaskedDeployment) -> None:
    """Stock level, what was prepared, what that took, and what found the stock dry are metrics."""
    pytest.importorskip("prometheus_client", reason="the extra 'observe' is not installed")
    metrics = PrometheusMetrics()
    with deployment.open(None, metrics) as session:
        assert session.masked is not None
        session.masked.fill(30.0)
        session.run(deployment.inputs(2))
        session.masked.fill(30.0)

    def value(name: str) -> float:
        found = metrics.registry.get_sample_value(name, {"part": "part1"})
        assert found is not None, name
        return float(found)

    assert value("siniantrust_pad_stock_items") == 8
    assert value("siniantrust_pads_prepared") == 10
    assert value("siniantrust_pad_prepare_cpu_seconds") > 0
    assert value("siniantrust_pad_refill_seconds_count") == 10
    assert value("siniantrust_pad_stock_dry") == 0
    assert value("siniantrust_answers_refused") == 0


def test_a_run_records_what_pads_cost(deployment: MaskedDeployment) -> None:
    """run.json has the masked part's work by kind, its bytes, the offline cost, and what quantisation cost."""
    held = deployment.data.heldout
    assert held is not None
    inputs = {"x": deployment.data.inputs[held]}
    with deployment.open() as session:
        record, outputs = record_run(session, deployment.model, inputs, keystore=deployment.keystore)
        terms = compare_terms(session.bundle.plan.prediction, record.measured)
    np.testing.assert_array_equal(outputs["y"], deployment.quantised(inputs))
    masked = record.masked
    assert masked is not None
    assert (masked.part, masked.devices, masked.layers) == ("part1", ("cloud",), 4)
    assert masked.items >= len(inputs["x"])
    assert masked.sent_bytes == 3 * (243 + 240 + 6)
    assert min(masked.mask_s, masked.unmask_s, masked.verify_s, masked.prepare_s, masked.device_s) > 0
    assert masked.quantised.items == 20
    assert len(masked.quantised.bounds) == 4
    padded = next(term for term in terms if term.what == "padded layers of part 1, moved there and back")
    assert padded.where == "cloud"
    assert padded.measured_s is not None
    assert padded.predicted_s is not None


def test_what_the_device_gets_holds_quantised_weights_only(deployment: MaskedDeployment) -> None:
    """Outside lie integers of padded layers; biases, scales and the float weights are in the sealed file alone."""
    import onnx

    outside = {path: path.read_bytes() for path in deployment.path.rglob("*") if path.is_file()}
    secrets = [
        tensor.raw_data
        for tensor in deployment.model.proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    ]
    assert secrets
    for path, raw in outside.items():
        for secret in secrets:
            assert secret not in raw, path
    bundle = load_bundle(deployment.path, keystore=deployment.keystore)
    masked = bundle.parts[0].masked  # type: ignore[union-attr]
    assert masked is not None
    for part in masked.exchanges:
        floats = [each for each in part.proto.graph.initializer if each.data_type != onnx.TensorProto.INT8]
        # Shapes, and what a limb is worth.
        assert {each.data_type for each in floats} <= {onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE}
        assert max(math.prod(each.dims) for each in floats) <= 8


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> MaskedDeployment:
    """Return a deployment of which devices make a residual sum."""
    return deploy_masked(tmp_path_factory.mktemp("summed"), model=load_model(downsampling_network()))


def test_a_program_of_another_plan_is_refused(deployment: MaskedDeployment, tmp_path: Path) -> None:
    """A bundle whose signed files do not belong together is refused by name: the plan pads other layers."""
    other = deploy_masked(tmp_path / "other", model=deployment.model)
    plan = load_plan(other.path / "plan.json")
    assert plan.masking is not None
    copy = Path(shutil.copytree(other.path, tmp_path / "copy"))
    fewer = plan.masking.model_copy(update={"layers": plan.masking.layers[1:]})
    _resign(other, copy, "plan.json", plan.model_copy(update={"masking": fewer}).model_dump_json().encode())
    with pytest.raises(BundleError, match=r"plan.json is not valid"):
        load_bundle(copy, keystore=other.keystore)
    head = (copy / "part1" / "program.head").read_bytes()
    _resign(other, copy, "plan.json", (other.path / "plan.json").read_bytes())
    _resign(other, copy, "part1/program.head", head.replace(b'"body"', b'"anybody"'))
    with pytest.raises(BundleError, match=r"program.head: its layers are not those that the plan pads"):
        load_bundle(copy, keystore=other.keystore)


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ('"node": "shortcut"', '"node": "b"'),
        ('"value": "r1", "shape"', '"value": "ra", "shape"'),
        ('"exit": "s1"', '"exit": "s1.joined"'),
    ],
)
def test_a_program_with_another_sum_is_refused(
    summed: MaskedDeployment, tmp_path: Path, there: str, instead: str
) -> None:
    """Which nodes are computed of which values, and what sum they make, is as the plan says, or nothing is loaded."""
    copy = Path(shutil.copytree(summed.path, tmp_path / "copy"))
    head = (copy / "part1" / "program.head").read_bytes()
    assert head.count(there.encode()) == 1
    _resign(summed, copy, "part1/program.head", head.replace(there.encode(), instead.encode()))
    with pytest.raises(BundleError, match=r"program.head: its layers are not those that the plan pads"):
        load_bundle(copy, keystore=summed.keystore)


def _resign(deployment: MaskedDeployment, bundle: Path, path: str, raw: bytes) -> None:
    """Put ``raw`` in the place of a file and sign the bundle again, as a builder with other ideas would."""
    (bundle / path).write_bytes(raw)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["files"][path] = {"sha256": sha256_bytes(raw), "size_bytes": len(raw)}
    signed = json.dumps(manifest).encode()
    (bundle / "manifest.json").write_bytes(signed)
    (bundle / "manifest.sig").write_bytes(deployment.keystore.signing_key().sign(signed))
