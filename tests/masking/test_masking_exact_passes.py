"""The passes over large arrays: the compiled ones against those in numpy, and both against integers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust.masking.exact._arena import Arena
from siniantrust.masking.exact._field import HALF, PRIME
from siniantrust.masking.exact._native import NativePasses, load_native
from siniantrust.masking.exact._passes import DRAW_AGAIN, NOT_FINITE, NumpyPasses, Passes, Results, Unmasking
from siniantrust.masking.exact._pool import Pool

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


def _quantised(passes: Passes, values: np.ndarray, scale: float) -> tuple[int, np.ndarray]:
    steps = np.zeros(len(values), np.int8)
    return passes.quantise(values, scale, steps), steps


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.5, 1.5, -0.5, 127.5, -1e38]), min_size=1),
    scale=st.sampled_from([1.0, 0.1, 3.7]),
)
def test_quantising_is_the_same_in_both(native: NativePasses, values: list[float], scale: float) -> None:
    """Steps agree to the bit, halves are rounded to even, and what is too large is the largest step."""
    floats = np.array(values, np.float32)
    found = [_quantised(passes, floats, scale) for passes in (NUMPY, native)]
    scaled = floats.astype(np.float64) * np.float32(1 / scale)
    wanted = np.clip(np.rint(scaled.clip(-1e6, 1e6).astype(np.float32)), -127, 127)
    for flags, steps in found:
        assert flags == 0
        np.testing.assert_array_equal(steps, wanted)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-127, 127), WORDS), min_size=1, max_size=70))
def test_masking_is_the_same_in_both(native: NativePasses, numbers: list[tuple[int, int]]) -> None:
    """Residues and flags agree to the bit, and pads come off again."""
    steps, words = np.array([a for a, _ in numbers], np.int8), np.array([b for _, b in numbers], np.uint32)
    sent, other = np.zeros_like(words), np.zeros_like(words)
    flags = NUMPY.mask(steps, words, sent)
    assert flags == native.mask(steps, words, other)
    assert flags == (DRAW_AGAIN if (words & PRIME == PRIME).any() else 0)
    if not flags:
        np.testing.assert_array_equal(sent, other)
        assert sent.max() < PRIME
        np.testing.assert_array_equal((sent.astype(np.int64) - (words & PRIME) - steps) % PRIME, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 37, 99])
def test_values_that_are_not_finite_are_told(native: NativePasses, bad: float, place: int) -> None:
    """One NaN or infinity anywhere is told, also among what is added, and the largest finite number is none."""
    form = _plain(100)
    nothing, steps = np.zeros((1, 1, 100), np.uint32), np.zeros((1, 1, 100), np.int8)
    for passes in (NUMPY, native):
        values = np.full(100, np.finfo(np.float32).max)
        added = Results(nothing, nothing, np.zeros((1, 2), np.int64), values.reshape(nothing.shape), steps=steps)
        unmask = passes.unmasker(form)(added)
        assert _quantised(passes, values, 1.0)[0] == unmask(slice(0, 1), nothing) == 0
        values[place] = bad
        assert _quantised(passes, values, 1.0)[0] == unmask(slice(0, 1), nothing) == NOT_FINITE


def _plain(width: int) -> Unmasking:
    """Return what leaves results as they are."""
    scale, ones = np.ones(1, np.float32), np.ones((2, 1), np.int64)
    return Unmasking(scale, 0 * scale, False, np.ones((2, width), np.int32), ones, ones)


def _residues(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.integers(0, PRIME, shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("added", [None, np.float32, np.int8])
@pytest.mark.parametrize("made", ["values", "steps", "both"])
def test_unmasking_is_the_same_in_both(
    native: NativePasses, *, form: tuple[int, int, int], by_column: bool, added: type | None, made: str
) -> None:
    """Floats and steps agree to the bit, and sums are those of integers of any size, for all words of a host."""
    generator = np.random.default_rng(sum(form))
    channels, rows, width = form
    answers, sealed = generator.integers(0, 1 << 32, (2, *form), dtype=np.uint32)
    answers.reshape(-1)[:3] = [(1 << 32) - 1, PRIME, 0][: min(3, answers.size)]
    sealed.reshape(-1)[:3] = [(1 << 32) - 1, 0, PRIME][: min(3, answers.size)]
    pads = _residues(generator, *form).astype(np.uint32)
    period = 1 if by_column or channels % 3 else 3
    scale, bias = generator.normal(size=(2, width if by_column else period)).astype(np.float32)
    across = generator.integers(0, 1 << 21, (3, width)).astype(np.int32)
    down, gather = _residues(generator, 3, rows), _residues(generator, 3, period)
    addend: np.ndarray | None = None if added is None else (3 * generator.normal(size=form)).astype(added)
    relu = made == "both"
    whole = Unmasking(scale, bias, by_column, across, down, gather, relu, inverse=1e-8)
    found = []
    for passes in (NUMPY, native):
        values = np.full(form, np.nan, np.float32) if made != "steps" else None
        steps = np.full(form, 99, np.int8) if made != "values" else None
        sums = np.zeros((channels // period, 3), np.int64)
        unmask = passes.unmasker(whole)(Results(answers, sealed, sums, addend, 0.25, values, steps))
        cuts = [0, channels // 2, channels]  # in two shares
        assert [unmask(slice(a, b), pads[a:b]) for a, b in pairwise(cuts)] == [0, 0]
        found.append((values, steps, sums))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    words = (answers.astype(object) + sealed) - (1 << 32) * ((answers == (1 << 32) - 1) & (sealed == (1 << 32) - 1))
    results = (words - pads) % PRIME
    lines = np.einsum("crw,tw->ctr", results, across.astype(object))
    each = np.einsum("ctr,tr->ct", lines, down.astype(object)).reshape(-1, period, 3)
    wanted = (each * gather.T).sum(axis=1) % PRIME
    np.testing.assert_array_equal(found[0][2], wanted.astype(np.int64))
    signed = np.where(results > HALF, results - PRIME, results).astype(np.float32)
    shape = (-1,) if by_column else (-1, 1, 1)
    repeat = 1 if by_column else channels // period
    floats = signed * np.tile(scale, repeat).reshape(shape) + np.tile(bias, repeat).reshape(shape)
    floats = floats if addend is None else floats + addend * np.float32(1 if added is np.float32 else 0.25)
    floats = np.maximum(floats, 0) if relu else floats
    if made != "steps":
        np.testing.assert_array_equal(found[0][0], floats)
    if made != "values":
        np.testing.assert_array_equal(found[0][1], np.clip(np.rint(floats * np.float32(1e-8)), -127, 127))


def test_pads_that_are_no_residue_are_told_when_they_come_off(native: NativePasses) -> None:
    """A word of 31 ones, whatever its first bit, is to be drawn again."""
    form = _plain(1)
    nothing = np.zeros((1, 1, 1), np.uint32)
    for passes in (NUMPY, native):
        unmask = passes.unmasker(form)(
            Results(nothing, nothing, np.zeros((1, 2), np.int64), values=np.zeros((1, 1, 1), np.float32))
        )
        for word, flags in ((PRIME, DRAW_AGAIN), (PRIME + (1 << 31), DRAW_AGAIN), (PRIME - 1, 0), (1 << 31, 0)):
            assert unmask(slice(0, 1), np.array([word], np.uint32)) == flags


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("taps", [(1, 1), (3, 2)])
def test_weighing_is_the_same_in_both(native: NativePasses, form: tuple[int, int, int], taps: tuple[int, int]) -> None:
    """Sums over an input are those of integers of any size, at the largest steps and weights too."""
    generator = np.random.default_rng(sum(form))
    channels, rows, width = form
    steps = generator.integers(-127, 128, (2, *form)).astype(np.int8)
    steps[0, 0] = -127
    across = generator.integers(0, 1 << 21, (2, taps[1], width)).astype(np.int32)
    across[0] = (1 << 21) - 1
    down, factors = _residues(generator, 2, taps[0], rows), _residues(generator, channels, 2, *taps)
    sums, other = (passes.weigher(across, down, factors)(steps) for passes in (NUMPY, native))
    np.testing.assert_array_equal(sums, other)
    for item in range(2):
        for repetition in range(2):
            lines = np.einsum("crw,tw->crt", steps[item].astype(object), across[repetition].astype(object))
            turned = np.einsum("crt,ur->cut", lines, down[repetition].astype(object))
            assert sums[item, repetition] == (turned * factors[:, repetition]).sum() % PRIME


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pooling_takes_the_largest_of_each_window(native: NativePasses, data: st.DataObject) -> None:
    """For any window, stride and padding, on lines longer than a block too, both give what PyTorch gives."""
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, strides = data.draw(pair, label="kernel"), data.draw(pair, label="strides")
    top, left = (data.draw(st.integers(0, size // 2), label="pad") for size in kernel)
    size = data.draw(
        st.tuples(st.integers(4, 9), st.integers(4, 9) | st.sampled_from([1024, 1025, 2100])), label="size"
    )
    pool = Pool(kernel, strides, (top, left, top, left))
    steps = np.random.default_rng(0).integers(-127, 128, (3, *size)).astype(np.int8)
    wanted = torch.nn.functional.max_pool2d(torch.tensor(steps).double(), kernel, strides, (top, left)).numpy()
    for passes in (NUMPY, native):
        pooled = np.zeros((3, *pool.size(size)), np.int8)
        passes.pool(steps, pool, pooled)
        np.testing.assert_array_equal(pooled, wanted)


def test_arrays_that_are_not_contiguous_are_refused(native: NativePasses) -> None:
    """The compiled passes would read other memory than meant."""
    with pytest.raises(ValueError, match="contiguous"):
        native.quantise(np.zeros(20, np.float32)[::2], 1.0, np.zeros(10, np.int8))


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
