"""How far a search for a mask gets: the demo's network, and a residual one on Fashion-MNIST, against the bar.

    python benchmarks/tune.py --out benchmarks/results/tune --budget 200 --workers 16

With --judge the nearest point of each network, if it has a mask, is audited by the whole suite at the standard budget.
The same command goes on where it was killed. Not in run_all.py: a search that means something takes an hour and more.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import torch
from _study_data import Items, fashion, scenes
from _study_networks import RECIPES, export, train
from results_file import Bar, Outcome, save

from siniantrust import graph, leakage
from siniantrust._files import write_atomic
from siniantrust.masking.retrain import Recipe
from siniantrust.masking.tune import (
    NONE,
    Limits,
    Point,
    Search,
    Tuning,
    chosen_cuts,
    draw_front,
    tune,
    write_tuning,
)

_CACHE = Path(__file__).resolve().parents[1] / ".cache"


@dataclass(frozen=True)
class Subject:
    """What is searched for one network: three of its deeper cuts, and masks of which one fits images alone."""

    cuts: tuple[str, ...]
    masks: tuple[str, ...]
    crossing_channels: tuple[float, ...]


SUBJECTS = {
    "demo": Subject(
        ("/3/3.2/Relu_output_0", "/7/7.2/Relu_output_0", "/10/Flatten_output_0"),
        (NONE, "quantise", "pooling:strength=4+quantise"),
        (1.0, 0.125, 0.09375),
    ),
    "resnet": Subject(
        ("/4/after/Relu_output_0", "/6/after/Relu_output_0", "/8/Flatten_output_0"),
        (NONE, "quantise", "pooling:strength=7+quantise"),
        (1.0, 0.25, 0.125),
    ),
}
_PENALTIES = (NONE, "within_class:weight=20", "within_class:weight=5")
_WEAKEST, _STRONGEST = 1.0, 4.0


def main() -> None:
    """Parse the command line and search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the searches and their figures")
    parser.add_argument("--budget", type=int, default=100, help="trials for each network")
    parser.add_argument("--workers", type=int, default=1, help="trials that run beside each other")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the data of each trial")
    parser.add_argument("--only", action="append", choices=list(SUBJECTS), help="search for this network only")
    parser.add_argument("--judge", action="store_true", help="audit the nearest points with a mask by the whole suite")
    arguments = parser.parse_args()
    limits = Limits()
    rows, bars, tried = [], [], []
    for name in arguments.only or SUBJECTS:
        folder = arguments.out / name
        items = _items(name)
        model = _model(name, items, folder)
        search = Search(
            cuts=chosen_cuts(model, SUBJECTS[name].cuts),
            masks=SUBJECTS[name].masks,
            weakest=_WEAKEST,
            strongest=_STRONGEST,
            kept_channels=(1.0, 0.75),
            crossing_channels=SUBJECTS[name].crossing_channels,
            penalties=_PENALTIES,
            recipe=Recipe(mode="joint", epochs=arguments.epochs, learning_rate=2e-3),
            budget=leakage.Budget(threads=1, seeds=1),
        )
        found = tune(
            model,
            _data(items, model),
            search,
            trials=arguments.budget,
            out=folder,
            limits=limits,
            workers=arguments.workers,
        )
        write_tuning(found, folder / "tune.json")
        draw_front(found, folder / "front.png")
        rows += _rows(name, found)
        tried.append(
            f"{name} {len(found.points)} audited, {len(found.given_up)} given up for their accuracy, "
            f"{len(found.failed)} failed"
        )
        nearest = _nearest(found, limits)
        bars += _bars(name, "quick audit", nearest.leakage, nearest, limits)
        if arguments.judge and nearest.mask != NONE:
            figures = judge(folder, nearest.number, nearest.tensor, _data(items, model))
            bars += _bars(name, "whole suite", figures, nearest, limits)
    outcome = Outcome(
        title="Search for a mask",
        method=(
            f"`sinian tune` over three cuts, masks, penalties and the structure; trials: {'; '.join(tried)}. "
            f"{arguments.epochs} epochs each, a quick audit of one seed; the front is shown. The limits are {limits}."
        ),
        rows=rows,
        bars=bars,
        remarks=["A quick audit is a first look: the whole suite may find more in any of these points."],
    )
    save(outcome, "tune", arguments.out, quick=False)
    for bar in bars:
        print(f"{bar.what}: {bar.measured:.3g} ({'met' if bar.met else 'MISSED'})")


