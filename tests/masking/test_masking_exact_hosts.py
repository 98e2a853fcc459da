"""Exact masks and whoever is outside: what a device sees, and what a host cannot do with what it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from exact_models import CPU, Arrays, begun, corrected, loaded
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from siniantrust.errors import IntegrityError, TrustError
from siniantrust.masking.exact import ExactSession, Program, Query, build_program
from siniantrust.masking.exact._field import PRIME
from siniantrust.masking.exact._ring import plus, to_limbs
from siniantrust.odla import CheckedExecutable, DeviceSpec


class _Eavesdropper:
    """A device that keeps what it sees."""

    def __init__(self, inner: CheckedExecutable) -> None:
        self._inner = inner
        self.seen: list[np.ndarray] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.seen += [array.copy() for array in inputs.values()]
        return self._inner.run(inputs)


def test_what_a_device_sees_is_uniform(residual: Program) -> None:
    """For an input that is far from random, every byte that is sent is uniform, and nothing repeats (chi-square)."""
    x = np.zeros((1, *residual.inputs[0].shape[1:]), np.float32)
    with ExactSession(residual, [CPU]) as session:
        spies = [_Eavesdropper(opened) for opened in session._devices["cpu"]]
        session._devices["cpu"] = spies  # type: ignore[assignment]
        for _ in range(60):
            session.run({"x": x})
        first = spies[0].seen
    for limb in range(3):
        seen = np.concatenate([array[:, limb].ravel() for spy in spies for array in spy.seen])
        assert stats.chisquare(np.bincount(seen, minlength=256)).pvalue > 1e-4
    assert len({array.tobytes() for array in first}) == len(first)


def test_memory_that_a_device_has_seen_holds_nothing_else(residual: Program) -> None:
    """Arrays of requests are used again for requests only: a device that keeps one finds no plain value there."""
    x = np.zeros((1, *residual.inputs[0].shape[1:]), np.float32)
    kept: list[np.ndarray] = []

    class Keeper(_Eavesdropper):
        def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            kept.extend(inputs.values())
            return super().run(inputs)

    with ExactSession(residual, [CPU]) as session:
        keepers = [Keeper(opened) for opened in session._devices["cpu"]]
        session._devices["cpu"] = keepers  # type: ignore[assignment]
        for _ in range(3):
            session.run({"x": x})
        private = [buffer for free in session.trusted.arena._free.values() for buffer in free]
        assert private
        assert not any(np.may_share_memory(array, buffer) for array in kept for buffer in private)


Waiting = list[tuple[ExactSession, Query, Arrays]]


@pytest.fixture(scope="module")
def waiting(program: Program) -> Iterator[Waiting]:
    """Return for every exchange a request that waits for its answer, and the device's right answer."""
    x = np.random.default_rng(3).normal(size=(1, *program.inputs[0].shape[1:])).astype(np.float32)
    found: Waiting = []
    with ExactSession(program, [CPU]) as session:
        for number in range(len(program.exchanges)):
            query = begun(session, x)
            while query.exchange < number:
                query.accept(corrected(session, query))
            found.append((session, query, session._devices["cpu"][number].run(query.request or {})))
        yield found
        for _, query, answer in found:
            query.accept(corrected(session, query, answer))  # what was refused before was what was wrong with it


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_caught(waiting: Waiting, data: st.DataObject) -> None:
    """Whichever byte of whichever answer a host changes, the answer is refused and names the layer."""
    session, query, answer = data.draw(st.sampled_from(waiting), label="exchange")
    name = data.draw(st.sampled_from(sorted(answer)), label="value")
    changed = answer[name].copy()
    changed.reshape(-1)[data.draw(st.integers(0, changed.size - 1), label="byte")] ^= data.draw(
        st.integers(1, 255), label="bits"
    )
    with pytest.raises(IntegrityError, match="is not what layer"):
        query.accept(corrected(session, query, {**answer, name: changed}))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_the_stock_is_caught(waiting: Waiting, data: st.DataObject) -> None:
    """Whichever byte of whichever correction a host changes, nothing of the result is used, and the stock is named."""
    session, query, answer = data.draw(st.sampled_from(waiting), label="exchange")
    exchange, number = query.trusted.program.exchanges[query.exchange], query.queries[0]
    place = data.draw(st.integers(0, len(answer) - 1), label="layer")
    right = session.corrections._kept[number]
    wrong, at = right.copy(), session.corrections._ends[query.exchange]
    at += sum(each.size_bytes for each in exchange.corrections[:place])
    at += data.draw(st.integers(0, exchange.corrections[place].size_bytes - 17), label="byte")
    wrong[at] ^= data.draw(st.integers(1, 255), label="bits")
    session.corrections._kept[number] = wrong
    with pytest.raises(IntegrityError, match="is not what layer"):
        query.accept(corrected(session, query, answer))
    message = f"the correction of layer '{exchange.layers[place].name}' for query {number} does not open"
    with pytest.raises(TrustError, match=message):
        session._require_untouched(query)
    session.corrections._kept[number] = right


