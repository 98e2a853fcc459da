"""What is not as it should be is refused by name, and the rest goes on: real servers and connections throughout."""

from __future__ import annotations

import io
import re
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from collab_runs import Here, Setup, address_of, network, pictures, process

from siniantrust.collab import (
    CloudConfig,
    CloudLostError,
    CollabError,
    EdgeConfig,
    JoinAgainError,
    RefusedError,
    _methods,
    load_config,
    write_identity,
)
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import agreement_of
from siniantrust.collab._attest import Attestation
from siniantrust.collab._checkpoints import Checkpoints
from siniantrust.collab._link import Link
from siniantrust.collab._middle import edge_parts
from siniantrust.collab._service import CALLS_AT_A_TIME
from siniantrust.collab._task import load_task
from siniantrust.collab._tls import read_certificate
from siniantrust.collab._wire import to_messages
from siniantrust.errors import AttestationError, DataError
from siniantrust.trust.attestation.attesters.simulated import package_measurement


@contextmanager
def link(here: Here, name: str, **changes: Any) -> Iterator[Link]:
    """Yield an edge's bare link, by which a test sends what no edge would."""
    config = load_config(here.setup.write_edge(name, here.address, **changes), EdgeConfig)
    task = load_task(config.training, config.mask)
    attestation = Attestation(config.attestation, read_certificate(config.certificate)[2])
    made = Link(config, agreement_of(config.training, task), attestation)
    try:
        yield made
    finally:
        made.close()


def upload(features: np.ndarray, labels: np.ndarray, *, chunk: int = 0, chunks: int = 1) -> pb.UploadRequest:
    """Return a chunk."""
    request = pb.UploadRequest(chunk=chunk, chunks=chunks)
    to_messages({"pool": features, "labels": labels}, request.tensors)
    return request


FEATURES = np.ones((2, 4, 4, 4), np.float32)
LABELS = np.array([0, 1])


def upload_setup(folder: Path, **changes: Any) -> Setup:
    """Return a masked upload of two edges."""
    return Setup(folder, edges=("a", "b"), training={"mode": "upload", "steps": 3}, **changes).write()


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
    here.start_edge("a", give_up_s=1.0)
    here.wait("cloud", "a")
    assert re.search(named, str(here.faults["cloud"]))
    assert not (tmp_path / "at-cloud/model.onnx").exists()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read as .npz"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "cannot be read as .npz"),
        (lambda path: path.write_bytes(_npy(LABELS)), "cannot be read as .npz"),
        (
            lambda path: np.savez(path, inputs=np.zeros((0, 1, 8, 8), "f4"), labels=LABELS[:0]),
            r"found float32 of shape \(0, 1, 8, 8\)",
        ),
        (lambda path: np.savez(path, inputs=np.zeros((2, 1, 8, 8), "f4")), "'labels' is missing"),
    ],
)
def test_data_that_cannot_be_used_are_one_line(tmp_path: Path, content: Callable[[Path], Any], named: str) -> None:
    """An empty, torn or foreign file, or one without items, is named before anybody is called."""
    setup = upload_setup(tmp_path)
    content(tmp_path / "a.npz")
    here = Here(setup)
    here.address = "127.0.0.1:1"
    here.start_edge("a", give_up_s=0.001)
    here.wait("a")
    with pytest.raises(DataError, match=named):
        raise here.faults["a"]


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


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_a_chunk_and_takes_it_when_there_is_room(tmp_path: Path) -> None:
    """What cannot be written is not answered as kept; nothing half-written stays, and it may come again."""
    here = Here(upload_setup(tmp_path))
    here.start_cloud()
    large = upload(np.ones((64, 4, 4, 4), np.float32), np.zeros(64, np.int64))
    with link(here, "a", give_up_s=0.001) as edge:
        edge.join([])
        with full_disk(4096), pytest.raises(CloudLostError, match="the cloud cannot write: File too large"):
            edge.call(_methods.UPLOAD, large)
        assert list((tmp_path / "at-cloud/features/a").iterdir()) == []
        assert edge.call(_methods.UPLOAD, large).chunks_held == 1


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    """A checkpoint says which run it is of, and a changed byte is noticed."""
    Checkpoints(tmp_path, "1" * 64).save(5, {"x": 1})
    assert Checkpoints(tmp_path, "1" * 64).load(5) == {"x": 1}
    with pytest.raises(CollabError, match=r"000000005.checkpoint: it is of another run \(1{16}…, this one is 2{16}…\)"):
        Checkpoints(tmp_path, "2" * 64).load(5)
    path = tmp_path / "000000005.checkpoint"
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CollabError, match="damaged, its SHA-256 is another"):
        Checkpoints(tmp_path, "1" * 64).load(5)


