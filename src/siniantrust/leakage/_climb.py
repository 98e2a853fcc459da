"""One attack at one cut: with half the data, with half the width, and with more until it gains nothing by it.

A weak attacker's failure proves nothing (with 2.5 times the data and five epochs instead of three, one inverter's
re-identification rose from 0.17 to 0.67), so an attack counts as converged only when doubling its means changes little.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from siniantrust.errors import AuditError
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._estimates import gained, mean_leakage
from siniantrust.leakage._judge import Judge
from siniantrust.leakage._metrics import Metric, Scores
from siniantrust.leakage._registry import Attack, Identification, InapplicableError, Problem, Reconstruction
from siniantrust.leakage._schema import Rung

PICTURED = 8
# An attack that falls this many tolerances short of the best, and would even if it gained four times as much as by its
# last doubling, is not given more: it decides nothing.
_HOPELESS_TOLERANCES = 3
_MORE_DOUBLINGS_GAIN = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """What one attack came to at one cut with one seed.

    ``scores`` are item by item, with the budget of the last rung; ``moves`` are what the last doubling of data and of
    width changed in the mean leakage, by metric; ``shown`` are reconstructions of the first items and ``leakiest`` of
    those that leak most, whose numbers are ``leakiest_rows``. ``declined`` says why it could not be mounted.
    """

    attack: str
    seed: int
    scores: Mapping[Metric, Scores] = field(default_factory=dict, repr=False)
    rungs: tuple[Rung, ...] = ()
    moves: Mapping[str, float] = field(default_factory=dict)
    next_budget: Mapping[str, int] = field(default_factory=dict)
    shown: np.ndarray | None = field(default=None, repr=False)
    leakiest: np.ndarray | None = field(default=None, repr=False)
    leakiest_rows: np.ndarray | None = field(default=None, repr=False)
    detail: str = ""
    time_s: float = 0.0
    declined: str | None = None


class Problems:
    """The problem of one cut at every amount of data; what attacks compute alike is kept with each."""

    def __init__(self, full: Problem) -> None:
        self._full = full
        self._known: dict[int, Problem] = {len(full.attacker): full}
        self._halves: dict[int, Problem] = {}

    @property
    def kind(self) -> str:
        """Kind of the data."""
        return self._full.kind

    @property
    def items(self) -> int:
        """All that the attacker could have."""
        return len(self._full.attacker)

    def first(self, items: int) -> Problem:
        """Return the problem with ``items`` to learn from."""
        return self._known.setdefault(items, self._full.first(items))

    def half_of(self, items: int) -> Problem:
        """Return the problem with half as many."""
        return self._halves.setdefault(items, self.first(items).half())


def climb(
    name: str,
    attack: Attack,
    problems: Problems,
    judge: Judge,
    budget: Budget,
    *,
    seed: int,
    bounds: Mapping[str, float],
    best: Mapping[str, float],
) -> Trial:
    """Run ``attack`` with half the data and training, with half the width, and with all; double while it gains.

    Data and training double together, the width by itself, each as long as it moved a metric by more than the
    tolerance, at most ``budget.max_doublings`` times in all and as far as there are data. Where the first run is
    already beyond ``bounds``, nothing more is needed and its convergence stays unknown. One that is far behind
    ``best``, the highest mean leakage so far by metric, gets neither another width nor another doubling.

    Raises:
        AuditError: if its answer is none.
    """
    started = time.monotonic()
    try:
        return _climbed(name, attack, problems, judge, budget, seed, bounds, best)
    except InapplicableError as reason:
        return Trial(attack=name, seed=seed, declined=str(reason), time_s=time.monotonic() - started)
    except AuditError as error:
        raise AuditError(f"attack {name}: {error}") from None


def repeat(name: str, attack: Attack, problems: Problems, judge: Judge, rung: Budget, *, seed: int) -> Trial:
    """Run ``attack`` once more with another seed and the budget that its climb ended with."""
    started = time.monotonic()
    try:
        run = _Run.make(attack, problems.first(min(rung.attacker_items, problems.items)), judge, rung, seed)
    except InapplicableError as reason:
        return Trial(attack=name, seed=seed, declined=str(reason), time_s=time.monotonic() - started)
    except AuditError as error:
        raise AuditError(f"attack {name}: {error}") from None
    return run.trial(name, seed, started, rungs=(run.rung,), moves={}, next_budget={})


@dataclass(frozen=True, slots=True)
class _Run:
    """One run and how it was judged."""

    rung: Rung
    scores: Mapping[Metric, Scores] = field(repr=False)
    heldout: np.ndarray | None = field(repr=False)
    detail: str
    stopped: bool

    @classmethod
    def make(cls, attack: Attack, problem: Problem, judge: Judge, budget: Budget, seed: int) -> _Run:
        answer = attack.run(problem, budget, seed)
        scores = judge.scores(answer)
        rung = Rung(
            attacker_items=len(problem.attacker), steps=budget.steps, width=budget.width, mean=judge.means(scores)
        )
        note = f"; {problem.attacker.note}" if problem.attacker.note else ""
        return cls(
            rung,
            scores,
            answer.heldout if isinstance(answer, Reconstruction) else None,
            f"{answer.detail}{note}",
            stopped=not isinstance(answer, Identification) and answer.stopped,
        )

    def trial(
        self,
        name: str,
        seed: int,
        started: float,
        *,
        rungs: tuple[Rung, ...],
        moves: Mapping[str, float],
        next_budget: Mapping[str, int],
    ) -> Trial:
        rows = None if self.heldout is None else _leakiest(self.scores)
        return Trial(
            attack=name,
            seed=seed,
            scores=self.scores,
            rungs=rungs,
            moves=moves,
            next_budget=next_budget,
            shown=None if self.heldout is None else self.heldout[:PICTURED],
            leakiest=None if self.heldout is None else self.heldout[rows],
            leakiest_rows=rows,
            detail=self.detail,
            time_s=time.monotonic() - started,
        )


def beyond(scores: Mapping[Metric, Scores], judge: Judge, bounds: Mapping[str, float]) -> str | None:
    """Return which metric's 95 % lower bound is beyond what is allowed, in words; None if none is."""
    wanted = {metric: values for metric, values in scores.items() if metric in bounds}
    for metric, figure in judge.leakage(wanted).items():
        if figure.lower is not None and figure.lower > bounds[metric]:
            return f"{metric} is at least {figure.lower:.3g}, allowed {bounds[metric]:g}"
    return None


