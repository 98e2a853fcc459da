"""What is said or written: how much of it is right, what is guessed blindly, and what features give away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import speech
from hypothesis import given, settings
from hypothesis import strategies as some
from leakage_cases import SMALL, leakage_of, photo_tiles, problem_of, small_network, write_network
from onnx import TensorProto, helper

from siniantrust.errors import AuditError, DataError
from siniantrust.graph import enumerate_cuts, load_model
from siniantrust.leakage import Budget, Data, Estimate, Problem, Transcription, audit, list_attacks, load_data
from siniantrust.leakage._judge import Judge
from siniantrust.leakage._parallel import computing
from siniantrust.leakage._priors import class_text_prior, nearest_text_prior, text_prior
from siniantrust.leakage._registry import InapplicableError
from siniantrust.leakage._setting import Setting
from siniantrust.leakage._transcripts import TEXT_METRICS, accuracy, accuracy_of_each, best_text
from siniantrust.leakage.attacks._frames import time_axis

NEEDS_SPEECH = pytest.mark.skipif(speech.SPEAKER is None, reason="espeak-ng is not installed: nobody speaks")
WORDS = ("call", "the", "doctor", "home", "a", "pay", "rent", "nurse", "now")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as an audit's workers do: small steps only lose by more."""
    with computing(1):
        yield


@pytest.mark.parametrize(
    ("truth", "guess", "words", "characters"),
    [
        ("call the doctor", "call the doctor", 1, 1),
        ("call the doctor", "call a doctor", 2 / 3, 12 / 15),
        ("call the doctor", "the doctor", 2 / 3, 10 / 15),
        ("call the doctor", "  call\tthe doctor\n", 1, 11 / 15),
        ("yes", "oh yes", 0, 0),
        ("yes", "oh no not at all", 0, 0),
        ("yes", "", 0, 0),
    ],
)
def test_every_edit_counts_once(truth: str, guess: str, words: float, characters: float) -> None:
    """Insertions, deletions and substitutions count one each, over the truth's length, and never below zero."""
    assert accuracy([guess], [truth], "word") == pytest.approx(words)
    assert accuracy([guess], [truth], "character") == pytest.approx(characters)


@settings(deadline=None)  # the first call imports
@given(some.lists(some.text("ab ", max_size=8), min_size=1, max_size=4), some.lists(some.text("ab", min_size=1)))
def test_each_guess_of_each_text_is_scored_as_by_itself(guesses: list[str], truth: list[str]) -> None:
    """The table of guesses and texts holds what pairs have, all between 0 and 1."""
    for metric in TEXT_METRICS:
        table = accuracy_of_each(guesses, truth, metric)
        assert table.shape == (len(guesses), len(truth))
        assert ((table >= 0) & (table <= 1)).all()
        for guess, row in zip(guesses, table, strict=True):
            np.testing.assert_array_equal(row, accuracy([guess] * len(truth), truth, metric))


def test_the_best_blind_answer_depends_on_what_is_counted() -> None:
    """The commonest words make the best text by words; the text most like all others is the best by characters."""
    known = ["go"] * 3 + ["abcdef", "abcdeg", "abcdeh", "abcdei"]
    assert best_text(known, "word") == "go"
    assert best_text(known, "character") in known[3:]


def test_priors_of_texts_grow_with_what_they_know() -> None:
    """One text for all is right about some, one for each class about more, the nearest known one about most."""
    known = np.array(["one two", "one two", "one six", "four five", "four nine", "four five"])
    classes, truth, asked = np.array([0, 0, 0, 1, 1, 1]), np.array(["one two", "four nine", "one ten"]), [0, 1, 7]
    first = text_prior(known, truth)
    second = class_text_prior(known, classes, truth, np.array(asked))
    third = nearest_text_prior(known, truth)
    np.testing.assert_allclose(first["word"].values, [1, 0, 0.5])
    np.testing.assert_allclose(second["word"].values, [1, 0.5, 0.5])
    np.testing.assert_allclose(third["word"].values, [1, 1, 0.5])
    for metric in TEXT_METRICS:
        assert first[metric].values.mean() < second[metric].values.mean() < third[metric].values.mean()


