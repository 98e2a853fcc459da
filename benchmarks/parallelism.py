"""What two single-threaded devices give together: a pipeline of two parts, and two replicas of one part."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import numpy as np
from deployments import Subject, prepare
from networks import NETWORKS
from results_file import Bar, Outcome
from timing import in_turns, median_ms, ratio_interval

import siniantrust as st
from siniantrust import graph, planner, runtime
from siniantrust.bundle import KeyStore

_BAR = 1.7
_DEVICES = ("first", "second")


def run(*, quick: bool) -> Outcome:
    """Measure pipeline and replicas on ResNet-50 (quick: MobileNetV2 at 64 pixels, few turns)."""
    network = NETWORKS["mobilenet_v2"](64) if quick else NETWORKS["resnet50"](224)
    subject = prepare(network, _DEVICES)
    items, turns = (8, 2) if quick else (12, 9)
    rows, bars = [], []
    for name, cut, measure in (
        ("two-stage pipeline", _balanced(subject), _pipeline),
        ("two replicas", subject.cuts[0], _replicas),
    ):
        row, ratio = measure(subject, cut, items=items, turns=turns)
        rows.append({"what": name, "network": subject.name, "cut": cut.id, **row})
        bars.append(Bar(f"{subject.name}, {name}, throughput over one after the other", _BAR, ratio, at_most=False))
    return Outcome(
        title="Parallelism",
        method=(
            "Time per item of `Session.stream` with both devices at work, against the same items one after the other. "
            "*Two-stage pipeline*: enclave and one device, one thread each, cut where the solver puts it for "
            "throughput, against `Session.run` on one item after the other. *Two replicas*: part 2 on two devices of "
            "one thread, cut right after the first layers so that the enclave has little to do, against a stream over "
            "one of them."
        ),
        rows=rows,
        bars=bars,
        remarks=["Two computations at once share memory bandwidth and cache; see the column *both at once* above."],
    )


def _balanced(subject: Subject) -> graph.Cut:
    """Return the cut at which the solver expects the shortest time between answers, with one device."""
    found = graph.enumerate_cuts(subject.model)
    single = tuple(cut for cut in found.cuts if len(cut.tensors) == 1)
    plan = _plan(subject, single, _DEVICES[:1])
    return next(cut for cut in single if (cut.id,) == plan.cut_ids)


def _plan(subject: Subject, cuts: tuple[graph.Cut, ...], devices: tuple[str, ...]) -> planner.Plan:
    """Let the solver make the most of ``devices``: with one cut and several devices, part 2 is on all of them."""
    objective = subject.policy.objective.model_copy(update={"minimise": "period"})
    entries = tuple(device for device in subject.policy.device if device.name in devices)
    policy = subject.policy.model_copy(update={"objective": objective, "device": entries})
    offered = graph.CutSet(cuts=cuts, capped=False, cap=0)
    return planner.solve(subject.model, offered, policy=policy, audit=None, costs=subject.costs)


@contextmanager
def _opened(subject: Subject, cut: graph.Cut, devices: tuple[str, ...]) -> Iterator[runtime.Session]:
    with tempfile.TemporaryDirectory() as folder:
        keystore = KeyStore(Path(folder) / "keys")
        plan = _plan(subject, (cut,), devices)
        bundle = st.build(subject.model, plan, Path(folder) / "deploy", keystore=keystore)
        with st.open(bundle, keystore=keystore) as session:
            yield session


def _item(subject: Subject) -> dict[str, np.ndarray]:
    tensor = subject.model.inputs[0]
    return {tensor.name: np.random.default_rng(1).normal(size=tensor.shape).astype(tensor.dtype)}


def _stream(session: runtime.Session, item: dict[str, np.ndarray], items: int) -> None:
    for _ in session.stream(repeat(item, items)):
        pass


def _pipeline(subject: Subject, cut: graph.Cut, *, items: int, turns: int) -> tuple[dict[str, object], float]:
    item = _item(subject)
    with _opened(subject, cut, _DEVICES[:1]) as session:

        def one_by_one() -> None:
            for _ in range(items):
                session.run(item)

        found = in_turns({"alone": one_by_one, "together": lambda: _stream(session, item, items)}, turns=turns)
    return _row(found, items)


def _replicas(subject: Subject, cut: graph.Cut, *, items: int, turns: int) -> tuple[dict[str, object], float]:
    item = _item(subject)
    with _opened(subject, cut, _DEVICES[:1]) as one, _opened(subject, cut, _DEVICES) as two:
        contestants = {
            "alone": lambda: _stream(one, item, items),
            "together": lambda: _stream(two, item, items),
        }
        found = in_turns(contestants, turns=turns)
    return _row(found, items)


def _row(found: dict[str, np.ndarray], items: int) -> tuple[dict[str, object], float]:
    alone_s, together_s = found["alone"] / items, found["together"] / items
    low, high = ratio_interval(alone_s, together_s)
    ratio = median_ms(alone_s) / median_ms(together_s)
    row: dict[str, object] = {
        "one after the other, ms per item": median_ms(alone_s),
        "together, ms per item": median_ms(together_s),
        "ratio": ratio,
        "95 %": f"{low:.3f}-{high:.3f}",
    }
    return row, ratio
