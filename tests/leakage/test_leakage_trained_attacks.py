"""Attacks that learn from examples: local regression, inverse networks, neighbours, and private labels."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from leakage_cases import SMALL, feature_set, photo_tiles, problem_of

from siniantrust.leakage import Budget, Problem, Reconstruction, list_attacks
from siniantrust.leakage._encode import fit_encoder
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._metrics import ssim_per_item
from siniantrust.leakage._registry import Guess, InapplicableError
from siniantrust.leakage._targets import shrink
from siniantrust.leakage.attacks._decoder import train_decoder
from siniantrust.leakage.attacks._kernel import kernel_regression, mean_answer
from siniantrust.leakage.attacks._warm import warm_start

MIX = np.array([[0.6, 0.3, 0.1], [-0.2, 0.7, 0.3], [0.2, -0.4, 0.8]], dtype=np.float32)
ATTACKERS, KNOWN, ALL = 130, 160, 190
TRAINED = replace(SMALL, steps=60)


@cache
def _crops(height: int, width: int) -> np.ndarray:
    """Return crops of photographs, (ALL, 3, height, width)."""
    photographs: Any = importlib.import_module("skimage.data")
    rng = np.random.default_rng(0)
    wholes = [
        each.astype(np.float32).transpose(2, 0, 1) / 255
        for each in (photographs.astronaut(), photographs.coffee(), photographs.chelsea(), photographs.rocket())
    ]
    crops = []
    for index in range(ALL):
        whole = wholes[index % len(wholes)]
        top, left = rng.integers(whole.shape[1] - height), rng.integers(whole.shape[2] - width)
        crops.append(whole[:, top : top + height, left : left + width])
    return np.stack(crops)


def _few(values: np.ndarray, targets: np.ndarray, *, most: int = 65_536, side: int = 64) -> Problem:
    """Return the problem of an attacker with 130 items."""
    encoder = fit_encoder(values[:128], max_elements=most, max_side=side, seed=0)
    store = encoder.encode(values)

    def part(start: int, stop: int) -> FeatureSet:
        return FeatureSet((store,), (encoder,), start, stop)

    return Problem(
        kind="image",
        attacker=part(0, ATTACKERS),
        attacker_targets=targets[:ATTACKERS],
        validation=part(ATTACKERS, KNOWN),
        validation_targets=targets[ATTACKERS:KNOWN],
        heldout=part(KNOWN, ALL),
    )


def _answer(name: str, problem: Problem, budget: Budget, seed: int = 0) -> np.ndarray:
    found = list_attacks([name])[name].run(problem, budget, seed)
    assert isinstance(found, Reconstruction)
    return found.heldout


def _similarity(answer: np.ndarray, truth: np.ndarray) -> float:
    return float(ssim_per_item(answer, truth).mean())


def _strided(images: np.ndarray) -> np.ndarray:
    """Return a convolution of stride 2 with ReLU."""
    weight = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    maps = torch.nn.functional.conv2d(torch.tensor(images), weight, stride=2, padding=1)
    values: np.ndarray = maps.relu().numpy()
    return values


class _Blur:
    """A network whose first layer halves the side by averaging, as a white box."""

    def features(self, targets: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(targets, 2)]

    def outputs(self, features: list[torch.Tensor]) -> torch.Tensor:
        return features[0].flatten(1)


@pytest.mark.parametrize("name", ["inverter", "local_ridge"])
@pytest.mark.parametrize("sides", [(56, 56), (64, 64), (60, 48)])
@pytest.mark.parametrize("invertible", [False, True])
def test_few_large_images_are_no_protection(name: str, sides: tuple[int, int], *, invertible: bool) -> None:
    """With 130 items of any size, the identity and an invertible mix of colours are undone by a local filter."""
    images = _crops(*sides)
    values = np.einsum("oc,nchw->nohw", MIX, images) if invertible else (images - 0.45) / 0.22
    assert _similarity(_answer(name, _few(values, images), SMALL), images[KNOWN:]) > 0.97


@pytest.mark.parametrize("name", ["inverter", "local_ridge"])
def test_a_tensor_too_large_to_keep_is_inverted_from_what_is_kept(name: str) -> None:
    """A first cut that is reduced to principal components of blocks still gives the averaged-down images away."""
    images = _crops(112, 112)
    problem = _few((images - 0.45) / 0.22, shrink(images, 2), most=20_000, side=56)
    assert problem.attacker.encoders[0].reduced
    assert _similarity(_answer(name, problem, SMALL), shrink(images, 2)[KNOWN:]) > 0.97


@pytest.mark.parametrize("name", ["inverter", "local_ridge"])
def test_a_strided_convolution_of_few_large_images_leaks(name: str) -> None:
    """Behind a strided convolution with ReLU most of the structure comes back, although there are only 130 items."""
    images = _crops(56, 56)
    assert _similarity(_answer(name, _few(_strided(images), images), SMALL), images[KNOWN:]) > 0.8


def test_leave_one_out_reconstructions_are_no_better_than_new_ones() -> None:
    """With fewer items than numbers, the attacker's own items come out as badly as those it never saw."""
    images = _crops(56, 56)
    problem = _few(images, images)
    found = kernel_regression(problem, SMALL, 0)
    own = float((found.attacker - torch.as_tensor(problem.attacker_targets).flatten(1)).square().mean())
    new = float((found.heldout - torch.as_tensor(images[KNOWN:]).flatten(1)).square().mean())
    assert 0.5 * new < own < 2 * new


