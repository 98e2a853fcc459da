"""The suite against masks whose worth is known beforehand: broken ones must be seen to leak, perfect ones not to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from leakage_cases import SMALL, leakage_of, photo_tiles, problem_of, write_network
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Cut, CutSet, Model, enumerate_cuts, load_model, split
from siniantrust.leakage import CutAudit, Data, audit
from siniantrust.masking import apply_mask
from siniantrust.masking.objectives._nopeek import distance_correlation
from siniantrust.odla import DeviceSpec, open_device

BUDGET = replace(SMALL, seeds=1, repeats=48)
ATTACKS = ["ridge", "inverter"]


def _network() -> onnx.ModelProto:
    """Return a network whose first stage is a strided convolution with ReLU, behind which masks are put."""
    rng = np.random.default_rng(5)
    weights = {
        "w1": rng.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.1, (5, 8 * 64)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2"], ["y"], name="dense", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "first_stage",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _cut(model: Model, tensor: str) -> Cut:
    return next(cut for cut in enumerate_cuts(model).cuts if cut.tensors == (tensor,))


def _audited(model: Model, tensor: str, folder: Path) -> CutAudit:
    cuts = CutSet(cuts=(_cut(model, tensor),), capped=False, cap=1)
    found = audit(
        model,
        Data(photo_tiles(), None, "x"),
        cuts=cuts,
        out=folder / "audit",
        budget=BUDGET,
        attacks=ATTACKS,
        screens=["distance_correlation"],
        include_fusable=True,
    )
    return found.cuts[0]


def _masked(name: str, strength: float, folder: Path) -> CutAudit:
    model = load_model(write_network(folder / "model.onnx", _network()))
    sample = np.maximum(np.random.default_rng(0).normal(0, 0.5, (64, 8, 8, 8)), 0).astype(np.float32)
    proto = apply_mask(model, _cut(model, "r"), name, strength=strength, seed=1, sample={"r": sample})
    return _audited(load_model(write_network(folder / "masked.onnx", proto)), "r_masked", folder)


@pytest.fixture(scope="module")
def unmasked(tmp_path_factory: pytest.TempPathFactory) -> CutAudit:
    """Return what leaks without a mask."""
    folder = tmp_path_factory.mktemp("unmasked")
    return _audited(load_model(write_network(folder / "model.onnx", _network())), "r", folder)


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        ("permutation", 1.0),
        ("fixed_additive", 3.0),
        ("bank", 3.0),
        pytest.param("patch_shuffle", 2.0, marks=pytest.mark.slow),
        pytest.param("shredder_bank", 3.0, marks=pytest.mark.slow),
    ],
)
def test_broken_masks_leak(name: str, strength: float, unmasked: CutAudit, tmp_path: Path) -> None:
    """A fixed permutation of numbers or patches, a fixed additive tensor and banks leak at least 80 % of no mask's."""
    found = _masked(name, strength, tmp_path)
    for metric in ("nmse", "reidentification", "ssim"):
        assert unmasked.leakage[metric].mean > 0.5, metric
        assert found.leakage[metric].mean >= 0.8 * unmasked.leakage[metric].mean, metric


@pytest.mark.parametrize("name", ["one_time_pad", "constant", "noise_only"])
def test_perfect_masks_leak_nothing(name: str, tmp_path: Path) -> None:
    """Behind a one-time pad, a constant, or noise alone, the best attack's interval covers 0."""
    found = _masked(name, 1.0, tmp_path)
    for metric, figure in found.leakage.items():
        assert figure.lower is not None
        assert figure.lower <= 0.005 <= figure.upper + 0.005, metric
        assert figure.upper < 0.08, metric


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strength"),
    [("dropout", 0.7), ("randomised_response", 0.7), ("shredder_distribution", 2.0), ("budgeted_gaussian", 0.05)],
)
def test_fresh_draws_are_averaged_away(name: str, strength: float, tmp_path: Path) -> None:
    """Whatever is drawn anew for each query hides less from who asks 48 times than from who asks once."""
    found = _masked(name, strength, tmp_path)
    single = max(found.attacks[attack].leakage["nmse"].mean for attack in ATTACKS)
    averaged = max(found.attacks[f"{attack}_averaged"].leakage["nmse"].mean for attack in ATTACKS)
    assert averaged > single + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["channel_pruning", "bottleneck", "random_projection", "pooling"])
