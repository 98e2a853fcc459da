"""The compiled passes of ``_kernels.c``, through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from siniantrust.masking.exact._passes import Results, Unmask, Unmasking, Weigh
from siniantrust.masking.exact._pool import Pool

_Type = type[ctypes.c_void_p] | type[ctypes.c_int64] | type[ctypes.c_float]
_Pointer: _Type = ctypes.c_void_p
_Count: _Type = ctypes.c_int64
_Float: _Type = ctypes.c_float
# How the library splits weights, so that products with quantised values are sums of 16-bit products.
_LOW_BITS = 11
_LANES = 16


class _Form(ctypes.Structure):
    """``struct unmasking`` of the library."""

    _fields_ = (
        *((name, _Count) for name in ("rows", "width", "period", "by_column", "repetitions", "limbs", "most")),
        *((name, _Pointer) for name in ("scale", "bias", "across", "down", "gather")),
        *((name, _Float) for name in ("floor", "inverse")),
    )


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
        self._unmask = function(
            *("unmask", _Pointer, _Count, _Count, _Pointer, _Count),
            *(*[_Pointer] * 3, _Float, _Pointer, _Pointer, _Pointer),
        )
        self._weigh = function(
            "weigh", *[_Count] * 4, _Pointer, _Count, _Count, _Pointer, _Count, *[_Pointer] * 4, result=None
        )

    def quantise(self, values: np.ndarray, scale: float, steps: np.ndarray) -> int:
        """See ``Passes``."""
        _same_size(values, steps)
        return int(self._quantise(values.size, _at(values), float(np.float32(1 / scale)), _at(steps)))

    def add(self, first: np.ndarray, second: np.ndarray, made: np.ndarray) -> None:
        """See ``Passes``."""
        _same_size(first, second, made)
        self._add(first.size // len(first), len(first), _at(first), _at(second), _at(made))

    def mask(self, steps: np.ndarray, share: slice, pads: np.ndarray, sent: np.ndarray) -> None:
        """See ``Passes``."""
        count = share.stop - share.start
        if not 0 <= share.start <= share.stop <= steps.size or pads.shape != (len(sent), count):
            raise ValueError(f"expected pads uint8[{len(sent)}, {count}], found {pads.dtype}{list(pads.shape)}")
        _same_size(steps, sent[0])
        at_steps, at_sent = _at(steps) + share.start, _at(sent) + share.start
        self._mask(count, len(sent), at_steps, _at(pads), steps.size, at_sent)

    def pool(self, steps: np.ndarray, pool: Pool, pooled: np.ndarray) -> None:
        """See ``Passes``."""
        window = *pool.kernel, *pool.strides, *pool.pads[:2]
        self._pool(*steps.shape, *window, *pooled.shape[1:], _at(steps), _at(pooled))

    def unmasker(self, form: Unmasking) -> Unmask:
        """See ``Passes``."""
        arrays = [np.ascontiguousarray(each) for each in (form.scale, form.bias, form.across, form.down, form.gather)]
        repetitions, period = form.gather.shape
        sizes = form.down.shape[1], form.across.shape[1], period, form.by_column, repetitions, form.limbs, form.most
        native = _Form(*sizes, *map(_at, arrays), 0.0 if form.relu else -np.inf, form.inverse)
        # What the pointers point to lives as long as what holds them, and that as long as a reference to it.
        native.arrays = arrays
        at_form = ctypes.byref(native)
        each = native.rows * native.width

        def unmask(of: Results) -> Callable[[slice, np.ndarray], int]:
            at_answers, at_sums = _at(of.answers), _at(of.sums)
            limbs, all_channels = of.answers.shape[:2]
            steps_added = of.added is not None and of.added.dtype == np.int8
            at_added = None if of.added is None else _at(of.added)
            at_floats, at_whole = (None, at_added) if steps_added else (at_added, None)
            at_values = None if of.values is None else _at(of.values)
            at_steps = None if of.steps is None else _at(of.steps)

            def share(channels: slice, pads: np.ndarray) -> int:
                count = channels.stop - channels.start
                if not 0 <= channels.start <= channels.stop <= all_channels or pads.size != limbs * count * each:
                    raise ValueError(f"expected pads for {count} of {all_channels} channels, found {pads.size} bytes")
                where = at_form, channels.start, count, at_answers, all_channels * each, _at(pads)
                added = at_floats, at_whole, of.added_scale
                return int(self._unmask(*where, *added, at_values, at_steps, at_sums))

            return share

        return unmask

    def weigher(self, across: np.ndarray, down: np.ndarray, factors: np.ndarray) -> Weigh:
        """See ``Passes``."""
        repetitions, taps, width = across.shape
        padded = np.zeros((repetitions, taps, -(-width // _LANES) * _LANES), np.int32)
        padded[..., :width] = across
        high = (padded >> _LOW_BITS).astype(np.int16)
        low = (padded & ((1 << _LOW_BITS) - 1)).astype(np.int16)
        constants = [high, low, np.ascontiguousarray(down), np.ascontiguousarray(factors)]
        at_high, at_low, at_down, at_factors = map(_at, constants)

        def weigh(steps: np.ndarray) -> np.ndarray:
            # Reading sizes from ``constants`` keeps alive what the pointers point to.
            sums = np.empty((len(steps), repetitions), np.int64)
            self._weigh(
                *steps.shape,
                *(_at(steps), repetitions, constants[2].shape[1], at_down),
                *(taps, at_high, at_low, at_factors, _at(sums)),
            )
            return sums

        return weigh


def _at(array: np.ndarray) -> int:
    """Return where a contiguous array lies; any other would be read wrongly without a word."""
    if not array.flags.c_contiguous:
        raise ValueError("expected an array that is contiguous in memory")
    # Four times as fast as numpy's own way, where it works.
    return (
        ctypes.addressof(ctypes.c_char.from_buffer(array.data))
        if array.flags.writeable and array.size
        else array.ctypes.data
    )


def _same_size(*arrays: np.ndarray) -> None:
    if len({array.size for array in arrays}) != 1:
        raise ValueError(f"expected arrays of one size, found {[array.size for array in arrays]}")
