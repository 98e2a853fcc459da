"""Arithmetic modulo the Mersenne prime 2^31 - 1, and the proof that a device's floating-point sums are exact.

Slalom (Tramer and Boneh, ICLR 2019) masks modulo a prime below 2^24 and excludes overflow by experience. Here it is
excluded by calculation: a device that adds products in float64 is exact as long as every partial sum stays within 2^53
(here 2^52, which leaves a bit for the sign), and the result is read back without a wrap as long as its magnitude stays
below half the prime.
"""

from __future__ import annotations

import numpy as np

from siniantrust.errors import PlanError

PRIME = (1 << 31) - 1
HALF = PRIME // 2
BITS = 31
QUANTISED_MAX = 127
# The largest multiple of the prime that float64 leaves room above: a sum of a smaller magnitude is lifted above zero by
# it, and what comes out stays below 2^53.
LIFT = (1 << 52) // PRIME * PRIME


def most_terms(max_weight: int) -> int:
    """Return how many products of a residue and a weight of this magnitude float64 adds exactly."""
    return LIFT // ((PRIME - 1) * max(max_weight, 1))


def require_readable(layer: str, row_sums: np.ndarray) -> None:
    """Refuse a layer whose result could leave the range that is read back without a wrap.

    Args:
        layer: its name, for the message.
        row_sums: (rows,) sums of the magnitudes of each row's integer weights.

    Raises:
        PlanError: naming the layer, what was needed and what was found.
    """
    most = int(row_sums.max(initial=0)) * QUANTISED_MAX
    if most > HALF:
        raise PlanError(
            f"layer '{layer}': its result may reach {most}, and only {HALF} is read back without a wrap modulo "
            f"{PRIME}; quantise its weights more coarsely, or keep it in the enclave"
        )


def reduced(values: np.ndarray) -> np.ndarray:
    """Return unsigned 32-bit ``values`` modulo the prime, as uint32."""
    folded = (values & np.uint32(PRIME)) + (values >> np.uint32(BITS))
    return np.where(folded >= PRIME, folded - np.uint32(PRIME), folded)


def masked(values: np.ndarray, pads: np.ndarray) -> np.ndarray:
    """Return ``values`` (int8) + ``pads`` (uint32 below the prime) modulo the prime, as uint32."""
    total = values.astype(np.int64) + pads
    total += np.where(total < 0, PRIME, 0)
    total -= np.where(total >= PRIME, PRIME, 0)
    made: np.ndarray = total.astype(np.uint32)
    return made


def sealed(corrections: np.ndarray, pads: np.ndarray) -> np.ndarray:
    """Return what an answer is added to so that only a result under ``pads`` is left: ``pads`` - ``corrections``.

    Both are residues, uint32, and so is what is returned.
    """
    apart = pads - corrections
    made: np.ndarray = np.minimum(apart, apart + np.uint32(PRIME))
    return made


def unmasked(answers: np.ndarray, sealed: np.ndarray, pads: np.ndarray) -> np.ndarray:
    """Return the signed integers whose residues are ``answers`` + ``sealed`` - ``pads``, as int32.

    All are uint32; the first two may be any words, since a host gives them, the last are at most the prime.
    """
    apart = _lowered(_lowered(_lowered(answers) + _lowered(sealed))) - pads
    apart = np.minimum(apart, apart + np.uint32(PRIME))
    made: np.ndarray = apart.astype(np.int32)
    made -= np.where(made > HALF, np.int32(PRIME), np.int32(0))
    return made


def _lowered(words: np.ndarray) -> np.ndarray:
    """Return one prime less where there is one in a word: below it, the difference wraps and is the larger."""
    less: np.ndarray = np.minimum(words, words - np.uint32(PRIME))
    return less
