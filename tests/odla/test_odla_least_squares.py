"""Least squares without negative coefficients, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust.odla import fit_non_negative


def test_planted_coefficients_are_found() -> None:
    """Exact measurements give back what made them, over many orders of magnitude."""
    generator = np.random.default_rng(0)
    rows = generator.uniform(0, 1, (12, 4)) * [1.0, 1e6, 1e9, 1e3]
    planted = np.array([3e-4, 2e-9, 0.0, 5e-8])
    assert fit_non_negative(rows, rows @ planted) == pytest.approx(planted, rel=1e-6, abs=1e-18)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_fit_is_as_good_as_scipys(measurements: int, features: int, seed: int) -> None:
    """No coefficient is negative, and the sum of squares of the relative errors is SciPy's minimum."""
    nnls = pytest.importorskip("scipy.optimize", reason="SciPy is not installed").nnls
    generator = np.random.default_rng(seed)
    rows = generator.uniform(0, 1, (measurements, features)) * (generator.random((measurements, features)) < 0.7)
    seconds = generator.uniform(0.1, 1, measurements)
    found = fit_non_negative(rows, seconds)
    assert (found >= 0).all()
    _, least = nnls(rows / seconds[:, None], np.ones(measurements))
    assert np.linalg.norm(rows @ found / seconds - 1) == pytest.approx(least, rel=1e-6, abs=1e-7)
