"""The audit's tasks: what depends on what, where it runs, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from siniantrust import _progress
from siniantrust.graph import Cut
from siniantrust.leakage._parallel import Cluster, Task, run_all, workers_for
from siniantrust.leakage._registry import Attack, Screen
from siniantrust.leakage._schema import Rung, ScreenResult
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
        setting = study.setting
        self._study = study
        self._cuts = list(cuts)
        self._attacks = tuple(attacks)
        # Where a screen excludes a cut, the cheapest attack still says how much leaks there.
        self._cheapest = (min(attacks, key=lambda name: attacks[name].weight),)
        self._screens = tuple(screens)
        self._bounds = bounds
        self._cluster = cluster
        self._step = step
        self._workers = workers_for(
            len(cuts),
            items=len(setting.targets),
            attackers=min(setting.attackers, setting.budget.attacker_items),
            threads=threads,
            budget=setting.budget,
        )
        self._threads = max(1, threads // self._workers)

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
        """Return every cut's trials, the first seed's first, and why some cuts were given up early."""
        setting = self._study.setting
        gallery = len(setting.judge.originals)
        probed = {cut.id: _probed_beyond(screened[cut.id], self._bounds, gallery) for cut in self._cuts}
        cut_short = {cut_id: excess for cut_id, excess in probed.items() if excess is not None}
        # Cuts that get the whole suite take longest, and deep ones leak least; those first keeps all workers busy.
        deep_first = reversed(self._cuts)
        order = sorted(deep_first, key=lambda cut: cut.id in cut_short)
        trials: dict[str, list[CutTrials]] = {cut.id: [] for cut in self._cuts}
        tasks = [
            self._task(cut, self._cheapest if cut.id in cut_short else self._attacks, setting.seed, None)
            for cut in order
        ]
        for found in run_all(attack_cut, tasks, workers=self._workers, cluster=self._cluster):
            trials[found.cut_id].append(found)
            if found.cut_short:
                cut_short.setdefault(found.cut_id, found.cut_short)
            done = 1 if found.cut_id not in cut_short else setting.budget.seeds
            self._step(f"{found.cut_id}: attacks", advance=done)
        more = []
        for cut in order:
            if cut.id in cut_short:
                continue
            rungs = {trial.attack: trial.rungs[-1] for trial in trials[cut.id][0].trials if trial.declined is None}
            more += [
                self._task(cut, self._attacks, setting.seed + number, rungs)
                for number in range(1, setting.budget.seeds)
            ]
        for found in run_all(attack_cut, more, workers=self._workers, cluster=self._cluster):
            trials[found.cut_id].append(found)
            self._step(f"{found.cut_id}: attacks again")
        return trials, cut_short

    def _task(self, cut: Cut, names: Sequence[str], seed: int, rungs: Mapping[str, Rung] | None) -> Task:
        bounds = self._bounds if rungs is None else {}
        return (self._study, cut, names), {"seed": seed, "rungs": rungs, "bounds": bounds, "threads": self._threads}


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
