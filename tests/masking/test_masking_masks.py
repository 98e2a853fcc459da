"""What each mask does to the values: fresh or fixed, as strong as it says, and what it hides."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from siniantrust.graph import Cut, load_model
from siniantrust.masking import apply_mask, list_masks, read_records
from siniantrust.masking.masks import bank, budgeted_gaussian

MASKS = {
    name: mask
    for name, mask in list_masks().items()
    if name not in {"patch_shuffle", "pooling", "token_shuffle"}  # which need images or sequences
}
RESTORED = {"bottleneck", "channel_pruning", "quantise", "random_projection", "randomised_response"}
FEW = {"bank": bank.COUNT, "shredder_bank": 8}
ELEMENTS = 50
CUT = Cut("s", ("s",), 1, 0, 0, fusable=False)
MEAN, SPREAD = 3.0, 2.0
# What is drawn anew at each run may fail a test of its law this often, and no more often.
RARE = 1e-6


def _values(items: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(MEAN, SPREAD, (items, ELEMENTS)).astype(np.float32)


def _bare() -> onnx.ModelProto:
    """Return a model that negates twice."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["s"]), helper.make_node("Neg", ["s"], ["y"])],
        "alone",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", ELEMENTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", ELEMENTS])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _proto(name: str, strength: float | None, seed: int) -> onnx.ModelProto:
    """Return that model with a mask in between, of its usual strength where none is given."""
    model = load_model(_bare())
    strength = MASKS[name].usual if strength is None else strength
    quickly = {"steps": 2} if name.startswith("shredder") else {}
    return apply_mask(model, CUT, name, strength=strength, seed=seed, sample={"s": _values(seed=7)}, parameters=quickly)


@cache
def _session(name: str, strength: float | None, seed: int) -> onnxruntime.InferenceSession:
    """Open the first half of that model: -x in, the masked x out, restored where the other side does that."""
    proto = _proto(name, strength, seed)
    proto.graph.output[0].name = "s_restored" if name in RESTORED else "s_masked"
    del proto.graph.node[-1]
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def _mask(name: str, values: np.ndarray, *, strength: float | None = None, seed: int = 0) -> np.ndarray:
    """Return ``values`` as they cross under a mask."""
    masked: np.ndarray = _session(name, strength, seed).run(None, {"x": -values})[0]
    return masked


def _added(name: str, *, strength: float | None = None) -> np.ndarray:
    """Return what an additive mask adds to some values."""
    values = _values()
    added: np.ndarray = _mask(name, values, strength=strength) - values
    return added


def test_masks_say_what_they_are() -> None:
    """Each has title, source, cost and role; there are defences, negative examples and references."""
    for name, mask in list_masks().items():
        assert len(mask.title) > 5, name
        assert len(mask.source) > 10, name
        assert len(mask.cost) > 10, name
        assert len(mask.strength) > 5, name
        assert all(len(parameter.meaning) > 5 for parameter in mask.parameters), name
    assert {mask.role for mask in list_masks().values()} == {"defence", "negative", "reference"}
    assert {name for name, mask in list_masks().items() if mask.role == "negative"} == {
        "bank",
        "fixed_additive",
        "patch_shuffle",
        "permutation",
        "token_shuffle",
    }
    assert {name for name, mask in MASKS.items() if mask.role == "reference"} == {
        "constant",
        "noise_only",
        "one_time_pad",
    }


@pytest.mark.parametrize("name", [name for name, mask in sorted(MASKS.items()) if mask.any_strength])
def test_masks_that_say_so_take_any_strength(name: str) -> None:
    """A strength of 1.7, no whole number and no share, is taken."""
    assert np.isfinite(_mask(name, _values(), strength=1.7)).all()


@pytest.mark.parametrize("name", sorted(MASKS))
def test_random_masks_are_fresh_and_others_fixed(name: str) -> None:
    """A mask that says it is random answers the same query differently each time; any other gives the same answer."""
    first, second = _mask(name, _values()), _mask(name, _values())
    assert np.array_equal(first, second) != MASKS[name].random


