from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from leakage_cases import SMALL, photo_tiles, problem_of

from siniantrust.errors import AuditError
from siniantrust.leakage import Attack, Budget, InapplicableError, Problem, Reconstruction
from siniantrust.leakage._climb import Problems, Trial, climb, repeat
from siniantrust.leakage._estimates import completed, estimate, estimate_completed, gained
from siniantrust.leakage._judge import Judge
from siniantrust.leakage._metrics import Scores
from siniantrust.leakage._suite import attack_result, best_of, references, suite_next_budget, unsettled


def _blended(share: float, truth: np.ndarray) -> Reconstruction:
    return Reconstruction((share * truth + (1 - share) * 0.5).astype(np.float32), f"{share:.2f} of the truth")


def _case(doublings: int = 2) -> tuple[Problems, Judge, Budget]:
    tiles = photo_tiles(600)
    budget = replace(SMALL, attacker_items=50, max_doublings=doublings, tolerance=0.05, steps=8, width=4)
    problem, setting = problem_of(tiles, tiles, budget)
    return Problems(problem), setting.judge, budget


def _attack(judge: Judge, gain: dict[str, dict[int, float]], *, trained: bool = False) -> Attack:
    """Return an attack whose answer is a share of the truth, by how many items and which width it got."""

    def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
        assert seed >= 0
        share = gain["items"][len(problem.attacker)] + gain.get("width", {}).get(budget.width, 0.0)
        return _blended(share, judge.originals)

    return Attack("made up", "nowhere", "all", "nothing", run, trained=trained)


def _climb(attack: Attack, best: dict[str, float] | None = None) -> Trial:
    problems, judge, budget = _case()
    return climb("made_up", attack, problems, judge, budget, seed=0, bounds={}, best=best or {})


def test_a_flat_attack_stops_at_the_first_rung() -> None:
    """An attack that gains nothing by twice the data is run twice and has converged."""
    _, judge, _ = _case()
    trial = _climb(_attack(judge, {"items": dict.fromkeys((25, 50, 100, 200), 0.5)}))
    assert [rung.attacker_items for rung in trial.rungs] == [25, 50]
    assert trial.next_budget == {}
    assert attack_result([trial], judge, {}, tolerance=0.05).converged


def test_an_improving_attack_gets_more_until_it_is_flat() -> None:
    """Data and training double while they help; the last two rungs agree, and the larger one's answer counts."""
    _, judge, _ = _case()
    trial = _climb(_attack(judge, {"items": {25: 0.2, 50: 0.5, 100: 0.8, 200: 0.8}}))
    assert [(rung.attacker_items, rung.steps) for rung in trial.rungs] == [(25, 4), (50, 8), (100, 16), (200, 32)]
    assert trial.detail.startswith("0.80")
    assert attack_result([trial], judge, {}, tolerance=0.05).converged


def test_an_attack_that_never_flattens_says_what_to_try() -> None:
    """Where the doublings are used up and it still gains, it is not converged, and the next budget is named."""
    _, judge, _ = _case()
    trial = _climb(_attack(judge, {"items": {25: 0.1, 50: 0.3, 100: 0.5, 200: 0.7}}))
    result = attack_result([trial], judge, {}, tolerance=0.05)
    assert not result.converged
    assert result.next_budget == {"attacker_items": 400, "steps": 64}
    still_open = unsettled({"made_up": result}, tolerance=0.05)
    assert {"ssim", "nmse"} <= set(still_open)
    assert suite_next_budget({"made_up": result}, still_open) == {"attacker_items": 400, "steps": 64}


def test_width_doubles_by_itself() -> None:
    """A trained attack is compared with half the width; where width helps, width alone doubles."""
    _, judge, _ = _case()
    gain = {"items": dict.fromkeys((25, 50, 100, 200), 0.2), "width": {2: 0.0, 4: 0.3, 8: 0.3}}
    trial = _climb(_attack(judge, gain, trained=True))
    assert [(rung.attacker_items, rung.width) for rung in trial.rungs] == [(25, 4), (50, 2), (50, 4), (25, 8), (50, 8)]
    assert attack_result([trial], judge, {}, tolerance=0.05).converged


