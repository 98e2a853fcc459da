"""Runs from end to end, each over real connections: what comes out, and that it is what one machine would get."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from collab_runs import CUT, LAST_CUT, Here, Setup, network, pictures, process
from onnx import numpy_helper
from runtime_deployments import missing_protections

from siniantrust import graph
from siniantrust.collab import CloudConfig, CollabError, EdgeConfig, load_config
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._checked_file import read_checked
from siniantrust.collab._data import rows_of_step
from siniantrust.odla import DeviceSpec, open_part
from siniantrust.odla.torch_graph import TrainableGraph


def sent(setup: Setup, edge: str) -> np.ndarray:
    """Return the first chunk of features that the cloud holds of an edge."""
    path = setup.folder / "at-cloud" / "features" / edge / "0000000.chunk"
    tensor = pb.UploadRequest.FromString(bytes(read_checked(path))).tensors[0]
    return np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)


def accuracy(model: bytes) -> float:
    """Return a model's accuracy on fresh pictures of all classes."""
    inputs, labels = pictures(400, seed=99)
    (part,) = graph.split(graph.load_model(onnx.load_from_string(model)), [])
    device, run = open_part(DeviceSpec("test"), part)
    scores = run.run({"image": inputs})["scores"]
    run.close()
    device.close()
    return float((scores.argmax(1) == labels).mean())


SLOW_WAY = "asynchronous, labels at the edge"
WAYS: Mapping[str, dict[str, Any]] = {
    "upload": {"mode": "upload", "steps": 40},
    "labels at the cloud": {"steps": 60},
    "labels at the edge": {"steps": 60, "last_cut": LAST_CUT},
    "asynchronous": {"steps": 100, "arrivals": "asynchronous"},
    SLOW_WAY: {"steps": 100, "arrivals": "asynchronous", "last_cut": LAST_CUT},
}


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.slow if way == SLOW_WAY else ()) for way in WAYS])
def test_every_way_to_train_ends_with_one_good_model_on_all_sides(tmp_path: Path, way: str) -> None:
    """Edges whose classes differ learn all classes together, and every side has the same ordinary ONNX model."""
    setup = Setup(tmp_path, training=WAYS[way]).write()
    Here(setup).run()
    model = setup.model("cloud")
    assert {setup.model(edge) for edge in setup.edges} == {model}
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    sha256 = graph.load_model(tmp_path / "at-cloud" / "model.onnx").sha256
    assert {setup.record(side)["trained_sha256"] for side in ("cloud", *setup.edges)} == {sha256}
    assert accuracy(model) > (0.6 if "asynchronous" in way else 0.9)
    for edge in setup.edges:
        found = setup.record(edge)
        assert found["accuracy"] > 0.5
        assert 0 < found["payload_bytes"] <= found["sent_bytes"] + found["received_bytes"]
    assert setup.record("cloud")["left_out"] == {}


@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 0.05), ("adam", 0.01)])
def test_a_synchronous_step_is_that_of_one_machine_with_all_data(tmp_path: Path, optimiser: str, rate: float) -> None:
    """With an average after every step, three edges whose classes differ get the weights that one machine gets."""
    training = {"steps": 10, "optimiser": optimiser, "last_cut": LAST_CUT, "learning_rate": rate}
    setup = Setup(tmp_path, training=training).write()
    Here(setup).run()
    whole = TrainableGraph(network())
    alone = (
        torch.optim.Adam(whole.parameters(), lr=rate)
        if optimiser == "adam"
        else torch.optim.SGD(whole.parameters(), lr=rate, momentum=0.9)
    )
    shares = [np.load(tmp_path / f"{edge}.npz") for edge in setup.edges]
    for step in range(1, 11):
        rows = [rows_of_step(80, 16, step, seed=0, name=edge) for edge in setup.edges]
        inputs, labels = (
            torch.from_numpy(np.concatenate([share[name][:80][each] for share, each in zip(shares, rows, strict=True)]))
            for name in ("inputs", "labels")
        )
        alone.zero_grad()
        torch.nn.functional.cross_entropy(whole(inputs)[0], labels).backward()  # type: ignore[no-untyped-call]
        alone.step()
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(setup.model("cloud")).graph.initializer}
    for name, weight in whole.named_weights():
        np.testing.assert_allclose(found[name], weight.detach().numpy(), atol=2e-5, err_msg=name)


def test_a_masked_upload_sends_masked_features_and_trains_behind_the_mask(tmp_path: Path) -> None:
    """The stored features are Part 1's with fresh noise, and the model that comes out has the mask inside."""
    np.save(tmp_path / "public.npy", pictures(64, seed=50)[0])
    mask = {"name": "gaussian", "strength": 0.5, "calibration": "public.npy"}
    setup = Setup(tmp_path, training={"mode": "upload", "steps": 30}, sections={"mask": mask}).write()
    Here(setup).run()
    proto = onnx.load_from_string(setup.model("a"))
    assert any(node.op_type == "RandomNormalLike" for node in proto.graph.node)
    model = graph.load_model(network())
    cut = graph.enumerate_cuts(model).by_id(CUT)
    assert cut is not None
    device, run = open_part(DeviceSpec("test"), graph.split(model, [cut])[0])
    plain = run.run({"image": np.load(tmp_path / "a.npz")["inputs"][:16]})["pool"]
    run.close()
    device.close()
    noise = sent(setup, "a") - plain
    assert 0.3 < noise.std() / plain.std() < 0.8
    assert abs(noise.mean()) < noise.std() / 5
    assert accuracy(setup.model("a")) > 0.8


