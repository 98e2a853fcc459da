from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from runtime_deployments import Deployment, deploy, devices, vectors, with_replicas

from siniantrust.errors import DeviceError, DeviceLostError, PlanError
from siniantrust.odla import DeviceSpec
from siniantrust.planner import find_violations
from siniantrust.runtime import Session, Span
from siniantrust.runtime._seat import Seat

Arrays = Mapping[str, np.ndarray]
Fault = Callable[[Arrays], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def spare_deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a deployment on ``cloud`` that ``b`` and ``c`` may take over, and ``low`` may not."""
    return deploy(
        vectors(),
        tmp_path_factory.mktemp("spare"),
        cut="t3",
        device=devices("cloud", "b", "c", low="public"),
        serving={"takeover": ["low", "b", "c"], "slow_factor": 3.0},
    )


@pytest.fixture(scope="module")
def replicated_deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a deployment whose part 2 runs on ``cloud`` and on ``b``."""
    folder = tmp_path_factory.mktemp("replicas")
    return deploy(vectors(), folder, cut="t3", replicas=("b",), device=devices("cloud", "b"))


@pytest.fixture
def session(spare_deployment: Deployment) -> Iterator[Session]:
    """Return a session of its own, since each test moves its part."""
    with spare_deployment.open() as opened:
        yield opened


def _seat(session: Session, name: str) -> Seat:
    seat: Seat = session.stages[1]._roster.seat(name)  # type: ignore[attr-defined]
    return seat


def _break(session: Session, name: str, fault: Fault) -> None:
    """Let the part on a device answer by ``fault`` until the device is opened again."""
    seat = _seat(session, name)
    seat.open()
    assert seat._current is not None
    seat._current.executable.inner.run = fault  # type: ignore[assignment, method-assign]


def _raises(error: Exception) -> Fault:
    def run(inputs: Arrays) -> dict[str, np.ndarray]:  # noqa: ARG001 - a device's signature
        raise error

    return run


def _assert_right(deployment: Deployment, session: Session, *, seed: int = 0) -> None:
    inputs = deployment.inputs(2, seed=seed)
    np.testing.assert_allclose(session.run(inputs)["t7"], deployment.expected(inputs)["t7"], atol=1e-5)


def test_a_part_moves_on_command(spare_deployment: Deployment, session: Session) -> None:
    """After ``move`` the part runs on the new device, the old one is freed, and the answers stay right."""
    _assert_right(spare_deployment, session)
    session.move("part2", "b")
    assert session.placement() == {"part2": ("b",)}
    assert [info.name for info in session.device_infos()] == ["b"]
    assert _seat(session, "cloud")._current is None
    _assert_right(spare_deployment, session)
    session.move("part2", "b")
    session.move("part2", "cloud")
    _assert_right(spare_deployment, session)
    assert [(move.source, move.target, move.cause) for move in session.moves] == [
        ("cloud", "b", "command"),
        ("b", "cloud", "command"),
    ]


@pytest.mark.parametrize(
    ("part", "device", "complaint"),
    [
        ("part2", "low", "part2 to 'low': refused: 'low' is cleared for public, but 't3' is obscured"),
        ("part2", "enclave", "part2 is planned for devices"),
        ("part2", "clod", "the policy has no device 'clod'; it has b, c, cloud, low"),
        ("part1", "b", "part1 is trusted: it stays in the enclave"),
        ("part9", "b", "the plan has no part 'part9'"),
    ],
)
def test_a_move_that_the_plan_does_not_allow_is_refused(
    spare_deployment: Deployment, session: Session, part: str, device: str, complaint: str
) -> None:
    """No part moves below a value's label, into or out of the enclave, or to a device that nobody named."""
    with pytest.raises(PlanError, match=complaint):
        session.move(part, device)
    assert session.placement() == {"part2": ("cloud",)}
    _assert_right(spare_deployment, session)


def test_a_move_to_a_device_with_too_little_memory_is_refused(tmp_path: Path) -> None:
    """What the policy lets a device hold binds a move as it binds the solver."""
    small = [{**entry, "memory_bytes": 64} for entry in devices("small")]
    given = deploy(vectors(), tmp_path, cut="t3", device=[*devices("cloud"), *small])
    with given.open() as session:
        with pytest.raises(PlanError, match=r"part2 needs [\d,]+ bytes, but 'small' has 64"):
            session.move("part2", "small")
        assert session.placement() == {"part2": ("cloud",)}


def test_a_move_to_a_device_that_is_not_there_changes_nothing(spare_deployment: Deployment) -> None:
    """When the new device cannot be opened, the part stays where it was and goes on."""
    missing = DeviceSpec("c", options={"provider": "NoSuch"})
    with spare_deployment.open({"c": missing}) as session:
        with pytest.raises(DeviceError, match="device 'c', part 'part2': NoSuchExecutionProvider is not available"):
            session.move("part2", "c")
        assert session.placement() == {"part2": ("cloud",)}
        _assert_right(spare_deployment, session)


def test_a_request_on_its_way_finishes_where_it_is(spare_deployment: Deployment, session: Session) -> None:
    """A move waits for nobody: the old device answers what it has, and is freed after that."""
    entered, go_on = threading.Event(), threading.Event()
    seat = _seat(session, "cloud")
    assert seat._current is not None
    real = seat._current.executable.inner.run

    def slowly(inputs: Arrays) -> dict[str, np.ndarray]:
        entered.set()
        assert go_on.wait(20)
        return real(inputs)

    _break(session, "cloud", slowly)
    worker = threading.Thread(target=_assert_right, args=(spare_deployment, session))
    worker.start()
    assert entered.wait(20)
    opened = seat._current
    session.move("part2", "b")
    _assert_right(spare_deployment, session)
    assert opened.calls == 1
    go_on.set()
    worker.join(20)
    assert opened.calls == 0
    assert [move.cause for move in session.moves] == ["command"]


def _wrong_shape(inputs: Arrays) -> dict[str, np.ndarray]:
    return {"t7": next(iter(inputs.values()))[:, :3]}


def _fewer_items(inputs: Arrays) -> dict[str, np.ndarray]:
    return {"t7": next(iter(inputs.values()))[:1]}


def _nan(inputs: Arrays) -> dict[str, np.ndarray]:
    return {"t7": np.full_like(next(iter(inputs.values())), np.nan)}


FAULTS = {
    "lost": _raises(DeviceLostError("unplugged")),
    "refused": _raises(DeviceError("busy")),
    "memory": _raises(MemoryError("no memory")),
    "backend": _raises(RuntimeError("bug")),
    "connection": _raises(ConnectionResetError(104, "reset")),
    "shape": _wrong_shape,
    "items": _fewer_items,
    "nan": _nan,
    "names": lambda inputs: {"other": next(iter(inputs.values()))},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_device_that_fails_is_left_for_the_next_one(
    spare_deployment: Deployment, session: Session, fault: str
) -> None:
    """Whatever goes wrong, the request is answered by the next allowed device, and the part stays there."""
    _break(session, "cloud", FAULTS[fault])
    _assert_right(spare_deployment, session)
    assert session.placement() == {"part2": ("b",)}
    (move,) = session.moves
    assert (move.source, move.target, move.cause) == ("cloud", "b", "failure")
    assert "device 'cloud'" in move.reason
    _assert_right(spare_deployment, session, seed=1)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lone_device_that_fails_is_named_with_its_part(vector_deployment: Deployment, fault: str) -> None:
    """Without another device the error says part, device and what it did."""
    with vector_deployment.open() as session:
        _break(session, "cloud", FAULTS[fault])
        with pytest.raises(DeviceError, match="device 'cloud', part 'part2': "):
            session.run(vector_deployment.inputs(2))


def test_when_no_device_is_left_every_request_gets_an_error(spare_deployment: Deployment) -> None:
    """Requests of many threads all end, with an error that names part, devices and the one that was not allowed."""
    gone = DeviceSpec("x", options={"provider": "NoSuch"})
    faults: list[str] = []
    with spare_deployment.open({"b": gone, "c": gone}) as session:

        def refuse(_: Arrays) -> dict[str, np.ndarray]:
            raise DeviceError("out of order")

        _break(session, "cloud", refuse)

        def work() -> None:
            try:
                session.run(spare_deployment.inputs())
            except DeviceError as fault:
                faults.append(str(fault))

        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
        assert len(faults) == 8
        for fault in faults:
            assert "part 'part2': no allowed device answered" in fault
            assert "device 'cloud', part 'part2': out of order" in fault
            assert "device 'b', part 'part2': NoSuchExecutionProvider is not available" in fault
            assert "'low' is cleared for public, but 't3' is obscured" in fault
        assert session.moves == ()


def test_a_request_that_every_device_fails_moves_nothing(spare_deployment: Deployment, session: Session) -> None:
    """What is the request's own fault ends it, and costs no device its place."""
    for name in ("cloud", "b", "c"):
        _break(session, name, FAULTS["refused"])
    with pytest.raises(DeviceError, match="part 'part2': no allowed device answered"):
        session.run(spare_deployment.inputs())
    assert session.placement() == {"part2": ("cloud",)}
    assert session.moves == ()


def test_devices_that_fail_at_random_lose_nothing(spare_deployment: Deployment, session: Session) -> None:
    """While one device works, requests of several threads are each answered once and rightly."""
    source, lock = random.Random(0), threading.Lock()
    kinds = [FAULTS[name] for name in ("lost", "refused", "backend", "shape", "nan")]

    def flaky(name: str) -> None:
        seat = _seat(session, name)
        opened = seat._enter()
        real = opened.executable.inner.run

        def run(inputs: Arrays) -> dict[str, np.ndarray]:
            with lock:
                fault = source.choice(kinds) if source.random() < 0.3 else real
            return fault(inputs)

        opened.executable.inner.run = run  # type: ignore[method-assign]
        seat._exit(opened)

    answered: list[int] = []
    faults: list[BaseException] = []

    def work(worker: int) -> None:
        for turn in range(40):
            try:
                if turn % 5 == 0:
                    flaky(("cloud", "c")[worker % 2])  # a device that was opened again had lost its flaw
                _assert_right(spare_deployment, session, seed=worker * 100 + turn)
                answered.append(worker * 100 + turn)
            except BaseException as fault:  # noqa: BLE001 - raised again below, where pytest sees it
                faults.append(fault)

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert faults == []
    assert len(answered) == len(set(answered)) == 160
    assert any(move.cause == "failure" for move in session.moves)


def test_a_device_that_slows_down_is_left(spare_deployment: Deployment, session: Session) -> None:
    """When its latest calls take longer than the policy's factor allows, the part moves; no request suffers."""
    seat = _seat(session, "cloud")
    assert seat._current is not None
    real, pause_s = seat._current.executable.inner.run, [0.01]

    def paced(inputs: Arrays) -> dict[str, np.ndarray]:
        time.sleep(pause_s[0])
        return real(inputs)

    _break(session, "cloud", paced)
    for seed in range(30):
        _assert_right(spare_deployment, session, seed=seed)
    assert session.placement() == {"part2": ("cloud",)}
    pause_s[0] = 0.2
    deadline = time.monotonic() + 30
    while not session.moves and time.monotonic() < deadline:
        _assert_right(spare_deployment, session)
    (move,) = session.moves
    assert (move.source, move.target, move.cause) == ("cloud", "b", "slow")
    assert "at first" in move.reason


def test_a_call_that_does_not_return_is_given_up(tmp_path: Path) -> None:
    """A device that hangs counts as lost after the policy's time, and another one answers."""
    serving = {"takeover": ["b"], "call_timeout_s": 0.5}
    deployment = deploy(vectors(), tmp_path, cut="t3", device=devices("cloud", "b"), serving=serving)
    released = threading.Event()

    def hang(inputs: Arrays) -> dict[str, np.ndarray]:
        released.wait(60)
        return dict(inputs)

    with deployment.open() as session:
        _break(session, "cloud", hang)
        _assert_right(deployment, session)
        assert "device 'cloud', part 'part2': it did not answer within 0.5 s" in session.moves[0].reason
        released.set()
        for seed in range(5):
            _assert_right(deployment, session, seed=seed)


def test_replicas_share_the_requests_and_keep_the_order(replicated_deployment: Deployment) -> None:
    """A stream goes to both replicas, each request to the one with the least to do, and answers keep the order."""
    rows = [replicated_deployment.inputs(1, seed=seed) for seed in range(60)]
    used: dict[str, int] = {}
    with replicated_deployment.open() as session:
        assert session.placement() == {"part2": ("cloud", "b")}
        for name in ("cloud", "b"):
            seat = _seat(session, name)
            assert seat._current is not None

            def paced(inputs: Arrays, *, run: Fault = seat._current.executable.inner.run) -> dict[str, np.ndarray]:
                time.sleep(0.005)
                return run(inputs)

            _break(session, name, paced)
        spans: list[Span] = []
        answers = [answer["t7"] for answer in session.stream(rows, on_span=spans.append)]
        for span in spans:
            used[span.device] = used.get(span.device, 0) + 1
    np.testing.assert_allclose(answers, [replicated_deployment.expected(row)["t7"] for row in rows], atol=1e-5)
    assert used["enclave"] == 60
    assert used["cloud"] + used["b"] == 60
    assert min(used["cloud"], used["b"]) >= 15


def test_a_lost_replica_is_made_up_for_and_comes_back(replicated_deployment: Deployment) -> None:
    """The other replica takes its requests at once, and the device is taken in again when it can be opened."""
    with replicated_deployment.open() as session:
        _break(session, "cloud", FAULTS["lost"])
        for seed in range(4):
            _assert_right(replicated_deployment, session, seed=seed)
        deadline = time.monotonic() + 30
        while len(session.placement()["part2"]) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert set(session.placement()["part2"]) == {"cloud", "b"}
        assert [(move.source, move.target, move.cause) for move in session.moves] == [
            ("cloud", "b", "failure"),
            (None, "cloud", "return"),
        ]
        with pytest.raises(DeviceError, match="it runs on b, cloud; say which one it leaves"):
            session.move("part2", "cloud")
        _assert_right(replicated_deployment, session)


@pytest.mark.parametrize(
    ("replicas", "violation"),
    [
        (("low",), "labels: 'low' is cleared for public, but 't3' is obscured"),
        (("cloud",), "device 'cloud' is listed 2 times"),
        (("enclave",), "the enclave is listed among the devices"),
        (("clod",), "part2: the policy has no device 'clod'"),
    ],
)
def test_the_validator_checks_each_replica(
    spare_deployment: Deployment, replicas: tuple[str, ...], violation: str
) -> None:
    """A replica has to be a device of the policy, another one, and cleared for what it gets."""
    from siniantrust.leakage import load_audit

    plan, audit = spare_deployment.plan, load_audit(spare_deployment.audit_folder)
    assert find_violations(plan, spare_deployment.model, audit) == []
    changed = with_replicas(plan, replicas)
    assert any(violation in line for line in find_violations(changed, spare_deployment.model, audit))
    assert find_violations(with_replicas(plan, ("b", "c")), spare_deployment.model, audit) == []
