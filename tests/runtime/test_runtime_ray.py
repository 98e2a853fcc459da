from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from runtime_deployments import deploy, devices, vectors

import siniantrust as st
from siniantrust import graph, planner
from siniantrust.bundle import KeyStore
from siniantrust.odla import DeviceSpec
from siniantrust.runtime import Call, Observer, Session, open_session

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

_BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


class _Calls(Observer):
    """Keeps the calls of devices."""

    def __init__(self) -> None:
        self.made: list[Call] = []
        self._lock = threading.Lock()

    def on_call(self, call: Call) -> None:
        """Keep a call."""
        with self._lock:
            self.made.append(call)


def _on(cluster: Any, *names: str) -> dict[str, DeviceSpec]:
    options = {"address": cluster.address, "inner.threads": 1}
    return {name: DeviceSpec(name, "ray", options) for name in names}


def test_replicas_on_a_cluster_share_the_requests(ray_cluster: Any, tmp_path: Path) -> None:
    """Two replicas on two nodes work at the same time; the answers are the uncut model's, in order."""
    deployment = deploy(vectors(), tmp_path, cut="t3", replicas=("second",), device=devices("cloud", "second"))
    calls = _Calls()
    specs = {
        # All the cores of a node: the other one has to go to the other node.
        name: DeviceSpec(name, "ray", {**spec.options, "num_cpus": 2})
        for name, spec in _on(ray_cluster, "cloud", "second").items()
    }
    with open_session(deployment.path, keystore=deployment.keystore, devices=specs, observers=[calls]) as session:
        assert session.placement() == {"part2": ("cloud", "second")}
        inputs = deployment.inputs(100)
        found = session.run_batched(inputs)["t7"]
        descriptions = {info.name: info.description for info in session.device_infos()}
    np.testing.assert_allclose(found, deployment.expected(inputs)["t7"], atol=1e-5)
    nodes = {text.partition("; on node ")[2] for text in descriptions.values()}
    assert len(nodes) == 2
    made = sorted((call for call in calls.made if call.part == "part2"), key=lambda call: call.start_s)
    share = Counter(call.device for call in made)
    assert share.total() == 100
    assert min(share["cloud"], share["second"]) >= 10
    assert any(a.device != b.device and b.start_s < a.end_s for a, b in pairwise(made))


def test_a_policy_may_name_the_cluster(ray_cluster: Any, tmp_path: Path) -> None:
    """Devices of a policy are planned by what they cost over the cluster, built, and served there."""
    model = vectors()
    options = {"address": ray_cluster.address, "inner.threads": 1}
    policy = planner.parse_policy(
        {
            "public_inputs": ["x"],
            "enclave": {"accept": ["simulated"], "memory_bytes": 256 << 20},
            "device": [{"name": "far", "backend": "ray", "options": options, "clearance": "public"}],
            "objective": {"allow_all_trusted": False},
        },
        origin="test",
    )
    plan = st.plan(model, policy=policy)
    assert {term.where for term in plan.prediction.terms} >= {"far"}
    keystore = KeyStore(tmp_path / "keys")
    bundle = st.build(model, plan, tmp_path / "deploy", keystore=keystore)
    inputs = {"x": np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)}
    with st.open(bundle, keystore=keystore) as session:
        (info,) = session.device_infos()
        assert info.backend == "ray"
        found = session.run(inputs)["t7"]
    (whole,) = graph.split(model, ())
    from siniantrust.odla import open_device

    np.testing.assert_allclose(found, open_device(DeviceSpec("cpu")).compile(whole).run(inputs)["t7"], atol=1e-5)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """Return the benchmark's modules, which know how to kill actors and count answers."""
    monkeypatch.syspath_prepend(str(_BENCHMARKS))
    import fleets
    import migration

    return fleets, migration


@pytest.mark.parametrize(
    ("requests", "kills"),
    [pytest.param(200, 3, id="200"), pytest.param(10_000, 20, id="10,000", marks=pytest.mark.slow)],
)
def test_no_request_is_lost_when_actors_and_a_node_die(
    ray_cluster: Any, benchmark: tuple[ModuleType, ModuleType], tmp_path: Path, requests: int, kills: int
) -> None:
    """Actors die by ``ray.kill``, by SIGKILL and with their node: nothing lost, nothing twice, nothing wrong."""
    fleets, migration = benchmark
    deployment = deploy(
        vectors(),
        tmp_path,
        cut="t3",
        device=devices("cloud", "standby"),
        serving={"takeover": ["standby"], "retries": 8},
    )

    def opener(specs: Mapping[str, DeviceSpec], observers: Sequence[Observer]) -> Session:
        return open_session(deployment.path, keystore=deployment.keystore, devices=specs, observers=observers)

    rows = deployment.inputs(requests)["x"]
    answers = deployment.expected({"x": rows})["t7"]
    outcome = migration.serve_through_kills(
        opener,
        fleets.RayFleet(ray_cluster, kills=kills),
        [{"x": row[np.newaxis]} for row in rows],
        [{"t7": answer[np.newaxis]} for answer in answers],
        kills=kills,
        seed=1,
    )
    sys.stdout.write(migration.table(outcome, fleets.RayFleet.about, machine="test"))
    assert outcome.faults == []
    assert (outcome.requests, outcome.kills) == (requests, kills)
    assert (outcome.lost, outcome.answered_twice, outcome.wrong) == (0, 0, 0)
    assert outcome.moves.get("failure", 0) >= 1
    assert sum(phase.requests for phase in (outcome.before, outcome.during, outcome.after)) == requests
