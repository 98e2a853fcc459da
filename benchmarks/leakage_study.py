"""How well do screens rank the cuts of a network, held against a suite of attacks?

Four networks x two data sets x three seeds are trained, audited at up to six cuts each, and compared; beside them the
target network of He, Zhang and Lee 2019 is attacked as they did. One command, which goes on where it was stopped:

    python benchmarks/leakage_study.py --out benchmarks/results/leakage-study
"""

from __future__ import annotations

import argparse
import io
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _study_data import DATA, Items
from _study_networks import PUBLISHED, RECIPES, STUDIED, accuracy, export, train
from _study_report import write_report

from siniantrust import bench, graph
from siniantrust._extras import require
from siniantrust._files import write_atomic

HELDOUT = 1000
TRAIN_ITEMS = 6000
SEEDS = 3
MAX_CUTS = 6
# What decides on nearly every cut of these networks; the rest of the suite takes three times as long.
STRONGEST = ("ridge", "local_ridge", "neighbours", "identification", "inverter", "optimisation")
# The three attacks of He, Zhang and Lee 2019, as this suite calls them.
THEIR_ATTACKS = ("optimisation", "inverter", "shadow")


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a study is. ``budget`` holds the limits that differ from the preset ``quick``."""

    networks: Sequence[str] = tuple(STUDIED)
    data: Sequence[str] = tuple(DATA)
    seeds: int = SEEDS
    train_items: int = TRAIN_ITEMS
    seen_items: int | None = None
    heldout: int = HELDOUT
    max_cuts: int = MAX_CUTS
    attacks: Sequence[str] | str = STRONGEST
    budget: dict[str, int | float] = field(default_factory=dict)


FULL = Scale(budget={"attacker_items": 2000, "heldout_items": 500, "optimised_items": 16})
SMOKE = Scale(
    networks=("lenet",),
    data=("scenes",),
    seeds=1,
    train_items=500,
    seen_items=500,
    max_cuts=3,
    attacks=("ridge", "inverter", "optimisation", "shadow"),
    budget={
        "attacker_items": 200,
        "heldout_items": 60,
        "kernel_features": 256,
        "patch_rows": 2000,
        "steps": 4,
        "width": 8,
        "screen_items": 60,
        "discriminator_steps": 8,
        "classifier_flops": 1e8,
        "optimised_items": 4,
        "optimisation_steps": 4,
    },
)


def write_items(data: str, seed: int, scale: Scale, folder: Path) -> Items:
    """Return the items of a data set, and write those that audits run on unless they are there."""
    path = folder / "data" / f"{data}-{seed}.npz"
    items = DATA[data](folder / "cache", items=scale.train_items, heldout=scale.heldout, seed=seed)
    if not path.is_file():
        stream = io.BytesIO()
        np.savez(
            stream,
            inputs=np.concatenate([items.train_inputs, items.heldout_inputs]),
            labels=np.concatenate([items.train_labels, items.heldout_labels]),
            heldout=np.arange(len(items.train_inputs) + len(items.heldout_inputs)) >= len(items.train_inputs),
        )
        write_atomic(path, stream.getvalue())
    return items


def prepare(network: str, data: str, seed: int, scale: Scale, folder: Path) -> None:
    """Train a network and export it, unless it is there."""
    path = folder / "models" / f"{network}-{data}-{seed}.onnx"
    if path.is_file():
        return
    items = write_items(data, seed, scale, folder)
    recipe = RECIPES[network]
    started = time.monotonic()
    trained = train(
        recipe,
        items.train_inputs,
        items.train_labels,
        classes=items.classes,
        seed=seed,
        seen_items=scale.seen_items or recipe.seen_items,
    )
    right = accuracy(trained, items.heldout_inputs, items.heldout_labels)
    with warnings.catch_warnings():
        # PyTorch would rather have its newer exporter used, which brings in another library.
        warnings.simplefilter("ignore", DeprecationWarning)
        written = export(trained, items.train_inputs.shape[1:], f"{network}-{data}")
    write_atomic(path, written)
    print(f"trained {path.stem}: accuracy {right:.3f}, {time.monotonic() - started:.0f} s", flush=True)


def prepare_all(wanted: Sequence[tuple[str, str, int]], scale: Scale, folder: Path) -> None:
    """Prepare every (network, data, seed), one process for each core."""
    for data, seed in dict.fromkeys((data, seed) for _, data, seed in wanted):
        write_items(data, seed, scale, folder)
    joblib = require("joblib", extra="leakage")
    jobs = joblib.Parallel(n_jobs=len(os.sched_getaffinity(0)))
    jobs(joblib.delayed(prepare)(*each, scale, folder) for each in wanted)


def configure(
    wanted: Sequence[tuple[str, str, int]],
    scale: Scale,
    folder: Path,
    *,
    cuts: dict[str, list[str]] | None = None,
    attacks: Sequence[str] | str | None = None,
    screens: Sequence[str] | str = "all",
) -> bench.BenchConfig:
    """Return the bench of these networks; ``cuts`` names each one's cuts, without it they are spread evenly."""
    raw: dict[str, Any] = {
        "run": {
            "effort": "quick",
            "seeds": 1,
            "budget": scale.budget,
            "attacks": scale.attacks if attacks is None else attacks,
            "screens": screens,
            "max_cuts": scale.max_cuts,
        },
        "model": [
            {
                "name": f"{network}-{data}-{seed}",
                "path": f"models/{network}-{data}-{seed}.onnx",
                "data": f"{data}-{seed}",
                "seed": seed,
                "cuts": "all" if cuts is None else cuts[f"{network}-{data}-{seed}"],
            }
            for network, data, seed in wanted
        ],
        "data": [
            {"name": f"{data}-{seed}", "path": f"data/{data}-{seed}.npz"}
            for data, seed in dict.fromkeys((data, seed) for _, data, seed in wanted)
        ],
    }
    return bench.parse_config(raw, origin="leakage study", folder=folder)


