"""The work at one cut: every screen, or every attack with one seed. Runs in any process."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from siniantrust.errors import AuditError
from siniantrust.graph import Cut
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._classifier import image_classifier
from siniantrust.leakage._climb import Problems, Trial, beyond, climb, repeat
from siniantrust.leakage._observe import Observer
from siniantrust.leakage._parallel import computing
from siniantrust.leakage._registry import Attack, list_attacks, list_screens
from siniantrust.leakage._schema import Rung, ScreenResult
from siniantrust.leakage._study import Study

AVERAGED = "_averaged"
_UNTIMED = ("threads", "memory_bytes")


@dataclass(frozen=True, slots=True)
class CutTrials:
    """What the attacks at one cut came to with some seeds; ``cut_short`` says why the rest was not run."""

    cut_id: str
    trials: tuple[Trial, ...]
    cut_short: str | None = None


def screen_cut(study: Study, cut: Cut, names: Sequence[str], threads: int) -> tuple[str, dict[str, ScreenResult]]:
    """Return the cut's id and what every screen that applies says of it, if that is a number."""
    key = _key("screens", cut, study.setting.budget, study.setting.seed, names=list(names))
    known = study.store.screens(key)
    if known is not None:
        return cut.id, known
    setting, found = study.setting, {}
    with computing(threads), Observer(study.model, (), threads=threads) as plain:
        picture = setting.kind == "image" and not setting.sound
        classify = (
            image_classifier(plain, study.model, study.input_name, setting.low, setting.high) if picture else None
        )
        view = study.view(cut, classify)
        for name, screen in list_screens(names).items():
            started = time.monotonic()
            score = screen.score(view, setting.budget, setting.seed)
            if score is not None and np.isfinite([score.score, *score.raw.values()]).all():
                found[name] = ScreenResult(score=score.score, raw=score.raw, time_s=time.monotonic() - started)
    study.store.put_screens(key, found)
    return cut.id, found


def attack_cut(
    study: Study,
    cut: Cut,
    names: Sequence[str],
    *,
    seed: int,
    again: Sequence[int],
    bounds: Mapping[str, float],
    threads: int,
) -> CutTrials:
    """Let attacks climb at ``cut`` with one seed, to where they gain no more, and repeat that with the seeds ``again``.

    What is in the store already is taken from there. Cheap attacks come first. As soon as one is surely beyond
    ``bounds``, the others are not run: more attacks can only find that the cut leaks more.
    """
    attacks = sorted(list_attacks(names).items(), key=lambda item: item[1].weight)
    climbed: list[tuple[Attack, Problems, Trial]] = []
    with computing(threads):
        for averaged in (False, True) if study.averaged is not None else (False,):
            problems = study.problems(cut, averaged=averaged)
            for name, attack in attacks:
                if study.setting.kind not in attack.kinds:
                    continue
                called = name + AVERAGED if averaged else name
                best = _best_means([trial for _, _, trial in climbed])
                trial = _trial(study, cut, called, attack, problems, seed=seed, rung=None, bounds=bounds, best=best)
                climbed.append((attack, problems, trial))
                if excess := beyond(trial.scores, study.setting.judge, bounds):
                    return CutTrials(cut.id, tuple(trial for _, _, trial in climbed), f"{excess} by {called}")
        repeated = [
            _trial(study, cut, trial.attack, attack, problems, seed=more, rung=trial.rungs[-1], bounds={})
            for more in again
            for attack, problems, trial in climbed
            if attack.varies and trial.declined is None
        ]
    return CutTrials(cut.id, (*(trial for _, _, trial in climbed), *repeated))


def _trial(
    study: Study,
    cut: Cut,
    called: str,
    attack: Attack,
    problems: Problems,
    *,
    seed: int,
    rung: Rung | None,
    bounds: Mapping[str, float],
    best: Mapping[str, float] | None = None,
) -> Trial:
    setting, best = study.setting, {metric: round(mean, 3) for metric, mean in (best or {}).items()}
    ended = None if rung is None else rung.model_dump(mode="json")
    key = _key(called, cut, setting.budget, seed, rung=ended, bounds=dict(bounds), best=best)
    known = study.store.trial(key)
    if known is not None:
        return known
    try:
        if rung is None:
            trial = climb(called, attack, problems, setting.judge, setting.budget, seed=seed, bounds=bounds, best=best)
        else:
            trial = repeat(called, attack, problems, setting.judge, _budget_of(setting.budget, rung), seed=seed)
    except AuditError as error:
        raise AuditError(f"cut {cut.id}: {error}") from None
    study.store.put_trial(key, trial)
    return trial


def _best_means(trials: Sequence[Trial]) -> dict[str, float]:
    """Return the highest mean leakage by metric that the attacks' last rungs came to."""
    best: dict[str, float] = {}
    for trial in trials:
        for metric, mean in trial.rungs[-1].mean.items() if trial.rungs else ():
            best[metric] = max(best.get(metric, mean), mean)
    return best


def _budget_of(budget: Budget, rung: Rung) -> Budget:
    """Return the budget that a climb ended with; what doubles with the training doubled as often."""
    times = max(1, rung.steps // budget.steps)
    return replace(
        budget,
        attacker_items=rung.attacker_items,
        steps=rung.steps,
        width=rung.width,
        patch_rows=budget.patch_rows * times,
        optimisation_steps=budget.optimisation_steps * times,
    )


def _key(what: str, cut: Cut, budget: Budget, seed: int, **more: object) -> str:
    limits = {name: value for name, value in asdict(budget).items() if name not in _UNTIMED}
    return json.dumps([what, cut.id, list(cut.tensors), seed, limits, more], sort_keys=True)