def test_what_crosses_of_a_narrowed_tensor_leaks(name: str, unmasked: CutAudit, tmp_path: Path) -> None:
    """Half of the channels or of the mixtures, or a quarter of the places, still leak more than half of no mask's."""
    found = _masked(name, 2.0 if name == "pooling" else 0.5, tmp_path)
    assert found.leakage["nmse"].mean > 0.5 * unmasked.leakage["nmse"].mean


def test_shuffled_tokens_leak() -> None:
    """Patches of an image as the tokens of a sequence leak nearly all when they cross in another order."""
    tiles = photo_tiles()
    tokens = tiles.reshape(-1, 3, 4, 4, 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 16, 48)
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["s"], name="first"), helper.make_node("Neg", ["s"], ["y"], name="second")],
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16, 48])],
    )
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    proto = apply_mask(model, _cut(model, "s"), "token_shuffle", strength=1.0, seed=1, sample={"s": -tokens[:64]})
    masked = load_model(proto)
    first = split(masked, [_cut(masked, "s_masked")])[0]
    crossed = open_device(DeviceSpec("here")).compile(first).run({"x": tokens})["s_masked"]
    problem, setting = problem_of(crossed, tiles, BUDGET)
    assert leakage_of("ridge", problem, setting, BUDGET).leakage["nmse"].mean > 0.9


def test_fresh_noise_is_averaged_away(unmasked: CutAudit, tmp_path: Path) -> None:
    """An attacker who may ask again averages fresh noise out: what single answers hide, repeated ones give back."""
    found = _masked("gaussian", 2.0, tmp_path)
    single = max(found.attacks[name].leakage["nmse"].mean for name in ATTACKS)
    averaged = max(found.attacks[f"{name}_averaged"].leakage["nmse"].mean for name in ATTACKS)
    assert averaged > single + 0.1
    assert found.leakage["nmse"].mean > 0.8 * unmasked.leakage["nmse"].mean


def test_an_identity_and_an_invertible_convolution_leak_all() -> None:
    """Features that are the input, or an invertible random convolution of it, leak nearly everything."""
    tiles = photo_tiles()
    rng = np.random.default_rng(2)
    # A strictly dominant centre makes the convolution invertible.
    kernel = rng.normal(0, 0.05, (3, 3, 3, 3)).astype(np.float32)
    kernel[:, :, 1, 1] += np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    mixed = torch.nn.functional.conv2d(torch.as_tensor(tiles), torch.as_tensor(kernel), padding=1).numpy()
    for values in (tiles, mixed):
        problem, setting = problem_of(values, tiles, BUDGET)
        leakage = leakage_of("inverter", problem, setting, BUDGET).leakage
        assert {metric for metric, figure in leakage.items() if figure.mean < 0.9} == set()


@pytest.mark.slow
def test_features_trained_to_be_unlike_the_input_leak_all_the_same() -> None:
    """Features trained for a low distance correlation with the input (NoPeek) leak as much to attacks as before."""
    tiles = torch.as_tensor(photo_tiles())
    classes = (tiles.mean(dim=(1, 2, 3)) > tiles.mean()).long()
    found = {}
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        first = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.LeakyReLU(0.1))
        last = torch.nn.Linear(8 * 64, 2)
        optimiser = torch.optim.Adam([*first.parameters(), *last.parameters()], 3e-3)
        for _ in range(60):
            rows = torch.randperm(len(tiles))[:128]
            values = first(tiles[rows]).flatten(1)
            loss = torch.nn.functional.cross_entropy(last(values), classes[rows])
            loss = loss + weight * distance_correlation(values, tiles[rows].flatten(1))
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        first.eval()
        with torch.no_grad():
            values = first(tiles).numpy()
            correlation = float(distance_correlation(torch.as_tensor(values[:200]).flatten(1), tiles[:200].flatten(1)))
        problem, setting = problem_of(values, photo_tiles(), BUDGET)
        found[weight] = (correlation, leakage_of("inverter", problem, setting, BUDGET).leakage)
    assert found[3.0][0] < found[0.0][0] - 0.2
    for metric, figure in found[0.0][1].items():
        assert found[3.0][1][metric].mean >= 0.8 * figure.mean, metric
