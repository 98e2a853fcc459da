"""Sides that start again: what they have written stays theirs, and nobody waits for what will not come."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collab_runs import Here, Setup, address_of, pictures, process

from siniantrust.collab import CloudConfig, CollabError, RefusedError, _service, load_config
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import agreement_of
from siniantrust.collab._checkpoints import Checkpoints
from siniantrust.collab._features import FeatureStore
from siniantrust.collab._passes import Passes
from siniantrust.collab._synchronous import SynchronousCloud
from siniantrust.collab._task import load_task
from siniantrust.collab._wire import to_messages


def go_back(setup: Setup) -> None:
    """Take from an ended run of 12 steps, with checkpoints of 8 and 12, what the cloud did after step 8."""
    at_cloud = setup.folder / "at-cloud"
    ended = [at_cloud / "model.onnx", at_cloud / "finished.json", at_cloud / "checkpoints/000000012.checkpoint"]
    for path in (*ended, *setup.folder.glob("at-*/training.json")):
        path.unlink()


@pytest.mark.parametrize(
    "training",
    [{"mode": "upload", "steps": 3}, {"steps": 12}, {"steps": 12, "arrivals": "asynchronous"}],
    ids=["upload", "synchronous", "asynchronous"],
)
def test_a_cloud_that_starts_again_writes_the_record_that_it_would_have_written(
    tmp_path: Path, training: dict[str, Any]
) -> None:
    """Killed before its record, the cloud writes the same one, curve included; a record that is there stays."""
    setup = Setup(tmp_path, edges=("a",), training=training).write()
    Here(setup).run()
    path = tmp_path / "at-cloud" / "training.json"
    before = setup.record("cloud")
    assert len(before["curve"]) == training["steps"]
    path.unlink()
    written = []
    for _ in range(2):
        again = Here(setup)
        again.start_cloud()
        again.wait("cloud")
        assert not again.faults
        written.append(setup.record("cloud"))
    assert written[0] | {"seconds": before["seconds"]} == before
    assert written[1] == written[0]


def test_an_edge_that_ended_trains_again_when_the_cloud_has_gone_back(tmp_path: Path) -> None:
    """An asynchronous edge that waits for the result does its steps again if the cloud came back without them."""
    training = {"steps": 40, "arrivals": "asynchronous", "checkpoint_every": 1000}
    setup = Setup(tmp_path, edges=("a", "b"), training=training).write()
    here = Here(setup)
    with process(tmp_path, "cloud", "cloud") as cloud:
        here.address = address_of(cloud)
        here.start_edge("a")
        while not (tmp_path / "at-a/checkpoints/000000040.checkpoint").exists() and not here.faults:
            time.sleep(0.05)
    setup.cloud["listen"] = here.address
    setup.write_cloud()
    here.start_cloud()
    here.start_edge("b")
    here.wait("a", "b", "cloud")
    assert not here.faults
    assert setup.record("a")["calls"]["Step"] >= 80
    assert setup.model("a") == setup.model("b") == setup.model("cloud")


def test_an_edge_waits_for_others_longer_than_for_a_cloud_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloud that waits for another edge says so from time to time, and is not taken for lost."""
    monkeypatch.setattr(_service, "_LONGEST_WAIT_S", 0.2)
    setup = Setup(tmp_path, edges=("a", "b"), edge={"give_up_s": 0.1}).write()
    here = Here(setup)
    here.start_cloud()
    here.start_edge("a")
    time.sleep(2)
    here.start_edge("b")
    here.wait("a", "b", "cloud")
    assert not here.faults
    assert setup.record("a")["calls"]["Join"] > 2


def test_an_edge_without_a_checkpoint_in_common_is_refused_and_the_others_wait_for_it(tmp_path: Path) -> None:
    """An edge that lost its folder is told what it and the cloud have; with its folder back, all go on."""
    setup = Setup(tmp_path, edges=("a", "b")).write()
    Here(setup).run()
    go_back(setup)
    (tmp_path / "at-a").rename(tmp_path / "kept")
    here = Here(setup)
    here.start_cloud()
    here.start_edge("b")
    here.start_edge("a")
    here.wait("a")
    with pytest.raises(RefusedError, match=r"edge 'a' has no checkpoint in common .* has \[0\], the cloud has \[8\]"):
        raise here.faults.pop("a")
    (tmp_path / "at-a").rename(tmp_path / "lost")
    (tmp_path / "kept").rename(tmp_path / "at-a")
    here.start_edge("a")
    here.wait("a", "b", "cloud")
    assert not here.faults


