from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime_deployments import Deployment, deploy, simulated_policy, vectors

from siniantrust.errors import AttestationError, SinianError
from siniantrust.runtime import Session
from siniantrust.trust import Enclave


def _deploy(folder: Path, **limits: float) -> Deployment:
    enclave = {**simulated_policy().enclave.model_dump(), **limits}
    return deploy(vectors(), folder, cut="t3", enclave=enclave)


def _held(session: Session) -> Enclave:
    """Return the session's enclave as it is, dead or alive, without a call to it."""
    live = session._holder._live
    assert live is not None
    return live.enclave


def _eventually(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_idle_enclave_is_ended_and_the_next_request_attests_anew(tmp_path: Path) -> None:
    """After ``idle_s`` without a request no process holds the keys; the session goes on with another enclave."""
    deployment = _deploy(tmp_path, idle_s=1.0)
    inputs = deployment.inputs()
    with deployment.open() as session:
        session.run(inputs)
        first = _held(session)
        _eventually(lambda: not first.alive)
        assert session._holder._live is None
        session.run(inputs)
        second = _held(session)
        assert second is not first
        _eventually(lambda: not second.alive)


def test_requests_keep_an_enclave(tmp_path: Path) -> None:
    """As long as requests come or one is being worked on, an enclave is not idle."""
    deployment = _deploy(tmp_path, idle_s=2.0)
    with deployment.open() as session:
        first = _held(session)
        with session._holder.use() as enclave:
            assert enclave is first
            time.sleep(2.3)
            assert first.alive
        session.run(deployment.inputs())
        assert _held(session) is first


def test_an_old_enclave_takes_no_more_calls_but_ends_those_in_it(tmp_path: Path) -> None:
    """After ``lifetime_s`` the next request goes to a new enclave; the old one lives until its last call is done."""
    deployment = _deploy(tmp_path, lifetime_s=0.8)
    with deployment.open() as session:
        with session._holder.use() as old:
            time.sleep(0.9)
            with session._holder.use() as new:
                assert new is not old
                assert old.alive
        assert not old.alive
        _eventually(lambda: not new.alive)  # though nobody asks


def test_a_session_that_is_closed_watches_nothing(tmp_path: Path) -> None:
    """With the session, the thread that watches its limits ends; a request that comes late launches nothing."""
    before = threading.active_count()
    deployment = _deploy(tmp_path)
    session = deployment.open()
    holder = session._holder
    session.close()
    _eventually(lambda: threading.active_count() <= before)
    with pytest.raises(SinianError, match="its session is closed"), holder.use():
        pass


def test_an_enclave_that_fails_its_attestation_is_ended(tmp_path: Path) -> None:
    """Evidence that fails later ends the enclave with its keys; the session's next request launches another one."""
    deployment = _deploy(tmp_path)
    with deployment.open() as session:
        enclave = _held(session)
        enclave._reference = type(enclave._reference)("process", "00" * 32)  # type: ignore[attr-defined]
        with pytest.raises(AttestationError, match="expected measurement 0000000000000000"):
            enclave.evidence(bytes(32))
        assert not enclave.alive
        with pytest.raises(AttestationError, match="ended, because its evidence failed"):
            session.run(deployment.inputs())
        session.run(deployment.inputs())
        assert _held(session) is not enclave
