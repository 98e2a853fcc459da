"""Training across edge and cloud on Fashion-MNIST: accuracy, bytes on the wire and speed, beside one machine's."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _collab_runs import CUT, EDGES, LAST_CUT, Ended, fit, network, run_processes, scores, shares
from _study_data import Items, fashion
from _study_networks import export
from results_file import Bar, Outcome
from torch import nn

from siniantrust.collab import _part_two, _task
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import agreement_of
from siniantrust.collab._config import TrainingSection
from siniantrust.collab._features import FeatureStore
from siniantrust.collab._wire import to_messages

_CACHE = Path(__file__).resolve().parents[1] / ".cache"
_BATCH = 96
_RATE = 2e-3
_EPOCHS = 4
_PUBLIC_ITEMS = 2000
_MASK = {"name": "gaussian", "strength": 0.5}


def run(*, quick: bool) -> Outcome:
    """Train one network in every way, with three edges whose classes differ."""
    items = fashion(_CACHE, items=_PUBLIC_ITEMS + (600 if quick else 12_000), heldout=500 if quick else 5000, seed=0)
    public, private = slice(0, _PUBLIC_ITEMS), slice(_PUBLIC_ITEMS, None)
    own = Items(
        items.train_inputs[private], items.train_labels[private], items.heldout_inputs, items.heldout_labels, 10
    )
    epochs = 1 if quick else _EPOCHS
    rows = shares(own.train_labels, seed=1)
    batches = {edge: max(1, round(_BATCH * len(rows[edge]) / len(own.train_labels))) for edge in EDGES}
    whole = network(seed=0)
    fit(whole, own.train_inputs, own.train_labels, epochs=epochs, batch=_BATCH, rate=_RATE)
    central = _accuracy(export(whole, (1, 28, 28), "collab"), own)
    table = [_row("one machine with all data", central, central, None)]
    common = {"cut": CUT, "learning_rate": _RATE, "schedule": "cosine", "optimiser": "adam", "checkpoint_every": 100}
    steps = epochs * len(own.train_labels) // _BATCH
    split: dict[str, Any] = {**common, "mode": "split", "steps": steps}
    ways: Mapping[str, dict[str, Any]] = {
        "split, labels at the cloud": split,
        "split, labels at the edge": {**split, "last_cut": LAST_CUT},
        "split, asynchronous": {**split, "arrivals": "asynchronous"},
    }
    ended: dict[str, Ended] = {}
    for way, training in list(ways.items())[: 1 if quick else None]:
        ended[way] = run_processes(network(seed=0), own, rows, training=training, batches=batches)
    # Part 1 is fixed here, so it is trained beforehand, on items of nobody's.
    start = network(seed=0)
    fit(start, items.train_inputs[public], items.train_labels[public], epochs=2 * epochs, batch=_BATCH, rate=_RATE)
    upload = {**common, "mode": "upload", "steps": 3 * epochs, "batch": _BATCH}
    ended["masked upload"] = run_processes(
        start,
        own,
        rows,
        training=upload,
        batches=dict.fromkeys(EDGES, 256),
        mask=_MASK,
        calibration=items.train_inputs[public][:256],
    )
    table += [_row(way, _accuracy(each.model, own), central, each) for way, each in ended.items()]
    found = {row["way"]: row for row in table}
    speed = _throughput(start, own, epochs=1 if quick else 3)
    bars = [
        *(
            Bar(f"{way}: points below one machine", 2.0 if way == "masked upload" else 1.0, found[way]["lost"])
            for way in ended
            if "asynchronous" not in way
        ),
        *(Bar(f"{way}: bytes on the wire over payload, %", 5.0, found[way]["over payload, %"]) for way in ended),
        Bar("training of Part 2 on stored features: speed, of a plain loop's", 0.8, speed, at_most=False),
    ]
    return Outcome(
        title="Training across edge and cloud",
        method=(
            f"Fashion-MNIST, {len(own.train_labels)} items over {len(EDGES)} edges ("
            + ", ".join(f"{len(rows[edge])}" for edge in EDGES)
            + "; each class spread by a Dirichlet distribution of 0.5), "
            f"{len(own.heldout_labels)} held-out items, {epochs} epochs. Cloud and edges are processes with one thread "
            "each; all they say goes through a relay that counts it. The payload is the tensors, both ways, and "
            "the trained model that each edge fetches. The masked upload's Part 1 was trained on "
            f"{_PUBLIC_ITEMS} items of nobody's; its mask is Gaussian noise of {_MASK['strength']} deviations; "
            f"the cloud trains Part 2 for {upload['steps']} epochs. Speed: epochs of `sinian train cloud` on stored "
            "features beside a plain PyTorch loop over them, in turns, one thread; medians."
        ),
        rows=table,
        bars=bars,
        remarks=["What the mask hides is for an audit to say; this table is about accuracy, bytes and speed."],
    )


def _accuracy(model: bytes, items: Items) -> float:
    return 100 * float((scores(model, items.heldout_inputs).argmax(1) == items.heldout_labels).mean())


def _row(way: str, accuracy: float, central: float, ended: Ended | None) -> dict[str, Any]:
    over = 0.0 if ended is None else 100 * (ended.wire_bytes / ended.payload_bytes - 1)
    return {
        "way": way,
        "accuracy, %": accuracy,
        "lost": central - accuracy,
        "calls of an edge": "" if ended is None else sum(ended.records[EDGES[0]]["calls"].values()),
        "payload, MB": 0.0 if ended is None else ended.payload_bytes / 1e6,
        "on the wire, MB": 0.0 if ended is None else ended.wire_bytes / 1e6,
        "over payload, %": over,
        "seconds of an edge": 0.0 if ended is None else ended.records[EDGES[0]]["seconds"],
    }


def _throughput(start: nn.Sequential, items: Items, *, epochs: int) -> float:
    """Return the speed of training on stored features over that of a plain loop over the same ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(export(start, (1, 28, 28), "collab"))
        sought = {"model": folder / "model.onnx", "cut": CUT, "mode": "upload", "steps": epochs, "batch": _BATCH}
        training = TrainingSection.model_validate(sought)
        task = _task.load_task(training, None)
        agreement = agreement_of(training, task).sha256
        with torch.no_grad():
            features = start[:3](torch.from_numpy(items.train_inputs))
        store = FeatureStore(folder / "features", agreement, task, max_items=len(items.train_labels))
        request = pb.UploadRequest(chunk=0, chunks=1)
        to_messages({task.features.name: features.numpy(), "labels": items.train_labels}, request.tensors)
        store.add("one", request)
        ours, plain = [], []
        for _ in range(3):
            for each in (*folder.glob("checkpoints/*"), *folder.glob("outcome")):
                each.unlink()
            job = _part_two.Job(
                folder=folder,
                agreement=agreement,
                training=training,
                mask=None,
                edges=("one",),
                threads=1,
                max_items=len(items.train_labels),
            )
            begin = time.monotonic()
            _part_two.train(job)
            ours.append(time.monotonic() - begin)
            net = copy.deepcopy(start[3:])
            begin = time.monotonic()
            fit(net, features.numpy(), items.train_labels, epochs=epochs, batch=_BATCH, rate=_RATE)
            plain.append(time.monotonic() - begin)
    return float(np.median(plain) / np.median(ours))
