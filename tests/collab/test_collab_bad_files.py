"""Disks, folders, checkpoints, data and configurations that do not do are refused by name."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collab_links import LABELS, link, upload, upload_setup
from collab_runs import Here, Setup

from siniantrust.collab import (
    CloudConfig,
    CloudLostError,
    CollabError,
    _methods,
    load_config,
)
from siniantrust.collab._checkpoints import Checkpoints
from siniantrust.errors import DataError


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
        (lambda path: path.write_bytes(_npy(LABELS).replace(b"'<i8'", b"',i8'")), "cannot be read as .npz"),
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


@pytest.mark.parametrize("content", [b"", _npy(LABELS)[:40], _npy(LABELS).replace(b"'<i8'", b"',i8'")])
def test_calibration_items_that_cannot_be_read_are_one_line(tmp_path: Path, content: bytes) -> None:
    """An empty or torn file of items for the mask, or one of no dtype, is named before anybody is called."""
    setup = upload_setup(tmp_path)
    (tmp_path / "public.npy").write_bytes(content)
    here = Here(setup)
    here.address = "127.0.0.1:1"
    here.start_edge("a", sections={"mask": {"name": "gaussian", "strength": 1.0, "calibration": "public.npy"}})
    here.wait("a")
    with pytest.raises(CollabError, match=r"mask calibration .*public.npy: cannot be read as .npy"):
        raise here.faults["a"]


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
