"""The passes over large arrays: the compiled ones against those in numpy, and both against integers."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust.masking import exact
from siniantrust.masking.exact._arena import Arena
from siniantrust.masking.exact._field import HALF, PRIME
from siniantrust.masking.exact._native import NativePasses, load_native
from siniantrust.masking.exact._passes import NOT_FINITE, OUT_OF_RANGE, Moves, NumpyPasses, Passes, Results, Unmasking
from siniantrust.masking.exact._pool import Pool
from siniantrust.masking.exact._ring import NARROW

NUMPY = NumpyPasses()
WORDS = st.sampled_from([0, 1, 255, 256, (1 << 24) - 1, 1 << 24, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)
LIMBS = st.sampled_from([3, 4])
ITEMS = 2
FORMS = [(3, 1, 1), (5, 7, 13), (2, 3, 4097), (9, 4, 16), (1, 1, 4095), (1, 1, 9000)]


@pytest.fixture(scope="module", params=["installed", "portable"])
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NativePasses:
    """Return the compiled passes: those of this processor, and those that any processor runs."""
    found = load_native()
    if found is None:
        pytest.skip("not compiled: no C compiler when this was installed")
    if request.param == "installed":
        return found
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    source, library = Path(exact.__file__).with_name("_kernels.c"), tmp_path_factory.mktemp("portable") / "kernels.so"
    flags = "-O1", "-ffp-contract=off", "-fno-trapping-math", "-fPIC", "-shared", "-DPORTABLE"
    subprocess.run([compiler, *flags, source, "-o", library], check=True)
    return NativePasses(ctypes.CDLL(str(library)))


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


def _limbs(words: list[int], limbs: int) -> np.ndarray:
    """Return words as bytes (limbs, count), by Python's integers."""
    return np.array([list(word.to_bytes(4, "little")[:limbs]) for word in words], np.uint8).T.copy()


def _numbers(raw: np.ndarray) -> np.ndarray:
    """Return the numbers of bytes (limbs, ...), as Python's integers."""
    return sum((limb.astype(object) << (8 * place) for place, limb in enumerate(raw)), np.array(0, object))


@settings(max_examples=200, deadline=None)
@given(
    LIMBS, st.lists(st.tuples(st.integers(-127, 127), WORDS), min_size=1, max_size=70), st.integers(1, 40), st.data()
)
def test_masking_is_the_same_in_both(
    native: NativePasses, limbs: int, numbers: list[tuple[int, int]], times: int, data: st.DataObject
) -> None:
    """Steps plus pads agree to the bit with Python's integers, for any share, and nothing beside it is written."""
    numbers = numbers * times  # more than a vector has room for
    start = data.draw(st.integers(0, len(numbers) - 1), label="start")
    share = slice(start, data.draw(st.integers(start + 1, len(numbers)), label="stop"))
    steps, pads = np.array([a for a, _ in numbers], np.int8), _limbs([b for _, b in numbers[share]], limbs)
    for passes in (NUMPY, native):
        sent = np.full((3, limbs, len(numbers)), 99, np.uint8)
        passes.masker(np.stack([steps - 1, steps, steps + 1]), sent)(1, share.start, pads)
        wanted = [(a + b) % (1 << (8 * limbs)) for a, b in numbers[share]]
        assert _numbers(sent[1, :, share]).tolist() == wanted
        sent[1, :, share] = 99
        assert (sent == 99).all()


@settings(max_examples=200, deadline=None)
@given(LIMBS, st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=70))
def test_sums_are_those_of_integers(native: NativePasses, limbs: int, numbers: list[tuple[int, int]]) -> None:
    """Sums of numbers in limbs are the sums, whatever carries there are."""
    first, second = (_limbs([each[side] for each in numbers], limbs) for side in (0, 1))
    for passes in (NUMPY, native):
        made = np.zeros_like(first)
        passes.add(first, second, made)
        assert _numbers(made).tolist() == [(a + b) % (1 << (8 * limbs)) for a, b in numbers]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 37, 99])