def _climbed(
    name: str,
    attack: Attack,
    problems: Problems,
    judge: Judge,
    budget: Budget,
    seed: int,
    bounds: Mapping[str, float],
    best: Mapping[str, float],
) -> Trial:
    started = time.monotonic()
    budget = replace(budget, attacker_items=min(budget.attacker_items, problems.items))
    whole = _Run.make(attack, problems.first(budget.attacker_items), judge, budget, seed)
    if beyond(whole.scores, judge, bounds):
        return whole.trial(name, seed, started, rungs=(whole.rung,), moves={}, next_budget={})
    half: _Run | None = None
    narrow: _Run | None = None
    rungs: list[Rung] = []
    for doubling in range(budget.max_doublings + 1):
        if half is None:
            half = _Run.make(attack, problems.half_of(budget.attacker_items), judge, budget.half(), seed)
            rungs.append(half.rung)
        by_data = _moves(half, whole, judge)
        hopeless = _is_hopeless(whole, by_data, best, budget.tolerance)
        if narrow is None and attack.trained and not hopeless:
            problem = problems.first(budget.attacker_items)
            narrow = _Run.make(attack, problem, judge, budget.narrow(), seed)
            rungs.append(narrow.rung)
        rungs.append(whole.rung)
        by_width = {} if narrow is None else _moves(narrow, whole, judge)
        if not hopeless and (whole.stopped or half.stopped or (narrow is not None and narrow.stopped)):
            # Where the clock ended the training, more steps change nothing, and being flat means nothing.
            longer = {"attack_time_s": math.ceil(2 * budget.attack_time_s)}
            return whole.trial(name, seed, started, rungs=tuple(rungs), moves={}, next_budget=longer)
        more_data = _largest(by_data) > budget.tolerance
        more_width = _largest(by_width) > budget.tolerance
        room = 2 * budget.attacker_items <= problems.items
        if hopeless or doubling == budget.max_doublings or not (more_width or (more_data and room)):
            break
        more_items = more_data and room
        # What was the whole becomes the smaller of the next comparison, unless both grow at once.
        half = whole if more_items and not more_width else None
        narrow = whole if more_width and not more_items else None
        budget = budget.doubled(data=more_items, width=more_width)
        whole = _Run.make(attack, problems.first(budget.attacker_items), judge, budget, seed)
    return whole.trial(
        name,
        seed,
        started,
        rungs=tuple(rungs),
        moves={metric: max(by_data[metric], by_width.get(metric, 0.0), key=abs) for metric in by_data},
        next_budget=_next(budget, more_data=more_data, more_width=more_width),
    )


def _moves(smaller: _Run, larger: _Run, judge: Judge) -> dict[str, float]:
    """Return by metric how far the mean leakage moved, over the items that both inverted."""
    moves = {}
    for metric, scores in larger.scores.items():
        before, prior = smaller.scores[metric], judge.prior[metric]
        count = min(len(before.values), len(scores.values))
        moves[str(metric)] = mean_leakage(scores.first(count), prior) - mean_leakage(before.first(count), prior)
    return moves


def _is_hopeless(run: _Run, moves: Mapping[str, float], best: Mapping[str, float], tolerance: float) -> bool:
    """Return whether a run is far behind the best in every metric, four times its last gain included."""
    for metric, mean in run.rung.mean.items():
        hoped = max(mean, 0.0) + _MORE_DOUBLINGS_GAIN * gained(mean, moves[metric])
        if metric not in best or hoped + _HOPELESS_TOLERANCES * tolerance >= best[metric]:
            return False
    return True


def _largest(moves: Mapping[str, float]) -> float:
    return max((abs(move) for move in moves.values()), default=0.0)


def _next(budget: Budget, *, more_data: bool, more_width: bool) -> dict[str, int]:
    wanted: dict[str, int] = {}
    if more_data:
        wanted |= {"attacker_items": 2 * budget.attacker_items, "steps": 2 * budget.steps}
    if more_width:
        wanted["width"] = 2 * budget.width
    return wanted


def _leakiest(scores: Mapping[Metric, Scores]) -> np.ndarray:
    """Return the numbers of the items that leak most: by structure, else by tokens, else by error."""
    for metric in ("ssim", "token"):
        if metric in scores:
            return np.argsort(-scores[metric].values, kind="stable")[:PICTURED]
    return np.argsort(scores["nmse"].values, kind="stable")[:PICTURED]