def test_local_regression_declines_vectors() -> None:
    """Where no tensor has positions, local regression says so instead of answering with the mean."""
    problem, _ = problem_of(photo_tiles().reshape(600, -1)[:, :40], photo_tiles())
    with pytest.raises(InapplicableError, match="none of the cut's tensors is a map"):
        _answer("local_ridge", problem, SMALL)


@pytest.mark.parametrize("name", ["adversarial", "perceptual"])
def test_a_further_term_in_the_loss_does_not_weaken_the_inverse_network(name: str) -> None:
    """Networks trained against a critic, or to match features, improve on the closed form as the plain one does."""
    tiles = photo_tiles()
    problem, setting = problem_of(np.abs(tiles.reshape(600, 3, 8, 2, 8, 2).mean(axis=(3, 5)) - 0.5), tiles)
    problem = replace(problem, white_box=_Fold)
    originals = setting.judge.originals
    closed = warm_start(problem, TRAINED).heldout.reshape(originals.shape).numpy()
    plain = _similarity(_answer("inverter", problem, TRAINED), originals)
    found = _similarity(_answer(name, problem, TRAINED), originals)
    assert found > _similarity(closed, originals) + 0.02
    assert found > plain - 0.03


class _Fold(_Blur):
    """As ``_Blur``, with the values folded at one half, kept as the audit keeps them but for a scale."""

    def features(self, targets: torch.Tensor) -> list[torch.Tensor]:
        (means,) = super().features(targets)
        return [(means - 0.5).abs()]


@pytest.mark.parametrize("name", ["inverter", pytest.param("adversarial", marks=pytest.mark.slow)])
def test_a_narrower_network_answers_differently(name: str) -> None:
    """The budget's width is the network's, so that two widths can be compared."""
    tiles = photo_tiles()
    problem, _ = problem_of(np.maximum(tiles[:, :, ::2, ::2] - 0.4, 0), tiles)
    assert list_attacks([name])[name].trained
    wide, narrow = (_answer(name, problem, replace(TRAINED, width=width)) for width in (8, 4))
    assert np.abs(wide - narrow).max() > 1e-4


def test_training_stops_where_nothing_is_left_to_learn() -> None:
    """A reconstruction that is already perfect is returned without a step."""
    tiles = photo_tiles()
    problem, _ = problem_of(tiles, tiles)
    base = mean_answer(problem)
    perfect = replace(base, validation=torch.as_tensor(problem.validation_targets).flatten(1), detail="perfect")
    assert "perfect; 0 steps" in train_decoder(problem, perfect, SMALL, 0).detail


def test_the_perceptual_network_needs_the_network() -> None:
    """Without the audited network there are no perceptual features, and the attack says so."""
    problem, _ = problem_of(photo_tiles(), photo_tiles())
    with pytest.raises(InapplicableError, match="the network is not known"):
        _answer("perceptual", problem, SMALL)


