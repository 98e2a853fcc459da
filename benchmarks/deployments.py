"""Real deployments to measure: planned, sealed, signed, attested and opened like any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from networks import Network

import siniantrust as st
from siniantrust import graph, odla, planner, runtime, trust
from siniantrust.bundle import KeyStore

_MEMORY_BYTES = 3 << 30
_DEVICE = "device"


@dataclass(frozen=True)
class Subject:
    """A model with measured costs, ready to be cut anywhere."""

    name: str
    model: graph.Model
    cuts: tuple[graph.Cut, ...]
    policy: planner.Policy
    costs: planner.CostProfile = field(repr=False)


@dataclass(frozen=True)
class Deployment:
    """A session over one cut, and the same two parts run bare in this process with as many threads."""

    session: runtime.Session
    bare: tuple[odla.Executable, odla.Executable]
    item: dict[str, np.ndarray]
    between: dict[str, np.ndarray]


def make_policy(devices: Sequence[str] = (_DEVICE,)) -> planner.Policy:
    """Return a policy under which any cut may be taken: the image is declared public, so that no audit is needed.

    Timing does not depend on labels; a benchmark has no private data to lose. One thread each side.
    """
    return planner.parse_policy(
        {
            "public_inputs": ["input"],
            "enclave": {"accept": ["simulated"], "memory_bytes": _MEMORY_BYTES, "threads": 1},
            "device": [{"name": name, "options": {"threads": 1}, "clearance": "public"} for name in devices],
            "objective": {"allow_all_trusted": False},
        },
        origin="benchmark",
    )


def prepare(network: Network, devices: Sequence[str] = (_DEVICE,)) -> Subject:
    """Load a network and measure its costs once for all cuts, on single-threaded ``devices`` of this machine."""
    model = st.load(network.proto)
    policy = make_policy(devices)
    cuts = graph.enumerate_cuts(model)
    found = {cut.tensors: cut for cut in cuts.cuts}
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(closing(odla.open_device(runtime.device_spec(policy, name, {}))))
            for name in devices
        }
        enclave = stack.enter_context(closing(trust.launch(runtime.enclave_spec(policy))))
        crossing = trust.measure_crossing(enclave)
        costs = planner.measure_costs(model, cuts, policy=policy, devices=opened, crossing=crossing, seed=0)
    return Subject(network.name, model, tuple(found[(name,)] for name in network.cuts), policy, costs)


@contextmanager
def deployed(subject: Subject, cut: graph.Cut, folder: Path) -> Iterator[Deployment]:
    """Plan, build and open a deployment that is cut at ``cut``."""
    only = graph.CutSet(cuts=(cut,), capped=False, cap=0)
    plan = planner.solve(subject.model, only, policy=subject.policy, audit=None, costs=subject.costs)
    keystore = KeyStore(folder / "keys")
    bundle = st.build(subject.model, plan, folder / "deploy", keystore=keystore)
    device = odla.open_device(odla.DeviceSpec("bare", options={"threads": 1}))
    first, second = graph.split(subject.model, (cut,))
    tensor = subject.model.inputs[0]
    item = {tensor.name: np.random.default_rng(1).normal(size=tensor.shape).astype(tensor.dtype)}
    with st.open(bundle, keystore=keystore) as session:
        bare = (device.compile(first), device.compile(second))
        between = bare[0].run(item)
        whole = bare[1].run(between)
        answer = session.run(item)
        for name, array in answer.items():
            np.testing.assert_allclose(array, whole[name], rtol=1e-4, atol=1e-5)
        yield Deployment(session, bare, item, between)
