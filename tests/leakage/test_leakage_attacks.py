from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from leakage_cases import SMALL, feature_set, leakage_of, photo_tiles, problem_of

from siniantrust.errors import AuditError
from siniantrust.leakage import Problem, Reconstruction, list_attacks
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._suite import unsettled
from siniantrust.leakage.attacks._grid import to_grid
from siniantrust.leakage.attacks._kernel import kernel_regression

# Those that learn from examples alone; they need no network.
ATTACKS = ["inverter", "ridge"]


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(600, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_invertible_layer_passes_leaks_almost_all(name: str) -> None:
    """Features that are an invertible mix of the pixels leak nearly everything to every attack."""
    tiles = photo_tiles()
    mix = np.array([[0.6, 0.3, 0.1], [-0.2, 0.7, 0.3], [0.2, -0.4, 0.8]], dtype=np.float32)
    problem, setting = problem_of(np.einsum("oc,nchw->nohw", mix, tiles), tiles)
    leakage = leakage_of(name, problem, setting).leakage
    assert leakage["reidentification"].mean > 0.95
    assert leakage["nmse"].mean > 0.9
    # 400 examples cannot determine all pixels from all pixels; local filters can.
    assert leakage["ssim"].mean > (0.95 if name == "inverter" else 0.7)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("shape", [(6, 8, 8), (40,), (5, 12)])
def test_noise_leaks_nothing(name: str, shape: tuple[int, ...]) -> None:
    """Features that are independent of the input leak nothing to any attack, as maps, vectors or sequences."""
    problem, setting = problem_of(_noise(*shape), photo_tiles())
    result = leakage_of(name, problem, setting, SMALL)
    for metric, figure in result.leakage.items():
        assert figure.upper < 0.1, metric
        assert figure.mean == pytest.approx(0, abs=0.05), metric
    assert result.converged


@pytest.mark.parametrize("name", ATTACKS)
def test_constant_features_leak_nothing(name: str) -> None:
    """Features that never change leak nothing to any attack."""
    problem, setting = problem_of(np.full((600, 4, 8, 8), 3.0, dtype=np.float32), photo_tiles())
    result = leakage_of(name, problem, setting)
    assert "nothing learned" in result.detail
    for figure in result.leakage.values():
        assert figure.mean == pytest.approx(0, abs=0.03)
        assert figure.upper < 0.1


@pytest.mark.parametrize("name", ATTACKS)
def test_a_fixed_permutation_hides_little(name: str) -> None:
    """Shuffling all pixels by one secret order does not stop an attack that learns from examples."""
    tiles = photo_tiles()
    order = np.random.default_rng(3).permutation(tiles[0].size)
    shuffled = tiles.reshape(len(tiles), -1)[:, order].reshape(tiles.shape)
    problem, setting = problem_of(shuffled, tiles)
    leakage = leakage_of(name, problem, setting).leakage
    assert leakage["nmse"].mean > 0.85
    assert leakage["reidentification"].mean > 0.9


def test_leave_one_out_is_what_leaving_one_out_gives() -> None:
    """The closed-form leave-one-out reconstruction of an attacker's item is that of a regression without the item."""
    tiles = photo_tiles()[:120]
    values = tiles.reshape(len(tiles), -1)[:, ::16] + _noise(48)[:120] * 0.1
    problem, _ = problem_of(values, tiles, replace(SMALL, heldout_items=10))
    found = kernel_regression(problem, SMALL, 0)
    kernel_name, penalty = found.detail.split(" kernel, penalty ")
    gram = problem.memo["gram"]
    from siniantrust.leakage.attacks import _kernel

    assert isinstance(gram, _kernel.Gram)
    count = gram.attackers
    kernel = _kernel.kernel_matrix(gram, kernel_name, rows=slice(0, count), columns=count).double()
    targets = torch.as_tensor(problem.attacker_targets.reshape(count, -1)).double()
    mean = targets.mean(dim=0)
    for left in (0, 5, count - 1):
        rest = torch.tensor([row for row in range(count) if row != left])
        system = kernel[rest][:, rest] + float(penalty) * torch.eye(count - 1)
        expected = kernel[left, rest] @ torch.linalg.solve(system, targets[rest] - mean) + mean
        torch.testing.assert_close(found.attacker[left].double(), expected, atol=2e-3, rtol=0)


def test_a_small_budget_is_not_converged() -> None:
    """An attacker whose success still grows with the data is reported as not converged, however little it has."""
    tiles = photo_tiles()
    flat = tiles.reshape(len(tiles), -1)
    mixed = flat @ np.random.default_rng(0).normal(size=(flat.shape[1], 300)).astype(np.float32)
    budget = replace(SMALL, attacker_items=60)
    problem, setting = problem_of(mixed, tiles, budget)
    result = leakage_of("ridge", problem, setting, budget)
    assert result.gain > budget.tolerance
    assert not result.converged
    assert unsettled({"ridge": result}, tolerance=budget.tolerance)


def test_a_weak_attack_that_catches_up_keeps_the_suite_open() -> None:
    """The suite is converged only if no attack could pass the best by moving once more as far as it moved last."""
    tiles = photo_tiles()
    problem, setting = problem_of(tiles, tiles)
    result = leakage_of("ridge", problem, setting, SMALL)
    still = result.model_copy(update={"gains": dict.fromkeys(result.gains, 0.0)})
    lower = {name: figure.model_copy(update={"mean": figure.mean - 0.2}) for name, figure in result.leakage.items()}

    def weaker(gain: float) -> bool:
        weak = result.model_copy(update={"leakage": lower, "gains": dict.fromkeys(result.gains, gain)})
        return not unsettled({"best": still, "weak": weak}, tolerance=0.03)

    assert weaker(0.1)
    assert not weaker(0.3)


def test_two_tensors_of_one_cut_are_attacked_together() -> None:
    """A cut's tensors count as one: what none of them tells alone, they tell together."""
    tiles = photo_tiles()
    problem, setting = problem_of(tiles[:, :1], tiles)
    rest, _ = problem_of(tiles[:, 1:], tiles)

    def both(first: FeatureSet, second: FeatureSet) -> FeatureSet:
        return replace(first, stores=first.stores + second.stores, encoders=first.encoders + second.encoders)

    whole = Problem(
        kind="image",
        attacker=both(problem.attacker, rest.attacker),
        attacker_targets=problem.attacker_targets,
        validation=both(problem.validation, rest.validation),
        validation_targets=problem.validation_targets,
        heldout=both(problem.heldout, rest.heldout),
    )
    assert leakage_of("inverter", whole, setting).leakage["ssim"].mean > 0.95


@pytest.mark.parametrize("name", ATTACKS)
def test_data_that_are_no_images_are_attacked_too(name: str) -> None:
    """Rows of numbers are reconstructed from a non-linear function of them."""
    rows = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    mixed = np.tanh(rows @ np.random.default_rng(1).normal(size=(8, 30)).astype(np.float32) * 0.3)
    problem, setting = problem_of(mixed, rows)
    leakage = leakage_of(name, problem, setting).leakage
    assert set(leakage) == {"nmse", "reidentification"}
    assert leakage["nmse"].mean > 0.9


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_repeats_itself(name: str) -> None:
    """The same seed gives the same reconstruction; the caller's random numbers are left alone."""
    tiles = photo_tiles()
    values = np.maximum(tiles[:, :, ::2, ::2] - 0.4, 0)
    state = torch.random.get_rng_state()
    answers = [list_attacks()[name].run(problem_of(values, tiles)[0], SMALL, 3) for _ in range(2)]
    first, second = (answer.heldout for answer in answers if isinstance(answer, Reconstruction))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("side", "grid"), [(8, 8), (16, 8), (4, 8), (7, 8), (3, 8), (13, 8)])
