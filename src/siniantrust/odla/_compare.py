"""Comparing what two devices computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RTOL = 1e-3
ATOL = 1e-4
# Half precision has 11 significant bits: two kernels that round differently differ by more than RTOL.
_HALF_RTOL = 1e-2
_HALF_ATOL = 1e-3


def difference(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], *, rtol: float = RTOL, atol: float = ATOL
) -> str | None:
    """Say how two sets of outputs differ, or return None if they agree.

    Floating-point values agree within ``atol + rtol * |expected|`` (float16 within at least 1e-3 + 1e-2 * |expected|),
    with NaN equal to NaN and an infinity to itself; integers and booleans agree exactly.
    """
    if set(expected) != set(found):
        return f"outputs {sorted(found)} stand where {sorted(expected)} are expected"
    for name, reference in expected.items():
        if (problem := _tensor_difference(reference, found[name], rtol=rtol, atol=atol)) is not None:
            return f"output {name!r}: {problem}"
    return None


def _tensor_difference(expected: np.ndarray, found: np.ndarray, *, rtol: float, atol: float) -> str | None:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        wanted = f"{expected.dtype.name}{list(expected.shape)}"
        return f"{found.dtype.name}{list(found.shape)} stands where {wanted} is expected"
    if expected.dtype.kind != "f":
        unequal = expected != found
        return f"{int(unequal.sum())} of {expected.size} values differ" if unequal.any() else None
    if expected.dtype == np.float16:
        rtol, atol = max(rtol, _HALF_RTOL), max(atol, _HALF_ATOL)
    reference, values = expected.astype(np.float64), found.astype(np.float64)
    agree = np.isclose(values, reference, rtol=rtol, atol=atol, equal_nan=True)
    if agree.all():
        return None
    with np.errstate(invalid="ignore"):
        gap = np.abs(values - reference)[~agree]
    worst = "a NaN or infinity" if not np.isfinite(gap).all() else f"up to {gap.max():.3g}"
    return f"{int((~agree).sum())} of {expected.size} values differ, by {worst} (rtol {rtol:g}, atol {atol:g})"
