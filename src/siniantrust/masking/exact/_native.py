"""The compiled passes of ``_kernels.c``, through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from siniantrust.masking.exact import _ring
from siniantrust.masking.exact._passes import (
    MOST_EDGE,
    MOST_TAPS,
    MOST_WIDTH,
    Mask,
    Moves,
    Results,
    Share,
    Unmask,
    Unmasking,
    Weigh,
)
from siniantrust.masking.exact._pool import Pool

_Type = type[ctypes.c_void_p] | type[ctypes.c_int64] | type[ctypes.c_float]
_Pointer: _Type = ctypes.c_void_p
_Count: _Type = ctypes.c_int64
_Float: _Type = ctypes.c_float
# How the library splits weights, so that products with quantised values are sums of 16-bit products.
_LOW_BITS, _HALF_BITS = 11, 15
_LANES = 16
_LANE = 32
_MOST_REPETITIONS = 8


class _Form(ctypes.Structure):
    """``struct unmasking`` of the library."""

    _fields_ = (
        *((name, _Count) for name in ("rows", "width", "period", "by_column", "repetitions", "limbs", "most")),
        *((name, _Pointer) for name in ("scale", "bias", "step_scale", "step_bias")),
        *((name, _Pointer) for name in ("across", "lanes", "down", "gather")),
        *((name, _Float) for name in ("floor", "inverse", "reach")),
    )


class _Items(ctypes.Structure):
    """``struct items`` of the library."""

    _fields_ = (
        ("numbers", _Count),
        *((name, _Pointer) for name in ("answers", "added", "added_steps", "values", "steps", "sums")),
        ("added_scale", _Float),
    )


class _Moving(ctypes.Structure):
    """``struct moving`` of the library."""

    _fields_ = (("taps", _Count), *((name, _Pointer) for name in ("across", "head", "tail", "moves")))


class _Address:
    """Where pads lie: whole shares are all in the same array, which is looked at once."""

    def __init__(self, limbs: int) -> None:
        self._limbs = limbs
        self._last: np.ndarray | None = None
        self._found = 0, 0

    def of(self, pads: np.ndarray) -> tuple[int, int]:
        """Return address and number of pads, uint8 (limbs, numbers)."""
        if pads is not self._last:
            if pads.dtype != np.uint8 or len(pads) != self._limbs:
                raise ValueError(f"expected pads uint8[{self._limbs}, numbers], found {pads.dtype}{list(pads.shape)}")
            self._last, self._found = pads, (_at(pads), pads.size // self._limbs)
        return self._found


def load_native() -> NativePasses | None:
    """Return the compiled passes, or None where this installation was made without a C compiler."""
    path = Path(__file__).with_name(f"_kernels{EXTENSION_SUFFIXES[0]}")
    return NativePasses(ctypes.CDLL(str(path))) if path.is_file() else None


class NativePasses:
    """One go over memory each."""

    name = "C"

    def __init__(self, library: ctypes.CDLL) -> None:
        def function(
            name: str, *arguments: _Type, result: type[ctypes.c_int32] | None = ctypes.c_int32
        ) -> Callable[..., Any]:
            found: Callable[..., Any] = getattr(library, f"sinian_{name}")
            found.argtypes, found.restype = arguments, result  # type: ignore[attr-defined]
            return found

        self._quantise = function("quantise", _Count, _Pointer, _Float, _Pointer)
        self._add = function("add", _Count, _Count, _Pointer, _Pointer, _Pointer, result=None)
        self._mask = function("mask", _Count, _Count, _Pointer, _Pointer, _Count, _Pointer, result=None)
        self._pool = function("pool", *[_Count] * 11, _Pointer, _Pointer, result=None)
        self._unmask = function("unmask", _Pointer, _Pointer, _Count, _Count, _Count, _Pointer)
        self._weigh = function(
            "weigh", *[_Count] * 4, _Pointer, _Count, _Count, _Pointer, _Count, *[_Pointer] * 4, result=None
        )
        self._weigh_moved = function(
            "weigh_moved", *[_Count] * 4, _Pointer, _Count, _Count, *[_Pointer] * 6, result=None
        )

    def quantise(self, values: np.ndarray, scale: float, steps: np.ndarray) -> int:
        """See ``Passes``."""
        _same_size(values, steps)
        return int(self._quantise(values.size, _at(values), float(np.float32(1 / scale)), _at(steps)))

    def add(self, first: np.ndarray, second: np.ndarray, made: np.ndarray) -> None:
        """See ``Passes``."""
        _same_size(first, second, made)
        self._add(first.size // len(first), len(first), _at(first), _at(second), _at(made))

    def masker(self, steps: np.ndarray, sent: np.ndarray) -> Mask:
        """See ``Passes``."""
        _same_size(steps, sent[:, 0])
        (items, limbs, count), at_steps, at_sent = sent.shape, _at(steps), _at(sent)
        function, address = self._mask, _Address(limbs)

        def mask(item: int, start: int, pads: np.ndarray) -> None:
            at_pads, size = address.of(pads)
            if not (0 <= item < items and 0 <= start <= count - size):
                raise ValueError(f"expected pads for {count} numbers, found {size} from {start} on, of item {item}")
            first = item * count
            function(size, limbs, at_steps + first + start, at_pads, count, at_sent + first * limbs + start)

        return mask

    def pool(self, steps: np.ndarray, pool: Pool, pooled: np.ndarray) -> None:
        """See ``Passes``."""
        window = *pool.kernel, *pool.strides, *pool.pads[:2]
        self._pool(*steps.shape, *window, *pooled.shape[1:], _at(steps), _at(pooled))

    def unmasker(self, form: Unmasking) -> Unmask:
        """See ``Passes``."""
        finishing = form.scale, form.bias, form.step_scale, form.step_bias
        weights = form.across, _in_lanes(form.across), form.down, form.gather
        arrays = [np.ascontiguousarray(each) for each in (*finishing, *weights)]
        repetitions, period = form.gather.shape
        sizes = form.down.shape[1], form.across.shape[1], period, form.by_column, repetitions, form.limbs, form.most
        native = _Form(*sizes, *map(_at, arrays), 0.0 if form.relu else -np.inf, form.inverse, _reach(form))
        # What the pointers point to lives as long as what holds them, and that as long as a reference to it.
        native.arrays = arrays
        at_form = ctypes.byref(native)
        each = native.rows * native.width
        function = self._unmask

        def unmask(of: Results) -> Share:
            items = len(of.answers)
            numbers = of.answers.size // (form.limbs * items)
            native_items = _Items(numbers, _at(of.answers))
            for name, array in (("values", of.values), ("steps", of.steps), ("added", of.added)):
                if array is not None:
                    if array.size != items * numbers:
                        raise ValueError(f"expected {items * numbers} {name}, found {array.size}")
                    whole = name == "added" and array.dtype == np.int8
                    setattr(native_items, "added_steps" if whole else name, _at(array))
            native_items.added_scale, native_items.sums = of.added_scale, _at(of.sums)
            native_items.arrays = of  # as above
            at_items, address, all_channels = ctypes.byref(native_items), _Address(form.limbs), numbers // each

            def share(item: int, first: int, pads: np.ndarray) -> int:
                at_pads, size = address.of(pads)
                count = size // each
                if count * each != size or not (0 <= item < items and 0 <= first <= all_channels - count):
                    raise ValueError(
                        f"expected pads for {all_channels} channels, found {size} from {first} on, of item {item}"
                    )
                found: int = function(at_form, at_items, item, first, count, at_pads)
                return found

            return share

        return unmask

    def weigher(self, across: np.ndarray, down: np.ndarray, factors: np.ndarray, moves: Moves | None = None) -> Weigh:
        """See ``Passes``."""
        repetitions = len(across)
        if moves is None:
            function, low_bits, columns = self._weigh, _LOW_BITS, across.shape[1]
        else:
            function, low_bits, columns = self._weigh_moved, _HALF_BITS, ctypes.byref(_moving(across, down, moves))
        high, low = _pieces(across, low_bits)
        constants = [high, low, np.ascontiguousarray(down), np.ascontiguousarray(factors)]
        at_high, at_low, at_down, at_factors = map(_at, constants)

        def weigh(steps: np.ndarray) -> np.ndarray:
            # Reading sizes from ``constants`` keeps alive what the pointers point to.
            sums = np.empty((len(steps), repetitions), np.int64)
            function(
                *steps.shape,
                *(_at(steps), repetitions, constants[2].shape[1], at_down),
                *(columns, at_high, at_low, at_factors, _at(sums)),
            )
            return sums

        return weigh


def _reach(form: Unmasking) -> float:
    """Return how many steps no value is more than, in magnitude and but for what is added to it."""
    most = np.abs(form.step_scale).max(initial=0) * _ring.NARROW_MOST + np.abs(form.step_bias).max(initial=0)
    return float(most)


def _in_lanes(across: np.ndarray) -> np.ndarray:
    """Return weights (repetitions, width) by 32 numbers, in the order of ``_kernels_avx2.h``.

    Where the last lane is not full, it is the last 32 numbers, of which those weigh nothing that were there already.
    """
    repetitions, width = across.shape
    whole, rest = divmod(width, _LANE)
    lanes = across[:, : whole * _LANE].reshape(repetitions, whole, _LANE)
    if rest:
        last = np.zeros((repetitions, 1, _LANE), across.dtype)
        last[:, 0, _LANE - rest :] = across[:, whole * _LANE :]
        lanes = np.concatenate([lanes, last], axis=1)
    return lanes.reshape(repetitions, -1, 2, 4, 4).swapaxes(2, 3)


def _moving(across: np.ndarray, down: np.ndarray, moves: Moves) -> _Moving:
    """Return how weights move, and see that the library has room for it."""
    edge, width = int(max(moves.head.max(initial=0), moves.tail.max(initial=0))), across.shape[2]
    repetitions, turns, _ = down.shape
    if turns > MOST_TAPS or edge > min(MOST_EDGE, width) or width > MOST_WIDTH or repetitions > _MOST_REPETITIONS:
        raise ValueError(f"expected at most {MOST_TAPS} taps, edges of {MOST_EDGE} and {MOST_WIDTH} columns")
    arrays = [np.ascontiguousarray(each) for each in (across[:, 0], moves.head, moves.tail, moves.weights)]
    moving = _Moving(moves.weights.shape[1], *map(_at, arrays))
    moving.arrays = arrays  # what the pointers point to
    return moving


def _pieces(weights: np.ndarray, low_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights, padded to whole vectors, as high and low pieces of 16 bits."""
    padded = np.zeros((*weights.shape[:2], -(-weights.shape[2] // _LANES) * _LANES), np.int32)
    padded[..., : weights.shape[2]] = weights
    return (padded >> low_bits).astype(np.int16), (padded & ((1 << low_bits) - 1)).astype(np.int16)


def _at(array: np.ndarray) -> int:
    """Return where a contiguous array lies; any other would be read wrongly without a word."""
    if not array.flags.c_contiguous:
        raise ValueError("expected an array that is contiguous in memory")
    # Four times as fast as numpy's own way, where it works.
    if array.flags.writeable and array.size:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type] # it is one
    return array.ctypes.data


def _same_size(*arrays: np.ndarray) -> None:
    if len({array.size for array in arrays}) != 1:
        raise ValueError(f"expected arrays of one size, found {[array.size for array in arrays]}")