def test_a_judge_takes_one_text_for_each_item() -> None:
    """Too few texts, or texts that nobody asked for, are errors; right ones have every character and word."""
    truth = np.array(["one two", "three"])
    judge = Judge(np.zeros((2, 1)), {}, "array", 0, transcript=truth)
    scores = judge.scores(Transcription(("one two", "tree"), "by ear"))
    np.testing.assert_allclose(scores["word"].values, [1, 0])
    np.testing.assert_allclose(scores["character"].values, [1, 0.8])
    with pytest.raises(AuditError, match="guessed 1 texts, which nobody asked for"):
        judge.scores(Transcription(("one two",), "by ear"))
    with pytest.raises(AuditError, match="which nobody asked for"):
        replace(judge, transcript=None).scores(Transcription(("one two", "three"), "by ear"))


def _axis_cases() -> list[tuple[Callable[[np.ndarray], np.ndarray], int | None]]:
    mix = np.random.default_rng(3).normal(size=(40, 40)).astype(np.float32)
    return [
        (lambda waves: waves, 0),
        (lambda waves: np.abs(waves).reshape(len(waves), 40, 10), 0),
        (lambda waves: np.abs(waves).reshape(len(waves), 40, 10).transpose(0, 2, 1), 1),
        (lambda waves: np.abs(waves).reshape(len(waves), 40, 5, 2).transpose(0, 2, 3, 1), 2),
        (lambda waves: np.abs(waves).reshape(len(waves), 40, 10).mean(axis=2) @ mix, None),
        (lambda waves: np.random.default_rng(4).normal(size=waves.shape), None),
        (lambda waves: np.ones((len(waves), 40, 10)), None),
        (lambda waves: waves[:, :3], None),
    ]


@pytest.mark.parametrize(("features_of", "axis"), _axis_cases())
def test_the_axis_of_time_is_found(features_of: Callable[[np.ndarray], np.ndarray], axis: int | None) -> None:
    """Wherever time stands among a tensor's axes it is found; where it was mixed away, or in noise, there is none."""
    rng = np.random.default_rng(0)
    loudness = np.repeat(rng.random((150, 8)), 50, axis=1)
    waves = (loudness * rng.normal(size=loudness.shape)).astype(np.float32)
    assert time_axis(features_of(waves), waves, 0) == axis


def _texts(count: int, most: int = 4) -> np.ndarray:
    """Return ``count`` texts of up to ``most`` words."""
    rng = np.random.default_rng(0)
    return np.array([" ".join(rng.choice(WORDS, rng.integers(1, most + 1))) for _ in range(count)])


def _tokens(texts: np.ndarray, length: int = 4) -> np.ndarray:
    """Return the words' numbers (N, length), 0 where there are none."""
    rows = [[WORDS.index(word) + 1 for word in text.split()] for text in texts]
    return np.array([row + [0] * (length - len(row)) for row in rows])


