"""Fewer random mixtures of an item's numbers, by a dense matrix or by Hadamard's with random signs."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._channels import note_narrowing
from siniantrust.masking._registry import Mask, Parameter
from siniantrust.masking._site import Site

_MOST_WEIGHTS = 1 << 26


def build(site: Site) -> None:
    """Turn an item's numbers by a random orthogonal map, send some of them, and turn them back with zeros.

    What was dropped is restored as if it were the calibration mean's. ``structured`` 0 is a dense matrix of orthonormal
    random rows. 1 is S H D: random signs D, Walsh and Hadamard's transform H over the next power of two, and a random
    choice S of its outputs. H is the Kronecker product of two smaller ones and S that of a choice for each, so that two
    products of about the square root's size do it, on the item as a matrix.
    """
    dropped = site.require_share("the share of numbers that is dropped")
    wanted = max(round((1 - dropped) * site.item_elements), 1)
    mean = site.values.mean(axis=site.item_axis, keepdims=True)
    (_structured if site.parameters["structured"] else _dense)(site, mean, wanted)


def _dense(site: Site, mean: np.ndarray, kept: int) -> None:
    size = site.item_elements
    if size * kept > _MOST_WEIGHTS:
        raise site.refuse(f"a dense projection to {kept} numbers has {size * kept:,} weights; take structured=1")
    basis = np.linalg.qr(site.generator.standard_normal((size, kept)))[0]
    narrow = site.crosses(site.add("MatMul", site.rows(site.value), site.constant(basis)))
    restored = site.unrolled(site.add("MatMul", narrow, site.constant(basis.T)))
    site.add("Add", restored, site.constant(mean - (mean.reshape(1, -1) @ basis @ basis.T).reshape(mean.shape)))
    note_narrowing(site, kept)


def _structured(site: Site, mean: np.ndarray, wanted: int) -> None:
    size = site.item_elements
    power = (size - 1).bit_length()
    height = 1 << power // 2
    width = -(-size // height)  # the last row may be short of numbers
    # Columns of Hadamard's matrix that zeros would meet are left out.
    tall, wide = hadamard(height), hadamard(1 << (power - power // 2))[:, :width]
    rows, columns = _choice(wanted, len(tall), len(wide))
    tall, wide = (
        each[np.sort(site.generator.permutation(len(each))[:count])] for each, count in ((tall, rows), (wide, columns))
    )
    signs = site.generator.choice([-1.0, 1.0], mean.shape)
    turned = _grid(site, site.add("Mul", site.value, site.constant(signs)), height, width)
    narrow = site.crosses(site.add("MatMul", site.add("MatMul", site.constant(tall), turned), site.constant(wide.T)))
    back = site.add("MatMul", site.add("MatMul", site.constant(tall.T), narrow), site.constant(wide))
    if height * width > size:
        back = site.add("Reshape", back, site.indices([-1, height * width]))
        back = site.add("Gather", back, site.indices(np.arange(size)), axis=1)
    padded = np.pad((signs * mean).reshape(-1), (0, height * width - size)).reshape(height, width)
    crossed = (tall.T @ (tall @ padded @ wide.T) @ wide).reshape(-1)[:size].reshape(mean.shape)
    restored = site.add("Mul", site.unrolled(back), site.constant(signs))
    site.add("Add", restored, site.constant(mean - signs * crossed))
    note_narrowing(site, rows * columns)


def _choice(wanted: int, height: int, width: int) -> tuple[int, int]:
    """Return how many rows and columns to keep: nearest to what is wanted, and of equals the least work."""
    every = ((rows, min(max(round(wanted / rows), 1), width)) for rows in range(1, height + 1))
    return min(every, key=lambda each: (abs(each[0] * each[1] - wanted), each[0] * (height + each[1])))


def _grid(site: Site, value: str, height: int, width: int) -> str:
    """Add nodes that give every item as a matrix, with zeros at the end where it has too few numbers."""
    missing = height * width - site.item_elements
    if not missing:
        return site.rows(value, height, width)
    rows = site.rows(value)
    nothing = site.add("Mul", site.add("Gather", rows, site.indices([0] * missing), axis=1), site.constant(0.0))
    return site.add("Reshape", site.add("Concat", rows, nothing, axis=1), site.indices([-1, height, width]))


def hadamard(width: int) -> np.ndarray:
    """Return Sylvester's matrix of a power of two, with orthonormal rows."""
    matrix = np.ones((1, 1))
    while len(matrix) < width:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / 2**0.5
    return matrix


MASK = Mask(
    title="Random projection",
    source="Johnson and Lindenstrauss 1984; structured: Ailon and Chazelle 2006. A fixed linear map: regression from "
    "pairs undoes what was not dropped",
    cost="dense: a product as large as the tensor squared; structured: two of its square root; answers get worse with "
    "the share",
    strength="share of an item's numbers that is dropped",
    random=False,
    role="defence",
    build=build,
    usual=0.5,
    any_strength=False,
    parameters=(Parameter("structured", 1, "1: Hadamard's transform with random signs; 0: a dense random matrix"),),
)