@pytest.mark.parametrize("name", ["adversarial", "perceptual", "local_ridge", "neighbours"])
def test_attacks_that_learn_repeat_themselves(name: str) -> None:
    """The same seed gives the same reconstruction, in the range of a pixel; the caller's random numbers are left."""
    tiles = photo_tiles()
    values = tiles.reshape(600, 3, 8, 2, 8, 2).mean(axis=(3, 5))
    state = torch.random.get_rng_state()
    first, second = (
        _answer(name, replace(problem_of(values, tiles)[0], white_box=_Blur), SMALL, seed=3) for _ in range(2)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert 0 <= first.min() < first.max() <= 1
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["adversarial", "neighbours"])
def test_noise_teaches_no_attack_more_than_the_mean(name: str) -> None:
    """From features that are independent of the input, nothing better than the mean image is made."""
    tiles = photo_tiles()
    problem, setting = problem_of(np.random.default_rng(0).normal(size=(600, 6, 8, 8)).astype(np.float32), tiles)
    mean = problem.attacker_targets.mean(axis=0)
    originals = setting.judge.originals
    error = np.square(_answer(name, problem, SMALL) - originals).mean()
    assert error > 0.97 * np.square(mean - originals).mean()


def test_an_item_that_the_attacker_has_is_found_again() -> None:
    """The nearest neighbour of an item that the attacker also has is that item, whatever the features are."""
    rows = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    values = np.tanh(np.concatenate([rows, rows[:150], rows[:150]]) @ np.ones((6, 9), np.float32) + 1)
    values += np.random.default_rng(1).normal(size=values.shape).astype(np.float32)
    every = np.concatenate([rows, rows[:150], rows[:150]])
    features = feature_set(np.concatenate([values[:200], values[:150], values[:150]]))

    def part(start: int, stop: int) -> FeatureSet:
        return FeatureSet(features.stores, features.encoders, start, stop)

    problem = Problem(
        kind="array",
        attacker=part(0, 200),
        attacker_targets=every[:200],
        validation=part(200, 350),
        validation_targets=every[200:350],
        heldout=part(350, 500),
    )
    np.testing.assert_allclose(_answer("neighbours", problem, SMALL), every[350:], atol=1e-2)


def _with_attribute(values: np.ndarray, attribute: np.ndarray) -> tuple[Problem, np.ndarray]:
    """Return a problem with a private label for its items, and the held-out items' labels."""
    inputs = np.zeros((len(values), 4), np.float32)
    inputs[:, 0] = np.arange(len(values))
    features = feature_set(values)

    def part(start: int, stop: int) -> FeatureSet:
        return FeatureSet(features.stores, features.encoders, start, stop)

    problem = Problem(
        kind="array",
        attacker=part(0, 300),
        attacker_targets=inputs[:300],
        validation=part(300, 400),
        validation_targets=inputs[300:400],
        heldout=part(400, len(values)),
        attacker_attribute=attribute[:300],
        validation_attribute=attribute[300:400],
    )
    return problem, attribute[400:]


def _guess(problem: Problem) -> np.ndarray:
    found = list_attacks(["attribute"])["attribute"].run(problem, TRAINED, 0)
    assert isinstance(found, Guess)
    return found.attribute


def test_a_private_label_that_the_features_carry_is_guessed() -> None:
    """A label of three that depends on the features, as words, is guessed for new items."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(600, 2)).astype(np.float32)
    label = np.array(["young", "adult", "old"])[np.digitize(hidden[:, 0] * hidden[:, 1], [-0.3, 0.3])]
    values = np.tanh(hidden @ rng.normal(size=(2, 40)).astype(np.float32) + rng.normal(size=40).astype(np.float32))
    problem, truth = _with_attribute(values, label)
    assert (_guess(problem) == truth).mean() > 0.85


def test_a_private_label_that_no_feature_carries_is_not_guessed() -> None:
    """From noise, the guess is right about as often as the most common label."""
    rng = np.random.default_rng(0)
    problem, truth = _with_attribute(rng.normal(size=(600, 20)).astype(np.float32), rng.integers(0, 2, 600))
    assert (_guess(problem) == truth).mean() < 0.6


def test_a_constant_feature_gives_the_most_common_label() -> None:
    """Where features never change, the most common label is the answer."""
    label = (np.arange(600) % 3 == 0).astype(np.int64)
    problem, truth = _with_attribute(np.ones((600, 5), np.float32), label)
    np.testing.assert_array_equal(_guess(problem), np.zeros_like(truth))


def test_without_a_private_label_there_is_nothing_to_infer() -> None:
    """Data that name no private label are declined, with the key that they lack."""
    problem, _ = problem_of(photo_tiles(), photo_tiles())
    with pytest.raises(InapplicableError, match="key 'attribute'"):
        _guess(problem)
