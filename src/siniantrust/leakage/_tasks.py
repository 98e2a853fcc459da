"""The audit's tasks: what depends on what, where it runs, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from siniantrust import _progress
from siniantrust.graph import Cut
from siniantrust.leakage._parallel import Cluster, Task, run_all, workers_for
from siniantrust.leakage._registry import Attack, Screen
from siniantrust.leakage._schema import ScreenResult
from siniantrust.leakage._study import Study
from siniantrust.leakage._work import CutTrials, attack_cut, screen_cut

_PROBE = "ridge_probe"


class Tasks:
    """Everything that runs at the cuts of one audit."""

    def __init__(
        self,
        study: Study,
        cuts: Sequence[Cut],
        attacks: Mapping[str, Attack],
        screens: Mapping[str, Screen],
        bounds: Mapping[str, float],
        threads: int,
        cluster: Cluster,
        step: _progress.Step,
    ) -> None:
        self._study = study
        self._cuts = list(cuts)
        self._attacks = tuple(attacks)
        # Where a screen excludes a cut, the cheapest attack still says how much leaks there.
        self._cheapest = (min(attacks, key=lambda name: attacks[name].weight),)
        self._screens = tuple(screens)
        self._bounds = bounds
        self._cluster = cluster
        self._step = step
        self._all_threads = threads
        self._workers, self._threads = self._shares(len(cuts))
        # What does not depend on the seed is computed once, unless cores would be idle.
        together = cluster == "processes" and threads < 2 * len(cuts)
        self._seeds_apart = len(cuts) % self._workers if together else len(cuts)

    def _shares(self, tasks: int) -> tuple[int, int]:
        """Return how many tasks to run at a time, and threads for each."""
        setting = self._study.setting
        workers = workers_for(
            tasks,
            items=len(setting.targets),
            attackers=min(setting.attackers, setting.budget.attacker_items),
            threads=self._all_threads,
            budget=setting.budget,
        )
        return workers, max(1, self._all_threads // workers)

    def screens(self) -> dict[str, dict[str, ScreenResult]]:
        """Return what every screen says of every cut."""
        tasks: list[Task] = [((self._study, cut, self._screens, self._threads), {}) for cut in self._cuts]
        found = {}
        for cut_id, results in run_all(screen_cut, tasks, workers=self._workers, cluster=self._cluster):
            found[cut_id] = results
            self._step(f"{cut_id}: screens")
        return found

    def attacks(
        self, screened: Mapping[str, Mapping[str, ScreenResult]]
    ) -> tuple[dict[str, list[CutTrials]], dict[str, str]]:
        """Return every cut's trials, the first seed's first, and why some cuts were given up early.

        All seeds of a cut run one after the other in one place, where they share what does not depend on the seed. For
        the cuts that are left over when each worker has as many as the next (with many cores, all), the seeds after the
        first are tasks of their own, the last of all: they find what the first seed came to in the store.
        """
        setting = self._study.setting
        gallery = len(setting.judge.originals)
        probed = {cut.id: _probed_beyond(screened[cut.id], self._bounds, gallery) for cut in self._cuts}
        cut_short = {cut_id: excess for cut_id, excess in probed.items() if excess is not None}
        seeds = range(setting.seed, setting.seed + max(setting.budget.seeds, 1))
        trials: dict[str, list[CutTrials]] = {cut.id: [] for cut in self._cuts}
        first, last, repeated = self._in_order(cut_short, seeds)
        # Where no cut runs whole, the first seeds all run at once, and nothing is there yet that the others need.
        rounds = (first, last) if len(first) == self._seeds_apart else ([*first, *last],)
        for tasks in rounds:
            for found in run_all(attack_cut, tasks, workers=self._shares(len(tasks))[0], cluster=self._cluster):
                is_first = not trials[found.cut_id]
                fresh = tuple(trial for trial in found.trials if is_first or trial.seed != setting.seed)
                if is_first and (found.cut_short or found.cut_id not in repeated):
                    done = len(seeds)
                else:
                    done = 0 if found.cut_short else 1
                if found.cut_short:
                    cut_short.setdefault(found.cut_id, found.cut_short)
                if fresh:
                    trials[found.cut_id].append(replace(found, trials=fresh))
                self._step(f"{found.cut_id}: attacks", advance=done)
        return trials, cut_short

    def _in_order(self, cut_short: Mapping[str, str], seeds: range) -> tuple[list[Task], list[Task], set[str]]:
        """Return the tasks that come first, those that repeat what some of them came to, and at which cuts.

        Cuts that get the whole suite take longest, and those where much crosses longer than others. What is left for
        the end is short, so that no worker waits long for another.
        """
        by_length = sorted(self._cuts, key=lambda cut: (cut.id in cut_short, -cut.size_bytes))
        whole, apart = by_length[: len(by_length) - self._seeds_apart], by_length[len(by_length) - self._seeds_apart :]
        again = [
            (cut, seeds[place : place + 1])
            for cut in apart
            if cut.id not in cut_short
            for place in range(1, len(seeds))
        ]
        first = [*((cut, seeds[:0]) for cut in apart), *((cut, seeds[1:]) for cut in whole)]
        threads = self._shares(max(1, len(again)))[1] if not whole else self._threads

        def task(cut: Cut, more: range, threads: int) -> Task:
            names = self._cheapest if cut.id in cut_short else self._attacks
            named = {"seed": seeds[0], "again": more, "bounds": self._bounds, "threads": threads}
            return (self._study, cut, names), named

        return (
            [task(cut, more, self._threads) for cut, more in first],
            [task(cut, more, threads) for cut, more in again],
            {cut.id for cut, _ in again},
        )


def _probed_beyond(screened: Mapping[str, ScreenResult], bounds: Mapping[str, float], gallery: int) -> str | None:
    """Return why the ridge probe already excludes a cut, or None: it is an attack too, and its bound holds.

    To be found among fewer items is easier, so that its re-identification counts for a gallery as large only.
    """
    probe = screened.get(_PROBE)
    if probe is None:
        return None
    for metric, bound in bounds.items():
        lower = probe.raw.get(f"{metric}_lower")
        if metric == "reidentification" and probe.raw.get("gallery", 0) < gallery:
            continue
        if lower is not None and lower > bound:
            return f"{metric} is at least {lower:.3g}, allowed {bound:g} by the screen {_PROBE}"
    return None