def test_a_narrow_network_that_does_as_well_is_no_reason_to_grow() -> None:
    """An untrained attack is never run at another width."""
    _, judge, _ = _case()
    trial = _climb(_attack(judge, {"items": dict.fromkeys((25, 50), 0.2), "width": {4: 0.3}}))
    assert {rung.width for rung in trial.rungs} == {4}


def test_an_attack_far_behind_the_best_gets_no_more() -> None:
    """One that four times its last gain would leave far behind in every metric is not widened and not doubled."""
    _, judge, _ = _case()
    gain = {"items": {25: 0.0, 50: 0.3, 100: 0.6, 200: 0.6}, "width": {2: 0.0, 4: 0.0, 8: 0.0}}
    attack, ahead = _attack(judge, gain, trained=True), {"ssim": 9.0, "nmse": 9.0, "reidentification": 9.0}
    assert [(rung.attacker_items, rung.width) for rung in _climb(attack, best=ahead).rungs] == [(25, 4), (50, 4)]
    for metric in ahead:
        assert len(_climb(attack, best=ahead | {metric: 0.5}).rungs) > 2
    assert len(_climb(attack, best={"ssim": 9.0, "nmse": 9.0}).rungs) > 2


def test_an_attack_that_the_clock_stopped_is_not_converged() -> None:
    """Half the training may end at the same time as all of it, so that flat means nothing; more time is asked for."""
    problems, judge, budget = _case()

    def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
        assert len(problem.attacker) > 0
        return replace(_blended(0.4, judge.originals), stopped=budget.steps > seed + 4)

    def climbed(best: dict[str, float]) -> Trial:
        return climb("slow", Attack("m", "n", "a", "c", run), problems, judge, budget, seed=0, bounds={}, best=best)

    trial = climbed({})
    assert trial.next_budget == {"attack_time_s": 2 * budget.attack_time_s}
    result = attack_result([trial], judge, {}, tolerance=budget.tolerance)
    assert not result.converged
    assert set(unsettled({"slow": result}, tolerance=budget.tolerance)) == set(result.leakage)
    assert climbed({"ssim": 9.0, "nmse": 9.0, "reidentification": 9.0}).next_budget == {}


def test_what_an_attack_rises_below_zero_is_worth_nothing() -> None:
    """Worse than the prior, which is free, it gains nothing; where it passes zero, what lies above counts."""
    assert gained(-0.2, 1.5) == 0
    assert gained(0.1, 1.5) == pytest.approx(0.1)
    assert gained(0.5, 0.2) == pytest.approx(0.2)
    assert gained(0.5, -0.2) == gained(-0.5, -0.2) == 0


def test_beyond_the_bounds_one_run_is_enough() -> None:
    """Where the first answer is surely beyond the bounds, nothing else runs, and convergence is not claimed."""
    problems, judge, budget = _case()
    attack = _attack(judge, {"items": {50: 0.9}})
    trial = climb("made_up", attack, problems, judge, budget, seed=0, bounds={"nmse": 0.5}, best={})
    assert [rung.attacker_items for rung in trial.rungs] == [50]
    assert not attack_result([trial], judge, {}, tolerance=0.05).converged


def test_an_attack_that_cannot_be_mounted_says_why() -> None:
    """An attack that declines is recorded with its reason instead of a figure, the first time and again."""

    def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
        raise InapplicableError(f"no network for {len(problem.attacker)} items, {budget.width}, {seed}")

    problems, judge, budget = _case()
    attack = Attack("made up", "nowhere", "all", "nothing", run)
    assert (
        climb("made_up", attack, problems, judge, budget, seed=0, bounds={}, best={}).declined
        == "no network for 50 items, 4, 0"
    )
    assert repeat("made_up", attack, problems, judge, budget, seed=3).declined == "no network for 50 items, 4, 3"


