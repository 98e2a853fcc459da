"""Numbers modulo 2^24 or 2^32, byte by byte: the form in which they cross, and the proof that it loses nothing.

A number is three or four limbs of eight bits, the lowest first; an array of numbers is an array of bytes with an axis
of limbs, so that a device of eight bits can take it as it is, and three bytes cross where four are not needed. Slalom
(Tramer and Boneh, ICLR 2019) masks modulo a prime below 2^24 and excludes overflow by experience. Here it is excluded
by calculation: of every layer a bound B of its results is proven, below half the modulus, so that they are read back
without a wrap; and a device that adds products in float64 is exact as long as every sum stays within 2^53 (here 2^52).

The check of a device's work is made modulo a prime (see ``_verify``), and a ring of bytes is no field. So it is made of
what is left when the pad is off, read as a signed number. Of three limbs two of them are less than 2^24 apart; of four,
one beyond B is refused, and one within B that is wrong is wrong by at most 2B. Both are less than the prime, so that no
error vanishes modulo the prime.
"""

from __future__ import annotations

import numpy as np

from siniantrust.errors import PlanError
from siniantrust.masking.exact._field import PRIME

QUANTISED_MAX = 127
LIMB_BITS = 8
NARROW, WIDE = 3, 4
MOST = min(PRIME // 2, ((1 << 31) - 1) // ((1 << LIMB_BITS) - 1) * QUANTISED_MAX)
"""The largest bound of a layer's results.

Twice of it is below the prime, it lies below half of 2^32, and sums of limbs (255 each where steps are 127) hold in 32
bits."""

NARROW_MOST = (1 << (LIMB_BITS * NARROW - 1)) - 1
"""The largest one for three limbs."""

_EXACT_BITS = 52


def limbs_for(layer: str, most: int) -> int:
    """Return how many limbs a layer takes whose results reach ``most``.

    Raises:
        PlanError: naming the layer, what was needed and what was found.
    """
    if most > MOST:
        raise PlanError(
            f"layer '{layer}': its result may reach {most}, and only {MOST} is told from a wrong one; quantise its "
            "weights more coarsely, or keep it in the enclave"
        )
    return NARROW if most <= NARROW_MOST else WIDE


def most_terms(limbs: int, max_weight: int) -> int:
    """Return how many products of a number and a weight of this magnitude float64 adds exactly."""
    return (1 << _EXACT_BITS) // ((1 << (LIMB_BITS * limbs)) * max(max_weight, 1))


def to_limbs(values: np.ndarray, limbs: int, *, axis: int) -> np.ndarray:
    """Return integers modulo 2^(8 limbs) as bytes, with a new axis of limbs."""
    words = np.ascontiguousarray(values.astype(np.int64) & 0xFFFFFFFF).astype("<u4")
    each = words.view(np.uint8).reshape(*words.shape, WIDE)[..., :limbs]
    made: np.ndarray = np.ascontiguousarray(np.moveaxis(each, -1, axis))
    return made


def from_limbs(raw: np.ndarray) -> np.ndarray:
    """Return the signed numbers of (limbs, ...) bytes, int32."""
    made: np.ndarray = raw[-1].astype(np.int8).astype(np.int32)
    for limb in raw[-2::-1]:
        made = (made << LIMB_BITS) | limb
    return made


def plus(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return sums of numbers, (limbs, ...) bytes each."""
    return _carried(first.astype(np.int16) + second)


def minus(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return differences of numbers, (limbs, ...) bytes each."""
    return _carried(first.astype(np.int16) - second)


def _carried(limbs: np.ndarray) -> np.ndarray:
    """Return bytes of limbs that are too large or below zero, int16, by carrying; the last carry is dropped."""
    for place in range(len(limbs) - 1):
        limbs[place + 1] += limbs[place] >> LIMB_BITS
    return limbs.astype(np.uint8)
