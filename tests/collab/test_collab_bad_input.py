"""What an edge sends that is not as it should be is refused by name, and the rest goes on: real servers throughout."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from collab_links import FEATURES, LABELS, link, upload, upload_setup
from collab_runs import Here, Setup, network, pictures

from siniantrust.collab import (
    CloudConfig,
    CloudLostError,
    CollabError,
    JoinAgainError,
    RefusedError,
    _methods,
    load_config,
)
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._link import Link
from siniantrust.collab._middle import edge_parts
from siniantrust.collab._service import CALLS_AT_A_TIME
from siniantrust.collab._task import load_task
from siniantrust.collab._wire import to_messages


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training": {"cut": "c002-relu"}}, 'disagrees on cut: the cloud has "c003-pool", the edge has "c002-relu"'),
        ({"training": {"model": "other.onnx"}}, "disagrees on model"),
        ({"training": {"seed": 7}}, "disagrees on seed: the cloud has 0, the edge has 7"),
        ({"training": {"mode": "split"}}, "disagrees on mode"),
        (
            {"sections": {"mask": {"name": "gaussian", "strength": 1.0, "calibration": "public.npy"}}},
            "disagrees on mask",
        ),
    ],
)
def test_edges_that_disagree_are_refused_by_name_and_the_others_go_on(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    """An edge with another model, cut, mask, seed or mode is told what it disagrees on; put right, it takes part."""
    setup = upload_setup(tmp_path)
    onnx.save(network(seed=1), tmp_path / "other.onnx")
    np.save(tmp_path / "public.npy", pictures(16, seed=50)[0])
    here = Here(setup)
    here.start_cloud()
    here.start_edge("b")
    here.start_edge("a", **changes)
    here.wait("a")
    with pytest.raises(RefusedError, match=r"edge 'a' disagrees on") as refused:
        raise here.faults.pop("a")
    assert named in str(refused.value)
    here.start_edge("a")
    here.wait("a", "b", "cloud")
    assert not here.faults


def test_an_edge_that_disagreed_needs_no_new_folder(tmp_path: Path) -> None:
    """What was refused before the sides agreed has left nothing that the agreed run would be refused for."""
    setup = Setup(tmp_path, edges=("a",)).write()
    here = Here(setup)
    here.start_cloud()
    here.start_edge("a", training={"seed": 7})
    here.wait("a")
    with pytest.raises(RefusedError, match="disagrees on seed"):
        raise here.faults.pop("a")
    here.start_edge("a")
    here.wait("a", "cloud")
    assert not here.faults


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (upload(np.full_like(FEATURES, np.nan), LABELS), "tensor 'pool': it holds NaN or infinity"),
        (
            upload(FEATURES[:, :3], LABELS),
            r"tensor 'pool': expected the shape \('items', 4, 4, 4\), found \(2, 3, 4, 4\)",
        ),
        (upload(FEATURES.astype(np.float64), LABELS), "tensor 'pool': expected float32"),
        (upload(FEATURES, LABELS[:1]), "different numbers of items"),
        (upload(FEATURES, LABELS + 4), "labels must be 0 to 3"),
        (upload(FEATURES, LABELS, chunk=1, chunks=2), "expected chunk 0"),
    ],
)
def test_a_poisoned_batch_is_refused_and_the_others_go_on(
    tmp_path: Path, request_: pb.UploadRequest, named: str
) -> None:
    """An edge that sends NaN, another shape or impossible labels is left out by name; the run ends without it."""
    setup = upload_setup(tmp_path)
    here = Here(setup)
    here.start_cloud()
    with link(here, "a") as rogue:
        rogue.join([])
        with pytest.raises(RefusedError, match=named):
            rogue.call(_methods.UPLOAD, request_)
        with pytest.raises(RefusedError, match=r"edge 'a' was left out"):
            rogue.join([])
    here.start_edge("b")
    here.wait("b", "cloud")
    assert not here.faults
    assert setup.model("b") == setup.model("cloud")


def test_a_chunk_sent_again_is_kept_once_and_may_not_change(tmp_path: Path) -> None:
    """The same chunk again is answered as before; other contents under its number are refused."""
    here = Here(upload_setup(tmp_path))
    here.start_cloud()
    with link(here, "a") as edge:
        edge.join([])
        assert edge.call(_methods.UPLOAD, upload(FEATURES, LABELS, chunks=2)).chunks_held == 1
        assert edge.call(_methods.UPLOAD, upload(FEATURES, LABELS, chunks=2)).chunks_held == 1
        with pytest.raises(RefusedError, match="chunk 0: it was sent before with other contents"):
            edge.call(_methods.UPLOAD, upload(2 * FEATURES, LABELS, chunks=2))


@contextmanager
def beside_others(folder: Path, value: float) -> Iterator[tuple[Link, pb.StepRequest]]:
    """Yield an edge and its first step, all features ``value``, in a run of three; the others must end without it."""
    setup = Setup(folder, edges=("a", "b", "c")).write()
    here = Here(setup)
    here.start_cloud()
    here.start_edge("b")
    here.start_edge("c")
    with link(here, "a") as rogue:
        joined = rogue.join([0])
        request = pb.StepRequest(generation=joined.generation, step=1, phase="forward")
        to_messages({"pool": np.full_like(FEATURES, value), "labels": LABELS}, request.tensors)
        yield rogue, request
    here.wait("b", "c", "cloud")
    assert not here.faults
    assert setup.model("b") == setup.model("c") == setup.model("cloud")


@pytest.mark.parametrize("arrivals", ["synchronous", "asynchronous"])
def test_a_step_behind_the_last_one_is_refused(tmp_path: Path, arrivals: str) -> None:
    """An edge that goes on when all steps are done is told so, and nothing is trained any more."""
    setup = Setup(tmp_path, edges=("a",), training={"steps": 1, "arrivals": arrivals}).write()
    here = Here(setup)
    here.start_cloud()
    training = load_config(tmp_path / "cloud.toml", CloudConfig).training
    (part,) = edge_parts(load_task(training, None), training)
    with link(here, "a") as edge:
        joined = edge.join([0])
        for step, phase, arrays in [
            (1, "forward", {"pool": FEATURES, "labels": LABELS}),
            (1, "average", part.values()),
            (2, "forward", {"pool": FEATURES, "labels": LABELS}),
        ]:
            request = pb.StepRequest(generation=joined.generation, step=step, phase=phase)
            to_messages(arrays, request.tensors)
            refusal = pytest.raises(RefusedError, match="edge 'a', step 2: the run is over after 1 steps")
            with nullcontext() if step == 1 else refusal:
                edge.call(_methods.STEP, request)
    here.start_edge("a")
    here.wait("a", "cloud")
    assert not here.faults


def test_nan_in_split_learning_leaves_its_edge_out_and_the_others_go_back_and_go_on(tmp_path: Path) -> None:
    """In synchronous steps too, an edge that sends NaN is left out by name, and the others finish without it."""
    refusal = r"edge 'a', step 1: tensor 'pool': it holds NaN or infinity"
    with beside_others(tmp_path, np.inf) as (rogue, request), pytest.raises(RefusedError, match=refusal):
        rogue.call(_methods.STEP, request)


def test_an_edge_that_is_silent_for_too_long_is_left_out(tmp_path: Path) -> None:
    """With patience, a run goes on without an edge that never came."""
    setup = Setup(tmp_path, edges=("a", "b"), cloud_sections={"limits": {"patience_s": 3.0}}).write()
    here = Here(setup)
    here.start_cloud()
    here.start_edge("b")
    here.wait("b", "cloud")
    assert not here.faults
    assert "silent for 3 s" in (tmp_path / "at-cloud/left_out.json").read_text()


def test_an_edge_that_calls_too_often_is_held_back(tmp_path: Path) -> None:
    """Calls over the rate are refused by name, and do not count for other edges."""
    setup = upload_setup(tmp_path, cloud_sections={"limits": {"requests_per_s": 0.01, "burst": 3}})
    here = Here(setup)
    here.start_cloud()
    with link(here, "a", give_up_s=0.001) as edge:
        edge.join([])
        edge.call(_methods.FETCH, pb.FetchRequest())
        with pytest.raises(CloudLostError, match=r"edge 'a': over 0.01 calls a second"):
            edge.call(_methods.FETCH, pb.FetchRequest())
    with link(here, "b") as edge:
        edge.join([])


def test_an_edge_that_keeps_many_calls_open_leaves_room_for_others(tmp_path: Path) -> None:
    """Calls that wait take a thread each; over two of an edge's are refused, and the other edge still comes in."""
    setup = Setup(tmp_path, edges=("a", "b"), cloud_sections={"limits": {"patience_s": 60.0}}).write()
    here = Here(setup)
    here.start_cloud()
    with ThreadPoolExecutor(CALLS_AT_A_TIME) as pool, ExitStack() as stack:
        links = [stack.enter_context(link(here, "a", give_up_s=0.001)) for _ in range(CALLS_AT_A_TIME + 1)]
        waiting = [pool.submit(each.join, [0]) for each in links[1:]]
        while not all("Join" in each.calls for each in links[1:]):
            time.sleep(0.01)
        time.sleep(0.5)
        with pytest.raises(CloudLostError, match="edge 'a': over 2 calls at a time"):
            links[0].join([0])
        with link(here, "b") as other:
            assert other.join([0]).step == 0
        assert [each.result(60).step for each in waiting] == [0] * CALLS_AT_A_TIME


