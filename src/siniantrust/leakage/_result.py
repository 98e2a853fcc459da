"""From trials to the audit's record of a cut, with its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from siniantrust.graph import Cut
from siniantrust.leakage._climb import Trial
from siniantrust.leakage._estimates import estimate_seeds
from siniantrust.leakage._metrics import Metric, Scores
from siniantrust.leakage._pictures import strip_png
from siniantrust.leakage._registry import Attack
from siniantrust.leakage._schema import AttackResult, AttackSummary, CutAudit, Estimate, ScreenResult
from siniantrust.leakage._setting import Setting
from siniantrust.leakage._suite import attack_result, best_of, references, suite_next_budget, unsettled
from siniantrust.leakage._work import AVERAGED, CutTrials


@dataclass(frozen=True, slots=True)
class Pictures:
    """Writes what attacks reconstructed beside the audit, where it can be looked at."""

    folder: Path
    setting: Setting

    def add(self, result: AttackResult, trial: Trial, cut_index: int) -> AttackResult:
        """Return ``result`` with the names of the pictures written for it."""
        if self.setting.kind != "image" or trial.shown is None or trial.leakiest is None:
            return result
        names = {
            "picture": f"cut{cut_index:03d}-{trial.attack}.png",
            "worst_picture": f"cut{cut_index:03d}-{trial.attack}-worst.png",
        }
        originals = self.setting.judge.originals[trial.leakiest_rows]
        (self.folder / names["picture"]).write_bytes(strip_png(trial.shown))
        (self.folder / names["worst_picture"]).write_bytes(strip_png(originals, trial.leakiest))
        return result.model_copy(update=names)


def cut_audit(
    cut: Cut,
    index: int,
    screened: Mapping[str, ScreenResult],
    found: Sequence[CutTrials],
    cut_short: str | None,
    setting: Setting,
    stronger: Mapping[str, Mapping[Metric, Scores]],
    pictures: Pictures,
) -> CutAudit | None:
    """Return the record of ``cut``; None if no attack could be mounted, so that nothing is known of it."""
    tolerance = setting.budget.tolerance
    by_attack: dict[str, list[Trial]] = {}
    for trials in sorted(found, key=lambda each: each.trials[0].seed if each.trials else 0):
        for trial in trials.trials:
            by_attack.setdefault(trial.attack, []).append(trial)
    declined = {name: each[0].declined for name, each in by_attack.items() if each[0].declined is not None}
    mounted = {name: each for name, each in by_attack.items() if name not in declined}
    if not mounted:
        return None
    reference = references(mounted, setting.judge)
    results = {
        name: pictures.add(attack_result(each, setting.judge, reference, tolerance=tolerance), each[0], index)
        for name, each in mounted.items()
    }
    leakage, best = best_of(results)
    still_open = unsettled(results, tolerance=tolerance)
    converged = cut_short is None and not still_open
    return CutAudit(
        cut_id=cut.id,
        tensors=cut.tensors,
        screens=dict(screened),
        attacks=results,
        leakage=leakage,
        best_attack=best,
        converged=converged,
        next_budget={} if cut_short else suite_next_budget(results, still_open),
        unsettled=tuple(still_open),
        declined={name: str(reason) for name, reason in declined.items()},
        cut_short=cut_short,
        over_priors={name: _over(prior, best, mounted, reference, setting) for name, prior in stronger.items()},
    )


def _over(
    prior: Mapping[Metric, Scores],
    best: Mapping[str, str],
    mounted: Mapping[str, Sequence[Trial]],
    reference: Mapping[Metric, Scores],
    setting: Setting,
) -> dict[str, Estimate]:
    """Return the best attack's figures against another prior than the mean."""
    return {
        str(metric): estimate_seeds(
            [trial.scores[metric] for trial in mounted[best[metric]]],
            scores,
            metric,
            seed=setting.seed,
            reference=reference.get(metric),
        )
        for metric, scores in prior.items()
        if metric in best
    }


def summaries(attacks: Mapping[str, Attack], cuts: Sequence[CutAudit], *, repeats: int) -> dict[str, AttackSummary]:
    """Return a card for every attack that was mounted anywhere, and for those on averaged answers."""
    used = {name for cut in cuts for name in (*cut.attacks, *cut.declined)}
    cards = {}
    for name, attack in attacks.items():
        card = AttackSummary(title=attack.title, source=attack.source, knowledge=attack.knowledge, cost=attack.cost)
        if name in used:
            cards[name] = card
        if name + AVERAGED in used:
            cards[name + AVERAGED] = card.model_copy(
                update={
                    "title": f"{attack.title}, on the mean of {repeats} answers",
                    "knowledge": f"{attack.knowledge}; asks {repeats} times for the same item",
                }
            )
    return cards
