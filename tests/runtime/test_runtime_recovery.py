from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from runtime_deployments import Deployment, deploy, images

from siniantrust.errors import DeviceLostError, EnclaveLostError, SinianError, TrustError
from siniantrust.odla import Executable
from siniantrust.runtime import Session


def _pid(session: Session) -> int:
    pid = session.enclave_info().pid
    assert pid is not None
    return pid


def _kill(session: Session) -> int:
    """Kill the enclave and wait until the kernel has taken it away; return its process id."""
    pid = _pid(session)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return pid


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _children() -> list[str]:
    """Return this process's children, zombies included."""
    text = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    return text.split()


def _assert_right(deployment: Deployment, session: Session) -> None:
    inputs = deployment.inputs(2)
    for name, array in deployment.expected(inputs).items():
        np.testing.assert_allclose(session.run(inputs)[name], array, atol=1e-5)


def test_a_killed_enclave_is_named_and_the_next_call_recovers(image_deployment: Deployment) -> None:
    """SIGKILL gives an EnclaveLostError with the process's id; the call after it has another enclave and is right."""
    with image_deployment.open() as session:
        for _ in range(2):
            pid = _kill(session)
            with pytest.raises(EnclaveLostError, match=rf"process enclave \(pid {pid}\): ended by SIGKILL"):
                session.run(image_deployment.inputs())
            _assert_right(image_deployment, session)
            assert _pid(session) != pid


def test_an_enclave_killed_within_a_stream_ends_it(vector_deployment: Deployment) -> None:
    """The answers before the loss are right and in order, the error names the enclave, a new stream works."""
    rows = [vector_deployment.inputs(1, seed=seed) for seed in range(40)]
    expected = [vector_deployment.expected(row)["t7"] for row in rows]
    answers: list[np.ndarray] = []
    with vector_deployment.open() as session:
        pid = _pid(session)
        stream = session.stream(rows)
        answers.extend(next(stream)["t7"] for _ in range(5))
        _kill(session)
        with pytest.raises(EnclaveLostError, match=f"pid {pid}"):
            answers.extend(answer["t7"] for answer in stream)
        assert 5 <= len(answers) < 40
        np.testing.assert_allclose(answers, expected[: len(answers)], atol=1e-5)
        assert len(list(session.stream(rows))) == 40


def test_an_interrupted_call_does_not_spoil_the_next(
    vector_deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a call ends the enclave, because its answers could not be told apart; the next is new."""
    with vector_deployment.open() as session:
        with session._holder.use() as enclave:
            pass

        def interrupted() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(enclave._channel, "receive", interrupted)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            session.run(vector_deployment.inputs())
        _assert_right(vector_deployment, session)


def test_a_lost_device_is_named_and_opened_again(
    vector_deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DeviceLostError names the device, and the next call opens it anew."""
    with vector_deployment.open() as session:
        stage = session.stages[1]
        seat = stage._roster.seat("cloud")  # type: ignore[attr-defined]
        lost: Executable = seat._current.executable

        def gone(_: object) -> None:
            raise DeviceLostError("unplugged")

        monkeypatch.setattr(lost.inner, "run", gone)  # type: ignore[attr-defined]
        with pytest.raises(DeviceLostError, match="device 'cloud', part 'part2': unplugged"):
            session.run(vector_deployment.inputs())
        _assert_right(vector_deployment, session)
        assert seat._current.executable is not lost


def test_closing_leaves_nothing_behind(vector_deployment: Deployment) -> None:
    """After ``close`` there is no enclave, no zombie, no thread and no open file that was not there before."""
    vector_deployment.open().close()  # what is made once and kept, for example the runtime's thread pool, is there now
    gc.collect()
    threads, children, files = set(threading.enumerate()), _children(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only counted
    for _ in range(2):
        with vector_deployment.open() as session:
            pid = _pid(session)
            session.run_batched(vector_deployment.inputs(10))
            _kill(session)
            with pytest.raises(EnclaveLostError):
                session.run(vector_deployment.inputs())
            session.run(vector_deployment.inputs())
        assert not _is_running(pid)
    gc.collect()
    assert set(threading.enumerate()) <= threads
    assert _children() == children
    assert len(os.listdir("/proc/self/fd")) <= files  # noqa: PTH208 - as above


def test_closing_ends_requests_that_are_on_their_way(tmp_path: Path) -> None:
    """A session that is closed while another thread runs requests ends them by an error, and launches nothing again."""
    deployment = deploy(images(channels=32, size=32), tmp_path, cut="r0")
    children = _children()
    session = deployment.open()
    begun = threading.Event()
    faults: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                session.run(deployment.inputs())
                begun.set()
        except SinianError as fault:
            faults.append(fault)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert begun.wait(10)
    session.close()
    for worker in workers:
        worker.join(10)
    assert len(faults) == 3
    assert all("closed" in str(fault) for fault in faults)
    assert _children() == children


def test_a_stream_over_a_closed_session_launches_nothing(vector_deployment: Deployment) -> None:
    """Reading on from a stream whose session was closed gives an error, and no enclave nobody would end."""
    children = _children()
    session = vector_deployment.open()
    stream = session.stream(vector_deployment.inputs(1, seed=seed) for seed in range(100))
    next(stream)
    session.close()
    with pytest.raises(SinianError, match="closed"):
        list(stream)
    assert _children() == children


def test_an_enclave_that_the_policy_does_not_accept_is_not_used(tmp_path: Path) -> None:
    """Without ``accept = ["simulated"]`` no session opens over a process enclave, and none is left running."""
    deployment = deploy(images(), tmp_path, cut="r0", enclave={"accept": ["hardware"]})
    children = _children()
    with pytest.raises(TrustError, match="simulated"):
        deployment.open()
    assert _children() == children


def test_a_session_that_cannot_open_leaves_nothing_behind(vector_deployment: Deployment, tmp_path: Path) -> None:
    """When a part does not fit into the enclave's memory, opening fails and the enclave is gone."""
    deployment = deploy(
        images(channels=512, size=8, depth=3),
        tmp_path,
        cut="r2",
        enclave={"accept": ["simulated"], "memory_bytes": 96 << 20, "allow_missing": list(
            vector_deployment.plan.policy.enclave.allow_missing
        )},
    )  # fmt: skip
    children = _children()
    with pytest.raises(TrustError, match="memory"):
        deployment.open()
    assert _children() == children
