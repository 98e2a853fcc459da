"""Attacks that know the network, on the features of real networks at real cuts."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from leakage_cases import SMALL, photo_tiles, small_network
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Cut, load_model
from siniantrust.leakage._encode import fit_encoder
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._metrics import ssim_per_item
from siniantrust.leakage._observe import Observer
from siniantrust.leakage._registry import InapplicableError, Problem, Reconstruction
from siniantrust.leakage._whitebox import white_box
from siniantrust.leakage.attacks import adversarial, deep_image_prior, inverter, optimisation, perceptual, shadow
from siniantrust.leakage.attacks._warm import warm_start

BUDGET = replace(SMALL, optimised_items=12, optimisation_steps=60, steps=40)
ATTACKERS, KNOWN = 200, 230


def _problem(proto: onnx.ModelProto, *tensors: str, inputs: np.ndarray, most: int = 65_536) -> Problem:
    """Return the problem at a cut, split by order, with the network that the features come from."""
    model = load_model(proto)
    with Observer(model, tensors, threads=1) as observer:
        size = observer.batch_items
        pieces = [observer.run({"x": inputs[start : start + size]}) for start in range(0, len(inputs), size)]
    values = [np.concatenate([piece[name] for piece in pieces]) for name in tensors]
    encoders = tuple(fit_encoder(each[:128], max_elements=most, max_side=64, seed=0) for each in values)
    stores = tuple(encoder.encode(each) for encoder, each in zip(encoders, values, strict=True))
    cut = Cut("+".join(tensors), tensors, 0, 0, 0, fusable=False)

    def part(start: int, stop: int) -> FeatureSet:
        return FeatureSet(stores, encoders, start, stop)

    return Problem(
        kind="image" if inputs.ndim == 4 else "array",
        attacker=part(0, ATTACKERS),
        attacker_targets=inputs[:ATTACKERS],
        validation=part(ATTACKERS, KNOWN),
        validation_targets=inputs[ATTACKERS:KNOWN],
        heldout=part(KNOWN, len(inputs)),
        white_box=lambda: white_box(model, cut, "x", encoders, low=0.0, high=1.0),
    )


def _conv_network() -> onnx.ModelProto:
    """Return three convolutions with ReLU, strided once, so that much but not all of a tile survives."""
    rng = np.random.default_rng(4)
    stored, nodes, last = [], [], "x"
    for index, (wide, narrow, stride) in enumerate([(3, 16, 1), (16, 24, 2), (24, 24, 1)]):
        weight = rng.normal(0, (2 / (9 * wide)) ** 0.5, (narrow, wide, 3, 3)).astype(np.float32)
        stored.append(numpy_helper.from_array(weight, f"w{index}"))
        made = helper.make_node(
            "Conv", [last, f"w{index}"], [f"c{index}"], f"conv{index}", pads=[1, 1, 1, 1], strides=[stride, stride]
        )
        nodes += [made, helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}")]
        last = f"r{index}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["y"], "flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _tiles() -> np.ndarray:
    return photo_tiles()[:260]


def _truth(answer: Reconstruction) -> np.ndarray:
    return _tiles()[KNOWN : KNOWN + len(answer.heldout)]


def _similarity(answer: np.ndarray, truth: np.ndarray) -> float:
    return float(ssim_per_item(answer, truth).mean())


def _labelled_network() -> onnx.ModelProto:
    """Return a network whose answers depend on all that it sees: means of blocks, mixed colours, ten scores."""
    rng = np.random.default_rng(2)
    mix = np.array([[0.6, 0.3, 0.1], [-0.2, 0.7, 0.3], [0.2, -0.4, 0.8]], dtype=np.float32)
    score = rng.normal(size=(10, 48)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["x"], ["means"], "means", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["means", "mix"], ["mixed"], "mix"),
        helper.make_node("Flatten", ["mixed"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "score"], ["y"], "score", transB=1),
    ]
    stored = [numpy_helper.from_array(mix.reshape(3, 3, 1, 1), "mix"), numpy_helper.from_array(score, "score")]
    graph = helper.make_graph(
        nodes,
        "labelled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _labelled_problem() -> Problem:
    """Return the problem at a cut of a network whose own answers are the labels."""
    problem = _problem(_labelled_network(), "mixed", inputs=_tiles())
    assert problem.white_box is not None
    network = problem.white_box()
    answers = network.outputs(network.features(torch.tensor(problem.attacker_targets)))
    return replace(problem, attacker_labels=answers.argmax(dim=1).numpy())


def _warm(problem: Problem, answer: Reconstruction) -> np.ndarray:
    base = warm_start(problem, BUDGET).heldout.reshape(-1, *problem.attacker_targets.shape[1:])
    start: np.ndarray = base[: len(answer.heldout)].clamp(0, 1).numpy()
    return start


@pytest.mark.parametrize("attack", [optimisation, pytest.param(deep_image_prior, marks=pytest.mark.slow)])
def test_an_invertible_layer_is_inverted(attack: ModuleType) -> None:
    """At an invertible convolution the start is almost exact already, and is the answer for all held-out items."""
    problem = _problem(small_network(), "mixed", inputs=_tiles())
    answer = attack.run(problem, BUDGET, 0)
    assert answer.heldout.shape == (len(problem.heldout), 3, 16, 16)
    assert answer.heldout.dtype == np.float32
    assert 0 <= answer.heldout.min() < answer.heldout.max() <= 1
    assert _similarity(answer.heldout, _truth(answer)) > 0.98


@pytest.mark.parametrize(
    ("attack", "items", "gain"),
    [(optimisation, 12, 0.05), pytest.param(deep_image_prior, 3, 0.03, marks=pytest.mark.slow)],
)
def test_three_convolutions_deep_the_network_helps(attack: ModuleType, items: int, gain: float) -> None:
    """Behind three convolutions, one of them strided, who knows the network does better than regression."""
    problem = _problem(_conv_network(), "r2", inputs=_tiles())
    answer = attack.run(problem, BUDGET, 0)
    assert answer.heldout.shape == (items, 3, 16, 16)
    before, after = (_similarity(each, _truth(answer)) for each in (_warm(problem, answer), answer.heldout))
    assert after > before + gain
    assert after > 0.85


@pytest.mark.parametrize("attack", [optimisation, deep_image_prior])
def test_where_nothing_is_left_the_start_is_kept(attack: ModuleType) -> None:
    """Features of which hardly anything remains are no reason to leave the regression's answer."""
    tiles = _tiles()
    problem = _problem(_conv_network(), "r2", inputs=tiles)
    noise = np.random.default_rng(0).normal(size=(len(tiles), *problem.heldout.shapes[0])).astype(np.float16)
    problem = replace(
        problem,
        attacker=replace(problem.attacker, stores=(noise,)),
        validation=replace(problem.validation, stores=(noise,)),
        heldout=replace(problem.heldout, stores=(noise,)),
        memo={},
    )
    answer = attack.run(problem, replace(BUDGET, optimisation_steps=15), 0)
    assert "gains nothing on validation items" in answer.detail
    np.testing.assert_allclose(answer.heldout, _warm(problem, answer), atol=1e-6)


