"""Layers under pads in a session: right answers, noise for the devices, and a host that answers wrongly is caught."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from exact_models import downsampling_network, encoder_network, normalised_network, trunk_network
from masked_deployments import MaskedDeployment, deploy_masked
from scipy import stats

from siniantrust.errors import BundleError, DataError, EnclaveError, EnclaveLostError, IntegrityError, TrustError
from siniantrust.graph import load_model
from siniantrust.masking.exact import Relay
from siniantrust.runtime import Move, Observer, Session, Stock

Arrays = Mapping[str, np.ndarray]
Answer = Callable[[Arrays, dict[str, np.ndarray]], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> MaskedDeployment:
    """Return a deployment with every layer under pads, on the device ``cloud``, and ``spare`` to take over."""
    return deploy_masked(tmp_path_factory.mktemp("masked"), devices=("cloud", "spare"))


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> MaskedDeployment:
    """Return one that prepares nothing ahead, waits for nothing and computes nothing in the enclave instead."""
    masking = {"stock": 0, "when_dry": "refuse", "when_no_device": "refuse"}
    return deploy_masked(tmp_path_factory.mktemp("strict"), masking=masking)


def relay_of(session: Session) -> Relay:
    """Return the relay to the program in the session's enclave, launching one if there is none."""
    assert session.masked is not None
    with session.masked._using() as relay:
        return relay


class _Hostile:
    """Stands behind the session's own checks as the executable of one exchange, and answers as it likes."""

    def __init__(self, inner: object, answer: Answer) -> None:
        self._inner = inner
        self._answer = answer
        self.seen: list[dict[str, np.ndarray]] = []

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        self.seen.append({name: array.copy() for name, array in inputs.items()})
        return self._answer(inputs, self._inner.run(inputs))  # type: ignore[attr-defined]

    def close(self) -> None:
        self._inner.close()  # type: ignore[attr-defined]


def _rightly() -> Answer:
    return lambda _, right: right


def _take_over(session: Session, device: str, make: Callable[[], Answer] = _rightly) -> list[_Hostile]:
    """Put a hostile executable in the place of every exchange on ``device``; return them."""
    assert session.masked is not None
    put = []
    for seat in session.masked._devices._seats[device]:
        seat.open()
        checked = seat._current.executable  # type: ignore[union-attr]
        checked.inner = _Hostile(checked.inner, make())
        put.append(checked.inner)
    return put


