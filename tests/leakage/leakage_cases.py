"""What the tests of this room share: tiles of real photographs, a small network, and problems made of plain arrays."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.leakage import AttackResult, Budget, Data, Problem, list_attacks
from siniantrust.leakage._climb import Problems, climb
from siniantrust.leakage._encode import fit_encoder
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._registry import Classifier, ScreenView
from siniantrust.leakage._setting import Setting, make_setting
from siniantrust.leakage._split import split_items
from siniantrust.leakage._suite import attack_result

SIDE = 16
SMALL = Budget(
    attacker_items=400,
    heldout_items=150,
    kernel_features=1024,
    patch_rows=6000,
    steps=6,
    batch_items=16,
    width=8,
    screen_items=120,
    discriminator_steps=40,
    classifier_flops=1e8,
    threads=1,
    attack_time_s=3600,
)


@cache
def photo_tiles(count: int = 600) -> np.ndarray:
    """Return tiles of photographs that ship with scikit-image, float32 (count, 3, 16, 16) in 0..1, in random order."""
    photographs: Any = importlib.import_module("skimage.data")
    tiles = []
    for photograph in (photographs.astronaut(), photographs.coffee(), photographs.chelsea(), photographs.rocket()):
        pixels = photograph.astype(np.float32).transpose(2, 0, 1) / 255
        rows, columns = pixels.shape[1] // SIDE, pixels.shape[2] // SIDE
        grid = pixels[:, : rows * SIDE, : columns * SIDE].reshape(3, rows, SIDE, columns, SIDE)
        tiles.append(grid.transpose(1, 3, 0, 2, 4).reshape(-1, 3, SIDE, SIDE))
    every: np.ndarray = np.concatenate(tiles)
    every = every[every.std(axis=(1, 2, 3)) > 0.05]
    chosen: np.ndarray = every[np.random.default_rng(0).permutation(len(every))[:count]]
    return chosen


def feature_set(values: np.ndarray, start: int = 0, stop: int | None = None) -> FeatureSet:
    """Return ``values`` (N, *item shape) as an audit keeps them."""
    encoder = fit_encoder(values[:128], max_elements=65_536, max_side=64, seed=0)
    return FeatureSet((encoder.encode(values),), (encoder,), start, len(values) if stop is None else stop)


def problem_of(values: np.ndarray, inputs: np.ndarray, budget: Budget = SMALL, **more: Any) -> tuple[Problem, Setting]:
    """Return the problem of inverting ``values`` (N, ...) to ``inputs`` (N, ...), split as an audit splits.

    ``more`` goes to the data: their transcript, say.
    """
    split = split_items(len(inputs), budget, seed=0)
    setting = make_setting(Data(inputs, None, "x", **more), split, budget, seed=0)
    texts = setting.transcript
    features = feature_set(values[split.order])
    first, second, total = setting.attackers, setting.known, len(setting.targets)

    def part(start: int, stop: int) -> FeatureSet:
        return FeatureSet(features.stores, features.encoders, start, stop)

    problem = Problem(
        kind=setting.kind,
        attacker=part(0, first),
        attacker_targets=setting.targets[:first],
        validation=part(first, second),
        validation_targets=setting.targets[first:second],
        heldout=part(second, total),
        attacker_transcript=None if texts is None else texts[:first],
        validation_transcript=None if texts is None else texts[first:second],
    )
    return problem, setting


def leakage_of(name: str, problem: Problem, setting: Setting, budget: Budget = SMALL) -> AttackResult:
    """Return what the attack ``name`` comes to on ``problem``, climbing as in an audit."""
    trial = climb(
        name, list_attacks([name])[name], Problems(problem), setting.judge, budget, seed=0, bounds={}, best={}
    )
    return attack_result([trial], setting.judge, {}, tolerance=budget.tolerance)


def view_of(values: np.ndarray, inputs: np.ndarray, classify: Classifier | None = None) -> ScreenView:
    """Return what a screen sees of features ``values`` and ``inputs``."""
    kind: Literal["image", "array"] = "image" if inputs.ndim == 4 else "array"
    return ScreenView(kind=kind, features=feature_set(values), inputs=inputs, classify=classify, classify_flops=1000)


def small_network(*, batch: int | None = None, blow_up: bool = False) -> onnx.ModelProto:
    """Return an untrained network on 16 x 16 tiles: an invertible layer, a strided convolution, dense layers.

    ``batch`` fixes the batch. ``blow_up`` makes the last hidden tensor infinite for inputs above about 30.
    """
    rng = np.random.default_rng(1)

    def weight(name: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
        fan = int(np.prod(shape[1:])) or 1
        values = rng.normal(0, scale / fan**0.5, shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    mix = np.array([[0.6, 0.3, 0.1], [-0.2, 0.7, 0.3], [0.2, -0.4, 0.8]], dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "mix"], ["mixed"], name="mix"),
        helper.make_node("Conv", ["mixed", "w1"], ["c1"], name="conv1", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Flatten", ["r1"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w2"], ["g1"], name="dense1", transB=1),
        helper.make_node("Relu", ["g1"], ["r2"], name="relu2"),
        helper.make_node("Gemm", ["r2", "w3"], ["y"], name="dense2", transB=1),
    ]
    initialisers = [
        numpy_helper.from_array(mix.reshape(3, 3, 1, 1), "mix"),
        weight("w1", 6, 3, 3, 3),
        weight("w2", 12, 6 * 64, scale=1e37 if blow_up else 1.0),
        weight("w3", 4, 12),
    ]
    first: int | str = "n" if batch is None else batch
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [first, 4])],
        initialisers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_network(path: Path, proto: onnx.ModelProto) -> Path:
    """Write a network and return its path."""
    onnx.save(proto, path)
    return path
