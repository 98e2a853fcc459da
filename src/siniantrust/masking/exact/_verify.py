"""Freivalds' check that a device computed a layer, against what the enclave itself knows.

Freivalds (IFIP 1977): to check Z = W X, draw a random row vector s and compare s Z with (s W) X. Slalom does so on
masked values; here it is done on the numbers behind the pad, which are small, so that nothing overflows: an honest
device gives Z = W X exactly, and no other Z is equal to it modulo the prime, since what could be, beyond what W X can
reach, is refused (see ``_ring``).

For a convolution this would cost as many multiplications a position as a kernel has weights for one output. So the
positions are drawn from as well: one number for each row of positions (a) and one for each column (b), and what is
compared is the sum of s_m a_i b_j Z[m, i, j] over everything. Of a result it takes one multiplication for each number,
of an input as many as the kernel is wide, and the sums s W stay as they were. Small images are one long row, with one
random number for each position. Where a kernel moves over wide images by single columns, the b are the powers of one
random number: the weights of all its columns are then the same row, times a number each, and an input takes one
multiplication, but for what lies at the edges.

An answer that is wrong differs from the right one by residues that are not all zero, and the comparison is a
polynomial in s, a and b that has each of them once in every term. It misses only a root of it. The b are drawn from
2^21 values, s and a from all residues (no value of them comes more often than with 2^-30), so that one comparison
misses with a probability of at most 2^-21 + 2^-30 + 2^-30 (Schwartz and Zippel), and each further one multiplies it.
Powers of one number are at most of degree 1,023, and it is drawn from all residues but zero, so that it makes no more
than 2^-21 of that either; a row's number may then be a product of two of 2^-30 each.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence

import numpy as np

from siniantrust.errors import PlanError
from siniantrust.masking.exact._field import HALF, PRIME
from siniantrust.masking.exact._layer import Layer, Window
from siniantrust.masking.exact._pads import SHARE
from siniantrust.masking.exact._passes import (
    BLOCK,
    MOST_EDGE,
    MOST_TAPS,
    MOST_WIDTH,
    WEIGHT_BITS,
    Moves,
    Passes,
    Results,
    Share,
    Unmasking,
)
from siniantrust.masking.exact._ring import NARROW

DEFAULT_SOUNDNESS_BITS = 40
# Of one comparison: 2^-21 + 3 * 2^-30 is below 2^-20.
_COMPARISON_BITS = 20
_MOST_COMPARISONS = 8
# Up to this size an image is one row of positions. An input then costs a multiplication for each weight of the kernel,
# which is less than starting many short rows.
_ONE_ROW = 1 << 12
# Rows that are shorter cost more to start than their columns' weights to multiply.
_LEAST_WIDTH = 48
# So many positions have weights that a second-level cache holds beside what they are multiplied with.
_CACHED = 1 << 14


class LayerCheck:
    """The secret numbers of one layer in one session, with the passes that use them.

    Args:
        layer: the layer.
        entry: shape of its input for one item.
        exit_: shape of its result for one item.
        relu: whether what is unmasked has its values below zero made zero.
        step: what one step of these values is worth, where they are quantised.
        limbs: how many bytes each number has, enough for the layer.
        passes: what computes them.
        soundness_bits: a wrong answer passes with a probability of at most 2 to minus this.

    Attributes:
        channels: an item's results are so many times ``each`` numbers.
        each: see there.
        share: so many numbers are unmasked at once.
        sums: shape of what its check needs of one item's results.

    Raises:
        PlanError: if a bound of the layer cannot be proven, or so many bits are not to be had.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        entry: Sequence[int],
        exit_: Sequence[int],
        relu: bool,
        limbs: int,
        passes: Passes,
        step: float = 1.0,
        soundness_bits: int = DEFAULT_SOUNDNESS_BITS,
    ) -> None:
        # However the layer was made and brought here, nothing is masked for it without its proof.
        layer.check()
        if layer.limbs > limbs:
            raise PlanError(f"layer '{layer.name}': expected {layer.limbs} bytes a number, found {limbs}")
        count = math.ceil(soundness_bits / _COMPARISON_BITS)
        if not 0 < count <= _MOST_COMPARISONS:
            raise PlanError(
                f"exact masks: expected a soundness of 1 to {_MOST_COMPARISONS * _COMPARISON_BITS} bits, found "
                f"{soundness_bits}"
            )
        self._convolves = layer.window is not None
        if layer.window is None:
            across, down = _small(count, layer.rows), np.ones((count, 1), np.int64)
            gather = np.ones((count, 1), np.int64)
            self._products = _by_column(across.astype(np.int64), layer)
        else:
            moves = None
            if limbs == NARROW and _may_move(layer.window, entry[2:], exit_[2:]):
                across, down, taps, down_taps, moves = _powers(layer.window, count, entry[2:], exit_[2:])
            else:
                across, down, taps, down_taps = _positions(layer.window, count, entry[2:], exit_[2:])
            gather = _residues(count, layer.rows)
            columns = taps.shape[1] if moves is None else moves.weights.shape[1]
            factors = _by_tap(gather, layer, down_taps.shape[1], columns)
            self._weigh = passes.weigher(taps, down_taps, factors, moves)
            self._entry_form = (-1, layer.weight.shape[1], down_taps.shape[2], taps.shape[2])
        self.each = down.shape[1] * across.shape[1]
        self.channels = math.prod(exit_[1:]) // self.each
        self.share = max(SHARE // self.each, 1) * self.each
        self.sums = (self.channels // gather.shape[1], count)
        self._begin = passes.unmasker(
            Unmasking(
                scale=layer.scale,
                bias=layer.bias,
                by_column=not self._convolves,
                across=across,
                down=down,
                gather=gather,
                limbs=limbs,
                most=layer.most,
                relu=relu,
                inverse=float(np.float32(1 / step)),
            )
        )

    def begin(self, results: Results) -> Share:
        """Return the pass over items' arrays, each of the size of the layer's result; ``sums`` are for ``holds``.

        It works on a share of an item's channels, from one on, with its pads, and returns flags (see ``Passes``).
        """
        return self._begin(results)

    def holds(self, steps: np.ndarray, sums: np.ndarray) -> bool:
        """Return whether ``sums`` (items, of the form above) are those of the layer's results for ``steps`` (int8)."""
        if self._convolves:
            expected = self._weigh(steps.reshape(self._entry_form))
        else:
            # Products below 2^37, at most 2^15 of them (see ``_layer``): exact in float64.
            expected = (steps.reshape(-1, steps.shape[-1]).astype(np.float64) @ self._products).astype(np.int64) % PRIME
        # Both are residues, int64; on arrays so small numpy's comparison takes longer.
        return sums.tobytes() == expected.tobytes()


def _small(count: int, size: int) -> np.ndarray:
    """Draw weights below 2^21, int32 (count, size)."""
    raw = np.frombuffer(secrets.token_bytes(4 * count * size), dtype="<u4")
    return (raw & np.uint32((1 << WEIGHT_BITS) - 1)).astype(np.int32).reshape(count, size)


def _residues(count: int, size: int) -> np.ndarray:
    """Draw residues, int64 (count, size): zero with a probability of 2^-30, every other one with 2^-31."""
    raw = np.frombuffer(secrets.token_bytes(4 * count * size), dtype="<u4")
    return ((raw & np.uint32(PRIME)) % np.uint32(PRIME)).astype(np.int64).reshape(count, size)


def _positions(
    window: Window, count: int, entry: Sequence[int], exit_: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw numbers for the positions of a convolution's results, and carry them over to its inputs.

    A weight of the kernel brings an input to one position, if to any; so its sum over positions is a sum over inputs
    with the same numbers, moved.

    Returns:
        For results: across (count, width) and down (count, rows); for inputs: across (count, taps, width) and down
        (count, down taps, rows).
    """
    high, wide = (_moves(window, axis, entry[axis], exit_[axis]) for axis in (0, 1))
    if _is_one_row(window.kernel, entry, exit_):
        across = _small(count, math.prod(exit_))
        grid = across.reshape(count, *exit_)
        taps = np.zeros((count, *window.kernel, *entry), np.int32)
        for row, (row_out, row_in) in enumerate(high):
            for column, (column_out, column_in) in enumerate(wide):
                taps[:, row, column, row_in[:, None], column_in] = grid[:, row_out[:, None], column_out]
        ones = np.ones((count, 1, 1), np.int64)
        return across, ones[:, 0], taps.reshape(count, -1, math.prod(entry)), ones
    across, down = _small(count, exit_[1]), _residues(count, exit_[0])
    taps = np.zeros((count, window.kernel[1], entry[1]), np.int32)
    for column, (column_out, column_in) in enumerate(wide):
        taps[:, column, column_in] = across[:, column_out]
    return across, down, taps, _down_taps(window, down, entry[0], exit_[0])


def _down_taps(window: Window, down: np.ndarray, size_in: int, size_out: int) -> np.ndarray:
    """Carry rows' numbers (count, rows) over to an input's: (count, down taps, rows)."""
    taps = np.zeros((len(down), window.kernel[0], size_in), np.int64)
    for row, (row_out, row_in) in enumerate(_moves(window, 0, size_in, size_out)):
        taps[:, row, row_in] = down[:, row_out]
    return taps


def _may_move(window: Window, entry: Sequence[int], exit_: Sequence[int]) -> bool:
    """Return whether the columns of a kernel may have the powers of one number as weights, and gain by it."""
    head, tail = _edges(window, entry[1], exit_[1])
    return (
        1 < window.kernel[1] <= MOST_TAPS
        and window.kernel[0] <= MOST_TAPS
        and window.strides[1] == 1
        and min(entry[1], exit_[1]) >= _LEAST_WIDTH
        and max(entry[1], exit_[1]) <= MOST_WIDTH
        and max(head.max(), tail.max()) <= MOST_EDGE
    )


def _edges(window: Window, size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many columns of an input each column of the kernel does not see at the beginning and at the end."""
    shifts = np.arange(window.kernel[1]) * window.dilations[1] - window.pads[1]
    return np.maximum(shifts, 0), np.maximum(size_in - np.minimum(size_in, size_out + shifts), 0)


def _powers(
    window: Window, count: int, entry: Sequence[int], exit_: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Moves]:
    """Draw numbers for positions as ``_positions``, those of columns the powers of one number for each comparison.

    Results are weighed several rows at a time, as one row: a row's number is that of its group times that of its place.
    """
    bases = [secrets.randbelow(PRIME - 1) + 1 for _ in range(count)]
    width = max(entry[1], exit_[1])
    powers = np.array([[pow(base, column, PRIME) for column in range(width)] for base in bases], np.int64)
    together = _together(exit_)
    places, groups = _residues(count, together), _residues(count, exit_[0] // together)
    if together == exit_[0]:
        groups = np.ones((count, 1), np.int64)
    across = places[:, :, None] * powers[:, None, : exit_[1]] % PRIME
    down = (groups[:, :, None] * places[:, None] % PRIME).reshape(count, -1)
    shifts = [column * window.dilations[1] - window.pads[1] for column in range(window.kernel[1])]
    weights = np.array([[pow(base, -shift, PRIME) for shift in shifts] for base in bases], np.int64)
    moves = Moves(weights, *_edges(window, entry[1], exit_[1]))
    taps = _centred(np.ascontiguousarray(powers[:, None, : entry[1]]))
    return _centred(across.reshape(count, -1)), groups, taps, _down_taps(window, down, entry[0], exit_[0]), moves


def _together(exit_: Sequence[int]) -> int:
    """Return how many rows of results to weigh at once: all, if a cache holds their weights, else a block full."""
    if math.prod(exit_) <= _CACHED:
        return exit_[0]
    fitting = (rows for rows in range(2, exit_[0] + 1) if exit_[0] % rows == 0 and rows * exit_[1] <= MOST_WIDTH)
    return max(fitting, default=1)


def _centred(residues: np.ndarray) -> np.ndarray:
    """Return residues of the least magnitude, int32."""
    made: np.ndarray = (residues - np.where(residues > HALF, PRIME, 0)).astype(np.int32)
    return made


def _is_one_row(kernel: Sequence[int], entry: Sequence[int], exit_: Sequence[int]) -> bool:
    return tuple(kernel) == (1, 1) or max(math.prod(entry), math.prod(exit_)) <= _ONE_ROW


def taps(kernel: Sequence[int], strides: Sequence[int], entry: Sequence[int], exit_: Sequence[int]) -> int:
    """Return with how many numbers a convolution's input is weighed in each comparison.

    Its kernel's size, or width, or, where it moves over wide images by single columns, one.

    Args:
        kernel: its kernel (height, width).
        strides: its strides.
        entry: its input's height and width.
        exit_: its result's.
    """
    pads = (kernel[0] // 2, kernel[1] // 2) * 2
    window = Window((kernel[0], kernel[1]), (strides[0], strides[1]), (1, 1), (pads[0], pads[1], pads[2], pads[3]))
    if _may_move(window, entry, exit_):
        return 1
    return math.prod(kernel) if _is_one_row(kernel, entry, exit_) else kernel[1]


def _moves(window: Window, axis: int, size_in: int, size_out: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each step of the kernel along an axis the positions that see an input through it, and the inputs."""
    outs = np.arange(size_out)
    found = []
    for tap in range(window.kernel[axis]):
        ins = outs * window.strides[axis] + tap * window.dilations[axis] - window.pads[axis]
        inside = (ins >= 0) & (ins < size_in)
        found.append((outs[inside], ins[inside]))
    return found


def _products(rows: np.ndarray, layer: Layer) -> np.ndarray:
    """Return ``rows`` (count, rows) times the layer's weights (count, terms), residues."""
    flat = layer.weight.reshape(layer.rows, -1)
    starts = range(0, flat.shape[1], BLOCK)
    product = np.concatenate([rows @ flat[:, start : start + BLOCK].astype(np.int64) for start in starts], axis=1)
    product %= PRIME
    return product


def _by_tap(rows: np.ndarray, layer: Layer, down_taps: int, across_taps: int) -> np.ndarray:
    """Return ``rows`` times a convolution's weights: (channels, count, down taps, across taps)."""
    products = _products(rows, layer).reshape(len(rows), layer.weight.shape[1], down_taps, across_taps)
    return np.ascontiguousarray(products.transpose(1, 0, 2, 3))


def _by_column(rows: np.ndarray, layer: Layer) -> np.ndarray:
    """Return ``rows`` times a matrix product's weights: float64 (columns, count), residues of the least magnitude."""
    products = _products(rows, layer).T
    return np.ascontiguousarray(products - np.where(products > HALF, PRIME, 0)).astype(np.float64)
