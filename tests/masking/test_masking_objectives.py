"""Penalties of re-training: they measure what they say, models trained with them are told less of, and they resume."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from retrain_models import cut_at, items, masked, network

from siniantrust.errors import DataError
from siniantrust.graph import load_model
from siniantrust.leakage import Data
from siniantrust.masking import MaskError, fixed_constants
from siniantrust.masking.objectives import Adversarial, NoPeek, WithinClass, make_objective
from siniantrust.masking.objectives._inverters import explained
from siniantrust.masking.objectives._nopeek import distance_correlation
from siniantrust.masking.retrain import Penalty, Recipe, TrainedPenalty, retrain
from siniantrust.odla.torch_graph import TorchGraph

RECIPE = Recipe(mode="joint", epochs=6, batch_items=32, learning_rate=1e-2, patience=10, seed=0)


def test_distance_correlation_is_that_of_its_definition() -> None:
    """It is 1 for a turned and shifted copy, small for independent rows, and Szekely's formula in between."""
    rng = np.random.default_rng(0)
    rows = torch.as_tensor(rng.normal(size=(200, 5)))
    turn = torch.as_tensor(np.linalg.qr(rng.normal(size=(5, 5)))[0])
    assert float(distance_correlation(rows, 3 * rows @ turn + 1)) == pytest.approx(1, abs=1e-4)
    other = torch.as_tensor(rng.normal(size=(200, 5)))
    assert float(distance_correlation(rows, other)) < 0.4
    first, second = rows[:20], (rows + other)[:20]
    centred = []
    for each in (first.numpy(), second.numpy()):
        distances = np.linalg.norm(each[:, None] - each[None, :], axis=2)
        centred.append(distances - distances.mean(0) - distances.mean(1)[:, None] + distances.mean())
    covariance = (centred[0] * centred[1]).mean()
    expected = (covariance / ((centred[0] ** 2).mean() * (centred[1] ** 2).mean()) ** 0.5) ** 0.5
    assert float(distance_correlation(first, second)) == pytest.approx(expected, rel=1e-3)


def test_one_item_has_no_distances() -> None:
    """A batch of one is refused rather than called private."""
    with pytest.raises(DataError, match="a batch of 1 items has no distances"):
        NoPeek()(torch.zeros(1, 2), torch.zeros(1, 2), None)


def test_the_share_within_classes_is_that_of_its_definition() -> None:
    """It is 0 for features that are the class, 1 where centres coincide, and the ratio of variances in between."""
    penalty, inputs = WithinClass(2.0), torch.zeros(6, 1)
    labels = torch.tensor([0, 0, 0, 4, 4, 4])
    centres = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 3.0]] * 3)
    assert float(penalty(inputs, centres, labels)) == 0
    assert float(penalty(inputs, torch.ones(6, 2), labels)) == 0
    spread = torch.tensor([[-1.0, 1.0], [0.0, -1.0], [1.0, 0.0]]).repeat(2, 1)
    assert float(penalty(inputs, spread, labels)) == pytest.approx(2)
    both = (centres + spread).numpy()
    within = np.mean([both[:3].var(axis=0), both[3:].var(axis=0)])
    expected = 2 * within / both.var(axis=0).mean()
    assert float(penalty(inputs, torch.as_tensor(both)[:, :, None], labels)) == pytest.approx(expected)
    with pytest.raises(DataError, match="there are no labels to tell classes by"):
        penalty(inputs, spread, None)


def test_features_trained_to_be_their_class_differ_less_within_it() -> None:
    """The penalty's gradient reaches Part 1: behind it the share within classes falls on items never learnt from."""
    model = load_model(network())
    data = items()
    shares = []
    for penalty in (None, WithinClass(3.0)):
        made = retrain(model, data, cut=cut_at(model, "p2"), recipe=RECIPE, penalty=penalty)
        heldout = torch.as_tensor(data.inputs[data.heldout])
        features = TorchGraph(made.proto).run({"x": heldout}, ["p2"])["p2"]
        shares.append(float(WithinClass()(heldout, features, torch.as_tensor(np.asarray(data.labels)[data.heldout]))))
        assert (made.training.accuracy_after or 0) > 0.9
    assert shares[1] < 0.7 * shares[0]