@pytest.mark.parametrize(
    ("answer", "message"),
    [(np.full((5, 3, 16, 16), np.nan, np.float32), "NaN"), (np.zeros((5, 3, 8, 8), np.float32), "answered in shape")],
)
def test_an_answer_that_is_none_is_refused(answer: np.ndarray, message: str) -> None:
    """An attack that answers NaN or another shape is an error that names it, never a figure."""

    def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
        return Reconstruction(answer, f"{len(problem.attacker)} {budget.width} {seed}")

    problems, judge, budget = _case()
    with pytest.raises(AuditError, match=f"attack made_up: .*{message}"):
        climb("made_up", Attack("m", "n", "a", "c", run), problems, judge, budget, seed=0, bounds={}, best={})


def test_few_items_are_completed_by_another_attack() -> None:
    """An attack on a tenth of the items gets the mean it would reach on all, more certain than by its items alone."""
    rng = np.random.default_rng(0)
    prior = Scores(np.zeros(1000), perfect=1.0)
    hardness = rng.normal(0, 0.2, 1000)
    reference = Scores(0.3 + hardness, perfect=1.0)
    full = Scores(0.4 + hardness + rng.normal(0, 0.02, 1000), perfect=1.0)
    found = estimate_completed(full.first(50), reference, prior, "ssim", seed=0)
    assert found.mean == pytest.approx(float(full.values.mean()), abs=0.01)
    alone = estimate(full.first(50), prior, "ssim", seed=0)
    assert found.upper - found.mean < (alone.upper - alone.mean) / 2
    assert completed(reference.first(50), reference).values == pytest.approx(reference.values)


def test_no_gain_in_few_hits_is_no_certainty() -> None:
    """Where no further item of 32 was re-identified, the bound still allows for the 9 % that 32 items can miss."""
    prior = Scores(np.full(1000, 0.001), perfect=1.0)
    reference = Scores((np.arange(1000) % 10 == 0).astype(float), perfect=1.0)
    whole = estimate(reference, prior, "reidentification", seed=0)
    found = estimate_completed(reference.first(32), reference, prior, "reidentification", seed=0)
    assert found.mean == pytest.approx(whole.mean)
    assert found.upper == pytest.approx(whole.upper + 0.0894, abs=0.002)


def test_the_best_attack_on_all_items_completes_the_others() -> None:
    """References are the scores of the attack that leaks most among those that inverted every item."""
    problems, judge, budget = _case()
    attacks = {"weak": 0.2, "strong": 0.6}
    trials = {
        name: [
            climb(
                name,
                _attack(judge, {"items": {25: share, 50: share}}),
                problems,
                judge,
                budget,
                seed=0,
                bounds={},
                best={},
            )
        ]
        for name, share in attacks.items()
    }

    def run(problem: Problem, budget: Budget, seed: int) -> Reconstruction:
        assert len(problem.attacker) + budget.width + seed
        answer = _blended(0.9, judge.originals)
        return replace(answer, heldout=answer.heldout[:20])

    trials["few"] = [climb("few", Attack("m", "n", "a", "c", run), problems, judge, budget, seed=0, bounds={}, best={})]
    found = references(trials, judge)
    strong = trials["strong"][0].scores
    assert found["ssim"] is strong["ssim"]
    assert found["nmse"] is strong["nmse"]
    results = {name: attack_result(each, judge, found, tolerance=0.05) for name, each in trials.items()}
    assert results["few"].heldout_items == 20
    assert results["strong"].heldout_items is None
    leakage, best = best_of(results)
    assert best["nmse"] == "few"
    assert leakage["nmse"].mean == pytest.approx(0.99, abs=0.02)
