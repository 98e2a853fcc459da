"""Masks written for few nodes give what their plain forms give, number by number for the same draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Cut, feed_noise, load_model, noise_inputs, split, take_prelude
from siniantrust.masking import apply_mask, apply_masks, find_cut, parse_mask, read_records

CUT = Cut("s", ("s",), 1, 0, 0, fusable=False)
ITEMS = 6
SHAPES = [(50,), (35,), (64,), (3, 4, 6), (7,), (1,), (4, 8, 8)]
_LARGE = 1000


def _values(shape: tuple[int, ...], seed: int, *, spread: float = 2.0, items: int = ITEMS) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, spread, (items, *shape)).astype(np.float32)


def _masked(
    name: str,
    shape: tuple[int, ...],
    strength: float,
    seed: int = 0,
    parameters: Mapping[str, float] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a model that gives s = -x and y = -s with a mask at it, calibrated on 40 items, its noise an input."""
    x, y = (helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", *shape]) for end in ("x", "y"))
    nodes = [helper.make_node("Neg", ["x"], ["s"]), helper.make_node("Neg", ["s"], ["y"])]
    graph = helper.make_graph(nodes, "alone", [x], [y])
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))
    sample = {"s": _values(shape, 7, items=40)}
    proto = apply_mask(model, CUT, name, strength=strength, seed=seed, sample=sample, parameters=parameters)
    proto = load_model(proto).proto
    feed_noise(proto, origin="model")
    return proto