@pytest.mark.parametrize("name", [name for name, mask in sorted(MASKS.items()) if mask.random])
def test_random_masks_differ_between_items(name: str) -> None:
    """Equal items in one batch cross as different values."""
    alike = np.repeat(_values(1), 200, axis=0)
    found = np.unique(_mask(name, alike), axis=0)
    assert len(found) == FEW.get(name, 200)


@pytest.mark.parametrize("name", sorted(MASKS))
def test_the_seed_chooses_fixed_secrets_only(name: str) -> None:
    """The same seed makes the same model, another one another model where there is a secret, and no noise is seeded."""

    def contents(seed: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        graph = _proto(name, None, seed).graph
        return list(graph.node), list(graph.initializer)

    first, again, other = contents(0), contents(0), contents(1)
    assert first == again
    chosen = ("bank", "fixed_additive", "permutation", "random_projection", "shredder_bank", "shredder_distribution")
    assert (first != other) == (name in chosen)
    assert all(attribute.name != "seed" for node in first[0] for attribute in node.attribute)


@pytest.mark.parametrize("strength", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", ["gaussian", "laplace", "fixed_additive", "bank", "shredder_bank"])
def test_strength_is_in_standard_deviations(name: str, strength: float) -> None:
    """What is added has mean 0 and a standard deviation of strength times the tensor's own."""
    added = _added(name, strength=strength)
    few = name in ("fixed_additive", "bank", "shredder_bank")
    assert added.std() == pytest.approx(strength * SPREAD, rel=0.25 if few else 0.06)
    assert added.mean() == pytest.approx(0, abs=strength * SPREAD * (0.5 if few else 0.06))


@pytest.mark.parametrize(("name", "law"), [("gaussian", stats.norm), ("laplace", stats.laplace)])
def test_noise_has_its_law(name: str, law: stats.rv_continuous) -> None:
    """The noise follows the distribution that the mask is named after (Kolmogorov-Smirnov distance below 0.03)."""
    added = _added(name).ravel() / SPREAD
    expected = law(scale=1 if name == "gaussian" else 2**-0.5)
    assert stats.kstest(added, expected.cdf).statistic < 0.03


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_noise_averages_out(name: str) -> None:
    """The mean of many answers to one query is the value: a fresh additive mask is no pad."""
    values = _values(20)
    mean = np.mean([_mask(name, values) for _ in range(100)], axis=0)
    assert np.abs(mean - values).mean() < 0.12 * SPREAD


def test_no_strength_is_no_noise() -> None:
    """At strength 0 additive masks let everything through."""
    for name in ("gaussian", "laplace", "fixed_additive", "bank", "dropout", "shredder_bank", "shredder_distribution"):
        np.testing.assert_allclose(_mask(name, _values(), strength=0.0), _values(), rtol=1e-6)


def test_noise_alone_of_no_strength_is_the_mean() -> None:
    """At strength 0 nothing is drawn, and the calibrated mean is all that crosses."""
    np.testing.assert_allclose(_mask("noise_only", _values(), strength=0.0), _values(seed=7).mean(), rtol=1e-5)


def test_the_fixed_mask_is_one_tensor() -> None:
    """The same tensor lies over every item of every query."""
    added = _added("fixed_additive")
    np.testing.assert_allclose(added, np.broadcast_to(added[:1], added.shape), atol=1e-5)


def test_the_bank_has_as_many_tensors_as_it_says() -> None:
    """Twenty tensors, each drawn about as often."""
    added = np.concatenate([_added("bank") for _ in range(10)])
    _, counts = np.unique(added.round(3)[:, :4], axis=0, return_counts=True)
    assert len(counts) == bank.COUNT
    assert counts.min() > 0.5 * counts.mean()


def test_a_permutation_moves_and_keeps() -> None:
    """Every item's numbers are all there, in another order that is the same for all items."""
    values = _values()
    found = _mask("permutation", values)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(values, axis=1))
    order = np.argsort(found[0])[np.argsort(np.argsort(values[0]))]
    np.testing.assert_array_equal(found[:, order], values)
    assert not np.array_equal(order, np.arange(ELEMENTS))


@given(some.sampled_from([0.25, 0.5, 1.0, 2.0]), some.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_quantisation_leaves_few_levels(strength: float, seed: int) -> None:
    """Values in the calibrated range move by at most half a step, onto as many levels as the range has steps."""
    values = _values(20, seed)
    found = _mask("quantise", values, strength=strength)
    calibrated = _values(seed=7)
    step = strength * float(calibrated.std())
    inside = (values >= calibrated.min()) & (values <= calibrated.max())
    assert np.abs(found - values)[inside].max() <= step / 2 * 1.001
    assert len(np.unique(found.round(3))) <= np.ptp(calibrated) / step + 2


@pytest.mark.parametrize("shift", [0.0, 5.0, -1000.0])
def test_the_pad_is_even_whatever_the_value(shift: float) -> None:
    """What leaves is even on 0..1 (Kolmogorov-Smirnov), in and far out of the calibrated range."""
    found = _mask("one_time_pad", _values() + np.float32(shift)).ravel()
    assert found.min() >= 0
    assert found.max() < 1
    assert stats.kstest(found, "uniform").pvalue > RARE


def test_the_pad_is_independent_of_the_value() -> None:
    """Of low, middling and high values the pad's answers cannot be told apart, nor do they correlate."""
    values = _values()
    found = _mask("one_time_pad", values)
    low, middle, high = (found[(values > start) & (values < stop)] for start, stop in ((-9, 2), (2, 4), (4, 20)))
    assert stats.ks_2samp(low, high).pvalue > RARE
    assert stats.ks_2samp(low, middle).pvalue > RARE
    assert abs(np.corrcoef(values.ravel(), found.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(values.ravel(), np.cos(2 * np.pi * found).ravel())[0, 1]) < 0.03


def test_rounding_does_not_show_through_the_pad() -> None:
    """All answers lie on one grid, so that their last bits say nothing of the value."""
    grid = _mask("one_time_pad", _values()) * 65536
    np.testing.assert_array_equal(grid, np.round(grid))


@pytest.mark.parametrize("name", ["constant", "noise_only"])
def test_references_do_not_look_at_the_value(name: str) -> None:
    """Zeros are zeros without a sign, and noise alone has the calibrated mean and spread but not the value."""
    values = _values()
    found = _mask(name, values)
    if name == "constant":
        assert not found.any()
        assert not np.signbit(found).any()
    else:
        assert abs(np.corrcoef(values.ravel(), found.ravel())[0, 1]) < 0.03
        assert found.mean() == pytest.approx(MEAN, abs=0.1)
        assert found.std() == pytest.approx(SPREAD, rel=0.03)


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_as_many_as_it_says_and_keeps_the_mean(strength: float) -> None:
    """That share of the numbers is 0, and the others are as much larger as keeps the expectation."""
    values = _values()
    found = _mask("dropout", values, strength=strength)
    assert (found == 0).mean() == pytest.approx(strength, abs=0.02)
    kept = found != 0
    np.testing.assert_allclose(found[kept], values[kept] / (1 - strength), rtol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("replaced", [0.0, 0.2, 0.7, 1.0])
def test_randomised_response_has_its_probabilities(bits: int, replaced: float) -> None:
    """A level is sent with probability 1 - p + p / L, and each other one with p / L: epsilon is what it says."""
    proto = _responding(bits, replaced)
    low, high = float(_values(seed=7).min()), float(_values(seed=7).max())
    levels = np.linspace(low, high, 1 << bits)
    sent = np.full((4000, ELEMENTS), levels[0], np.float32)
    found = _run_first_half(proto, sent)
    counts = np.bincount(np.abs(found.reshape(-1, 1) - levels).argmin(axis=1), minlength=1 << bits) / found.size
    expected = np.full(1 << bits, replaced / (1 << bits))
    expected[0] += 1 - replaced
    np.testing.assert_allclose(counts, expected, atol=0.006)
    np.testing.assert_allclose(found, levels[np.abs(found[..., None] - levels).argmin(axis=-1)], atol=1e-4)
    facts = read_records(proto)[0].facts
    if replaced:
        assert facts["epsilon_per_number"] == pytest.approx(np.log(expected[0] / expected[1]))
        assert facts["epsilon_per_query"] == pytest.approx(ELEMENTS * np.log(expected[0] / expected[1]))


def _responding(bits: int, replaced: float) -> onnx.ModelProto:
    model = load_model(_bare())
    sample = {"s": _values(seed=7)}
    return apply_mask(
        model, CUT, "randomised_response", strength=replaced, seed=0, sample=sample, parameters={"bits": bits}
    )


def _run_first_half(proto: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    proto.graph.output[0].name = proto.graph.node[-1].input[0]
    del proto.graph.node[-1]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": -values})[0]
    return found


@pytest.mark.parametrize("structured", [0, 1])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_projection_keeps_its_share_of_what_it_turns(structured: int, share: float) -> None:
    """Of the squared distance to the mean as large a share comes back as of the turned numbers crosses.

    Dense and structured projections agree in this law, in which the structured one turns 50 numbers into 64.
    """
    model = load_model(_bare())
    parameters = {"structured": float(structured)}
    sample = {"s": _values(seed=7)}
    masked = apply_mask(model, CUT, "random_projection", strength=share, seed=3, sample=sample, parameters=parameters)
    session = onnxruntime.InferenceSession(masked.SerializeToString(), providers=["CPUExecutionProvider"])
    values = _values()
    restored = -session.run(None, {"x": -values})[0]
    mean = _values(seed=7).mean(axis=0)
    kept = float(np.square(restored - mean).sum() / np.square(values - mean).sum())
    width = 64 if structured else ELEMENTS
    assert kept == pytest.approx((1 - share) * ELEMENTS / width, abs=0.08)


def test_pruning_and_bottleneck_restore_what_depends_on_what_is_kept() -> None:
    """Channels that are mixtures of a few are restored from as many as those, by either mask."""
    rng = np.random.default_rng(0)
    mixed = (rng.normal(size=(400, 10)) @ rng.normal(size=(10, ELEMENTS)) + 1.0).astype(np.float32)
    for name in ("bottleneck", "channel_pruning"):
        proto = apply_mask(load_model(_bare()), CUT, name, strength=0.7, seed=0, sample={"s": mixed})
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(-session.run(None, {"x": -mixed})[0], mixed, atol=0.05)
        assert read_records(proto)[0].facts["crossing_elements"] == 15


def test_a_budget_clips_and_accounts() -> None:
    """Values far out are brought to the bound before noise comes on, and epsilon is that of the Gaussian mechanism."""
    proto = apply_mask(
        load_model(_bare()), CUT, "budgeted_gaussian", strength=1e-5, seed=0, sample={"s": _values(seed=7)}
    )
    facts = read_records(proto)[0].facts
    mean = _values(seed=7).mean(axis=0)
    found = _run_first_half(proto, (mean + 100 * (_values() - mean)).astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(found - mean, axis=1), float(facts["clip_l2"]), rtol=1e-3)
    inside = (mean + 0.01 * (_values() - mean)).astype(np.float32)
    np.testing.assert_allclose(_run_first_half(proto, inside), inside, atol=0.01)
    assert facts["sensitivity_l2"] == 2 * float(facts["clip_l2"])
    # Balle and Wang 2018, theorem 8: delta = Phi(1 / 2z - eps z) - e^eps Phi(-1 / 2z - eps z).
    for queries in (1, 10):
        z = 3.0 / queries**0.5
        found_epsilon = budgeted_gaussian.epsilon(3.0, delta=1e-6, queries=queries)
        delta = stats.norm.cdf(1 / (2 * z) - found_epsilon * z) - np.exp(found_epsilon) * stats.norm.cdf(
            -1 / (2 * z) - found_epsilon * z
        )
        assert delta == pytest.approx(1e-6, rel=1e-3)


def test_learned_noise_disturbs_less_than_noise_of_its_size() -> None:
    """Noise that was learned changes the model's answers less than Laplace noise of the same standard deviation."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(ELEMENTS, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["s"]), helper.make_node("MatMul", ["s", "w"], ["y"])],
        "classes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", ELEMENTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    values = _values()
    changed = {}
    for steps in (0, 60):
        proto = apply_mask(
            model,
            CUT,
            "shredder_bank",
            strength=2.0,
            seed=0,
            sample={"s": _values(seed=7)},
            parameters={"count": 4, "steps": steps},
        )
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        answers = session.run(None, {"x": -values})[0].argmax(axis=1)
        changed[steps] = float((answers != (values @ weights).argmax(axis=1)).mean())
    assert changed[60] < 0.5 * changed[0]