def test_an_edge_that_others_cannot_meet_is_left_out(tmp_path: Path) -> None:
    """An edge that offers only a checkpoint that another one lacks does not keep the others from going on."""
    Setup(tmp_path, edges=("a", "b")).write()
    config = load_config(tmp_path / "cloud.toml", CloudConfig)
    task = load_task(config.training, None)
    agreement = agreement_of(config.training, task)
    SynchronousCloud(config, task, agreement)
    checkpoints = Checkpoints(config.folder / "checkpoints", agreement.sha256)
    checkpoints.save(4, checkpoints.load(0))
    cloud = SynchronousCloud(config, task, agreement)
    end_s = time.monotonic() + 60

    def is_wanted() -> bool:
        return time.monotonic() < end_s

    with ThreadPoolExecutor(1) as pool:
        rogue = pool.submit(cloud.join, "a", {4}, is_wanted)
        while "a" not in cloud._round.offers:
            time.sleep(0.01)
        assert cloud.join("b", {0}, is_wanted)[1] == 0
        with pytest.raises(RefusedError, match=r"edge 'a' was left out .* it has \[4\], the cloud has \[0, 4\]"):
            rogue.result(60)


def test_chunks_in_the_outbox_are_of_one_run_one_mask_and_one_file_of_data(tmp_path: Path) -> None:
    """Features made with a weaker mask, or from other data, are not sent for those that are asked for now."""
    np.save(tmp_path / "public.npy", pictures(32, seed=50)[0])
    mask = {"name": "gaussian", "strength": 0.5, "calibration": "public.npy"}
    setup = Setup(tmp_path, edges=("a",), training={"mode": "upload", "steps": 1}, sections={"mask": mask}).write()
    Here(setup).run()
    (tmp_path / "at-cloud").rename(tmp_path / "old")
    with pytest.raises(CollabError, match="it holds the result of another run"):
        _refused(setup, strength=2.0)
    (tmp_path / "at-a/training.json").unlink()
    with pytest.raises(CollabError, match="its chunks are of another run, other data or another batch"):
        _refused(setup, strength=2.0)
    inputs, labels = pictures(96, seed=7)
    np.savez(tmp_path / "a.npz", inputs=inputs, labels=labels)
    with pytest.raises(CollabError, match="its chunks are of another run, other data or another batch"):
        _refused(setup, strength=0.5)


def _refused(setup: Setup, *, strength: float) -> None:
    """Start the edge with a mask of another strength, and raise what it says before it calls anybody."""
    setup.sections["mask"]["strength"] = strength
    here = Here(setup)
    here.address = "127.0.0.1:1"
    here.start_edge("a", give_up_s=0.001)
    here.wait("a")
    raise here.faults["a"]


def test_the_number_of_chunks_is_the_one_first_announced_after_a_restart_too(tmp_path: Path) -> None:
    """A cloud that starts again knows from the first chunk how many there are to be."""
    setup = Setup(tmp_path, edges=("a",), training={"mode": "upload"}).write()
    task = load_task(load_config(tmp_path / "cloud.toml", CloudConfig).training, None)

    def chunk(number: int, chunks: int) -> pb.UploadRequest:
        request = pb.UploadRequest(chunk=number, chunks=chunks)
        to_messages({"pool": np.ones((2, 4, 4, 4), np.float32), "labels": np.array([0, 1])}, request.tensors)
        return request

    def store() -> FeatureStore:
        return FeatureStore(setup.folder / "features", "1" * 64, task, max_items=100)

    store().add("a", chunk(0, 3))
    with pytest.raises(RefusedError, match="3 chunks were announced before, now 2"):
        store().add("a", chunk(1, 2))


def test_an_epoch_done_again_is_one_pass_more(tmp_path: Path) -> None:
    """Passes are those of the epochs, and of every epoch that a repetition touches, also after a restart."""
    passes = Passes(tmp_path, per_epoch=10)
    assert passes.is_first_start
    assert [passes.total(steps) for steps in (1, 10, 11)] == [1, 1, 2]
    passes.repeat(5, 5)
    assert passes.total(10) == 1
    passes.repeat(5, 10)
    assert passes.total(10) == 2
    again = Passes(tmp_path, per_epoch=10)
    assert not again.is_first_start
    again.repeat(9, 11)
    assert again.total(10) == 4


def test_a_noisy_edge_counts_what_it_may_have_sent_twice(tmp_path: Path) -> None:
    """An edge that goes back counts the passes that are done again in its epsilon, and its curve is whole."""
    privacy = {"clip": 5.0, "noise": 1.0, "detect_hijack": False}
    setup = Setup(tmp_path, edges=("a",), edge_sections={"privacy": privacy}).write()
    Here(setup).run()
    before = setup.record("a")
    go_back(setup)
    Here(setup).run()
    after = setup.record("a")
    # 5 steps are an epoch: 12 steps are in 3 of them, and the steps 9 to 12, done again, in 2.
    assert [each["epsilon"]["passes"] for each in (before, after)] == [3, 5]
    assert after["epsilon"]["all_steps"] > before["epsilon"]["all_steps"]
    assert after["curve"] == before["curve"]
    assert len(after["curve"]) == 12
