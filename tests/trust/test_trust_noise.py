"""Noise is drawn inside the enclave: by its law, anew for every run and session, and by nobody else."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from scipy import stats
from trust_parts import CONTEXT, Launch, LoadPart, build_part

from siniantrust.errors import DataError, EnclaveError, ModelError
from siniantrust.graph import NOISE_PREFIX, PREPARED_PREFIX, Part
from siniantrust.trust import Enclave, _sealed, seal_part, unsupported_nodes
from siniantrust.trust._take_out import take_out
from siniantrust.trust.process._noise import PREFIX, PREPARED, Law, NoiseFeed, NoiseInput, NoiseSource, law_of

_FLOAT = TensorProto.FLOAT
WIDTH = 2000
NORMAL = Law("normal")


def _noisy(*nodes: onnx.NodeProto) -> Part:
    """Return a part from x (n, 2000) to y and z of the same shape."""
    shape: list[int | str] = ["n", WIDTH]
    return build_part(list(nodes), [("x", _FLOAT, shape)], [("y", _FLOAT, shape), ("z", _FLOAT, shape)])


def _drawing(**attributes: Any) -> Part:
    return _noisy(
        helper.make_node("RandomNormalLike", ["x"], ["y"], name="normal", **attributes),
        helper.make_node("RandomUniformLike", ["x"], ["z"], name="uniform", low=-1.0, high=3.0),
    )


def _run(enclave: Enclave, name: str, items: int = 10) -> dict[str, np.ndarray]:
    return enclave.run(name, {"x": np.zeros((items, WIDTH), np.float32)})


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (Law("normal"), stats.norm()),
        (Law("uniform"), stats.uniform()),
        (Law("normal", offset=5.0, factor=2.0), stats.norm(5, 2)),
        (Law("uniform", offset=-1.0, factor=4.0), stats.uniform(-1, 4)),
        (Law("laplace"), stats.laplace()),
        (Law("laplace", offset=-1.0, factor=0.5), stats.laplace(-1, 0.5)),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_follow_their_law(law: Law, expected: stats.rv_continuous, dtype: str) -> None:
    """Normal, uniform and Laplace numbers of every width pass Kolmogorov and Smirnov's test and do not correlate."""
    drawn = NoiseSource().draw(law, (300, 333), dtype)
    assert (str(drawn.dtype), drawn.shape) == (dtype, (300, 333))
    if law == Law("uniform"):
        assert drawn.min() >= 0
        assert drawn.max() < 1
    numbers = drawn.astype(np.float64)
    assert stats.kstest(numbers.ravel(), expected.cdf).statistic < 0.01
    flat = numbers.ravel()
    for lag in (1, 2, 4096, 8192):
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 0.02, lag


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_ones_come_as_often_as_they_should(share: float, dtype: str) -> None:
    """A share of the numbers is the factor, all others are 0, and neighbours know nothing of each other."""
    drawn = NoiseSource().draw(Law("bernoulli", offset=share, factor=3.0), (100_000,), dtype)
    assert set(np.unique(drawn)) <= {0.0, 3.0}
    assert (drawn == 3).mean() == pytest.approx(share, abs=0.006)
    if 0 < share < 1:
        assert abs(np.corrcoef(drawn[:-1].astype(float), drawn[1:].astype(float))[0, 1]) < 0.02


def test_an_odd_number_of_normal_numbers_is_drawn() -> None:
    """Numbers come in pairs, and any count of them can be asked for."""
    assert [len(NoiseSource().draw(NORMAL, (count,), "float32")) for count in (0, 1, 7, 8193)] == [0, 1, 7, 8193]


def test_noise_drawn_ahead_is_used_once_and_for_its_size_only() -> None:
    """What was drawn ahead goes to one run of the same batch; another run, or another batch, gets other numbers."""
    inputs = [
        NoiseInput("a", NORMAL, "float32", ("n", 3)),
        NoiseInput("b", Law("uniform"), "float64", ("2*n",)),
    ]
    feed = NoiseFeed(inputs, NoiseSource())
    seen = [feed.take({"n": 4})]
    feed.draw_ahead()
    seen += [feed.take({"n": 4}), feed.take({"n": 4})]
    feed.draw_ahead()
    seen.append(feed.take({"n": 5}))
    assert [(taken["a"].shape, taken["b"].shape) for taken in seen] == [((4, 3), (8,))] * 3 + [((5, 3), (10,))]
    every = np.concatenate([taken["a"].ravel() for taken in seen])
    assert len(np.unique(every)) == len(every)


