"""What restructuring saves before a cut and at it, what it costs in accuracy, and whether more leaks: two networks."""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from _study_data import Items, fashion
from _study_networks import RECIPES, export, train
from results_file import Bar, Outcome

from siniantrust import graph, leakage
from siniantrust.masking import find_cut
from siniantrust.masking.restructure import Restructured, parse_step, restructure
from siniantrust.masking.retrain import Recipe

_CACHE = Path(__file__).resolve().parents[1] / ".cache"
_FLOPS_SAVED, _BYTES_SAVED, _POINTS_LOST, _MORE_LEAKAGE = 70.0, 80.0, 1.0, 0.0
# Regressions and a trained decoder: dear enough to tell two features apart, cheap enough for four audits.
_ATTACKS = ("ridge", "local_ridge", "inverter", "identification")


@dataclass(frozen=True)
class _Case:
    """A network, where it is cut, and what is done to it."""

    name: str
    cut: str
    steps: tuple[str, ...]


_CASES = (
    _Case("vgg", "/13/MaxPool_output_0", ("separable", "bottleneck=4")),
    _Case("resnet", "/4/after/Relu_output_0", ("separable", "bottleneck=4")),
)


def run(*, quick: bool) -> Outcome:
    """Train each network on Fashion-MNIST, restructure it, and attack it before and after with the same attackers."""
    cases = _CASES[:1] if quick else _CASES
    # One thread each, beside each other.
    with ProcessPoolExecutor(len(cases), multiprocessing.get_context("spawn")) as pool:
        measured = list(pool.map(_measured, cases, [quick] * len(cases)))
    rows = [row for row, _ in measured]
    bars = [bar for _, found in measured for bar in found]
    return Outcome(
        title="Restructuring",
        method=(
            "VGG-like and ResNet-like networks (`_study_networks.py`) on Fashion-MNIST, 8,000 items to learn from, "
            "2,000 held out. After each pass both parts are distilled from the network as it was, 5 epochs. Leakage is "
            f"the mean of the best of {', '.join(_ATTACKS)} at a quick audit's budget, the same before and after."
        ),
        rows=rows,
        bars=bars,
        remarks=[],
    )


def _measured(case: _Case, quick: bool) -> tuple[dict[str, object], list[Bar]]:  # noqa: FBT001 - mapped over
    """Train, restructure and attack one network; return its row and bars."""
    items = fashion(_CACHE, items=600 if quick else 8000, heldout=200 if quick else 2000, seed=0)
    data = _data(items)
    model = _network(case.name, items, seen_items=600 if quick else RECIPES[case.name].seen_items)
    recipe = Recipe(mode="joint", epochs=1 if quick else 5, learning_rate=3e-3)
    steps = [parse_step(text) for text in case.steps]
    found = restructure(model, data, cut=find_cut(model, [case.cut]), steps=steps, recipe=recipe)
    before = _leakage(model, case.cut, data, quick=quick)
    after = _leakage(graph.load_model(found.proto), found.tensor, data, quick=quick)
    return _row(case, found, before, after), _bars(case.name, found, before, after)


def _data(items: Items) -> leakage.Data:
    known, heldout = len(items.train_inputs), len(items.heldout_inputs)
    return leakage.Data(
        inputs=np.concatenate([items.train_inputs, items.heldout_inputs]),
        labels=np.concatenate([items.train_labels, items.heldout_labels]),
        input_name="image",
        heldout=np.arange(known + heldout) >= known,
    )


def _network(name: str, items: Items, *, seen_items: int) -> graph.Model:
    torch.set_num_threads(1)
    network = train(
        RECIPES[name], items.train_inputs, items.train_labels, classes=items.classes, seed=0, seen_items=seen_items
    )
    return graph.load_model(onnx.load_from_string(export(network, items.train_inputs.shape[1:], name)))


def _leakage(model: graph.Model, tensor: str, data: leakage.Data, *, quick: bool) -> dict[str, float]:
    """Return the mean leakage of the best attack by metric at the cut that ``tensor`` crosses."""
    budget = leakage.Budget(seeds=1, threads=1)
    if quick:
        budget = leakage.Budget(attacker_items=300, heldout_items=100, steps=4, seeds=1, threads=1)
    cuts = graph.CutSet((find_cut(model, [tensor]),), capped=False, cap=1)
    with tempfile.TemporaryDirectory() as folder:
        found = leakage.audit(
            model,
            data,
            cuts=cuts,
            out=Path(folder) / "audit",
            attacks=_ATTACKS,
            screens=(),
            include_fusable=True,
            budget=budget,
        )
    return {name: estimate.mean for name, estimate in found.cuts[0].leakage.items()}


def _saved(before: float, after: float) -> float:
    return 100 * (1 - after / before)


def _row(case: _Case, found: Restructured, before: dict[str, float], after: dict[str, float]) -> dict[str, object]:
    row: dict[str, object] = {
        "network": case.name,
        "cut": case.cut,
        "passes": ", ".join(case.steps),
        "MFLOP of Part 1, before": found.before.flops / 1e6,
        "after": found.after.flops / 1e6,
        "bytes that leave, before": found.before.size_bytes,
        "bytes, after": found.after.size_bytes,
        "accuracy before, %": 100 * (found.accuracy_before or 0),
        "accuracy after, %": 100 * (found.accuracy_after or 0),
    }
    for metric, value in before.items():
        row |= {f"{metric} before": value, f"{metric} after": after[metric]}
    return row


def _bars(name: str, found: Restructured, before: dict[str, float], after: dict[str, float]) -> list[Bar]:
    lost = 100 * ((found.accuracy_before or 0) - (found.accuracy_after or 0))
    return [
        Bar(
            f"{name}: Part 1's FLOPs saved, %",
            _FLOPS_SAVED,
            _saved(found.before.flops, found.after.flops),
            at_most=False,
        ),
        Bar(
            f"{name}: bytes that leave saved, %",
            _BYTES_SAVED,
            _saved(found.before.size_bytes, found.after.size_bytes),
            at_most=False,
        ),
        Bar(f"{name}: accuracy lost, points", _POINTS_LOST, lost),
        *(
            Bar(f"{name}: leakage gained, {metric}", _MORE_LEAKAGE, after[metric] - value)
            for metric, value in before.items()
        ),
    ]