@pytest.mark.parametrize("cluster", ["torchrun", pytest.param("ray", marks=pytest.mark.slow)])
def test_two_workers_train_part_2_as_one_does(tmp_path: Path, request: pytest.FixtureRequest, cluster: str) -> None:
    """With two workers, Part 2 is trained by torchrun or Ray Train, and comes out as by one process up to rounding."""
    one = Setup(tmp_path / "one", edges=("a",), training={"mode": "upload", "steps": 2}).write()
    Here(one).run()
    two = Setup(tmp_path / "two", edges=("a",), training=one.training, cloud={"workers": 2})
    if cluster == "ray":
        two.cloud["ray"] = request.getfixturevalue("ray_cluster").address
    Here(two.write()).run()
    assert (tmp_path / "two/at-cloud/ray").exists() == (cluster == "ray")
    weights = [onnx.load_from_string(setup.model("cloud")).graph.initializer for setup in (one, two)]
    for single, double in zip(*weights, strict=True):
        np.testing.assert_allclose(numpy_helper.to_array(single), numpy_helper.to_array(double), atol=1e-4)
    for before, after in zip(one.record("cloud")["curve"], two.record("cloud")["curve"], strict=True):
        assert after == pytest.approx(before, abs=1e-4)


@pytest.mark.slow
def test_more_workers_than_a_ray_cluster_has_room_for_are_refused(tmp_path: Path, ray_cluster: Any) -> None:
    """Where Ray would wait for ever, the cloud ends with what was asked for and what there is."""
    scale = {"workers": 99, "ray": ray_cluster.address}
    here = Here(Setup(tmp_path, edges=("a",), training={"mode": "upload", "steps": 2}, cloud=scale).write())
    here.start_cloud()
    here.start_edge("a", give_up_s=1.0)
    here.wait("cloud")
    with pytest.raises(CollabError, match=r"workers: Ray cluster .*: 99 workers of 1 cores asked for, room for \d+ \("):
        raise here.faults["cloud"]
    here.wait("a")


def test_an_interrupted_upload_goes_on_with_the_same_chunks(tmp_path: Path) -> None:
    """An edge that starts again sends what is missing only, and a chunk made before goes out as it was made."""
    setup = Setup(tmp_path, edges=("a", "b"), training={"mode": "upload", "steps": 5}).write()
    here = Here(setup)
    here.start_cloud()
    here.start_edge("a")
    here.start_edge("b")
    here.wait("a", "b", "cloud")
    made = {path.name: path.read_bytes() for path in (tmp_path / "at-a/outbox").iterdir()}
    held = tmp_path / "at-cloud/features/a"
    (held / "0000004.chunk").unlink()
    for folder in ("at-cloud", "at-a"):
        (tmp_path / folder / "training.json").unlink()
    for name in ("model.onnx", "outcome", "finished.json"):
        (tmp_path / "at-cloud" / name).unlink()
    (tmp_path / "at-b/training.json").unlink()
    again = Here(setup)
    again.run()
    assert setup.record("a")["calls"]["Upload"] == 1
    assert setup.record("b")["calls"].get("Upload", 0) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "at-a/outbox").iterdir()} == made


@pytest.mark.slow
def test_an_asynchronous_edge_that_drops_and_returns_ends_with_the_others(tmp_path: Path) -> None:
    """The others do not wait for an edge that was killed, and it goes on behind its last step when it comes back."""
    training = {"steps": 300, "arrivals": "asynchronous", "checkpoint_every": 10}
    setup = Setup(tmp_path, edges=("a", "b"), training=training).write()
    here = Here(setup)
    here.start_cloud()
    setup.write_edge("a", here.address)
    with process(tmp_path, "edge", "a") as edge:
        checkpoints = tmp_path / "at-a" / "checkpoints"
        while not (checkpoints / "000000020.checkpoint").exists() and edge.poll() is None:
            time.sleep(0.05)
    before = {path.name for path in checkpoints.iterdir()}
    here.start_edge("b")
    while not (tmp_path / "at-b/checkpoints/000000300.checkpoint").exists() and not here.faults:
        time.sleep(0.05)
    here.start_edge("a")
    here.wait("a", "b", "cloud")
    assert not here.faults
    assert before
    assert setup.record("a")["calls"]["Step"] < 600
    assert setup.model("a") == setup.model("b") == setup.model("cloud")


def test_part_1_runs_in_an_enclave(tmp_path: Path) -> None:
    """Features that an enclave computes are those that ONNX Runtime computes here, and the record names the enclave."""
    chunks = []
    missing = list(missing_protections())
    for name, sections in {
        "here": {},
        "there": {"enclave": {"memory_bytes": 1 << 28, "accept": ["simulated"], "allow_missing": missing}},
    }.items():
        setup = Setup(
            tmp_path / name, edges=("a",), training={"mode": "upload", "steps": 1}, edge_sections=sections
        ).write()
        Here(setup).run()
        chunks.append(sent(setup, "a"))
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-6)
    assert setup.record("a")["enclave"] == "process"


def test_the_documented_configuration_is_valid(tmp_path: Path) -> None:
    """The files that the page shows pass their own check."""
    page = Path(__file__).parents[2] / "docs" / "collaborative-training.md"
    cloud, edge = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    (training,) = re.findall(r"(\[training\]\n.*?)\n\n", cloud, re.DOTALL)
    (tmp_path / "cloud.toml").write_text(cloud)
    (tmp_path / "edge.toml").write_text(edge.replace("[training]\n", f"{training}\n"))
    assert load_config(tmp_path / "cloud.toml", CloudConfig).training == (
        load_config(tmp_path / "edge.toml", EdgeConfig).training
    )