def test_arrays_are_optimised_too() -> None:
    """Data that are no images are inverted by the same likelihood, kept near the regression's answer."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(0.5, 0.15, size=(260, 24)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["g"], "dense", transB=1),
        helper.make_node("LeakyRelu", ["g"], ["y"], "relu", alpha=0.1),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 30])],
        [numpy_helper.from_array(rng.normal(size=(30, 24)).astype(np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    problem = _problem(proto, "y", inputs=inputs)
    answer = optimisation.run(problem, BUDGET, 0).heldout
    truth, start = inputs[KNOWN:][:12], warm_start(problem, BUDGET).heldout[:12].numpy()
    assert np.square(answer - truth).mean() < 0.5 * np.square(start - truth).mean()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answer() -> None:
    """Every attack of this kind repeats itself."""
    problem, unhurried = _labelled_problem(), replace(BUDGET, attack_time_s=3600)
    for attack in (optimisation, deep_image_prior, shadow):
        first, second = (attack.run(replace(problem, memo={}), unhurried, 3).heldout for _ in range(2))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("attack", [optimisation, deep_image_prior])
def test_time_limits_the_steps(attack: ModuleType) -> None:
    """Without time every piece takes one step, and the answer says so or keeps the start."""
    problem = _problem(small_network(), "mixed", inputs=_tiles())
    answer = attack.run(problem, replace(BUDGET, attack_time_s=0.0), 0)
    assert "stopped at 0 s" in answer.detail or "gains nothing" in answer.detail
    assert answer.stopped or attack is optimisation


@pytest.mark.parametrize("attack", [adversarial, inverter, perceptual, shadow])
def test_a_training_that_the_clock_ends_says_so(attack: ModuleType) -> None:
    """Without time to train, the answer says that it was stopped; with time enough, it does not."""
    problem = _labelled_problem()
    for time_s, stopped in ((0.0, True), (3600.0, False)):
        limits = replace(BUDGET, attack_time_s=time_s, steps=8)
        assert attack.run(replace(problem, memo={}), limits, 0).stopped == stopped


@pytest.mark.slow
def test_a_shadow_inverts_without_a_query() -> None:
    """From labels and the untrusted side alone, the error falls well below that of the mean image."""
    problem = _labelled_problem()
    answer = shadow.run(problem, replace(BUDGET, steps=200), 0)
    truth = _tiles()[KNOWN:]
    assert answer.heldout.shape == truth.shape
    prior = np.square(truth - problem.attacker_targets.mean(axis=0)).mean()
    assert np.square(answer.heldout - truth).mean() < 0.75 * prior


def test_a_shadow_uses_no_feature_of_a_known_input() -> None:
    """The query-free attacker answers in numbers where everything the trusted side answered for known inputs is NaN."""
    problem = _labelled_problem()
    blank = tuple(np.full_like(store, np.nan) for store in problem.attacker.stores)
    blind = replace(
        problem,
        attacker=replace(problem.attacker, stores=blank),
        validation=replace(problem.validation, stores=blank),
    )
    seeing, unseeing = shadow.run(problem, BUDGET, 0), shadow.run(blind, BUDGET, 0)
    assert np.isfinite(unseeing.heldout).all()
    truth = _tiles()[KNOWN:]
    errors = [np.square(answer.heldout - truth).mean() for answer in (seeing, unseeing)]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)


@pytest.mark.parametrize("attack", [optimisation, deep_image_prior, shadow])
def test_without_the_network_it_is_declined(attack: ModuleType) -> None:
    """Where the network is not known, the attack says that it cannot be mounted."""
    with pytest.raises(InapplicableError, match="not known"):
        attack.run(replace(_labelled_problem(), white_box=None), BUDGET, 0)


def test_a_shadow_needs_labels_that_the_model_scores() -> None:
    """Without labels, or with more classes than the model's output has numbers, there is nothing to train on."""
    problem = _labelled_problem()
    with pytest.raises(InapplicableError, match="no labels"):
        shadow.run(replace(problem, attacker_labels=None), BUDGET, 0)
    with pytest.raises(InapplicableError, match="output has 10 numbers"):
        shadow.run(replace(problem, attacker_labels=np.full(ATTACKERS, 12)), BUDGET, 0)


def test_a_shadow_cannot_go_on_from_reduced_features() -> None:
    """Where the cut was too large to be kept whole, the untrusted side has nothing to go on from."""
    problem = replace(
        _problem(_labelled_network(), "mixed", inputs=_tiles(), most=20), attacker_labels=np.arange(ATTACKERS) % 10
    )
    with pytest.raises(InapplicableError, match="numbers only"):
        shadow.run(problem, BUDGET, 0)
