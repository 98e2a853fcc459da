"""Fewer random mixtures of an item's numbers, by a dense matrix or by Hadamard's with random signs."""

from __future__ import annotations

import numpy as np

from siniantrust.masking._channels import note_narrowing
from siniantrust.masking._registry import Mask, Parameter
from siniantrust.masking._site import Site

_MOST_WEIGHTS = 1 << 26


def build(site: Site) -> None:
    """Centre an item, turn its numbers by a random orthogonal map, send some of them, and turn them back with zeros.

    ``structured`` 0 is a dense matrix of orthonormal random rows. 1 is S H D: random signs D, Walsh and Hadamard's
    transform H over the next power of two, and a random choice S of its outputs. H is the Kronecker product of two
    smaller ones, so that two products of about the square root's size do it.
    """
    dropped = site.require_share("the share of numbers that is dropped")
    structured = site.parameters["structured"] != 0
    width = 1 << (site.item_elements - 1).bit_length() if structured else site.item_elements
    kept = max(round((1 - dropped) * site.item_elements), 1)
    mean = site.constant(site.values.mean(axis=site.item_axis, keepdims=True))
    rows = site.rows(site.add("Sub", site.value, mean))
    restored = _hadamard(site, rows, width=width, kept=kept) if structured else _dense(site, rows, kept=kept)
    site.add("Add", site.unrolled(restored), mean)
    note_narrowing(site, kept)


def _dense(site: Site, rows: str, *, kept: int) -> str:
    size = site.item_elements
    if size * kept > _MOST_WEIGHTS:
        raise site.refuse(f"a dense projection to {kept} numbers has {size * kept:,} weights; take structured=1")
    basis = np.linalg.qr(site.generator.standard_normal((size, kept)))[0]
    narrow = site.crosses(site.add("MatMul", rows, site.constant(basis)))
    return site.add("MatMul", narrow, site.constant(basis.T))


def _hadamard(site: Site, rows: str, *, width: int, kept: int) -> str:
    size = site.item_elements
    signs = site.constant(site.generator.choice([-1.0, 1.0], size))
    chosen = np.sort(site.generator.permutation(width)[:kept])
    turned = _transform(site, _padded(site, site.add("Mul", rows, signs), np.arange(size), width), width)
    narrow = site.crosses(site.add("Gather", turned, site.indices(chosen), axis=1))
    turned = _transform(site, _padded(site, narrow, chosen, width), width)
    kept_rows = turned if width == size else site.add("Gather", turned, site.indices(np.arange(size)), axis=1)
    return site.add("Mul", kept_rows, signs)


def _padded(site: Site, rows: str, places: np.ndarray, width: int) -> str:
    """Add nodes that put the numbers of each row at ``places`` of a longer one, with zeros elsewhere."""
    if len(places) == width:
        return rows
    nothing = site.add("Mul", site.add("Gather", rows, site.indices([0]), axis=1), site.constant(0.0))
    source = np.full(width, len(places))
    source[places] = np.arange(len(places))
    return site.add("Gather", site.add("Concat", rows, nothing, axis=1), site.indices(source), axis=1)


def _transform(site: Site, rows: str, width: int) -> str:
    """Add nodes for the orthonormal transform of Walsh and Hadamard, its own inverse."""
    power = width.bit_length() - 1
    left, right = 1 << (power // 2), 1 << (power - power // 2)
    grid = site.add("Reshape", rows, site.indices([-1, right]))
    once = site.add("MatMul", grid, site.constant(hadamard(right)))
    tall = site.add("Reshape", once, site.indices([-1, left, right]))
    twice = site.add("MatMul", site.constant(hadamard(left)), tall)
    return site.add("Reshape", twice, site.indices([-1, width]))


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