def test_inverters_learn_and_the_best_one_counts() -> None:
    """The penalty grows to about the share that can be explained, and is 0 where features say nothing."""
    torch.manual_seed(0)
    images = torch.randn(64, 1, 4, 4)
    halves = images[:, :, :2]  # half of the numbers, so that half of the variance can be explained beyond guessing
    for features, low, high in ((halves, 0.2, 0.9), (torch.zeros(64, 1, 2, 4), 0.0, 0.02)):
        adversary = Adversarial(2.0, inner_steps=30)
        adversary.inner_step(images, features, None)
        assert low <= float(adversary(images, features, None).detach()) / 2 <= high


def test_a_guess_is_judged_by_the_variance_it_explains() -> None:
    """The inputs themselves explain all, their mean nothing, and worse guesses less than nothing."""
    inputs = torch.randn(50, 3)
    for guess, expected in ((inputs, 1.0), (inputs.mean(0).expand(50, 3), 0.0)):
        assert float(explained(guess, inputs)) == pytest.approx(expected, abs=1e-6)
    assert float(explained(-inputs, inputs)) < 0


@pytest.mark.parametrize("text", ["nopeek", "adversarial"])
def test_a_gate_that_minimises_the_penalty_closes(text: str) -> None:
    """Where a number decides how much of the input stands beside noise, the penalty's gradient makes it smaller."""
    torch.manual_seed(0)
    penalty = make_objective(text)
    gate = torch.ones((), requires_grad=True)
    optimiser = torch.optim.Adam([gate], 0.05)
    for _ in range(30):
        inputs = torch.randn(64, 1, 2, 2)
        features = gate * inputs + 0.5 * torch.randn(64, 1, 2, 2)
        if isinstance(penalty, TrainedPenalty):
            for _ in range(3):
                penalty.inner_step(inputs, features.detach(), None)
        optimiser.zero_grad()
        torch.autograd.backward(penalty(inputs, features, None))
        optimiser.step()
    assert abs(float(gate.detach())) < 0.6


def test_training_takes_an_objective() -> None:
    """Joint training with NoPeek gives features of less distance correlation than training without."""
    model, data = load_model(network()), items(200)
    inputs, found = torch.as_tensor(data.inputs), []
    for penalty in (None, make_objective("nopeek:weight=30")):
        trained = retrain(model, data, cut=cut_at(model, "r1"), recipe=RECIPE, penalty=penalty)
        with torch.no_grad():
            features = TorchGraph(trained.proto).run({"x": inputs}, ["r1"])["r1"]
        found.append(float(distance_correlation(inputs.flatten(1), features.flatten(1))))
    assert found[1] < found[0] - 0.005


def test_an_adversary_resumes_where_it_was() -> None:
    """Inverters and their optimisers go into the state, and come back from it."""
    torch.manual_seed(0)
    images, features = torch.randn(16, 1, 8, 8), torch.randn(16, 2, 4, 4)
    one = Adversarial()
    assert isinstance(one, TrainedPenalty)
    one.inner_step(images, features, None)
    other = Adversarial()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for each in (one, other):
        each.inner_step(images, features, None)
    assert torch.equal(one(images, features, None), other(images, features, None))
    untouched = Adversarial()
    untouched.load_state_dict(Adversarial().state_dict())
    assert untouched.state_dict()["shapes"] is None


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("blur", "penalty 'blur' is unknown; there are adversarial, nopeek"),
        ("nopeek:weight=0", "a weight above 0"),
        ("nopeek:strength=1", "a weight above 0 and nothing else"),
        ("adversarial:rate=1", "and nothing else"),
    ],
)
def test_an_objective_is_named_with_its_weight(text: str, match: str) -> None:
    """What is no objective, or no weight, is refused."""
    with pytest.raises(MaskError, match=match):
        make_objective(text)
    penalty: Penalty = make_objective("nopeek:weight=2")
    assert penalty == NoPeek(2.0)


@pytest.mark.parametrize("name", ["bank", "budgeted_gaussian", "bottleneck"])
def test_training_leaves_what_a_mask_rests_on(name: str) -> None:
    """Noise, its size and clipping are the same after joint training; a bottleneck's maps are trained."""
    data: Data = items(100)
    model, cut = masked(load_model(network()), name, 0.5)
    recipe = Recipe(mode="joint", epochs=1, batch_items=32, learning_rate=1e-2, patience=10, seed=0)
    trained = retrain(model, data, cut=cut, recipe=recipe).proto
    before, after = ({each.name: each for each in proto.graph.initializer} for proto in (model.proto, trained))
    fixed = fixed_constants(model.proto)
    assert all(before[key] == after[key] for key in fixed)
    added = {key for key in before if "_mask_constant_" in key}
    changed = {key for key in added if before[key] != after[key]}
    assert bool(changed) == (name == "bottleneck")