def test_values_that_are_not_finite_are_told(native: NativePasses, bad: float, place: int) -> None:
    """One NaN or infinity anywhere is told, also among what is added, and the largest finite number is none."""
    form = _plain(100)
    nothing, steps = np.zeros((3, 1, 1, 100), np.uint8), np.zeros((1, 1, 100), np.int8)
    for passes in (NUMPY, native):
        values = np.full(100, np.finfo(np.float32).max)
        sums, added = np.zeros((1, 1, 2), np.int64), values.reshape(1, *steps.shape)
        unmask = passes.unmasker(form)(Results(nothing[None], sums, added, steps=steps[None]))
        assert _quantised(passes, values, 1.0)[0] == unmask(0, 0, nothing) == 0
        values[place] = bad
        assert _quantised(passes, values, 1.0)[0] == unmask(0, 0, nothing) == NOT_FINITE


def _plain(width: int, limbs: int = 3, most: int = 1000) -> Unmasking:
    """Return what leaves results as they are."""
    scale, ones = np.ones(1, np.float32), np.ones((2, 1), np.int64)
    return Unmasking(scale, 0 * scale, False, np.ones((2, width), np.int32), ones, ones, limbs, most)


def _residues(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.integers(0, PRIME, shape)


@pytest.mark.parametrize("form", [*FORMS[:4], (5, 2, 49), (4, 1, 32), (6, 1, 40), (3, 2, 1030)])
@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("added", [None, np.float32, np.int8])
@pytest.mark.parametrize("made", ["values", "steps", "both"])
@pytest.mark.parametrize(("limbs", "repetitions"), [(3, 2), (3, 3), (4, 2)])
def test_unmasking_is_the_same_in_both(
    native: NativePasses,
    *,
    form: tuple[int, int, int],
    repetitions: int,
    by_column: bool,
    added: type | None,
    made: str,
    limbs: int,
) -> None:
    """Floats and steps agree to the bit, and sums are those of integers of any size, for all numbers of a host."""
    generator = np.random.default_rng(sum(form))
    channels, rows, width = form
    answers, pads = generator.integers(0, 256, (2, ITEMS, limbs, *form), dtype=np.uint8)
    answers[0, :, :1], pads[0, :, :1] = 255, 0  # the largest number, with the largest weights
    answers[0, -1, :1] = 127
    period = 1 if by_column else {6: 2, 9: 3}.get(channels, channels)
    scale, bias = generator.normal(size=(2, width if by_column else period)).astype(np.float32)
    across = generator.integers(0, 1 << 21, (repetitions, width)).astype(np.int32)
    across[0] = (1 << 21) - 1
    if limbs == NARROW:
        across[:2] = [[HALF], [-HALF]]
    down, gather = _residues(generator, repetitions, rows), _residues(generator, repetitions, period)
    addend: np.ndarray | None = None if added is None else (3 * generator.normal(size=(ITEMS, *form))).astype(added)
    relu, inverse = made == "both" or added is np.int8, 1e-4 if limbs == NARROW else 1e-7
    most = (1 << (8 * limbs - 1)) - 1
    whole = Unmasking(scale, bias, by_column, across, down, gather, limbs, most, relu, inverse=inverse)
    found = []
    for passes in (NUMPY, native):
        values = np.full((ITEMS, *form), np.nan, np.float32) if made != "steps" else None
        steps = np.full((ITEMS, *form), 99, np.int8) if made != "values" else None
        sums = np.zeros((ITEMS, channels // period, repetitions), np.int64)
        unmask = passes.unmasker(whole)(Results(answers, sums, addend, 0.25, values, steps))
        shares = list(pairwise([0, channels // 2, channels]))
        assert not any(unmask(item, a, pads[item, :, a:b].copy()) for item in range(ITEMS) for a, b in shares)
        found.append((values, steps, sums))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    words = (_numbers(answers.swapaxes(0, 1)) - _numbers(pads.swapaxes(0, 1))) % (1 << (8 * limbs))
    results = np.where(words >> (8 * limbs - 1), words - (1 << (8 * limbs)), words)
    lines = np.einsum("ncrw,tw->nctr", results, across.astype(object))
    each = np.einsum("nctr,tr->nct", lines, down.astype(object)).reshape(ITEMS, -1, period, repetitions)
    wanted = (each * gather.T).sum(axis=2) % PRIME
    np.testing.assert_array_equal(found[0][2], wanted.astype(np.int64))
    signed = results.astype(np.float32)
    shape = (-1,) if by_column else (-1, 1, 1)
    repeat = 1 if by_column else channels // period
    unit = np.float32(inverse if made == "steps" else 1)  # what is wanted as steps alone is worked out in steps
    floats = signed * np.tile(scale * unit, repeat).reshape(shape) + np.tile(bias * unit, repeat).reshape(shape)
    floats = floats if addend is None else floats + addend * (np.float32(0.25) * unit)
    floats = np.maximum(floats, 0) if relu else floats
    if made != "steps":
        np.testing.assert_array_equal(found[0][0], floats)
    if made != "values":
        wanted_steps = np.rint(floats * (np.float32(inverse) / unit))
        np.testing.assert_array_equal(found[0][1], np.clip(wanted_steps, -127, 127))


@pytest.mark.parametrize("inverse", [1.0, 64.0, 1e3, 1e9, 1e30])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("added", [None, np.int8])
def test_steps_end_at_the_largest(native: NativePasses, *, inverse: float, relu: bool, added: type | None) -> None:
    """A value of any number of steps, more than 32 bits hold too, is the largest step of its sign."""
    numbers = [-(1 << 23), -(1 << 22), -3, -1, 0, 1, 2, 1 << 22, (1 << 23) - 1] * 8
    answers = _limbs([number % (1 << 32) for number in numbers], 3).reshape(3, 1, 1, -1)
    form = replace(_plain(len(numbers)), relu=relu, inverse=inverse)
    addend = np.full(answers.shape[1:], 2, added) if added else None
    values = np.array(numbers) + (2 if added else 0)
    wanted = np.clip(np.sign(values) * np.minimum(np.abs(values) * inverse, 127), 0 if relu else -127, 127)
    for passes in (NUMPY, native):
        steps = np.zeros(answers.shape[1:], np.int8)
        added_to = None if addend is None else addend[None]
        results = Results(answers[None], np.zeros((1, 1, 2), np.int64), added_to, steps=steps[None])
        assert passes.unmasker(form)(results)(0, 0, np.zeros_like(answers)) == 0
        np.testing.assert_array_equal(steps.reshape(-1), wanted)


@pytest.mark.parametrize("limbs", [3, 4])
@pytest.mark.parametrize("place", [0, 40, 76])
def test_results_beyond_the_bound_are_told(native: NativePasses, limbs: int, place: int) -> None:
    """Of four bytes the bound and its negative are results, one more is told, and so is the smallest number."""
    form = _plain(77, limbs, most=1000)
    nothing, steps = np.zeros((limbs, 1, 1, 77), np.uint8), np.zeros((1, 1, 77), np.int8)
    least = -(1 << (8 * limbs - 1))
    for passes in (NUMPY, native):
        for result in (1000, -1000, 1001, -1001, least):
            answers = nothing.copy()
            answers[:, 0, 0, place] = _limbs([result % (1 << 32)], limbs)[:, 0]
            results = Results(answers[None], np.zeros((1, 1, 2), np.int64), steps=steps[None])
            assert passes.unmasker(form)(results)(0, 0, nothing) == (
                OUT_OF_RANGE if limbs == 4 and abs(result) > 1000 else 0
            )


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


@settings(max_examples=80, deadline=None)
@given(
    form=st.tuples(st.integers(1, 9), st.integers(1, 5), st.sampled_from([16, 17, 250, 256, 257, 600, 1024])),
    edges=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=8),
    turns=st.integers(1, 8),
)
def test_weighing_by_one_row_is_the_same_in_both(
    native: NativePasses, form: tuple[int, int, int], edges: list[tuple[int, int]], turns: int
) -> None:
    """Where taps are multiples of one row without its edges, sums are those of integers of any size."""
    generator = np.random.default_rng(sum(form))
    channels, rows, width = form
    steps = generator.integers(-127, 128, (2, *form)).astype(np.int8)
    steps[0, 0] = -127
    across = generator.integers(-HALF, HALF + 1, (2, 1, width)).astype(np.int32)
    across[0] = HALF
    head, tail = (np.array([each[side] for each in edges], np.int64) for side in (0, 1))
    moves = Moves(_residues(generator, 2, len(edges)), head, tail)
    down, factors = _residues(generator, 2, turns, rows), _residues(generator, channels, 2, turns, len(edges))
    sums, other = (passes.weigher(across, down, factors, moves)(steps) for passes in (NUMPY, native))
    np.testing.assert_array_equal(sums, other)
    columns = np.arange(width)
    seen = (columns >= head[:, None]) & (columns < width - tail[:, None])
    for item in range(2):
        for repetition in range(2):
            taps = across[repetition].astype(object) * moves.weights[repetition][:, None] * seen
            lines = np.einsum("crw,tw->crt", steps[item].astype(object), taps)
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
