"""Latency of a split run against the sum of its two parts run bare."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from deployments import deployed, prepare
from networks import NETWORKS
from results_file import Bar, Outcome
from timing import in_turns, median_ms, ratio_interval

_UNDISTURBED = (
    "*Fastest tenth* is the same ratio between the 10th percentiles of both: the turns that other work on the machine "
    "disturbed least. The bar is held against the medians."
)
_BARS = {"resnet50": 1.05, "mobilenet_v2": 1.10}


def run(*, quick: bool) -> Outcome:
    """Measure both networks at every cut (quick: MobileNetV2 at 64 pixels, one cut, few turns)."""
    rows, bars = [], []
    for key, limit in _BARS.items():
        if quick and key == "resnet50":
            continue
        subject = prepare(NETWORKS[key](64 if quick else 224))
        worst = 0.0
        for cut in subject.cuts[: 1 if quick else None]:
            with tempfile.TemporaryDirectory() as folder, deployed(subject, cut, Path(folder)) as trial:
                found = in_turns(
                    {
                        "split": partial(trial.session.run, trial.item),
                        "first": partial(trial.bare[0].run, trial.item),
                        "second": partial(trial.bare[1].run, trial.between),
                    },
                    turns=3 if quick else 60,
                )
            bare_s = found["first"] + found["second"]
            ratio = median_ms(found["split"]) / median_ms(bare_s)
            low, high = ratio_interval(found["split"], bare_s)
            worst = max(worst, ratio)
            rows.append(
                {
                    "network": subject.name,
                    "cut": cut.id,
                    "crosses, KiB": cut.size_bytes / 1024,
                    "part 1 bare, ms": median_ms(found["first"]),
                    "part 2 bare, ms": median_ms(found["second"]),
                    "sum, ms": median_ms(bare_s),
                    "split, ms": median_ms(found["split"]),
                    "ratio": ratio,
                    "95 %": f"{low:.3f}-{high:.3f}",
                    "fastest tenth": float(np.quantile(found["split"], 0.1) / np.quantile(bare_s, 0.1)),
                }
            )
        bars.append(Bar(f"{subject.name}, worst cut's latency over the sum of its parts", limit, worst))
    return Outcome(
        title="Split latency",
        method=(
            "`Session.run` with one image: AES-256-GCM into the enclave process, part 1 there, AES-256-GCM back, part "
            "2 on the device; against the same two parts run one after the other in one process without any of that."
        ),
        rows=rows,
        bars=bars,
        remarks=[_UNDISTURBED],
    )
