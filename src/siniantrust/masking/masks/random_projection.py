"""Fewer random mixtures of an item's numbers, by a dense matrix or by Hadamard's with random signs."""

from __future__ import annotations

import math

import numpy as np

from siniantrust.masking._channels import note_narrowing
from siniantrust.masking._registry import Mask, Parameter
from siniantrust.masking._site import Site

_MOST_WEIGHTS = 1 << 26
# Items of up to this power of two are matrices; larger ones have three sides, which takes more nodes and less work.
_TWO_FACTORS = 12


def build(site: Site) -> None:
    """Turn an item's numbers by a random orthogonal map, send some of them, and turn them back with zeros.

    What was dropped is restored as if it were the calibration mean's. ``structured`` 0 is a dense matrix of orthonormal
    random rows. 1 is S H D: random signs D, Walsh and Hadamard's transform H over the next power of two, and a random
    choice S of its outputs. H is the Kronecker product of two or three smaller ones and S that of a choice for each, so
    that products of about that root of the size do it, on the item as a matrix.
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
    sides, whole = _sides(size)
    counts = _counts(wanted, [len(each) for each in whole])
    factors = [
        each[np.sort(site.generator.permutation(len(each))[:count])] for each, count in zip(whole, counts, strict=True)
    ]
    first, last = factors[0], factors[-1]
    signs = site.generator.choice([-1.0, 1.0], mean.shape)
    turned = _grid(site, site.add("Mul", site.value, site.constant(signs)), sides)
    turned = site.add("MatMul", site.constant(first), turned)
    for between in factors[1:-1]:
        turned = site.add("Reshape", turned, site.indices([-1, counts[0], *sides[1:]]))
        turned = site.add("MatMul", site.constant(between), turned)
    back = site.crosses(site.add("MatMul", turned, site.constant(last.T)))
    back = site.add("MatMul", back, site.constant(last))
    for between in factors[1:-1]:
        back = site.add("MatMul", site.constant(between.T), back)
        back = site.add("Reshape", back, site.indices([-1, counts[0], math.prod(sides[1:])]))
    back = site.add("MatMul", site.constant(first.T), back)
    if math.prod(sides) > size:
        back = site.add("Reshape", back, site.indices([-1, math.prod(sides)]))
        back = site.add("Gather", back, site.indices(np.arange(size)), axis=1)
    crossed = np.pad((signs * mean).reshape(-1), (0, math.prod(sides) - size)).reshape(sides)
    for axis, factor in enumerate(factors):
        crossed = np.moveaxis(np.tensordot(factor.T @ factor, crossed, axes=(1, axis)), 0, axis)
    restored = site.add("Mul", site.unrolled(back), site.constant(signs))
    site.add("Add", restored, site.constant(mean - signs * crossed.reshape(-1)[:size].reshape(mean.shape)))
    note_narrowing(site, math.prod(counts))


def _sides(size: int) -> tuple[list[int], list[np.ndarray]]:
    """Return the sides of a grid that holds an item, and the factor of Hadamard's matrix for each.

    All but the last are powers of two, so that the last one alone may be short; columns of its factor that zeros would
    meet are left out. Where they divide the size, nothing is to be filled up.
    """
    power = (size - 1).bit_length()
    twos = (size & -size).bit_length() - 1
    split = power // 2 if power <= _TWO_FACTORS else power * 2 // 3
    split = twos if split - 2 <= twos < split else split
    powers = [split] if power <= _TWO_FACTORS else [split // 2, split - split // 2]
    last = -(-size // (1 << split))
    factors = [*(hadamard(1 << each) for each in powers), hadamard(1 << (power - split))[:, :last]]
    return [each.shape[1] for each in factors], factors


def _counts(wanted: float, lengths: list[int]) -> list[int]:
    """Return how many rows of each factor to keep: nearest to what is wanted, and few of the first to save work."""
    if len(lengths) == 1:
        return [min(max(round(wanted), 1), lengths[0])]
    every = ([count, *_counts(wanted / count, lengths[1:])] for count in range(1, lengths[0] + 1))
    return min(every, key=lambda each: (abs(math.prod(each) - wanted), each))


def _grid(site: Site, value: str, sides: list[int]) -> str:
    """Add nodes that give every item as a matrix of the first side, with zeros at the end where it is too short."""
    height, width = sides[0], math.prod(sides[1:])
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
    cost="dense: a product as large as the tensor squared; structured: two of its square root, or three of its "
    "cube root; answers get worse with the share",
    strength="share of an item's numbers that is dropped",
    random=False,
    role="defence",
    build=build,
    usual=0.5,
    any_strength=False,
    parameters=(Parameter("structured", 1, "1: Hadamard's transform with random signs; 0: a dense random matrix"),),
)
