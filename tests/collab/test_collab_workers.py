"""Split learning with several processes at the cloud: a run comes out as with one, and ends when one is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from collab_runs import LAST_CUT, Here, Setup, network
from onnx import helper, numpy_helper

from siniantrust.collab import CloudConfig, CollabError, load_config


def weights(setup: Setup) -> dict[str, np.ndarray]:
    """Return the trained numbers of the cloud's model."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(setup.model("cloud")).graph.initializer}


@pytest.mark.parametrize(
    ("more", "cluster"),
    [
        ({}, "torchrun"),
        ({"last_cut": LAST_CUT}, "torchrun"),
        pytest.param({"arrivals": "asynchronous"}, "torchrun", marks=pytest.mark.slow),
        pytest.param({}, "ray", marks=pytest.mark.slow),
    ],
    ids=["labels at the cloud", "labels at the edge", "asynchronous", "ray"],
)
def test_two_processes_take_the_steps_of_one(
    tmp_path: Path, request: pytest.FixtureRequest, more: dict[str, Any], cluster: str
) -> None:
    """Steps of an odd number of items, shared by two processes, end with one process's weights and losses."""
    one = Setup(tmp_path / "one", edges=("a",), training={"steps": 12, **more}, edge={"batch": 15}).write()
    Here(one).run()
    two = Setup(tmp_path / "two", edges=one.edges, training=one.training, edge=one.edge, cloud={"workers": 2})
    if cluster == "ray":
        two.cloud["ray"] = request.getfixturevalue("ray_cluster").address
    Here(two.write(), limit_s=300.0).run()
    assert (tmp_path / "two/at-cloud/workers.log").exists()
    assert (tmp_path / "two/at-cloud/ray").exists() == (cluster == "ray")
    expected = weights(one)
    for name, found in weights(two).items():
        np.testing.assert_allclose(found, expected[name], atol=1e-6, err_msg=name)
    for side in ("cloud", "a"):
        for before, after in zip(one.record(side)["curve"], two.record(side)["curve"], strict=True):
            assert after == pytest.approx(before, abs=1e-6)


def worker_of(folder: Path) -> int:
    """Return the process of one of the workers that a cloud has."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().decode().split("\0") if path.exists() else []
        if "siniantrust.collab._worker" in words and "torch.distributed.run" not in words and str(folder) in words[-2]:
            return int(path.parent.name)
    raise AssertionError("no worker runs")


@pytest.mark.slow
def test_a_killed_worker_ends_the_cloud_and_the_same_command_goes_on_exactly(tmp_path: Path) -> None:
    """A kill -9 of one of three processes is an error that names it; started again, the run ends with equal bytes."""
    outcomes = []
    for name in ("whole", "killed"):
        setup = Setup(
            tmp_path / name,
            edges=("a",),
            training={"steps": 300, "checkpoint_every": 20, "learning_rate": 0.002},
            cloud={"workers": 3},
        ).write()
        # The gradients of these come in another order than that of the weights.
        proto = network()
        kept = list(proto.graph.initializer)
        del proto.graph.initializer[:]
        proto.graph.initializer.extend([*kept[2:4][::-1], *kept[4:], *kept[:2]])
        onnx.save(proto, tmp_path / name / "model.onnx")
        here = Here(setup, limit_s=300.0)
        setup.cloud["listen"] = here.start_cloud()
        setup.write_cloud()
        here.start_edge("a")
        if name == "killed":
            while setup.newest_checkpoint() < 60:
                time.sleep(0.01)
            os.kill(worker_of(setup.folder), signal.SIGKILL)
            here.wait("cloud")
            failed = r"training of Part 2 failed in its workers: Signal 9 \(SIGKILL\) received by PID \d+ \("
            with pytest.raises(CollabError, match=failed):
                raise here.faults.pop("cloud")
            assert 60 <= setup.newest_checkpoint() < 300
            here.start_cloud()
        here.wait("a", "cloud")
        assert not here.faults
        outcomes.append((setup.model("cloud"), setup.record("cloud")["curve"], setup.record("a")["curve"]))
    assert outcomes[0] == outcomes[1]


def with_node(op_type: str, stored: dict[str, Any]) -> onnx.ModelProto:
    """Return the small network with one more node in Part 2."""
    proto = network()
    nodes = list(proto.graph.node)
    nodes[5].input[0] = "between"
    nodes.insert(5, helper.make_node(op_type, ["dense", *stored], ["between"], "odd"))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items())
    return proto


DRAWING = {"ratio": np.float32(0.5), "training": np.bool_(True)}
STATISTICS = {name: np.ones(16, np.float32) for name in ("scale", "shift", "mean", "variance")}


@pytest.mark.parametrize(
    ("proto", "named"),
    [
        (with_node("BatchNormalization", STATISTICS), r"node 'odd' \(BatchNormalization\) of Part 2"),
        (with_node("Dropout", DRAWING), r"node 'odd' \(Dropout\) of Part 2"),
    ],
    ids=["statistics", "draws"],
)
def test_a_part_2_that_cannot_be_trained_in_shares_is_refused(
    tmp_path: Path, proto: onnx.ModelProto, named: str
) -> None:
    """What several processes would not make as one does is refused by name, before any of them starts."""
    setup = Setup(tmp_path, edges=("a",), cloud={"workers": 2}).write()
    onnx.save(proto, tmp_path / "model.onnx")
    here = Here(setup)
    here.start_cloud()
    here.wait("cloud")
    with pytest.raises(CollabError, match=f"{named}.*workers = 1"):
        raise here.faults["cloud"]
    assert not (tmp_path / "at-cloud/workers.log").exists()


def test_workers_that_cannot_begin_end_the_cloud_with_what_they_say(tmp_path: Path, ray_cluster: Any) -> None:
    """A cloud whose workers have no room on their Ray cluster does not wait for them."""
    here = Here(Setup(tmp_path, edges=("a",), cloud={"workers": 99, "ray": ray_cluster.address}).write())
    here.start_cloud()
    here.wait("cloud")
    with pytest.raises(CollabError, match=r"workers: Ray cluster .*: 98 workers of 1 cores asked for, room for \d+ \("):
        raise here.faults["cloud"]


def test_ray_without_a_worker_for_it_is_refused(tmp_path: Path) -> None:
    """In split learning the cloud is the first process, so that one process has nothing to do with Ray."""
    Setup(tmp_path, edges=("a",), cloud={"ray": "127.0.0.1:6379"}).write()
    with pytest.raises(CollabError, match="ask for 2 or more"):
        load_config(tmp_path / "cloud.toml", CloudConfig)