def _run(proto: onnx.ModelProto, values: np.ndarray, noise: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return what crosses of the values s, and what is restored of it."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    proto.graph.output.append(helper.make_tensor_value_info("s_masked", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = {each.name: noise for each in noise_inputs(proto)}
    answer, crossing = session.run(None, {"x": -values, **fed})
    return crossing, -answer


@given(
    some.sampled_from(SHAPES),
    some.sampled_from([0.0, 0.3, 2.0, 1e4]),
    some.sampled_from([8, 13, 17, 18]),
    some.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_a_budgets_clip_is_that_of_the_distance(shape: tuple[int, ...], spread: float, opset: int, seed: int) -> None:
    """Given the noise, an item is mean + d min(1, C / |d|) + noise, also at the mean itself, and never beyond C."""
    proto = _masked("budgeted_gaussian", shape, 0.5, opset=opset)
    facts = read_records(proto)[0].facts
    bound, std = float(facts["clip_l2"]), float(facts["noise_std"])
    mean = _values(shape, 7, items=40).mean(axis=0, dtype=np.float64)
    values = (mean + spread * (_values(shape, seed) - 3.0)).astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, std / bound, values.shape).astype(np.float32)
    away = values - mean
    distance = np.sqrt(np.square(away).reshape(ITEMS, -1).sum(1)).reshape(-1, *[1] * len(shape))
    plain = mean + away * (bound / np.maximum(distance, bound)) + noise * bound
    np.testing.assert_allclose(_run(proto, values, noise)[1], plain, rtol=1e-5, atol=1e-4 * max(bound, 1))
    quiet = _run(proto, values, np.zeros_like(noise))[1] - mean
    assert np.sqrt(np.square(quiet).reshape(ITEMS, -1).sum(1)).max() <= bound * (1 + 1e-5) + 1e-5


@given(
    some.sampled_from([1, 2, 3, 5]),
    some.sampled_from([0.05, 0.5, 1.0]),
    some.sampled_from([2.0, 40.0]),
    some.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_a_response_is_the_draws_level_or_its_own(bits: int, replaced: float, spread: float, seed: int) -> None:
    """For the same even number u, the level is that of u / p where u < p, and the nearest one elsewhere."""
    shape, levels = (50,), 1 << bits
    proto = _masked("randomised_response", shape, replaced, parameters={"bits": bits})
    calibrated = _values(shape, 7, items=40).astype(np.float64)
    low, high = calibrated.min(), calibrated.max()
    values = _values(shape, seed, spread=spread)
    draw = np.random.default_rng(seed).random(values.shape, dtype=np.float32)
    draw.flat[:3] = (0.0, np.nextafter(np.float32(replaced), np.float32(0)), np.nextafter(np.float32(1), np.float32(0)))
    exact = (np.clip(values.astype(np.float64), low, high) - low) / (high - low) * (levels - 1)
    other = np.minimum(np.floor(draw.astype(np.float64) / replaced * levels), levels - 1)
    plain = np.where(draw < replaced, other, np.floor(exact + 0.5))
    crossing, restored = _run(proto, values, draw)
    # Rounding may decide otherwise right between two levels, and right at u = p and between two of the draw's levels.
    scaled = draw.astype(np.float64) / replaced * levels
    clear = (np.abs(exact + 0.5 - np.round(exact + 0.5)) > 1e-4) & (np.abs(scaled - np.round(scaled)) > 1e-4)
    np.testing.assert_array_equal((crossing - 1)[clear], plain[clear])
    assert np.isin(crossing, np.arange(1, levels + 1)).all()
    np.testing.assert_allclose(restored, low + (crossing - 1) * (high - low) / (levels - 1), rtol=1e-4, atol=1e-4)


@given(some.sampled_from(SHAPES), some.sampled_from([0.1, 0.5, 1.7]), some.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_a_level_is_that_of_clipping_first(shape: tuple[int, ...], strength: float, seed: int) -> None:
    """Clipping the number of the level gives what the number of the clipped value is."""
    proto = _masked("quantise", shape, strength)
    calibrated = _values(shape, 7, items=40).astype(np.float64)
    low, step = calibrated.min(), strength * calibrated.std()
    values = _values(shape, seed, spread=8.0)
    plain = (np.clip(values.astype(np.float64), low, calibrated.max()) - low) / step + 0.5
    clear = np.abs(plain - np.round(plain)) > 1e-3
    crossing, restored = _run(proto, values)
    np.testing.assert_array_equal(crossing[clear], np.floor(plain)[clear])
    np.testing.assert_allclose(restored, low + crossing * step, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("structured", [0, 1])
@given(
    shape=some.sampled_from([*SHAPES, (33, 16, 8), (4111,)]),
    share=some.sampled_from([0.0, 0.3, 0.5, 0.9]),
    seed=some.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_a_projection_is_one_matrix(structured: int, shape: tuple[int, ...], share: float, seed: int) -> None:
    """What crosses is M x for one matrix M, and what is restored mean + M'M (x - mean).

    A structured M has numbers of one size and all signs: rows of Hadamard's matrix, its columns with random signs.
    """
    size = math.prod(shape)
    assume(structured or size < _LARGE)
    proto = _masked("random_projection", shape, share, seed, {"structured": structured})
    values, mean = _values(shape, seed), _values(shape, 7, items=40).mean(axis=0, dtype=np.float64)
    columns = _run(proto, np.eye(size, dtype=np.float32).reshape(size, *shape))[0]
    matrix = columns.reshape(size, -1).T.astype(np.float64)
    crossing, restored = _run(proto, values)
    np.testing.assert_allclose(crossing.reshape(ITEMS, -1), values.reshape(ITEMS, -1) @ matrix.T, atol=1e-4)
    away = (values - mean).reshape(ITEMS, -1)
    np.testing.assert_allclose((restored - mean).reshape(ITEMS, -1), away @ matrix.T @ matrix, atol=1e-4)
    width = 1 << (size - 1).bit_length() if structured else size
    wanted = max(round((1 - share) * size), 1)
    assert abs(len(matrix) - wanted) <= wanted * 0.1 + 1
    if structured:
        np.testing.assert_allclose(np.abs(matrix), width**-0.5, rtol=1e-5)
    if width == size:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5)


@given(
    some.sampled_from([(1, 2, 2, 2), (3, 4, 6, 2), (5, 6, 9, 3), (2, 12, 10, 2), (2, 3, 5, 1), (4, 9, 9, 9)]),
    some.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_patches_moved_at_once_are_patches_moved_by_numbers(sizes: tuple[int, int, int, int], seed: int) -> None:
    """By a product or by rows of patches, all arrive where single numbers would, in the order that the seed chooses."""
    channels, height, width, side = sizes
    proto = _masked("patch_shuffle", (channels, height, width), side, seed)
    places = np.arange(channels * height * width).reshape(channels, height // side, side, width // side, side)
    patches = places.transpose(1, 3, 0, 2, 4).reshape(-1, channels, side, side)
    mixed = patches[np.random.default_rng((seed, 0)).permutation(len(patches))]
    grid = mixed.reshape(height // side, width // side, channels, side, side)
    order = grid.transpose(2, 0, 3, 1, 4).reshape(-1)
    values = _values((channels, height, width), seed)
    expected = values.reshape(ITEMS, -1)[:, order].reshape(values.shape)
    np.testing.assert_array_equal(_run(proto, values)[0], expected)


@pytest.mark.parametrize(
    ("mask", "left"),
    [
        ("gaussian", ["Add"]),
        ("laplace", ["Add"]),
        ("shredder_bank:steps=0", ["Add"]),
        ("shredder_distribution:steps=0", ["Add"]),
        ("dropout", ["Mul"]),
        ("bank", ["Add"]),
        ("quantise", ["Floor"]),
        ("randomised_response", ["Floor", "Min", "Abs"]),
        ("budgeted_gaussian", ["Sub", "ReduceL2", "Max", "Div", "Add"]),
        ("random_projection", ["Mul", "Reshape", "MatMul", "MatMul"]),
        ("patch_shuffle", ["Reshape", "MatMul", "Reshape"]),
        ("channel_pruning", []),
        ("pooling", ["AveragePool"]),
    ],
)
def test_what_is_left_for_a_request(mask: str, left: list[str], tmp_path: Path) -> None:
    """Behind a convolution and a ReLU, a request waits for these nodes of the mask and for no others."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(16, 3, 3, 3)), "v": rng.normal(size=(16 * 64, 5))}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["s"]),
            helper.make_node("Flatten", ["s"], ["f"]),
            helper.make_node("MatMul", ["f", "v"], ["y"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    inputs = {"x": rng.normal(size=(40, 3, 8, 8)).astype(np.float32)}
    masked, cut = apply_masks(model, find_cut(model, ["s"]), [parse_mask(mask)], seed=0, inputs=inputs)
    part = onnx.ModelProto.FromString(split(masked, (cut,))[0].proto.SerializeToString())
    feed_noise(part, origin="part")
    take_prelude(part)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # the file that it writes is for this machine alone, which it warns of
    onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert [kind for kind in found if kind not in ("Conv", "FusedConv", "ReorderInput", "ReorderOutput")] == left