def their_cuts(path: Path) -> dict[str, str]:
    """Return the cuts that He, Zhang and Lee 2019 report of their network, by their names for them."""
    model = graph.load_model(onnx.load(path))
    found = graph.enumerate_cuts(model)
    outputs = {kind: [node.outputs[0] for node in model.nodes if node.op_type == kind] for kind in ("Conv", "Relu")}
    places = {"conv11": outputs["Conv"][0], "ReLU22": outputs["Relu"][3], "ReLU32": outputs["Relu"][5]}
    by_tensor = {cut.tensors[0]: cut.id for cut in found.cuts if len(cut.tensors) == 1}
    return {name: by_tensor[tensor] for name, tensor in places.items()}


def study(scale: Scale, folder: Path) -> None:
    """Train, audit, compare, and write everything to ``folder``."""
    started = time.monotonic()
    wanted = [(network, data, seed) for seed in range(scale.seeds) for data in scale.data for network in scale.networks]
    theirs = [(network, data, 0) for data in scale.data for network in PUBLISHED]
    prepare_all([*wanted, *theirs], scale, folder)
    print(f"all networks ready after {time.monotonic() - started:.0f} s", flush=True)
    models = [f"{network}-{data}-{seed}" for network, data, seed in theirs]
    places = {name: their_cuts(folder / "models" / f"{name}.onnx") for name in models}
    again = configure(
        theirs,
        scale,
        folder,
        cuts={name: list(cuts.values()) for name, cuts in places.items()},
        attacks=THEIR_ATTACKS,
        screens=(),
    )
    published = bench.run_bench(again, out=folder / "published")
    print(f"their attacks done after {time.monotonic() - started:.0f} s", flush=True)
    finished: list[bench.Finished] = []
    skipped: dict[str, str] = {}
    for each in wanted:
        # One at a time, so that tables are there early and one that is stopped has shown something.
        found = bench.run_bench(configure([each], scale, folder), out=folder / "bench" / "-".join(map(str, each)))
        finished += found.finished
        skipped |= found.skipped
        done = bench.Bench(tuple(finished), skipped, time.monotonic() - started)
        write_report(done, published, places, folder)
        print(f"audited {'-'.join(map(str, each))}: {found.time_s:.0f} s", flush=True)
    print(f"done after {time.monotonic() - started:.0f} s; see {folder / 'tables.md'}", flush=True)


def main() -> None:
    """Parse the command line and run the study."""
    parser = argparse.ArgumentParser(description="Hold screens against a suite of attacks, on networks trained here.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an unfinished study goes on in it")
    parser.add_argument("--smoke", action="store_true", help="one small network, hardly attacked: a test of the study")
    parser.add_argument("--whole-suite", action="store_true", help="run every attack, not only the strongest ones")
    arguments = parser.parse_args()
    scale = SMOKE if arguments.smoke else FULL
    if arguments.whole_suite:
        scale = replace(scale, attacks="all")
    arguments.out.mkdir(parents=True, exist_ok=True)
    study(scale, arguments.out.resolve())


if __name__ == "__main__":
    main()