def test_an_edge_whose_values_are_too_large_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    """Finite features that no score stays finite for are their edge's fault, by name; nothing is learnt from them."""
    with beside_others(tmp_path, 3e38) as (rogue, request):
        with pytest.raises(JoinAgainError):
            rogue.call(_methods.STEP, request)
        with pytest.raises(RefusedError, match="edge 'a' was left out of this run: step 1: what Part 2 makes of"):
            rogue.join([0])


@pytest.mark.parametrize(
    ("training", "named"),
    [
        ({"steps": 20}, "step .*: what Part 2 makes of the items is not finite"),
        ({"steps": 40, "arrivals": "asynchronous"}, "no edge is left: a: edge 'a', step .*not finite"),
        ({"mode": "upload", "steps": 10}, "epoch .*: the loss is not finite; start anew with a smaller learning_rate"),
        ({"steps": 1, "learning_rate": 1e38}, "weight '.*' is not finite; start anew with a smaller learning_rate"),
        ({"steps": 1, "learning_rate": 1e39}, "cannot be converted to type float without overflow"),
        ({"steps": 1, "learning_rate": 1e39, "arrivals": "asynchronous"}, "without overflow"),
    ],
)
def test_a_run_that_diverges_ends_by_name(tmp_path: Path, training: dict[str, Any], named: str) -> None:
    """A learning rate that no network bears ends the run with what went wrong, and no model is written."""
    wild = {"optimiser": "sgd", "learning_rate": 1e30} | training
    setup = Setup(tmp_path, edges=("a",), training=wild, edge_sections={"privacy": {"detect_hijack": False}}).write()
    data = dict(np.load(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", **data | {"inputs": 1000 * data["inputs"]})
    here = Here(setup)
    here.start_cloud()
    here.start_edge("a", give_up_s=0.1)
    here.wait("cloud", "a")
    assert re.search(named, str(here.faults["cloud"]))
    assert not (tmp_path / "at-cloud/model.onnx").exists()


def test_a_message_that_is_too_large_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    """A chunk over the cloud's limit never arrives; the error names the limit."""
    setup = upload_setup(tmp_path, cloud_sections={"limits": {"message_bytes": 2048}})
    here = Here(setup)
    here.start_cloud()
    with link(here, "a") as edge:
        edge.join([])
        with pytest.raises(RefusedError, match=r"larger than max .*2048.*make batch smaller"):
            edge.call(_methods.UPLOAD, upload(np.ones((64, 4, 4, 4), np.float32), np.zeros(64, np.int64)))


def test_more_items_than_the_limit_are_refused(tmp_path: Path) -> None:
    """An edge cannot fill the cloud's disk."""
    here = Here(upload_setup(tmp_path, cloud_sections={"limits": {"items": 3}}))
    here.start_cloud()
    with link(here, "a") as edge:
        edge.join([])
        edge.call(_methods.UPLOAD, upload(FEATURES, LABELS, chunks=2))
        with pytest.raises(RefusedError, match="4 items are over the limit of 3"):
            edge.call(_methods.UPLOAD, upload(FEATURES, LABELS, chunk=1, chunks=2))


def test_a_run_without_edges_ends(tmp_path: Path) -> None:
    """When the last edge is left out, the cloud ends and says why."""
    here = Here(Setup(tmp_path, edges=("a",), training={"mode": "upload", "steps": 3}).write())
    here.start_cloud()
    with link(here, "a") as rogue:
        rogue.join([])
        with pytest.raises(RefusedError):
            rogue.call(_methods.UPLOAD, upload(np.full_like(FEATURES, np.nan), LABELS))
    here.wait("cloud")
    with pytest.raises(CollabError, match="no edge is left: a: edge 'a', chunk 0: tensor 'pool': it holds NaN"):
        raise here.faults["cloud"]