def test_a_folder_of_another_run_stops_the_cloud(tmp_path: Path) -> None:
    """A cloud that is given another run's folder does not start."""
    Here(upload_setup(tmp_path)).run()
    (tmp_path / "at-cloud/model.onnx").unlink()
    here = Here(Setup(tmp_path, edges=("a", "b"), training={"mode": "upload", "steps": 4}).write())
    here.start_cloud()
    here.wait("cloud")
    with pytest.raises(CollabError, match="they are of another run"):
        raise here.faults["cloud"]


def test_a_folder_is_one_process_s_own(tmp_path: Path) -> None:
    """A second cloud on the same folder is refused."""
    setup = upload_setup(tmp_path)
    Here(setup).start_cloud()
    second = Here(setup)
    second.start_cloud()
    second.wait("cloud")
    with pytest.raises(CollabError, match="another process uses it"):
        raise second.faults["cloud"]


def test_certificates_are_pinned_on_both_sides(tmp_path: Path) -> None:
    """An edge with a key that the cloud does not know gets no answer, and it refuses a cloud that it does not know."""
    setup = upload_setup(tmp_path)
    here = Here(setup)
    here.start_cloud()
    write_identity("a", tmp_path / "impostor")
    write_identity("cloud", tmp_path / "impostor")
    keys = {"key": "impostor/a.key", "certificate": "impostor/a.crt"}
    with link(here, "a", give_up_s=0.5, **keys) as impostor, pytest.raises(CloudLostError, match="does not answer"):
        impostor.join([])
    with (
        link(here, "a", cloud_certificate="impostor/cloud.crt") as edge,
        pytest.raises(RefusedError, match="its certificate is not"),
    ):
        edge.join([])


def test_nothing_older_than_tls_1_3_is_spoken(tmp_path: Path) -> None:
    """A client that offers TLS 1.2 at most fails its handshake; one of TLS 1.3 gets through it."""
    upload_setup(tmp_path)

    def version(highest: ssl.TLSVersion) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = highest
        context.load_cert_chain(tmp_path / "a.crt", tmp_path / "a.key")
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw) as wrapped:
            return wrapped.version()

    # A process of its own, as `sinian train cloud` is: in this one, other tests may have opened gRPC before.
    with process(tmp_path, "cloud", "cloud") as cloud:
        host, port = address_of(cloud).split(":")
        assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises(ssl.SSLError):
            version(ssl.TLSVersion.TLSv1_2)


def reference(folder: Path, measurement: str, *, accept: str = "simulated") -> str:
    """Write a reference file for simulated evidence."""
    (folder / "reference.toml").write_text(
        f'kind = "simulated"\naccept = ["{accept}"]\n'
        f'[accepted]\nprovider = ["service"]\nmeasurement = ["{measurement}"]\n'
    )
    return "reference.toml"


def test_attested_sides_train_and_the_record_says_that_it_was_simulated(tmp_path: Path) -> None:
    """Where both sides ask for evidence and show it, they train; provenance stands in both records."""
    tmp_path.mkdir(exist_ok=True)
    asked = {"attester": "simulated", "reference": reference(tmp_path, package_measurement())}
    setup = upload_setup(tmp_path, sections={"attestation": asked})
    Here(setup).run()
    assert '"cloud_provenance": "simulated"' in (tmp_path / "at-a/training.json").read_text()
    assert setup.record("cloud")["provenance"] == {"a": "simulated", "b": "simulated"}
    # It is known after a restart too, though no edge has anything to say any more.
    (tmp_path / "at-cloud/training.json").unlink()
    again = Here(setup)
    again.start_cloud()
    again.wait("cloud")
    assert setup.record("cloud")["provenance"] == {"a": "simulated", "b": "simulated"}


