"""The network in torch gives what an audit keeps, at any cut, and goes on from it to the model's answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from leakage_cases import SIDE, photo_tiles, small_network
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Cut, Model, load_model
from siniantrust.leakage._encode import Encoder, fit_encoder
from siniantrust.leakage._observe import Observer
from siniantrust.leakage._registry import InapplicableError, WhiteBox
from siniantrust.leakage._whitebox import white_box

LOW, HIGH = -1.0, 3.0


def _cut(*tensors: str) -> Cut:
    return Cut("+".join(tensors), tensors, 0, 0, 0, fusable=False)


def _observed(
    model: Model, inputs: np.ndarray, tensors: Sequence[str], *, most: int = 65_536
) -> tuple[list[Encoder], list[np.ndarray], np.ndarray]:
    """Return encoders, kept features and the first output, as an audit computes them."""
    with Observer(model, tensors, threads=1) as observer:
        pieces = [
            observer.run({"x": inputs[start : start + observer.batch_items]})
            for start in range(0, len(inputs), observer.batch_items)
        ]
    values = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    encoders = [fit_encoder(values[name], max_elements=most, max_side=8, seed=0) for name in tensors]
    kept = [encoder.encode(values[name]) for encoder, name in zip(encoders, tensors, strict=True)]
    return encoders, kept, values[model.outputs[0].name]


def _network(model: Model, tensors: Sequence[str], encoders: Sequence[Encoder], *, shrink: int = 1) -> WhiteBox:
    return white_box(model, _cut(*tensors), "x", encoders, low=LOW, high=HIGH, shrink=shrink)


def _tiles(count: int = 12) -> np.ndarray:
    return photo_tiles()[:count]


def _close(found: Sequence[torch.Tensor], kept: Sequence[np.ndarray]) -> None:
    for mine, theirs in zip(found, kept, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.astype(np.float32), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("tensors", [("x",), ("mixed",), ("c1", "mixed"), ("r1",), ("r2",)])
def test_features_are_what_an_audit_keeps(tensors: tuple[str, ...], batch: int | None) -> None:
    """At every cut, of one tensor or two, of a free or a fixed batch, the features are those kept, but for rounding."""
    model = load_model(small_network(batch=batch))
    encoders, kept, _ = _observed(model, _tiles() * (HIGH - LOW) + LOW, tensors)
    _close(_network(model, tensors, encoders).features(torch.tensor(_tiles())), kept)


@pytest.mark.parametrize(("tensor", "most"), [("mixed", 300), ("c1", 100), ("flat", 50)])
def test_reduced_features_are_what_an_audit_keeps(tensor: str, most: int) -> None:
    """Space moved to channels, projected or sketched, is so in torch too."""
    model = load_model(small_network())
    encoders, kept, _ = _observed(model, _tiles() * (HIGH - LOW) + LOW, [tensor], most=most)
    network = _network(model, [tensor], encoders)
    assert encoders[0].reduced
    found = network.features(torch.tensor(_tiles()))
    _close(found, kept)
    with pytest.raises(InapplicableError, match="numbers only"):
        network.outputs(found)


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("tensors", [("mixed",), ("r1",), ("r2",)])
def test_outputs_go_on_to_the_models_answer(tensors: tuple[str, ...], batch: int | None) -> None:
    """From the features, the rest of the model gives the model's first output."""
    model = load_model(small_network(batch=batch))
    encoders, _, answer = _observed(model, _tiles() * (HIGH - LOW) + LOW, tensors)
    network = _network(model, tensors, encoders)
    found = network.outputs(network.features(torch.tensor(_tiles())))
    np.testing.assert_allclose(found.numpy(), answer, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [None, 1])
def test_gradients_reach_the_targets(batch: int | None) -> None:
    """Features, and outputs beyond them, are differentiable with respect to every pixel."""
    model = load_model(small_network(batch=batch))
    encoders, _, _ = _observed(model, _tiles(), ["r1"])
    network = _network(model, ["r1"], encoders)
    targets = torch.tensor(_tiles(3)).requires_grad_()
    (gradient,) = torch.autograd.grad(network.outputs(network.features(targets)).square().sum(), targets)
    assert all(image.abs().max() > 0 for image in gradient)


def test_small_targets_are_enlarged() -> None:
    """Images that were averaged down by 3 stand for blocks of 3 x 3 equal pixels, and for the rest at the edges."""
    model = load_model(small_network())
    small = _tiles()[:, :, : SIDE // 3, : SIDE // 3]
    large = np.pad(small.repeat(3, axis=2).repeat(3, axis=3), ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge")
    encoders, kept, _ = _observed(model, large * (HIGH - LOW) + LOW, ["r1"])
    _close(_network(model, ["r1"], encoders, shrink=3).features(torch.tensor(small)), kept)


def _made(nodes: Sequence[onnx.NodeProto], kind: int, *names: str) -> Model:
    inputs = [helper.make_tensor_value_info(name, kind, ["n", 3, 4, 4]) for name in names]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 4, 4])]
    stored = [numpy_helper.from_array(np.array([2.0], np.float32), "two")]
    graph = helper.make_graph(list(nodes), "made", inputs, outputs, stored)
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_bytes_are_taken_as_floating_numbers() -> None:
    """A model of uint8 images gets the targets as floats, so that gradients pass the cast."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "two"], ["y"], "scale"),
    ]
    model = _made(nodes, TensorProto.UINT8, "x")
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 4)).astype(np.uint8)
    encoders, kept, _ = _observed(model, images, ["f"])
    network = white_box(model, _cut("f"), "x", encoders, low=0.0, high=255.0)
    targets = torch.tensor(images / 255.0, dtype=torch.float32).requires_grad_()
    found = network.features(targets)
    _close([found[0].detach()], kept)
    (gradient,) = torch.autograd.grad(found[0].sum(), targets)
    assert gradient.min() > 0


def test_other_inputs_are_declined() -> None:
    """A model with a second input has no white box; the message names the input."""
    model = _made([helper.make_node("Add", ["x", "z"], ["y"], "add")], TensorProto.FLOAT, "x", "z")
    with pytest.raises(InapplicableError, match="'z'"):
        white_box(model, _cut("y"), "x", [], low=0.0, high=1.0)


def test_an_operator_without_a_gradient_is_declined() -> None:
    """An operator that torch cannot run here is named where it lies before the cut, and only there."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["m"], "scale"),
        helper.make_node("Hardmax", ["m"], ["y"], "hard"),
    ]
    model = _made(nodes, TensorProto.FLOAT, "x")
    encoders, _, _ = _observed(model, np.zeros((2, 3, 4, 4), np.float32), ["m"])
    with pytest.raises(InapplicableError, match=r"node 'hard' \(Hardmax\)"):
        white_box(model, _cut("y"), "x", encoders, low=0.0, high=1.0)
    network = white_box(model, _cut("m"), "x", encoders, low=0.0, high=1.0)
    with pytest.raises(InapplicableError, match=r"node 'hard' \(Hardmax\)"):
        network.outputs(network.features(torch.zeros(2, 3, 4, 4)))
