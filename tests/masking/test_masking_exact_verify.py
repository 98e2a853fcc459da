"""The check of a device's work: it passes what is right, for every form of layer, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from siniantrust.errors import PlanError
from siniantrust.masking.exact._field import PRIME
from siniantrust.masking.exact._layer import Layer, Window
from siniantrust.masking.exact._passes import OUT_OF_RANGE, NumpyPasses, Passes, Results, best_passes
from siniantrust.masking.exact._ring import to_limbs
from siniantrust.masking.exact._verify import LayerCheck

PASSES = [NumpyPasses(), best_passes()]
NO_WINDOW = Window(kernel=(1, 1), strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0))
# Beyond 4,096 positions the check draws numbers for rows and columns, below it for positions; from 48 columns on powers
# of one number, where the kernel moves by single ones and three bytes are enough.
SMALL, WIDE, LARGE, VAST = (9, 11), (5, 50), (67, 70), (132, 128)
SQUARE = (1, 1, 2, 2)


def _layer(weight: np.ndarray, window: Window | None) -> Layer:
    rows = len(weight)
    return Layer("layer", "x", "y", weight, np.zeros(rows, np.float32), 1.0, np.ones(rows, np.float32), window)


def _results(layer: Layer, steps: np.ndarray) -> np.ndarray:
    """Return the layer's integers, by PyTorch."""
    x, weight = torch.tensor(steps).double(), torch.tensor(layer.weight).double()
    if layer.window is None:
        return (x @ weight.T).round().long().numpy()
    top, left, bottom, right = layer.window.pads
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    made = torch.nn.functional.conv2d(padded, weight, stride=layer.window.strides, dilation=layer.window.dilations)
    return made.round().long().numpy()


def _checked(layer: Layer, steps: np.ndarray, results: np.ndarray, passes: Passes) -> bool:
    entry, exit_ = (1, *steps.shape[1:]), (1, *results.shape[1:])
    check = LayerCheck(layer, entry=entry, exit_=exit_, relu=False, limbs=layer.limbs, passes=passes)
    sums, flags = _sums(check, results, layer.limbs)
    return check.holds(steps, sums) and not flags


def _sums(check: LayerCheck, results: np.ndarray, limbs: int = 3) -> tuple[np.ndarray, int]:
    """Return the sums over results that were never masked, and flags."""
    nothing = np.zeros((limbs, results[0].size), np.uint8)
    sums, flags = np.zeros((len(results), *check.sums), np.int64), 0
    values = np.empty(results.shape, np.float32)
    unmask = check.begin(Results(to_limbs(results, limbs, axis=1), sums, values=values))
    for item in range(len(results)):
        flags |= unmask(item, 0, nothing)
    return sums, flags


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_right_results_pass_and_wrong_ones_do_not(data: st.DataObject) -> None:
    """For any kernel, stride, dilation and padding, on small images and large ones, in both forms of the passes."""
    passes = data.draw(st.sampled_from(PASSES), label="passes")
    size = data.draw(st.sampled_from([SMALL, WIDE, LARGE, VAST]), label="size")
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides, dilations = (data.draw(pair, label=each) for each in ("kernel", "strides", "dilations"))
    pads = data.draw(st.tuples(*[st.integers(0, 3)] * 4), label="pads")
    reach = [(taps - 1) * apart + 1 for taps, apart in zip(kernel, dilations, strict=True)]
    assume(all(size[axis] + pads[axis] + pads[axis + 2] >= reach[axis] for axis in (0, 1)))
    layer_window = Window(kernel, strides, dilations, pads)
    generator = np.random.default_rng(data.draw(st.integers(0, 1000), label="seed"))
    layer = _layer(generator.integers(-127, 128, (5, 3, *kernel)).astype(np.int8), layer_window)
    steps = generator.integers(-127, 128, (2, 3, *size)).astype(np.int8)
    results = _results(layer, steps)
    assert _checked(layer, steps, results, passes)
    wrong = results.copy().reshape(-1)
    wrong[data.draw(st.integers(0, wrong.size - 1), label="place")] += data.draw(st.sampled_from([1, -1, 1 << 20]))
    assert not _checked(layer, steps, wrong.reshape(results.shape), passes)


@pytest.mark.parametrize("passes", PASSES, ids=["numpy", "best"])
@pytest.mark.parametrize("shape", [(1, 1, 700), (2, 5, 8)])
def test_matrix_products_are_checked_by_position(passes: Passes, shape: tuple[int, ...]) -> None:
    """One number too many in one row is found, in rows longer than a block too."""
    generator = np.random.default_rng(1)
    layer = _layer(generator.integers(-127, 128, (5000, shape[-1])).astype(np.int8), None)
    steps = generator.integers(-127, 128, shape).astype(np.int8)
    results = _results(layer, steps)
    assert _checked(layer, steps, results, passes)
    results[..., -1, 4990] += 1
    assert not _checked(layer, steps, results, passes)