def test_a_size_that_no_input_has_is_refused() -> None:
    """Noise of an unknown size is an error that names it."""
    feed = NoiseFeed([NoiseInput("a", NORMAL, "float32", ("m",))], NoiseSource())
    with pytest.raises(EnclaveError, match="a: its size 'm'"):
        feed.take({"n": 4})


def test_an_enclave_draws_by_the_operators_attributes(shared_enclave: Enclave, load_part: LoadPart) -> None:
    """Mean, scale and bounds of the operators hold for what the enclave draws."""
    load_part(shared_enclave, "drawing", _drawing(mean=5.0, scale=2.0, seed=1.0))
    found = _run(shared_enclave, "drawing")
    assert stats.kstest(found["y"].ravel(), stats.norm(5, 2).cdf).statistic < 0.02
    assert stats.kstest(found["z"].ravel(), stats.uniform(-1, 4).cdf).statistic < 0.02


def test_no_two_runs_and_no_two_sessions_share_noise(launched: Launch, load_part: LoadPart) -> None:
    """Two enclaves with the same part and input draw different numbers, each time, even where a seed was given."""
    part = _drawing(seed=7.0)
    every = []
    for enclave in (launched(), launched()):
        load_part(enclave, "drawing", part)
        every += [_run(enclave, "drawing", items) for items in (3, 3, 3, 4)]
    rows = np.concatenate([found["y"] for found in every])
    assert len(np.unique(rows[:, 0])) == len(rows)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.12


def test_the_host_cannot_give_the_noise(shared_enclave: Enclave, load_part: LoadPart) -> None:
    """A caller that sends the reserved input is refused, and its numbers are not used."""
    load_part(shared_enclave, "drawing", _drawing())
    zeros = np.zeros((1, WIDTH), np.float32)
    with pytest.raises(DataError, match=r"expected inputs \['x'\]"):
        shared_enclave.run("drawing", {"x": zeros, f"{NOISE_PREFIX}normal:0.0:1.0:y": zeros})
    assert _run(shared_enclave, "drawing", 1)["y"].any()


@pytest.mark.parametrize(
    "name", ["cauchy:0:1:y", "bernoulli:1:y", "normal", "normal:0:y", "normal:0:inf:y", "uniform:a:b:y"]
)
def test_a_reserved_name_without_a_law_is_refused(name: str) -> None:
    """What an enclave cannot draw by is an error."""
    with pytest.raises(EnclaveError, match="says no law"):
        law_of(PREFIX + name)


def test_the_reserved_names_are_the_same_on_both_sides() -> None:
    """What the graph reserves is what the enclave fills."""
    assert (PREFIX, PREPARED) == (NOISE_PREFIX, PREPARED_PREFIX)


def test_an_enclave_refuses_to_let_its_runtime_draw(shared_enclave: Enclave) -> None:
    """A part that was sealed with a random operator in it is refused by name when it is loaded."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(_drawing().proto)
    weights = take_out(skeleton).SerializeToString()
    key, raw = secrets.token_bytes(32), skeleton.SerializeToString()
    sealed = _sealed.seal_bytes(weights, skeleton=raw, key=key, context=CONTEXT)
    with pytest.raises(EnclaveError, match="part own: it holds the operator RandomNormalLike"):
        shared_enclave.load("own", raw, sealed, key, context=CONTEXT)


def test_other_random_operators_are_refused_by_name() -> None:
    """What cannot become an input is refused when a part is planned and when it is sealed."""
    part = _noisy(*_coin())
    assert set(unsupported_nodes("process", part)) == {"coin"}
    with pytest.raises(ModelError, match="part 'part': node 'coin': random operator Bernoulli cannot be fed"):
        seal_part(part, key=secrets.token_bytes(32), context=CONTEXT)


def test_trustzone_draws_single_precision_alone() -> None:
    """A trusted application draws float32; a node that draws other numbers is refused by name when it is planned."""
    assert not unsupported_nodes("optee", _drawing())
    half = _noisy(
        helper.make_node("RandomNormalLike", ["x"], ["h"], name="half", dtype=TensorProto.FLOAT16),
        helper.make_node("Identity", ["x"], ["y"], name="id"),
        helper.make_node("Identity", ["x"], ["z"], name="other"),
    )
    refused = unsupported_nodes("optee", half)
    assert refused["half"] == "it draws float16, a trusted application draws float32"
    assert set(unsupported_nodes("optee", _noisy(*_coin()))) == {"coin"}


def _coin() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Bernoulli", ["x"], ["y"], name="coin"),
        helper.make_node("Identity", ["x"], ["z"], name="id"),
    ]
