"""What quantisation for exact masks costs in accuracy, under pads and checked, on three trained networks."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
from _encoder import ENCODER
from _study_data import Items, fashion, scenes
from _study_networks import RECIPES, Recipe, export, train
from results_file import Bar, Outcome

from siniantrust import graph
from siniantrust.masking.exact import ExactSession, build_program, calibrate, offerable
from siniantrust.odla import DeviceSpec, open_part

_BAR_POINTS = 0.5
_CACHE = Path(__file__).resolve().parents[1] / ".cache"
_CALIBRATION_ITEMS = 256
_BATCH = 50
_DEVICE = DeviceSpec("device", options={"threads": 1})


@dataclass(frozen=True)
class _Subject:
    """A trained network and its data."""

    name: str
    proto: onnx.ModelProto
    items: Items


def run(*, quick: bool) -> Outcome:
    """Measure the demo's network, and a residual one and a transformer encoder that are trained here."""
    rows, bars = [], []
    for subject in _subjects(quick=quick):
        model = graph.load_model(subject.proto)
        exact, offered = _under_pads(model, subject.items)
        right = _float_scores(model, subject.items).argmax(1) == subject.items.heldout_labels
        masked_right = exact.argmax(1) == subject.items.heldout_labels
        lost = 100 * float(right.mean() - masked_right.mean())
        rows.append(
            {
                "network": subject.name,
                "layers on devices": offered,
                "held-out items": len(right),
                "float32, %": 100 * float(right.mean()),
                "quantised, under pads, %": 100 * float(masked_right.mean()),
                "lost, points": lost,
                "other answers": int((right != masked_right).sum()),
            }
        )
        bars.append(Bar(f"{subject.name}: accuracy lost, points", _BAR_POINTS, lost))
    return Outcome(
        title="Accuracy under exact masks",
        method=(
            "Held-out items through an `ExactSession` with every layer that can be on a device: 8 bits for activations "
            f"(steps from {_CALIBRATION_ITEMS} training items) and for each row of weights. *Other answers* counts the "
            "items that only one of the two names rightly."
        ),
        rows=rows,
        bars=bars,
        remarks=[],
    )


def _subjects(*, quick: bool) -> list[_Subject]:
    proto = onnx.load_from_string(files("siniantrust.demo").joinpath("scenes.onnx").read_bytes())
    found = [_Subject("the demo's", proto, scenes(_CACHE, items=4000, heldout=100 if quick else 1000, seed=0))]
    if not quick:
        clothes = fashion(_CACHE, items=8000, heldout=2000, seed=0)
        recipes = {"residual": RECIPES["resnet"], "transformer encoder": ENCODER}
        found += [
            _Subject(f"{name}, Fashion-MNIST", _trained(recipe, clothes), clothes) for name, recipe in recipes.items()
        ]
    return found


def _trained(recipe: Recipe, items: Items) -> onnx.ModelProto:
    network = train(
        recipe, items.train_inputs, items.train_labels, classes=items.classes, seed=0, seen_items=recipe.seen_items
    )
    return onnx.load_from_string(export(network, items.train_inputs.shape[1:], "network"))


def _float_scores(model: graph.Model, items: Items) -> np.ndarray:
    (whole,) = graph.split(model, ())
    device, executable = open_part(_DEVICE, whole)
    (scores,) = executable.run({model.inputs[0].name: items.heldout_inputs}).values()
    executable.close()
    device.close()
    return scores


def _under_pads(model: graph.Model, items: Items) -> tuple[np.ndarray, int]:
    """Return the scores of the held-out items, and how many layers a device computed."""
    name = model.inputs[0].name
    offered = [node for node, reason in offerable(model).items() if reason is None]
    entries = [model.proto.graph.node[node.index].input[0] for node in model.nodes if node.name in offered]
    program = build_program(model, offered, calibrate(model, entries, {name: items.train_inputs[:_CALIBRATION_ITEMS]}))
    scores = []
    with ExactSession(program, [_DEVICE]) as session:
        for start in range(0, len(items.heldout_inputs), _BATCH):
            (found,) = session.run({name: items.heldout_inputs[start : start + _BATCH]}).values()
            scores.append(found)
    return np.concatenate(scores), len(offered)
