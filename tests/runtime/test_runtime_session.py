from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from planner_models import build
from runtime_deployments import Deployment, deploy, images

from siniantrust.errors import BundleError, DataError, DeviceError, SinianError
from siniantrust.graph import load_model
from siniantrust.odla import DeviceSpec
from siniantrust.runtime import Session

# What the split may differ by: runtimes fuse operators differently on either side of a cut.
TOLERANCE = 1e-5


def _largest_difference(deployment: Deployment, session: Session, inputs: dict[str, np.ndarray]) -> float:
    found, expected = session.run(inputs), deployment.expected(inputs)
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == expected[name].dtype for name in expected)
    return max(float(np.abs(found[name] - expected[name]).max()) for name in expected)


def test_two_parts_give_the_uncut_models_outputs(vector_deployment: Deployment, session: Session) -> None:
    """Enclave and device together compute what the uncut model does, for many inputs of many batch sizes."""
    assert [stage.where for stage in session.stages] == ["enclave", "cloud"]
    batches = [*range(1, 8), 64] * 10
    differences = [
        _largest_difference(vector_deployment, session, vector_deployment.inputs(batch, seed=seed))
        for seed, batch in enumerate(batches)
    ]
    assert max(differences) <= TOLERANCE


def test_three_parts_keep_the_outputs_in_the_enclave(image_deployment: Deployment) -> None:
    """Under output privacy the last layers return to the enclave, and the outputs are the uncut model's."""
    with image_deployment.open() as session:
        assert [stage.where for stage in session.stages] == ["enclave", "cloud", "enclave"]
        for seed, batch in enumerate((1, 2, 5, 1)):
            inputs = image_deployment.inputs(batch, seed=seed)
            assert _largest_difference(image_deployment, session, inputs) <= TOLERANCE


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    """A model that takes three items at a time takes multiples of three through ``run_batched`` and nothing else."""
    deployment = deploy(images(batch=3), tmp_path, cut="r0")
    with deployment.open() as session:
        inputs = deployment.inputs(3)
        assert _largest_difference(deployment, session, inputs) <= TOLERANCE
        many = {"image": np.concatenate([inputs["image"], inputs["image"][::-1]])}
        found = session.run_batched(many)["scores"]
        assert found.shape == (6, 5)
        np.testing.assert_allclose(found[3:], found[2::-1], atol=TOLERANCE)
        with pytest.raises(DataError, match="takes 3 rows at a time, found 4; bring a multiple"):
            session.run_batched({"image": many["image"][:4]})
        with pytest.raises(DataError, match=r"expected float32 of shape \[3, 3, 12, 12\], found float32 of shape \[1"):
            session.run({"image": many["image"][:1]})


def test_an_input_without_a_batch_goes_whole_into_each_request(tmp_path: Path) -> None:
    """Where one input has the model's batch and another has not, only the first one is cut into requests."""
    nodes = [
        helper.make_node("MatMul", ["x", "scale"], ["t0"], "n0"),
        helper.make_node("Relu", ["t0"], ["t1"], "n1"),
        helper.make_node("Tanh", ["t1"], ["t2"], "n2"),
    ]
    graph = helper.make_graph(
        nodes,
        "scaled",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, [4, 2]),
        ],
        [helper.make_tensor_value_info("t2", TensorProto.FLOAT, [2, 2])],
    )
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    deployment = deploy(model, tmp_path, cut="t1", public_inputs=["scale"])
    generator = np.random.default_rng(0)
    inputs = {
        "x": generator.standard_normal((6, 4)).astype(np.float32),
        "scale": generator.standard_normal((4, 2)).astype(np.float32),
    }
    with deployment.open() as session:
        found = session.run_batched(inputs)["t2"]
        expected = np.tanh(np.maximum(inputs["x"] @ inputs["scale"], 0))
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_two_inputs_need_one_batch_size(tmp_path: Path) -> None:
    """Inputs of different batch sizes are refused before anything runs."""
    nodes = [
        helper.make_node("Add", ["x", "y"], ["t0"], "n0"),
        helper.make_node("Relu", ["t0"], ["t1"], "n1"),
        helper.make_node("Tanh", ["t1"], ["t2"], "n2"),
    ]
    model = build(nodes, inputs=["x", "y"], outputs=["t2"])
    deployment = deploy(model, tmp_path, cut="t1", public_inputs=["y"])
    inputs = deployment.inputs(3)
    with deployment.open() as session:
        assert _largest_difference(deployment, session, inputs) <= TOLERANCE
        with pytest.raises(DataError, match=r"expected one batch size, found \{'x': 3, 'y': 1\}"):
            session.run({"x": inputs["x"], "y": inputs["y"][:1]})
        with pytest.raises(DataError, match="expected as many rows in each"):
            session.run_batched({"x": inputs["x"], "y": inputs["y"][:1]})


@pytest.mark.parametrize("batch_items", [1, 3, 7, 100])
def test_batches_join_in_order(vector_deployment: Deployment, session: Session, batch_items: int) -> None:
    """``run_batched`` answers row by row in the order of the rows, whatever the size of the requests."""
    inputs = vector_deployment.inputs(20)
    found = session.run_batched(inputs, batch_items=batch_items)
    np.testing.assert_allclose(found["t7"], vector_deployment.expected(inputs)["t7"], atol=TOLERANCE)


