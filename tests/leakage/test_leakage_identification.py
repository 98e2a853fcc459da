"""Picking the input from a list of candidates, which no blur of a reconstruction stops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from leakage_cases import SMALL, leakage_of, photo_tiles, problem_of

from siniantrust.errors import AuditError
from siniantrust.leakage import Identification
from siniantrust.leakage._metrics import identified
from siniantrust.leakage.attacks import identification


def _projected(count: int, *, noise: float = 0.0) -> np.ndarray:
    """Return a few random projections of each tile, with noise in units of their spread."""
    rng = np.random.default_rng(3)
    tiles = photo_tiles()
    values = tiles.reshape(len(tiles), -1) @ rng.normal(size=(tiles[0].size, count)).astype(np.float32)
    found: np.ndarray = (values + noise * values.std() * rng.normal(size=values.shape)).astype(np.float32)
    return found


@pytest.mark.parametrize("count", [6, 24])
def test_it_finds_more_inputs_than_their_reconstructions_do(count: int) -> None:
    """From a few numbers of each picture no picture comes back, and yet most pictures are found in a list."""
    problem, setting = problem_of(_projected(count), photo_tiles())
    picked = leakage_of("identification", problem, setting).leakage
    rebuilt = leakage_of("ridge", problem, setting).leakage
    assert set(picked) == {"reidentification"}
    assert picked["reidentification"].mean > rebuilt["reidentification"].mean + 0.1
    assert rebuilt["ssim"].mean < 0.6


def test_noise_alone_identifies_nobody() -> None:
    """Features that say nothing find no more than a guess does, and the bounds cover that."""
    noise = np.random.default_rng(0).normal(size=(600, 32)).astype(np.float32)
    problem, setting = problem_of(noise, photo_tiles())
    figure = leakage_of("identification", problem, setting).leakage["reidentification"]
    assert figure.lower is not None
    assert figure.lower <= 0 <= figure.upper
    assert figure.mean < 0.03


def test_constant_features_identify_nobody() -> None:
    """Where all features are equal, every candidate is as near as any other."""
    problem, setting = problem_of(np.ones((600, 8), dtype=np.float32), photo_tiles())
    figure = leakage_of("identification", problem, setting).leakage["reidentification"]
    assert abs(figure.mean) < 0.02


def test_more_noise_finds_fewer() -> None:
    """The figure falls as the features get noisier."""
    figures = []
    for noise in (0.0, 0.3, 3.0):
        problem, setting = problem_of(_projected(24, noise=noise), photo_tiles())
        figures.append(leakage_of("identification", problem, setting).leakage["reidentification"].mean)
    assert figures[0] > figures[1] > figures[2]


def test_rows_of_numbers_are_identified_too() -> None:
    """It needs no pictures: any rows of numbers have components."""
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 20))).astype(np.float32)
    problem, setting = problem_of(rows[:, :6], rows)
    assert leakage_of("identification", problem, setting).leakage["reidentification"].mean > 0.8


def test_the_seed_changes_nothing() -> None:
    """It has no random part: one run is enough."""
    problem, _ = problem_of(_projected(6), photo_tiles())
    first, second = (identification.run(replace(problem, memo={}), SMALL, seed) for seed in (1, 2))
    np.testing.assert_array_equal(first.answers, second.answers)
    assert not identification.ATTACK.varies


def test_the_nearest_place_counts_by_distance_or_by_angle() -> None:
    """An answer twice as long is another place, and the same direction."""
    places = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.1]])
    answers = np.array([[2.1, 0.0], [0.1, 1.0], [3.0, 0.1]])
    np.testing.assert_array_equal(identified(answers, places, cosine=False), [0, 1, 1])
    np.testing.assert_array_equal(identified(answers, places, cosine=True), [1, 1, 1])


def test_a_wrong_number_of_places_is_refused() -> None:
    """An attack that places fewer items than were asked for is an error, not a low figure."""
    problem, setting = problem_of(_projected(6), photo_tiles())
    found = identification.run(problem, SMALL, 0)
    with pytest.raises(AuditError, match="placed 10 items, expected 150"):
        setting.judge.scores(replace(found, answers=found.answers[:10]))
    with pytest.raises(AuditError, match="finite"):
        setting.judge.scores(replace(found, answers=found.answers * np.nan))
    assert isinstance(found, Identification)