def _embedded(tokens: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    table, place = rng.normal(size=(len(WORDS) + 1, 12)), rng.normal(size=(tokens.shape[1], 12))
    values: np.ndarray = (table[tokens] + place).astype(np.float32)
    return values


def _transcribed(problem: Problem, budget: Budget) -> Transcription:
    found = list_attacks(["transcript"])["transcript"].run(problem, budget, 0)
    assert isinstance(found, Transcription)
    return found


def _figures(problem: Problem, setting: Setting, budget: Budget) -> dict[str, Estimate]:
    """Return what one run of the attack comes to."""
    return setting.judge.leakage(setting.judge.scores(_transcribed(problem, budget)))


def test_texts_are_read_off_embeddings_of_tokens() -> None:
    """A recogniser spells sentences that the attacker has never seen from the embeddings of their words."""
    texts = _texts(400)
    budget = replace(SMALL, attacker_items=300, heldout_items=60, steps=14)
    problem, setting = problem_of(_embedded(_tokens(texts)), _tokens(texts), budget, transcript=texts)
    for metric, figure in _figures(problem, setting, budget).items():
        assert figure.mean > 0.9, metric


def test_a_few_phrases_are_told_apart_without_an_axis_of_time() -> None:
    """Pooled features, which no recogniser could spell from, still tell which of the known phrases it is."""
    rng = np.random.default_rng(0)
    phrases = _texts(12)
    which = rng.integers(0, 12, 400)
    values = (rng.normal(size=(12, 30))[which] + 0.3 * rng.normal(size=(400, 30))).astype(np.float32)
    problem, setting = problem_of(values, rng.random((400, 5)).astype(np.float32), transcript=phrases[which])
    found = leakage_of("transcript", problem, setting)
    assert "vote of" in found.detail
    assert found.leakage["word"].mean > 0.9


@pytest.mark.parametrize("masked", ["pad", "constant"])
def test_behind_a_pad_nothing_is_understood(masked: str) -> None:
    """From what a one-time pad leaves, or from a constant, words are right as often as without any features."""
    texts = _texts(300)
    values = _embedded(_tokens(texts))
    pad = np.random.default_rng(7).uniform(-1, 1, values.shape).astype(np.float32)
    problem, setting = problem_of(pad if masked == "pad" else np.ones_like(values), _tokens(texts), transcript=texts)
    for figure in _figures(problem, setting, SMALL).values():
        assert figure.lower is not None
        assert figure.lower <= 0 <= figure.upper < 0.3


def test_transcription_repeats_itself() -> None:
    """The same seed gives the same texts."""
    texts = _texts(200)
    problem, _ = problem_of(_embedded(_tokens(texts)), _tokens(texts), transcript=texts)
    brief = replace(SMALL, steps=2)
    assert _transcribed(problem, brief).texts == _transcribed(problem, brief).texts


def test_the_clock_ends_a_recognisers_training() -> None:
    """A training that runs out of time says so, and has an answer for every item all the same."""
    texts = _texts(200)
    problem, _ = problem_of(_embedded(_tokens(texts)), _tokens(texts), transcript=texts)
    found = _transcribed(problem, replace(SMALL, attack_time_s=0.0))
    assert found.stopped
    assert len(found.texts) == len(problem.heldout)


def test_without_a_transcript_there_is_nothing_to_recognise() -> None:
    """Data without a transcript are declined, with the key that they lack."""
    problem, _ = problem_of(photo_tiles(100), photo_tiles(100))
    with pytest.raises(InapplicableError, match="key 'transcript'"):
        _transcribed(problem, SMALL)


def _saved(path: Path, transcript: np.ndarray) -> Path:
    np.savez(path, allow_pickle=True, x=photo_tiles(50), transcript=transcript)
    return path


_LONG = np.array(["word"] * 49 + ["a" * 1001])
_NO_LETTER = np.array([0x110000] * 50, "<u4").view("<U1")
_HALF_LETTER = np.array([0xD800] * 50, "<u4").view("<U1")


@pytest.mark.parametrize(
    ("transcript", "message"),
    [
        (np.array(["word"] * 49), r"expected text \(str\) of shape \(50,\), found <U4 \(49,\)"),
        (np.array([["word"]] * 50), r"expected text \(str\) of shape \(50,\)"),
        (np.arange(50), r"expected text \(str\) of shape \(50,\), found int64 \(50,\)"),
        (np.array([b"word"] * 50), r"expected text \(str\) of shape \(50,\), found \|S4"),
        (np.array(["word", None] * 25, dtype=object), "not a readable NumPy file"),
        (np.array(["word"] * 20 + [""] + ["word"] * 29), "expected words for every item, found none in item 20"),
        (np.array(["word"] * 30 + [" \t\n"] + ["word"] * 19), "found none in item 30"),
        (np.array([""] * 50), "found none in item 0"),
        (_LONG, "expected at most 1,000 characters, found 1,001 in item 49"),
        (_NO_LETTER, "numbers that stand for no character"),
        (_HALF_LETTER, "numbers that stand for no character"),
    ],
)
def test_a_transcript_that_is_none_is_refused(tmp_path: Path, transcript: np.ndarray, message: str) -> None:
    """Texts of another number, no text, none for an item, too much or no Unicode are refused by one line."""
    model = load_model(write_network(tmp_path / "small.onnx", small_network()))
    path = _saved(tmp_path / "d.npz", transcript)
    with pytest.raises(DataError, match=message) as caught:
        load_data(path, model)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_transcript_is_read_and_hashed(tmp_path: Path, order: str) -> None:
    """Texts in any byte order and script are read as they are; one other letter is another hash."""
    model = load_model(write_network(tmp_path / "small.onnx", small_network()))
    texts = np.array(["guten Tag", "\u4f60\u597d \u4e16\u754c"] * 25).astype(f"{order}U9")
    first = load_data(_saved(tmp_path / "d.npz", texts), model)
    assert first.transcript is not None
    np.testing.assert_array_equal(first.transcript, texts)
    texts[7] = "guten Rat"
    assert load_data(_saved(tmp_path / "d.npz", texts), model).sha256() != first.sha256()


def test_an_audit_of_texts_has_both_figures(tmp_path: Path) -> None:
    """An audit with a transcript bounds characters and words, against all three priors, beside the tokens' figures."""
    texts = _texts(200)
    tokens = _tokens(texts)
    table = np.random.default_rng(1).normal(size=(len(WORDS) + 1, 8)).astype(np.float32)
    head = np.random.default_rng(2).normal(size=(8, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "x"], ["embedded"], name="embed"),
            helper.make_node("ReduceMean", ["embedded"], ["mean"], name="pool", axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "head"], ["y"], name="classify"),
        ],
        "texts",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor("table", TensorProto.FLOAT, table.shape, table.ravel()),
         helper.make_tensor("head", TensorProto.FLOAT, head.shape, head.ravel())],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = load_model(write_network(tmp_path / "model.onnx", proto))
    found = audit(
        model,
        Data(tokens, None, "x", transcript=texts),
        cuts=enumerate_cuts(model),
        out=tmp_path / "audit",
        budget=replace(SMALL, attacker_items=120, heldout_items=50, steps=8, seeds=1),
        attacks=["transcript", "token_embedding"],
        screens=[],
    )
    embedded, pooled = (next(cut for cut in found.cuts if cut.tensors == (name,)) for name in ("embedded", "mean"))
    assert set(embedded.leakage) == {"token", "reidentification", "character", "word"}
    assert embedded.best_attack["word"] == "transcript"
    assert embedded.leakage["word"].mean > 0.5 > pooled.leakage["word"].mean
    for prior in ("nearest", "class mean"):
        assert {"character", "word"} <= set(embedded.over_priors[prior])
        assert embedded.over_priors[prior]["character"].prior > embedded.leakage["character"].prior
    assert texts[0] not in (tmp_path / "audit" / "audit.json").read_text(encoding="utf-8")


def _heard(count: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sounds, what crosses the listening network at ``name``, and what is said."""
    sounds, texts = speech.spoken(count)
    proto = speech.listening_network()
    proto.graph.output.append(helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (values,) = session.run([name], {"wave": sounds})
    return sounds, values, texts


@pytest.mark.slow
@NEEDS_SPEECH
def test_speech_is_understood_at_a_shallow_cut_and_not_behind_a_pad() -> None:
    """Behind one layer nearly every spoken word is recognised; behind a one-time pad, none beyond a blind guess."""
    sounds, values, texts = _heard(360, "early")
    budget = replace(SMALL, steps=40, width=24)
    data = {"transcript": texts, "sample_rate_hz": speech.RATE}
    for metric, figure in _figures(*problem_of(values, sounds, budget, **data), budget).items():
        assert figure.mean > 0.85, metric
    pad = np.random.default_rng(0).uniform(0, 1, values.shape).astype(np.float32)
    for figure in _figures(*problem_of(pad, sounds, SMALL, **data), SMALL).values():
        assert figure.lower is not None
        assert figure.lower <= 0 <= figure.upper