def _with(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[3] = value
    return changed


GOOD = np.ones((2, 8), np.float32)


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        pytest.param({"x": _with(GOOD, np.nan)}, "input 'x': it holds NaN or infinity", id="nan"),
        pytest.param({"x": _with(GOOD, np.inf)}, "input 'x': it holds NaN or infinity", id="infinity"),
        pytest.param(
            {"x": GOOD[:, :7]}, r"expected float32 of shape \[batch, 8\], found float32 of shape \[2, 7\]", id="shape"
        ),
        pytest.param({"x": GOOD[0]}, r"found float32 of shape \[8\]", id="rank"),
        pytest.param({"x": GOOD[:0]}, r"found float32 of shape \[0, 8\]", id="empty"),
        pytest.param({"x": GOOD.astype(np.float64)}, "expected float32 .*, found float64", id="dtype"),
        pytest.param({"x": GOOD.tolist()}, "expected a numpy array, found list", id="list"),
        pytest.param({}, r"expected \['x'\], found \[\]", id="missing"),
        pytest.param({"x": GOOD, "t3": GOOD}, r"expected \['x'\], found \['t3', 'x'\]", id="extra"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(session: Session, inputs: dict[str, np.ndarray], complaint: str) -> None:
    """What does not fit the model is a DataError that says what was expected and found, in every way to run."""
    with pytest.raises(DataError, match=complaint):
        session.run(inputs)
    with pytest.raises(DataError, match=complaint):
        list(session.stream([inputs]))
    with pytest.raises(DataError):
        session.run_batched(inputs)
    session.run({"x": GOOD})


def test_a_batch_of_no_items_is_refused(session: Session) -> None:
    """``batch_items`` below one is an error and no endless loop."""
    with pytest.raises(DataError, match="at least one item per request, found 0"):
        session.run_batched({"x": GOOD}, batch_items=0)


def test_a_stream_may_run_beside_others(vector_deployment: Deployment, session: Session) -> None:
    """A caller that is in the middle of a stream may run single requests and a second stream."""
    rows = [vector_deployment.inputs(1, seed=seed) for seed in range(6)]
    expected = [vector_deployment.expected(row)["t7"] for row in rows]
    outer = session.stream(rows)
    for index, answer in enumerate(outer):
        np.testing.assert_allclose(answer["t7"], expected[index], atol=TOLERANCE)
        np.testing.assert_allclose(session.run(rows[index])["t7"], expected[index], atol=TOLERANCE)
        inner = [each["t7"] for each in session.stream(rows[:3])]
        np.testing.assert_allclose(inner, expected[:3], atol=TOLERANCE)


def test_many_threads_may_share_a_session(vector_deployment: Deployment, session: Session) -> None:
    """Requests of several threads at once are answered with the answers to those requests."""
    faults: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for turn in range(20):
                inputs = vector_deployment.inputs(1 + worker, seed=worker * 100 + turn)
                assert _largest_difference(vector_deployment, session, inputs) <= TOLERANCE
        except BaseException as fault:  # noqa: BLE001 - raised again below, where pytest sees it
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_session_says_where_it_runs(session: Session) -> None:
    """Enclave and devices are described; a process enclave is called simulated."""
    assert session.enclave_info().provenance.value == "simulated"
    assert [info.name for info in session.device_infos()] == ["cloud"]


def test_a_closed_session_refuses_everything(vector_deployment: Deployment) -> None:
    """After ``close`` every method raises one line, and closing again does nothing."""
    session = vector_deployment.open()
    session.close()
    session.close()
    inputs = vector_deployment.inputs()
    for call in (
        lambda: session.run(inputs),
        lambda: session.stream([inputs]),
        lambda: session.run_batched(inputs),
        session.enclave_info,
        session.device_infos,
    ):
        with pytest.raises(SinianError, match="it is closed; open the bundle again"):
            call()


def test_an_unknown_device_is_refused(vector_deployment: Deployment) -> None:
    """A device that the policy does not have cannot be given another way to open."""
    with pytest.raises(DeviceError, match="device 'clod': the policy has no such device; it has cloud"):
        vector_deployment.open({"clod": DeviceSpec("clod")})


def test_a_device_that_is_not_there_is_refused(vector_deployment: Deployment) -> None:
    """A missing execution provider is an error at once, and never a silent fallback to the CPU."""
    missing = DeviceSpec("x", options={"provider": "NoSuch"})
    with pytest.raises(DeviceError, match="device 'cloud', part 'part2': NoSuchExecutionProvider is not available"):
        vector_deployment.open({"cloud": missing})


@pytest.mark.parametrize("name", ["plan.json", "part1/weights.sealed", "part2/model.onnx", "manifest.sig"])
def test_a_tampered_bundle_is_not_opened(vector_deployment: Deployment, tmp_path: Path, name: str) -> None:
    """One flipped byte anywhere, and no session opens."""
    copy = tmp_path / "deploy"
    shutil.copytree(vector_deployment.path, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    with pytest.raises(BundleError, match=str(copy)):
        Deployment(
            vector_deployment.model, vector_deployment.plan, copy, vector_deployment.audit_folder,
            vector_deployment.keystore,
        ).open()  # fmt: skip