def _items(name: str) -> Items:
    if name == "demo":
        return scenes(_CACHE, items=4000, heldout=1000, seed=0)
    return fashion(_CACHE, items=8000, heldout=1000, seed=0)


def _model(name: str, items: Items, folder: Path) -> graph.Model:
    if name == "demo":
        return graph.load_model(onnx.load_from_string(files("siniantrust.demo").joinpath("scenes.onnx").read_bytes()))
    kept = folder / "model.onnx"
    if not kept.exists():
        torch.set_num_threads(1)
        seen = RECIPES[name].seen_items
        network = train(
            RECIPES[name], items.train_inputs, items.train_labels, classes=items.classes, seed=0, seen_items=seen
        )
        write_atomic(kept, export(network, items.train_inputs.shape[1:], name))
    return graph.load_model(kept)


def _data(items: Items, model: graph.Model) -> leakage.Data:
    known, heldout = len(items.train_inputs), len(items.heldout_inputs)
    return leakage.Data(
        inputs=np.concatenate([items.train_inputs, items.heldout_inputs]),
        labels=np.concatenate([items.train_labels, items.heldout_labels]),
        input_name=model.inputs[0].name,
        heldout=np.arange(known + heldout) >= known,
    )


def _nearest(found: Tuning, limits: Limits) -> Point:
    """Return the point whose worst figure is least beyond its limit, among those that keep the accuracy if any do."""
    kept = [point for point in found.points if point.lost_points <= limits.lost_points]
    return min(kept or found.points, key=lambda point: max(limits.multiples(point.leakage, point.lost_points).values()))


def _bars(name: str, judge_name: str, leakage: Mapping[str, float], point: Point, limits: Limits) -> list[Bar]:
    """Return a point's figures against their limits; below each leakage, what the predicted class tells by itself."""
    which = f"{name}, trial {point.number}, {judge_name}"
    return [
        *(
            Bar(
                f"{which}: {metric} (the predicted class alone: {point.class_alone[metric]:.2f})",
                limits.reidentification if metric == "reidentification" else limits.leakage,
                value,
            )
            for metric, value in leakage.items()
        ),
        Bar(f"{which}: points of accuracy lost", limits.lost_points, point.lost_points),
    ]


def judge(folder: Path, number: int, tensor: str, data: leakage.Data) -> dict[str, float]:
    """Return the upper bounds that the whole suite finds for a trial, at the standard budget; they are kept."""
    out = folder / f"audit-{number}"
    if not out.exists():
        model = graph.load_model(folder / "trials" / f"{number}.onnx")
        cut = next(each for each in graph.enumerate_cuts(model, max_tensors=1).cuts if each.tensors == (tensor,))
        leakage.audit(
            model,
            data,
            cuts=graph.CutSet((cut,), capped=False, cap=1),
            out=out,
            screens=(),
            include_fusable=True,
            budget=replace(leakage.Budget.preset("standard"), threads=1),
            cache=folder / "cache",
        )
    (at_cut,) = leakage.load_audit(out).cuts
    return {metric: figure.upper for metric, figure in at_cut.leakage.items()}


def _rows(name: str, found: Tuning) -> list[dict[str, object]]:
    return [
        {
            "network": name,
            "cut": point.cut,
            "mask": f"{point.mask} {point.strength:.2f}",
            "penalty": point.penalty,
            "channels kept": point.kept_channels,
            "channels that cross": point.crossing_channels,
            **{metric: point.leakage[metric] for metric in ("reidentification", "ssim", "nmse")},
            "nmse beyond the class": point.beyond_class["nmse"],
            "accuracy lost, points": point.lost_points,
            "MFLOP of Part 1": point.flops / 1e6,
            "bytes that cross": point.size_bytes,
            "converged": point.converged,
        }
        for point in found.points
        if point.on_front
    ]


if __name__ == "__main__":
    main()
