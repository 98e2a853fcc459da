"""Measuring in turns, so that whatever else the machine does falls on all contestants alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def seconds(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that one call takes."""
    start = clock()
    function()
    return clock() - start


def in_turns(
    contestants: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Call every contestant once a turn, in an order that reverses from turn to turn; return their seconds.

    Args:
        contestants: functions by name.
        turns: turns that count.
        warm_up: turns before them that do not.
        clock: what the seconds are of; ``time.thread_time`` leaves out what other programs take.

    Returns:
        Seconds (turns,) by name.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(-warm_up, turns):
        for name in names if turn % 2 else reversed(names):
            spent_s = seconds(contestants[name], clock)
            if turn >= 0:
                taken[name].append(spent_s)
    return {name: np.asarray(values) for name, values in taken.items()}


def median_ms(values_s: np.ndarray) -> float:
    """Return the median in milliseconds."""
    return float(np.median(values_s) * 1e3)


def ratio_interval(over_s: np.ndarray, under_s: np.ndarray, *, draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (Efron 1979) of the ratio of medians over the same turns."""
    chosen = np.random.default_rng(0).integers(0, len(over_s), size=(draws, len(over_s)))
    ratios = np.median(over_s[chosen], axis=1) / np.median(under_s[chosen], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)
