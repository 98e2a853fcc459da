"""The passes over large arrays: the compiled ones against those in numpy, and both against integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust.masking.exact._arena import Arena
from siniantrust.masking.exact._field import HALF, PRIME
from siniantrust.masking.exact._native import NativePasses, load_native
from siniantrust.masking.exact._passes import DRAW_AGAIN, NOT_FINITE, NumpyPasses, Passes

NUMPY = NumpyPasses()
WORDS = st.sampled_from([0, 1, PRIME - 1, PRIME, PRIME + 1, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)
FORMS = [(3, 1, 1), (1, 1, 4095), (5, 7, 13), (2, 3, 4097), (9, 4, 16), (1, 1, 9000)]


@pytest.fixture(scope="module")
def native() -> NativePasses:
    """Return the compiled passes."""
    found = load_native()
    if found is None:
        pytest.skip("not compiled: no C compiler when this was installed")
    return found


def _mask(passes: Passes, values: np.ndarray, words: np.ndarray, scale: float) -> tuple[int, np.ndarray, np.ndarray]:
    sent, steps = np.zeros(len(values), np.uint32), np.zeros(len(values), np.int8)
    return passes.masker(values, scale, sent, steps)(slice(0, len(values)), words), sent, steps


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.5, 1.5, -0.5, 127.5, -1e38]), min_size=1),
    word=WORDS,
    scale=st.sampled_from([1.0, 0.1, 3.7]),
)
def test_masking_is_the_same_in_both(native: NativePasses, values: list[float], word: int, scale: float) -> None:
    """Steps, residues and flags agree to the bit, halves are rounded to even, and pads come off again."""
    floats = np.array(values, np.float32)
    words = (np.uint32(word) + np.arange(len(values), dtype=np.uint32)).astype(np.uint32)
    flags, sent, steps = _mask(NUMPY, floats, words, scale)
    other_flags, other_sent, other_steps = _mask(native, floats, words, scale)
    assert flags == other_flags
    np.testing.assert_array_equal(steps, other_steps)
    scaled = floats.astype(np.float64) * np.float32(1 / scale)
    np.testing.assert_array_equal(steps, np.clip(np.rint(scaled.clip(-1e6, 1e6).astype(np.float32)), -127, 127))
    if not flags:
        np.testing.assert_array_equal(sent, other_sent)
        assert sent.max() < PRIME
        np.testing.assert_array_equal((sent.astype(np.int64) - (words & PRIME) - steps) % PRIME, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 37, 99])
def test_values_that_are_not_finite_are_told(native: NativePasses, bad: float, place: int) -> None:
    """One NaN or infinity anywhere is told, and the largest finite number is none."""
    for passes in (NUMPY, native):
        values, words = np.full(100, np.finfo(np.float32).max), np.zeros(100, np.uint32)
        assert _mask(passes, values, words, 1.0)[0] == 0
        values[place] = bad
        assert _mask(passes, values, words, 1.0)[0] == NOT_FINITE


def test_words_that_are_no_residue_are_told(native: NativePasses) -> None:
    """A word of 31 ones, whatever its first bit, is to be drawn again."""
    for passes in (NUMPY, native):
        for word, flags in ((PRIME, DRAW_AGAIN), (PRIME + (1 << 31), DRAW_AGAIN), (PRIME - 1, 0), (1 << 31, 0)):
            assert _mask(passes, np.zeros(1, np.float32), np.array([word], np.uint32), 1.0)[0] == flags


def _residues(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.integers(0, PRIME, shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("extras", [False, True])
def test_unmasking_is_the_same_in_both(
    native: NativePasses, *, form: tuple[int, int, int], by_column: bool, extras: bool
) -> None:
    """Floats agree to the bit, and sums are those of integers of any size, for every residue a host may send."""
    generator = np.random.default_rng(sum(form))
    channels, rows, width = form
    answers = generator.integers(0, 1 << 32, form, dtype=np.uint32)
    answers.reshape(-1)[:3] = [(1 << 32) - 1, PRIME, 0][: min(3, answers.size)]
    corrections = _residues(generator, *form).astype(np.uint32)
    period = width if by_column else 1 if channels % 3 else 3
    scale, bias = generator.normal(size=(2, period)).astype(np.float32)
    across = generator.integers(0, 1 << 21, (2, width)).astype(np.int32)
    down = _residues(generator, 2, rows)
    addend = generator.normal(size=form).astype(np.float32) if extras else None
    found = []
    for passes in (NUMPY, native):
        unmask = passes.unmasker(scale, bias, by_column=by_column, relu=extras, across=across, down=down)
        values = np.full(form, np.nan, np.float32)
        found.append((values, unmask(answers, corrections, addend, values)))
    (values, sums), (other_values, other_sums) = found
    np.testing.assert_array_equal(values, other_values)
    np.testing.assert_array_equal(sums, other_sums)
    results = (answers.astype(object) - corrections) % PRIME
    wanted = [[(results[c] * across[r] * down[r][:, None]).sum() % PRIME for c in range(channels)] for r in range(2)]
    np.testing.assert_array_equal(sums, np.array(wanted, dtype=np.int64))
    if not extras:
        signed = np.where(results > HALF, results - PRIME, results).astype(np.float32)
        shape = (-1,) if by_column else (-1, 1, 1)
        repeat = 1 if by_column else channels // period
        wide = np.tile(scale, repeat).reshape(shape), np.tile(bias, repeat).reshape(shape)
        np.testing.assert_array_equal(values, signed * wide[0] + wide[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("taps", [(1, 1), (3, 2)])
def test_weighing_is_the_same_in_both(native: NativePasses, form: tuple[int, int, int], taps: tuple[int, int]) -> None:
    """Sums over an input are those of integers of any size, at the largest steps and weights too."""
    generator = np.random.default_rng(sum(form))
    channels, rows, width = form
    steps = generator.integers(-127, 128, form).astype(np.int8)
    steps[0] = -127
    across = generator.integers(0, 1 << 21, (2, taps[1], width)).astype(np.int32)
    across[0] = (1 << 21) - 1
    down = _residues(generator, 2, taps[0], rows)
    sums, other = (passes.weigher(across, down)(steps) for passes in (NUMPY, native))
    np.testing.assert_array_equal(sums, other)
    for place in np.ndindex(channels, 2, *taps):
        channel, repetition, turn, tap = place
        lines = steps[channel].astype(object) * across[repetition, tap] * down[repetition, turn][:, None]
        assert sums[place] == lines.sum() % PRIME


def test_arrays_that_are_not_contiguous_are_refused(native: NativePasses) -> None:
    """The compiled passes would read other memory than meant."""
    with pytest.raises(ValueError, match="contiguous"):
        _mask(native, np.zeros(20, np.float32)[::2], np.zeros(10, np.uint32), 1.0)


def _written(take: Callable[[int], np.ndarray], sizes: list[int]) -> list[np.ndarray]:
    arrays = [take(size) for size in sizes]
    for number, array in enumerate(arrays):
        array[:] = number
    return arrays


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
def test_arrays_in_use_never_overlap(sizes: list[int], kept: list[bool]) -> None:
    """Whatever is given back, what is still held keeps its content when others are taken."""
    arena = Arena()
    arrays = _written(lambda size: arena.take((size,), np.uint32), sizes)
    for array, keep in zip(arrays, kept, strict=False):
        if not keep:
            arena.give(array.reshape(1, -1))
    _written(lambda size: arena.take((size,), np.uint32), [90 + size for size in sizes])
    more = [arena.take((size,), np.uint32) for size in sizes]
    for array in more:
        array[:] = 77
    for number, (array, keep) in enumerate(zip(arrays, kept, strict=False)):
        assert not keep or (array == number).all()


def test_an_array_given_back_is_used_again() -> None:
    """The next array of that size lies where the last one lay; one of others is not taken in."""
    arena = Arena()
    array = arena.take((3, 4), np.float32)
    place = array.ctypes.data
    arena.give(array)
    assert arena.take((12,), np.uint32).ctypes.data == place
    with pytest.raises(ValueError, match="taken from it"):
        arena.give(np.zeros(3))