def test_maps_of_any_size_fit_a_grid(side: int, grid: int) -> None:
    """Maps are brought to the grid's size, and keep every number where the sizes divide."""
    maps = torch.rand(2, 5, side, side)
    placed = to_grid(maps, grid, grid)
    assert placed.shape[2:] == (grid, grid)
    if side % grid == 0:
        torch.testing.assert_close(placed.flatten().sort().values, maps.flatten().sort().values)


def test_an_unknown_attack_is_named() -> None:
    """Asking for an attack that does not exist names it and lists the ones there are."""
    with pytest.raises(AuditError, match=r"attack 'magic' is unknown; there are .*inverter, .*ridge"):
        list_attacks(["magic"])


def test_half_a_problem_has_half_the_data() -> None:
    """Half a problem holds the first half of the attacker's items and all that it is judged on."""
    problem, _ = problem_of(_noise(5), photo_tiles())
    half = problem.half()
    assert len(half.attacker) == len(half.attacker_targets) == (len(problem.attacker) + 1) // 2
    np.testing.assert_array_equal(half.attacker.flat(), problem.attacker.flat(slice(0, len(half.attacker))))
    assert len(half.heldout) == len(problem.heldout)


def test_kept_features_lose_only_rounding() -> None:
    """Features are kept normalised per channel and come back within half-float rounding of their spread."""
    values = photo_tiles() * 1e-3 + 50
    kept = feature_set(values)
    assert np.abs(kept.original(0) - values).max() < 1e-3 * 2e-3
