"""Attacks on tokens: from embeddings, hidden states and pooled vectors to the words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from leakage_cases import SMALL

from siniantrust.leakage import Problem, Reconstruction, list_attacks
from siniantrust.leakage._encode import fit_encoder
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._registry import InapplicableError
from siniantrust.leakage.attacks._tokens import Tokens

WORDS, LENGTH, NUMBERS = 60, 9, 24
BUDGET = replace(SMALL, steps=20)
ATTACKS = ["token_embedding", "token_regression", "neighbours"]


def _texts(count: int = 500) -> np.ndarray:
    """Return token numbers (count, LENGTH), common words more often, as in a text."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, WORDS + 1)
    numbers: np.ndarray = 7 * rng.choice(WORDS, size=(count, LENGTH), p=shares / shares.sum()) + 100
    return numbers


def _embedded(texts: np.ndarray) -> np.ndarray:
    """Return word embeddings plus place embeddings, (N, LENGTH, NUMBERS)."""
    rng = np.random.default_rng(1)
    table, place = rng.normal(size=(WORDS, NUMBERS)), rng.normal(size=(LENGTH, NUMBERS))
    values: np.ndarray = (table[(texts - 100) // 7] + place).astype(np.float32)
    return values


def _attended(texts: np.ndarray) -> np.ndarray:
    """Return what an untrained layer of a transformer makes of the embeddings."""
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(NUMBERS, 4, 48, dropout=0.0, batch_first=True).requires_grad_(
        requires_grad=False
    )
    torch.random.set_rng_state(state)
    values: np.ndarray = np.asarray(layer(torch.tensor(_embedded(texts))))
    return values


def _problem(values: np.ndarray, texts: np.ndarray, most: int = 65_536) -> tuple[Problem, np.ndarray]:
    """Return the problem of inverting ``values`` to ``texts``, and the held-out texts."""
    encoder = fit_encoder(values[:128], max_elements=most, max_side=64, seed=0)
    store = encoder.encode(values)

    def part(start: int, stop: int) -> FeatureSet:
        return FeatureSet((store,), (encoder,), start, stop)

    problem = Problem(
        kind="token",
        attacker=part(0, 350),
        attacker_targets=texts[:350],
        validation=part(350, 420),
        validation_targets=texts[350:420],
        heldout=part(420, len(texts)),
    )
    return problem, texts[420:]


def _answer(name: str, problem: Problem) -> np.ndarray:
    found = list_attacks([name])[name].run(problem, BUDGET, 0)
    assert isinstance(found, Reconstruction)
    return found.heldout


def _share(name: str, problem: Problem, truth: np.ndarray) -> float:
    answer = _answer(name, problem)
    assert answer.shape == truth.shape
    assert answer.dtype == truth.dtype
    return float((answer == truth).mean())


def _common(problem: Problem, truth: np.ndarray) -> float:
    """Return the share right of who always answers the most common token."""
    numbers, counts = np.unique(problem.attacker_targets, return_counts=True)
    return float((truth == numbers[counts.argmax()]).mean())


@pytest.mark.parametrize("name", ["token_embedding", "token_regression"])
@pytest.mark.parametrize("layer", [_embedded, _attended])
def test_tokens_are_read_off_sequences(name: str, layer: object) -> None:
    """Embeddings, and hidden states behind a layer of attention, give nearly every token away."""
    assert callable(layer)
    texts = _texts()
    problem, truth = _problem(layer(texts), texts)
    assert _share(name, problem, truth) > 0.95


def test_pooled_vectors_give_tokens_away_without_a_sequence_axis() -> None:
    """A vector that mixes all positions by a random matrix is inverted by the classifier over whole vectors."""
    texts = _texts()
    flat = _embedded(texts).reshape(len(texts), -1)
    mixed = flat @ np.random.default_rng(2).normal(size=(flat.shape[1], 300)).astype(np.float32)
    problem, truth = _problem(mixed, texts)
    assert _share("token_regression", problem, truth) > _common(problem, truth) + 0.3


def test_a_sketch_of_a_long_sequence_is_inverted_too() -> None:
    """Features too large to keep, of which random sums are kept, still give tokens away."""
    texts = _texts()
    problem, truth = _problem(_attended(texts), texts, most=180)
    assert problem.attacker.encoders[0].sketch is not None
    assert _share("token_regression", problem, truth) > _common(problem, truth) + 0.2


def test_a_sequence_axis_may_stand_behind_heads() -> None:
    """The tokens' axis is found by its length, as in (heads, positions, numbers)."""
    texts = _texts()
    heads = _embedded(texts).reshape(len(texts), LENGTH, 4, 6).transpose(0, 2, 1, 3)
    problem, truth = _problem(np.ascontiguousarray(heads), texts)
    assert _share("token_embedding", problem, truth) > 0.95


def test_what_a_position_adds_is_taken_off() -> None:
    """Place embeddings ten times as strong as the words', in every direction, do not hide a word."""
    texts = _texts()
    rng = np.random.default_rng(1)
    table, place = rng.normal(size=(WORDS, 6)), 10 * rng.normal(size=(LENGTH, 6))
    problem, truth = _problem((table[(texts - 100) // 7] + place).astype(np.float32), texts)
    assert _share("token_embedding", problem, truth) > 0.95


@pytest.mark.parametrize("name", ATTACKS)
def test_noise_gives_no_token_away(name: str) -> None:
    """From noise, no more tokens are right than by always answering the most common one."""
    texts = _texts()
    noise = np.random.default_rng(5).normal(size=(len(texts), LENGTH, NUMBERS)).astype(np.float32)
    problem, truth = _problem(noise, texts)
    assert _share(name, problem, truth) < _common(problem, truth) + 0.03


@pytest.mark.slow
def test_a_transformer_reads_what_no_linear_classifier_can() -> None:
    """Where the sign of each embedding is drawn anew, the trained transformer is what reads the token."""
    texts = _texts()
    signs = np.random.default_rng(3).choice([-1.0, 1.0], size=(len(texts), LENGTH, 1)).astype(np.float32)
    problem, truth = _problem(_embedded(texts) * signs, texts)
    found = list_attacks(["token_regression"])["token_regression"].run(problem, replace(BUDGET, steps=80), 0)
    assert isinstance(found, Reconstruction)
    assert "transformer" in found.detail
    assert (found.heldout == truth).mean() > _common(problem, truth) + 0.2


def test_the_dictionary_declines_vectors_without_positions() -> None:
    """A pooled vector has no embedding of a position to look up."""
    texts = _texts()
    problem, _ = _problem(_embedded(texts).mean(axis=1), texts)
    with pytest.raises(InapplicableError, match=f"axis of the tokens' length {LENGTH}"):
        _answer("token_embedding", problem)


@pytest.mark.parametrize("name", ATTACKS)
def test_token_attacks_repeat_themselves(name: str) -> None:
    """The same seed gives the same tokens, all of them tokens that the attacker has seen."""
    texts = _texts()
    first, second = (_answer(name, _problem(_attended(texts), texts)[0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert set(np.unique(first)) <= set(np.unique(texts[:350]))


def test_a_token_never_seen_is_never_right() -> None:
    """Tokens outside the attacker's vocabulary count as wrong when a classifier is chosen, and are never guessed."""
    texts = _texts()
    texts[350:420, 0] = 5
    texts[420:, 0] = 3
    problem, truth = _problem(_embedded(_texts()), texts)
    assert (Tokens.of(problem).checks[:, 0] == -1).all()
    answer = _answer("token_embedding", problem)
    assert not np.isin(answer, [3, 5]).any()
    assert (answer[:, 1:] == truth[:, 1:]).mean() > 0.95
