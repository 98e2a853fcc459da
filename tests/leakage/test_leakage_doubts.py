"""Models and data that are broken are named, and nothing about them counts as safe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from leakage_cases import SMALL, photo_tiles, small_network, write_network
from onnx import numpy_helper

from siniantrust.errors import AuditError
from siniantrust.graph import enumerate_cuts, load_model
from siniantrust.leakage import Audit, Data, audit
from siniantrust.leakage._doubts import doubt_of, require_answers

BRIEF = replace(SMALL, attacker_items=150, heldout_items=60, screen_items=40)


def _audit(proto: onnx.ModelProto, inputs: np.ndarray, folder: Path) -> Audit:
    model = load_model(write_network(folder / "model.onnx", proto))
    return audit(
        model,
        Data(inputs, None, "x"),
        cuts=enumerate_cuts(model),
        out=folder / "audit",
        budget=BRIEF,
        attacks=["ridge"],
        screens=["distance_correlation", "kl_classifier"],
    )


def _with_weights(value: float) -> onnx.ModelProto:
    """Return the small network with all weights of its first convolution at ``value``."""
    proto = small_network()
    for weight in proto.graph.initializer:
        if weight.name == "mix":
            shape = numpy_helper.to_array(weight).shape
            weight.CopyFrom(numpy_helper.from_array(np.full(shape, value, dtype=np.float32), weight.name))
    return proto


def test_a_model_that_maps_everything_to_a_constant_is_in_doubt(tmp_path: Path) -> None:
    """Nothing leaks from a constant, but the model is broken: every cut says so and none converges."""
    found = _audit(_with_weights(0.0), photo_tiles(300), tmp_path)
    for cut in found.cuts:
        assert cut.doubt is not None
        assert "is the same for all" in cut.doubt
        assert not cut.converged
        assert not cut.settled_in(())
        assert cut.leakage["ssim"].mean <= 0 <= cut.leakage["ssim"].upper


def test_data_of_equal_items_are_in_doubt(tmp_path: Path) -> None:
    """The same picture over and over tells nothing about a sound model either."""
    found = _audit(small_network(), np.repeat(photo_tiles(300)[:1], 300, axis=0), tmp_path)
    assert all(cut.doubt is not None for cut in found.cuts)


def test_a_sound_model_is_in_no_doubt(tmp_path: Path) -> None:
    """Where features and answers differ from item to item, there is nothing to name."""
    found = _audit(small_network(), photo_tiles(300), tmp_path)
    assert [cut.doubt for cut in found.cuts] == [None] * len(found.cuts)


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """A model that answers NaN to everything is named with its output, and no folder is left."""
    with pytest.raises(AuditError, match=r"output 'y' is not finite for any of \d+ items"):
        _audit(_with_weights(float("nan")), photo_tiles(300), tmp_path)
    assert not (tmp_path / "audit").exists()


def test_one_broken_answer_spoils_nothing() -> None:
    """A single answer that is not finite is no reason to refuse the rest."""
    outputs = np.full((4, 2), np.nan)
    outputs[2] = 1.0
    require_answers(outputs, "y")
    with pytest.raises(AuditError, match="'y'"):
        require_answers(outputs[:2], "y")


def test_one_varying_tensor_is_enough() -> None:
    """A cut of two tensors is in doubt only if both are constant; a constant answer is doubted at every cut."""
    varying, constant = np.arange(600.0).reshape(300, 2), np.ones((300, 2))
    stores = {"a": varying, "b": constant}
    assert doubt_of(["a", "b"], stores, varying) is None
    assert "what crosses here ('b')" in str(doubt_of(["b"], stores, varying))
    assert "the model's answer" in str(doubt_of(["a"], stores, constant))
