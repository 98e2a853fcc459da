"""Parts that end in a mask, and what makes of draws what a mask takes, lowered and held against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from lowering_host import compile_part, run_lowered, run_reference, run_source
from onnx import numpy_helper

from siniantrust.graph import enumerate_cuts, feed_noise, load_model, split, take_prelude
from siniantrust.lowering import lower
from siniantrust.masking import apply_masks, parse_mask

_DEMO = Path(__file__).resolve().parents[2] / "src/siniantrust/demo/scenes.onnx"
_WITHOUT_DRAWS = (
    *("bottleneck", "channel_pruning", "constant", "fixed_additive", "patch_shuffle", "permutation", "pooling"),
    *("quantise:strength=0.5", "random_projection:structured=0", "random_projection:structured=1"),
)


def _part(mask: str) -> onnx.ModelProto:
    """Return the demo's first part, masked behind its third convolution."""
    model = load_model(_DEMO)
    cut = enumerate_cuts(model).cuts[4]
    inputs = {"tile": np.random.default_rng(1).random((8, 3, 32, 32), np.float32)}
    masked, cut = apply_masks(model, cut, [parse_mask(mask)], seed=0, inputs=inputs)
    part: onnx.ModelProto = onnx.ModelProto.FromString(split(masked, (cut,))[0].proto.SerializeToString())
    return part


@pytest.mark.parametrize("mask", _WITHOUT_DRAWS)
def test_parts_with_a_mask_equal_onnx_runtime(tmp_path: Path, mask: str) -> None:
    """Each mask that draws nothing is lowered with its part, to what ONNX Runtime computes within 1e-4.

    A thousandth of the numbers may lie elsewhere: a sum that is rounded otherwise may reach the next level.
    """
    part, x = _part(mask), {"tile": np.random.default_rng(0).random((1, 3, 32, 32), np.float32)}
    found, expected = run_lowered(part, x, tmp_path), run_reference(part, x)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert mask == "constant" or len(np.unique(array)) > 1
        assert np.mean(~np.isclose(found[name], array, rtol=1e-4, atol=1e-4)) < 1e-3


@pytest.mark.parametrize(
    ("mask", "high"),
    [("bank", 19.9999), ("randomised_response", 1.0), ("shredder_bank:count=8,steps=0", 7.9999)],
    ids=["bank", "randomised_response", "shredder_bank"],
)
def test_what_masks_make_of_draws_equals_onnx_runtime(tmp_path: Path, mask: str, high: float) -> None:
    """The smallest and the largest draws, and those between, become exactly what ONNX Runtime makes of them."""
    part = _part(mask)
    feed_noise(part, origin="part")
    prelude = take_prelude(part)
    assert prelude is not None
    (slot,) = (lowered := lower(prelude)).inputs
    draws = np.linspace(0, high, 40, dtype=np.float32)
    items = np.stack([np.resize(np.roll(draws, -place), slot.shape[1:]) for place in range(len(draws))])
    (expected,) = run_reference(prelude, {slot.name: items}).values()
    assert len(np.unique(expected)) > 1
    part_run = compile_part(lowered.source, tmp_path).part_run
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in prelude.graph.initializer}
    for item, array in zip(items, expected, strict=True):
        (found,) = run_source(lowered, part_run, weights, {slot.name: item[None]}).values()
        np.testing.assert_array_equal(found[0], array)