@pytest.mark.parametrize(
    ("shown", "measurement", "accept", "named"),
    [
        ({}, package_measurement(), "simulated", "evidence is required, and it showed none"),
        ({"attester": "simulated"}, "00" * 32, "simulated", "measurement"),
        (
            {"attester": "simulated"},
            package_measurement(),
            "hardware",
            "the evidence is simulated, the reference accepts",
        ),
    ],
)
def test_a_peer_that_is_not_attested_is_refused(
    tmp_path: Path, shown: dict[str, str], measurement: str, accept: str, named: str
) -> None:
    """An edge without evidence, with another measurement or of a provenance not accepted is refused by name."""
    tmp_path.mkdir(exist_ok=True)
    asked = {"reference": reference(tmp_path, measurement, accept=accept)}
    setup = upload_setup(tmp_path, cloud_sections={"attestation": asked}, edge_sections={"attestation": shown})
    here = Here(setup)
    here.start_cloud()
    with link(here, "a") as edge, pytest.raises(RefusedError, match=r"edge 'a' is not attested") as refused:
        edge.join([])
    assert named in str(refused.value)
    with link(here, "a") as edge, pytest.raises(JoinAgainError, match=r"edge 'a' has not joined"):
        edge.call(_methods.UPLOAD, upload(FEATURES, LABELS))


def test_an_edge_refuses_a_cloud_that_is_not_attested(tmp_path: Path) -> None:
    """Before anything is sent, the edge asks the cloud for evidence."""
    tmp_path.mkdir(exist_ok=True)
    asked = {"reference": reference(tmp_path, package_measurement())}
    here = Here(upload_setup(tmp_path, edge_sections={"attestation": asked}))
    here.start_cloud()
    with link(here, "a") as edge:
        with pytest.raises(RefusedError, match="the cloud is not attested"):
            edge.join([])
        assert set(edge.calls) == {"Hello"}


def test_evidence_of_one_connection_is_not_good_for_another_key_role_or_nonce(tmp_path: Path) -> None:
    """Evidence is bound to nonce, role and TLS key: with any other it is refused."""
    section = load_config(upload_setup(tmp_path).folder / "cloud.toml", CloudConfig).attestation
    section = section.model_copy(
        update={"attester": "simulated", "reference": tmp_path / reference(tmp_path, package_measurement())}
    )
    side = Attestation(section, b"key")
    raw = side.show(b"n" * 32, role="cloud")
    good: dict[str, Any] = {"name": "x", "nonce": b"n" * 32, "role": "cloud", "spki": b"key"}
    assert side.appraise(raw, **good) == "simulated"
    for change in ({"nonce": b"m" * 32}, {"role": "edge"}, {"spki": b"other"}):
        with pytest.raises(RefusedError, match="x is not attested"):
            side.appraise(raw, **good | change)
    with pytest.raises(AttestationError, match="expected a nonce of 32 bytes"):
        side.show(b"short", role="cloud")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (lambda text: text.replace("steps = 3", "steps = 0"), "training.steps"),
        (lambda text: text.replace("learning_rate = 0.01", "learning_rate = inf"), "training.learning_rate"),
        (lambda text: text.replace('mode = "upload"', 'mode = "upload"\nlast_cut = "c006-hidden"'), "no last_cut"),
        (lambda text: text + "surplus = 1\n", "edge.1.surplus"),
        (lambda text: text.replace('name = "b"', 'name = "a"'), "two edges have one name"),
        (lambda text: text.replace("[training]", "[training"), "not a TOML file"),
    ],
)
def test_a_configuration_that_does_not_do_is_refused_with_its_field(
    tmp_path: Path, changes: Callable[[str], str], named: str
) -> None:
    """Every fault in a file is one line that names the field."""
    setup = upload_setup(tmp_path)
    path = setup.folder / "cloud.toml"
    path.write_text(changes(path.read_text()))
    with pytest.raises(CollabError, match=named) as fault:
        load_config(path, CloudConfig)
    assert "\n" not in str(fault.value)


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


@pytest.mark.parametrize("arrivals", ["synchronous", "asynchronous"])
def test_a_cloud_that_fell_before_writing_its_result_writes_it_when_it_is_back(tmp_path: Path, arrivals: str) -> None:
    """The last checkpoint is enough for the same result, and edges that have it already are not waited for."""
    setup = Setup(tmp_path, edges=("a", "b"), training={"arrivals": arrivals}).write()
    Here(setup).run()
    before = setup.model("cloud")
    (tmp_path / "at-cloud/model.onnx").unlink()
    again = Here(setup)
    again.start_cloud()
    again.wait("cloud")
    assert not again.faults
    assert setup.model("cloud") == before