class _Watcher(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.moves: list[Move] = []
        self.stocks: list[Stock] = []

    def on_move(self, move: Move) -> None:
        self.moves.append(move)

    def on_stock(self, stock: Stock) -> None:
        self.stocks.append(stock)


@pytest.mark.parametrize("batch", [1, 3])
def test_answers_are_the_quantised_models_to_the_bit(deployment: MaskedDeployment, batch: int) -> None:
    """With pads made on the spot and with pads in stock, a session gives what the quantised model gives."""
    inputs = deployment.inputs(batch)
    wanted = deployment.quantised(inputs)
    with deployment.open() as session:
        assert session.masked is not None
        first = session.run(inputs)["y"]
        session.masked.fill(30.0)
        second = session.run(inputs)["y"]
        meter = session.masked.status().meter
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(second, wanted)
    assert meter.ran_dry <= batch
    assert meter.queries == 2 * batch


@pytest.mark.parametrize("network", [trunk_network, normalised_network, encoder_network, downsampling_network])
def test_what_goes_into_a_layers_pass_is_the_quantised_models_too(
    network: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    """Pooling and sums in bytes, folded normalisation and biases, and attention go through bundle and enclave alike."""
    deployment = deploy_masked(tmp_path, model=load_model(network()))
    inputs = deployment.inputs(3)
    with deployment.open() as session:
        assert session.masked is not None
        session.masked.fill(30.0)
        found = session.run(inputs)["y"]
        assert session.masked.quarantined == {}
    np.testing.assert_array_equal(found, deployment.quantised(inputs))


def test_a_device_sees_uniform_noise_that_never_repeats(deployment: MaskedDeployment) -> None:
    """What devices get for the same input again and again is even in every byte, and no two of it agree."""
    inputs = {name: np.zeros_like(array) for name, array in deployment.inputs(8).items()}
    with deployment.open() as session:
        taken = _take_over(session, "cloud")
        for _ in range(8):
            session.run(inputs)
    for hostile in taken:
        for name in hostile.seen[0]:
            seen = np.concatenate([each[name].reshape(8, -1) for each in hostile.seen])
            assert stats.chisquare(np.bincount(seen.ravel(), minlength=256)).pvalue > 1e-6
            assert len({row.tobytes() for row in seen}) == len(seen)


def test_pads_before_the_safe_cut_and_plain_behind_it(tmp_path: Path) -> None:
    """Where a cut is safe, the layers before it run under pads and what is behind it in plain: Origami's form."""
    deployment = deploy_masked(tmp_path, mask="auto", cut="p")
    assert [part.trusted for part in deployment.plan.parts] == [True, False]
    assert deployment.plan.masking is not None
    assert {layer.node for layer in deployment.plan.masking.layers} == {"stem", "body", "shortcut"}
    inputs = deployment.inputs(4)
    with deployment.open() as session:
        found = session.run(inputs)["y"]
        seen = {name for hostile in _take_over(session, "cloud") for name in hostile.seen}
    assert seen == set()
    whole = deploy_masked(tmp_path / "whole", model=deployment.model).quantised(inputs)
    np.testing.assert_allclose(found, whole, atol=0.05)


def _flipped(_: Arrays, right: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = min(right)
    wrong = right[name].copy()
    wrong.reshape(-1)[0] ^= 1
    return {**right, name: wrong}


def _stale() -> Answer:
    kept: list[dict[str, np.ndarray]] = []

    def answer(_: Arrays, right: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        kept.append({name: array.copy() for name, array in right.items()})
        return kept[0]

    return answer


FAULTS: dict[str, tuple[Callable[[], Answer], str]] = {
    "a flipped bit": (lambda: _flipped, "exchange 0: .*is not what layer 'stem' gives"),
    "too little": (lambda: lambda _, right: dict(list(right.items())[1:]), r"returned outputs \[\]"),
    "too much": (lambda: lambda _, right: {**right, "more": np.zeros(3, np.uint32)}, "more"),
    "a short array": (
        lambda: lambda _, right: {name: array[..., :-1] for name, array in right.items()},
        "shape|expected",
    ),
    "NaN": (
        lambda: lambda _, right: {name: np.full(a.shape, np.nan, np.float32) for name, a in right.items()},
        "float32",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_answer_is_caught_and_the_next_device_gives_the_right_one(
    deployment: MaskedDeployment, fault: str
) -> None:
    """Whatever a device answers wrongly, it is quarantined, another one is asked, and the answer is right."""
    make, reason = FAULTS[fault]
    inputs, watcher = deployment.inputs(2), _Watcher()
    with deployment.open(None, watcher) as session:
        assert session.masked is not None
        _take_over(session, "cloud", make)
        found = session.run(inputs)["y"]
        quarantined = session.masked.quarantined
    np.testing.assert_array_equal(found, deployment.quantised(inputs))
    assert list(quarantined) == ["cloud"]
    assert re.search(reason, quarantined["cloud"]), quarantined
    assert [(move.source, move.target, move.cause) for move in watcher.moves] == [("cloud", "spare", "failure")]


def test_the_answer_to_another_query_is_caught(deployment: MaskedDeployment) -> None:
    """A device that replays what it answered before, right at that time, is quarantined."""
    with deployment.open() as session:
        assert session.masked is not None
        _take_over(session, "cloud", _stale)
        session.run(deployment.inputs(seed=1))
        inputs = deployment.inputs(seed=2)
        found = session.run(inputs)["y"]
        assert "is not what layer" in session.masked.quarantined["cloud"]
    np.testing.assert_array_equal(found, deployment.quantised(inputs))


def test_a_late_device_is_given_up(tmp_path: Path) -> None:
    """A device that does not answer in time gets no more, and the enclave computes in its place."""
    deployment = deploy_masked(tmp_path, serving={"call_timeout_s": 0.5})

    def late(_: Arrays, right: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(1.0)
        return right

    inputs = deployment.inputs()
    with deployment.open() as session:
        assert session.masked is not None
        _take_over(session, "cloud", lambda: late)
        found = session.run(inputs)["y"]
        assert "did not answer within 0.5 s" in session.masked.quarantined["cloud"]
    np.testing.assert_array_equal(found, deployment.quantised(inputs))


def test_no_device_left_and_no_computing_here_is_an_error(tmp_path: Path) -> None:
    """Where the policy does not let the enclave compute, a wrong answer leaves no answer, and the next request none."""
    deployment = deploy_masked(tmp_path, masking={"when_no_device": "refuse"})
    with deployment.open() as session:
        _take_over(session, "cloud", lambda: _flipped)
        for _ in range(2):
            with pytest.raises(IntegrityError, match=r"no device is left for exchange 0.*is not what layer"):
                session.run(deployment.inputs())


def test_a_dry_stock_is_refused_where_the_policy_says_so(strict: MaskedDeployment) -> None:
    """Without prepared pads and leave to make them on the spot, there is no answer; with pads, there is."""
    inputs = strict.inputs()
    with strict.open() as session:
        assert session.masked is not None
        with pytest.raises(TrustError, match="pad stock: it is dry"):
            session.run(inputs)
        relay_of(session).prepare(1)
        np.testing.assert_array_equal(session.run(inputs)["y"], strict.quantised(inputs))
        with pytest.raises(TrustError, match="pad stock: it is dry"):
            session.run(inputs)
        assert session.masked.status().meter.ran_dry == 2


def _changed(rows: np.ndarray, _: np.ndarray) -> np.ndarray:
    wrong = rows.copy()
    wrong[5] ^= 1
    return wrong


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (_changed, "does not open; the host changed it"),
        (lambda _, other: other, "does not open; the host changed it"),
        (lambda rows, _: rows[:-1], "are gone, or not whole; the host lost them"),
        (None, "are gone, or not whole; the host lost them"),
    ],
    ids=["changed", "of another session", "truncated", "lost"],
)
def test_stock_that_the_host_tampered_with_gives_no_answer(
    strict: MaskedDeployment, fault: Callable[[np.ndarray, np.ndarray], np.ndarray] | None, reason: str
) -> None:
    """Corrections that were changed, truncated, lost or are another session's are refused; the session goes on."""
    with strict.open() as other:
        assert other.masked is not None
        relay_of(other).prepare(1)
        foreign = dict(relay_of(other)._corrections._kept)
    with strict.open() as session:
        assert session.masked is not None
        relay = relay_of(session)
        relay.prepare(1)
        kept = relay._corrections._kept
        for item, rows in kept.items():
            if fault is not None:
                kept[item] = fault(rows, foreign[item])
        if fault is None:
            kept.clear()
        with pytest.raises(TrustError, match=reason):
            session.run(strict.inputs())
        relay.prepare(1)
        np.testing.assert_array_equal(session.run(strict.inputs())["y"], strict.quantised(strict.inputs()))


def test_the_refill_keeps_the_stock_full_and_tells_of_it(deployment: MaskedDeployment) -> None:
    """In idle time the stock is filled to the policy's level, and observers hear the level and what it cost."""
    watcher = _Watcher()
    with deployment.open(None, watcher) as session:
        assert session.masked is not None
        target = deployment.plan.policy.masking.stock
        assert session.masked.fill(30.0) == target
        session.run(deployment.inputs(3))
        assert session.masked.fill(30.0) == target
        status = session.masked.status()
        assert status.stock_level == target
        assert status.meter.ran_dry == 0
        assert status.meter.prepared == target + 3
    assert [stock.prepared for stock in watcher.stocks] == list(range(1, target + 4))
    assert watcher.stocks[-1].level == target
    assert watcher.stocks[-1].prepare_s > 0


def test_what_was_kept_is_freed_once_used(deployment: MaskedDeployment) -> None:
    """A correction leaves the host's memory with its request."""
    with deployment.open() as session:
        assert session.masked is not None
        session.masked.fill(30.0)
        session.masked._refill.close()
        relay = relay_of(session)
        before = relay.kept_bytes
        session.run(deployment.inputs(2))
        assert relay.kept_bytes == before * 6 // 8


def test_requests_overlap_in_a_stream(deployment: MaskedDeployment) -> None:
    """Requests in a pipeline are answered rightly and in order, though two are in the masked part at once."""
    inputs = deployment.inputs(20)
    with deployment.open() as session:
        found = session.run_batched(inputs)["y"]
    np.testing.assert_array_equal(found, deployment.quantised(inputs))


def test_inputs_that_do_not_fit_end_nothing(deployment: MaskedDeployment) -> None:
    """A request that is refused before it begins leaves the session as it was."""
    with deployment.open() as session:
        with pytest.raises(DataError, match="shape"):
            session.run({"x": np.zeros((1, 2, 9, 9), np.float32)})
        inputs = deployment.inputs()
        np.testing.assert_array_equal(session.run(inputs)["y"], deployment.quantised(inputs))


def _kill_and_go_on(deployment: MaskedDeployment, *, kills: int) -> None:
    """Kill the enclave while requests are on their way; hold answers and what crossed against pads used twice."""
    inputs = {name: np.zeros_like(array) for name, array in deployment.inputs().items()}
    wanted = deployment.quantised(inputs)
    generator = np.random.default_rng(0)
    seen: set[bytes] = set()
    count = answers = 0
    with deployment.open() as session:
        assert session.masked is not None
        taken = _take_over(session, "cloud")
        for number in range(kills):
            if number % 2:
                session.masked.fill(30.0)
            pid = session.enclave_info().pid
            assert pid is not None
            at = int(generator.integers(0, len(taken)))
            kill_now = generator.random() < 0.5

            def strike(_: Arrays, right: dict[str, np.ndarray], victim: int = pid) -> dict[str, np.ndarray]:
                os.kill(victim, signal.SIGKILL)
                return right

            taken[at]._answer = strike
            if kill_now:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(EnclaveLostError):
                session.run(inputs)
            taken[at]._answer = lambda _, right: right
            np.testing.assert_array_equal(session.run(inputs)["y"], wanted)
            answers += 1
            for hostile in taken:
                for each in hostile.seen:
                    for array in each.values():
                        seen.add(array.tobytes())
                        count += 1
                hostile.seen.clear()
        assert session.masked.quarantined == {}
    assert answers == kills
    assert len(seen) == count


@pytest.mark.parametrize("kills", [2, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_no_pad_is_used_twice_however_often_the_enclave_dies(tmp_path: Path, kills: int) -> None:
    """After SIGKILL in the middle of a request, the next one is right, and no masked value was seen before."""
    _kill_and_go_on(deploy_masked(tmp_path), kills=kills)


def test_a_query_of_a_dead_enclave_is_not_answered(deployment: MaskedDeployment) -> None:
    """A query's number of another enclave, or none, is refused: its state died with it."""
    with deployment.open() as session:
        assert session.masked is not None
        relay = relay_of(session)
        pending = relay.begin(deployment.inputs())
        with session._holder.use() as enclave:
            enclave.close()
        with pytest.raises(EnclaveError, match="no request 1 waits here"):
            relay_of(session).accept(pending, {})  # type: ignore[arg-type]


def test_a_bundle_without_data_to_quantise_on_is_not_built(tmp_path: Path, deployment: MaskedDeployment) -> None:
    """A plan with layers under pads needs data at build; nothing is left behind without."""
    from siniantrust.bundle import build_bundle

    with pytest.raises(BundleError, match="give data to quantise them on"):
        build_bundle(deployment.model, deployment.plan, tmp_path / "deploy", keystore=deployment.keystore)
    assert not (tmp_path / "deploy").exists()