def test_an_error_of_the_checks_prime_is_refused(tmp_path: Path) -> None:
    """A device that adds the prime modulo which its work is checked is caught by the bound of the layer's results."""
    weight = np.random.default_rng(0).choice([-1.0, 1.0], (1200, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1200])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    program = build_program(model, ["product"], {"x": 0.01})
    assert program.exchanges[0].limbs == 4
    with ExactSession(program, [CPU]) as session:
        query = begun(session, weight[None, :, 0])
        right = corrected(session, query)
        for error in (PRIME, -PRIME):
            wrong = plus(right["y"][0], to_limbs(np.array([error, 0, 0]), 4, axis=0))
            with pytest.raises(IntegrityError, match="is not what layer 'product' gives"):
                query.accept({"y": wrong[None]})
        query.accept(right)


@pytest.mark.parametrize("fault", ["missing", "more", "shape", "dtype", "stale", "zero"])
def test_other_lies_are_caught(residual: Program, fault: str) -> None:
    """Too little, too much, another form, an earlier query's answer, or nothing but zeros: all refused."""
    generator = np.random.default_rng(4)
    shape = (1, *residual.inputs[0].shape[1:])
    with ExactSession(residual, [CPU]) as session:
        device = session._devices["cpu"][0]
        earlier, query = (begun(session, generator.normal(size=shape).astype(np.float32)) for _ in range(2))
        assert earlier.request is not None
        assert query.request is not None
        answer = device.run(query.request)
        (name,) = answer
        lies = {
            "missing": {},
            "more": {**answer, "extra": answer[name]},
            "shape": {name: answer[name][:, :, :, :-1]},
            "dtype": {name: answer[name].astype(np.float32)},
            "stale": device.run(earlier.request),
            "zero": {name: np.zeros_like(answer[name])},
        }
        with pytest.raises(IntegrityError, match="exchange 0"):
            query.accept(corrected(session, query, lies[fault]))
        query.accept(corrected(session, query, answer))  # an honest device may still answer


class _Liar:
    """A device that adds one to everything."""

    def __init__(self, inner: CheckedExecutable) -> None:
        self._inner = inner

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: array + np.uint8(1) for name, array in self._inner.run(inputs).items()}


def test_a_lying_device_is_quarantined_and_another_one_answers(residual: Program) -> None:
    """After its first wrong answer a device gets no more requests, and the answers are right."""
    x = np.random.default_rng(5).normal(size=(1, *residual.inputs[0].shape[1:])).astype(np.float32)
    with ExactSession(residual, [DeviceSpec("liar", options={"threads": 1}), CPU]) as session:
        honest = session.run({"x": x})["y"]
        session._devices["liar"] = [_Liar(opened) for opened in session._devices["liar"]]  # type: ignore[misc]
        np.testing.assert_array_equal(session.run({"x": x})["y"], honest)
        assert "is not what layer 'stem' gives" in session.quarantined["liar"]


@pytest.mark.parametrize("when_no_device", ["refuse", "compute"])
def test_without_an_honest_device_the_policy_decides(residual: Program, when_no_device: str) -> None:
    """Where all devices lie, the answer is withheld, or computed on the trusted side if the policy says so."""
    x = np.random.default_rng(5).normal(size=(1, *residual.inputs[0].shape[1:])).astype(np.float32)
    with ExactSession(residual, [CPU], when_no_device=when_no_device) as session:  # type: ignore[arg-type]
        honest = session.run({"x": x})["y"]
        session._devices["cpu"] = [_Liar(opened) for opened in session._devices["cpu"]]  # type: ignore[misc]
        if when_no_device == "refuse":
            with pytest.raises(IntegrityError, match="no device is left for exchange 0"):
                session.run({"x": x})
        else:
            np.testing.assert_array_equal(session.run({"x": x})["y"], honest)


def test_a_dry_stock_waits_or_refuses(residual: Program) -> None:
    """Where no prepared query is left, one is prepared on the spot and counted, or the request is refused."""
    x = np.zeros((1, *residual.inputs[0].shape[1:]), np.float32)
    with ExactSession(residual, [CPU]) as session:
        session.prepare(1)
        assert session.trusted.stock_level == 1
        assert session.corrections.kept_bytes > 0
        session.run({"x": x})
        assert (session.trusted.meter.ran_dry, session.corrections.kept_bytes) == (0, 0)
        session.run({"x": x})
        assert (session.trusted.meter.ran_dry, session.corrections.kept_bytes) == (1, 0)
    with (
        ExactSession(residual, [CPU], wait_when_dry=False) as session,
        pytest.raises(TrustError, match="pad stock: it is dry"),
    ):
        session.run({"x": x})


@pytest.mark.parametrize("fault", ["changed", "gone", "swapped"])
def test_a_host_cannot_change_what_was_prepared(residual: Program, fault: str) -> None:
    """A changed, lost or exchanged correction gives no answer, and no device gets the blame."""
    x = np.zeros((1, *residual.inputs[0].shape[1:]), np.float32)
    with ExactSession(residual, [CPU]) as session:
        session.prepare(2)
        kept = session.corrections._kept
        if fault == "changed":
            kept[0] = np.concatenate([kept[0][:1] ^ 1, kept[0][1:]])
        elif fault == "gone":
            del kept[0]
        else:
            kept[0] = kept[1]
        message = (
            "corrections for queries .0. are gone" if fault == "gone" else "correction of layer 'stem' for query 0"
        )
        with pytest.raises(TrustError, match=message):
            session.run({"x": x})
        assert not session.quarantined
