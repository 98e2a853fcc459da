"""Throughput of the pipeline against what its slower part alone gives."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import numpy as np
from deployments import Deployment, deployed, prepare
from networks import NETWORKS
from results_file import Bar, Outcome
from timing import in_turns, median_ms, ratio_interval

_BAR = 0.95
_SHARED = (
    "Two parts at once share memory bandwidth, cache and, on a busy machine, cores; the slower part alone does not. "
    "Where *both at once* is below 1, no pipeline on this machine can reach 1."
)


def run(*, quick: bool) -> Outcome:
    """Measure both networks at every cut (quick: MobileNetV2 at 64 pixels, two cuts, few turns)."""
    rows, bars = [], []
    for key in ("mobilenet_v2",) if quick else ("mobilenet_v2", "resnet50"):
        subject = prepare(NETWORKS[key](64 if quick else 224))
        items = 6 if quick or key == "resnet50" else 16
        worst = float("inf")
        for cut in subject.cuts[:: 3 if quick else 1]:
            with tempfile.TemporaryDirectory() as folder, deployed(subject, cut, Path(folder)) as trial:
                row, share = _measure(trial, items=items, turns=2 if quick else 9)
            rows.append({"network": subject.name, "cut": cut.id, **row})
            worst = min(worst, share)
        what = f"{subject.name}, worst cut's throughput as a share of what the slower part alone gives"
        bars.append(Bar(what, _BAR, worst, at_most=False))
    return Outcome(
        title="Pipelined throughput",
        method=(
            "Time between answers of `Session.stream`, from the first answer to the last, against the median time of "
            "the slower part run bare and alone. The column *both at once* runs the two bare parts in two threads with "
            "nothing between them: what this machine gives to two computations at the same time, whatever joins them."
        ),
        rows=rows,
        bars=bars,
        remarks=[_SHARED],
    )


def _measure(trial: Deployment, *, items: int, turns: int) -> tuple[dict[str, object], float]:
    parts: tuple[Callable[[], object], ...] = (
        lambda: trial.bare[0].run(trial.item),
        lambda: trial.bare[1].run(trial.between),
    )
    streams: list[float] = []
    found = in_turns(
        {
            "stream": lambda: streams.append(_period(trial, items)),
            "first": lambda: _repeat(parts[0], items),
            "second": lambda: _repeat(parts[1], items),
            "both": lambda: _both(parts, items),
        },
        turns=turns,
        warm_up=1,
    )
    first_s, second_s, both_s = (found[name] / items for name in ("first", "second", "both"))
    slower_s = max(first_s, second_s, key=median_ms)
    stream_s = np.asarray(streams[-turns:])
    low, high = ratio_interval(slower_s, stream_s)
    share = median_ms(slower_s) / median_ms(stream_s)
    row: dict[str, object] = {
        "part 1 bare, ms": median_ms(first_s),
        "part 2 bare, ms": median_ms(second_s),
        "between answers, ms": median_ms(stream_s),
        "share of the slower part's throughput": share,
        "95 %": f"{low:.3f}-{high:.3f}",
        "both at once, share": median_ms(slower_s) / median_ms(both_s),
    }
    return row, share


def _period(trial: Deployment, items: int) -> float:
    """Return the seconds between answers of a stream that is already flowing."""
    stamps = [time.perf_counter() for _ in trial.session.stream(repeat(trial.item, items + 1))]
    return (stamps[-1] - stamps[0]) / items


def _repeat(function: Callable[[], object], times: int) -> None:
    for _ in range(times):
        function()


def _both(functions: tuple[Callable[[], object], ...], times: int) -> None:
    threads = [threading.Thread(target=_repeat, args=(function, times)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
