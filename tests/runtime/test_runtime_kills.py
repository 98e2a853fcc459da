from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from runtime_deployments import Deployment, deploy, devices, vectors

from siniantrust.odla import DeviceSpec
from siniantrust.runtime import Observer, Session, open_session

pytest.importorskip("grpc", reason="the extra 'serve' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

_BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def migration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the benchmark's module, which knows how to kill servers and count answers."""
    monkeypatch.syspath_prepend(str(_BENCHMARKS))
    import migration as module

    return module


@pytest.fixture(scope="module")
def served_deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a deployment whose part 2 may move from ``cloud`` to ``standby``."""
    return deploy(
        vectors(),
        tmp_path_factory.mktemp("served"),
        cut="t3",
        device=devices("cloud", "standby"),
        serving={"takeover": ["standby"], "retries": 8, "call_timeout_s": 10.0},
    )


@pytest.mark.parametrize(
    ("requests", "kills"),
    [pytest.param(1_000, 3, id="1,000"), pytest.param(10_000, 20, id="10,000", marks=pytest.mark.slow)],
)
def test_no_request_is_lost_when_servers_are_killed(
    served_deployment: Deployment, migration: ModuleType, requests: int, kills: int
) -> None:
    """Servers in processes of their own die by SIGKILL at random times: nothing lost, nothing twice, nothing wrong."""
    rows = served_deployment.inputs(requests)["x"]
    answers = served_deployment.expected({"x": rows})["t7"]

    def opener(specs: Mapping[str, DeviceSpec], observers: Sequence[Observer]) -> Session:
        return open_session(
            served_deployment.path, keystore=served_deployment.keystore, devices=specs, observers=observers
        )

    with migration.server_fleet(served_deployment.path / "part2") as fleet:
        outcome = migration.serve_through_kills(
            opener,
            fleet,
            [{"x": row[np.newaxis]} for row in rows],
            [{"t7": answer[np.newaxis]} for answer in answers],
            kills=kills,
            seed=1,
        )
    sys.stdout.write(migration.table(outcome, fleet.about, machine="test"))
    assert outcome.faults == []
    assert (outcome.requests, outcome.kills) == (requests, kills)
    assert (outcome.lost, outcome.answered_twice, outcome.wrong) == (0, 0, 0)
    assert outcome.moves.get("failure", 0) >= 1
    assert outcome.during.requests >= 1
    assert sum(phase.requests for phase in (outcome.before, outcome.during, outcome.after)) == requests


def test_the_count_of_the_kills_can_fail(served_deployment: Deployment, migration: ModuleType) -> None:
    """Held against other outputs, every answer counts as wrong; a session without another device loses requests."""

    def opener(specs: Mapping[str, DeviceSpec], observers: Sequence[Observer]) -> Session:
        dead = DeviceSpec("standby", "remote", {"url": "grpc://127.0.0.1:9"})
        return open_session(
            served_deployment.path,
            keystore=served_deployment.keystore,
            devices={**specs, "standby": dead},
            observers=observers,
        )

    rows = served_deployment.inputs(300)["x"]
    requests = [{"x": row[np.newaxis]} for row in rows]
    wrong = [{"t7": np.full((1, 8), 7.0, np.float32)}] * len(requests)
    with migration.server_fleet(served_deployment.path / "part2") as fleet:
        outcome = migration.serve_through_kills(opener, fleet, requests, wrong, kills=1, seed=4)
    assert outcome.lost > 0
    assert outcome.wrong == 300 - outcome.lost
    assert "part 'part2': no allowed device answered" in outcome.faults[0]


def test_a_server_that_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is stopped, and neither answers nor hangs up, costs its request the policy's time and no more."""
    deployment = deploy(
        vectors(),
        tmp_path,
        cut="t3",
        device=devices("cloud", "standby"),
        serving={"takeover": ["standby"], "call_timeout_s": 1.0},
    )
    part = deployment.path / "part2"
    monkeypatch.syspath_prepend(str(_BENCHMARKS))
    import part_server

    with part_server.PartServer(part) as cloud, part_server.PartServer(part) as standby:
        urls = {"cloud": cloud.url, "standby": standby.url}
        specs = {name: DeviceSpec(name, "remote", {"url": url}) for name, url in urls.items()}
        with deployment.open(specs) as session:
            for seed in range(3):
                if seed == 1:
                    assert cloud.process is not None
                    cloud.process.send_signal(signal.SIGSTOP)
                inputs = deployment.inputs(2, seed=seed)
                begin_s = time.perf_counter()
                np.testing.assert_allclose(session.run(inputs)["t7"], deployment.expected(inputs)["t7"], atol=1e-5)
                assert time.perf_counter() - begin_s < 30
            (move,) = session.moves
            assert (move.source, move.target, move.cause) == ("cloud", "standby", "failure")
            assert "device 'cloud', part 'part2': it did not answer within 1 s" in move.reason