@pytest.mark.parametrize("size", [SMALL, WIDE, LARGE, VAST])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_errors_that_cancel_are_found(size: tuple[int, int], axis: int) -> None:
    """One too many here and one too few there is found, whether items, channels, rows or columns differ."""
    generator = np.random.default_rng(2)
    layer = _layer(
        generator.integers(-127, 128, (4, 2, 3, 3)).astype(np.int8), Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    )
    steps = generator.integers(-127, 128, (2, 2, *size)).astype(np.int8)
    results = _results(layer, steps)
    here, there = [0, 1, 2, 3], [0, 1, 2, 3]
    there[axis] = 0 if here[axis] else 1
    results[tuple(here)] += 5
    results[tuple(there)] -= 5
    assert not _checked(layer, steps, results, PASSES[0])


def test_a_soundness_that_is_not_to_be_had_is_refused() -> None:
    """Asking for no certainty, or for more than there are comparisons, is an error that names what there is."""
    layer = _layer(np.ones((1, 1, 1, 1), np.int8), NO_WINDOW)
    for bits in (0, 161):
        with pytest.raises(PlanError, match=f"a soundness of 1 to 160 bits, found {bits}"):
            LayerCheck(
                layer,
                entry=(1, 1, 2, 2),
                exit_=(1, 1, 2, 2),
                relu=False,
                limbs=3,
                passes=PASSES[0],
                soundness_bits=bits,
            )


@pytest.mark.parametrize("passes", PASSES, ids=["numpy", "best"])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_error_that_is_none_modulo_the_prime_is_out_of_range(passes: Passes, sign: int) -> None:
    """What the comparison modulo the prime cannot see is beyond the bound of the layer's results."""
    layer = _layer(np.full((1, 1, 1, 1), 127, np.int8), NO_WINDOW)
    steps = np.full((1, 1, 2, 2), 127 * sign, np.int8)
    results = _results(layer, steps)
    check = LayerCheck(layer, entry=SQUARE, exit_=SQUARE, relu=False, limbs=4, passes=passes)
    sums, flags = _sums(check, results, 4)
    assert (check.holds(steps, sums), flags) == (True, 0)
    results[0, 0, 1, 0] -= sign * PRIME
    sums, flags = _sums(check, results, 4)
    assert (check.holds(steps, sums), flags) == (True, OUT_OF_RANGE)


def test_no_check_is_made_of_fewer_bytes_than_a_layer_needs() -> None:
    """Numbers of three bytes for a layer whose results may need four are refused."""
    layer = _layer(np.full((1, 600, 1, 1), 127, np.int8), NO_WINDOW)
    with pytest.raises(PlanError, match="expected 4 bytes a number, found 3"):
        LayerCheck(layer, entry=(1, 600, 2, 2), exit_=(1, 1, 2, 2), relu=False, limbs=3, passes=PASSES[0])


@pytest.mark.parametrize(("bits", "comparisons"), [(1, 1), (20, 1), (21, 2), (40, 2), (41, 3)])
def test_each_comparison_is_worth_twenty_bits(bits: int, comparisons: int) -> None:
    """As many are made as the bound needs: each misses with at most 2^-21 + 2^-30 + 2^-30."""
    layer = _layer(np.ones((1, 1, 1, 1), np.int8), NO_WINDOW)
    check = LayerCheck(layer, entry=SQUARE, exit_=SQUARE, relu=False, limbs=3, passes=PASSES[0], soundness_bits=bits)
    nothing = np.zeros((1, 1, 2, 2), np.int64)
    assert _sums(check, nothing)[0].shape == (1, 1, comparisons)
    assert (2.0**-21 + 2 * 2.0**-30) ** comparisons < 2.0**-bits


@pytest.mark.parametrize("fault", ["weights", "results", "range"])
def test_no_check_is_made_for_a_layer_without_its_proof(fault: str) -> None:
    """However a layer was made, what would mask for it refuses it where a bound does not hold."""
    weight = np.ones((1, 1, 1, 1), np.int8)
    layer = _layer(weight, NO_WINDOW)
    wrong = {
        "weights": replace(layer, weight=weight.astype(np.int16)),
        "results": replace(layer, bias=np.full(1, np.inf, np.float32)),
        "range": replace(layer, input_scale=0.0),
    }
    with pytest.raises(PlanError, match="layer 'layer'"):
        LayerCheck(wrong[fault], entry=SQUARE, exit_=SQUARE, relu=False, limbs=3, passes=PASSES[0])
