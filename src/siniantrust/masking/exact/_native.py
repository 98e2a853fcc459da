"""The compiled passes of ``_kernels.c``, through ctypes."""

from __future__ import annotations

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

from siniantrust.masking.exact._passes import Mask, Unmask, Weigh

_Type = type[ctypes.c_void_p] | type[ctypes.c_int64] | type[ctypes.c_int32]
_Pointer: _Type = ctypes.c_void_p
_Count: _Type = ctypes.c_int64
_Flag: _Type = ctypes.c_int32
# How the library splits weights, so that products with quantised values are sums of 16-bit products.
_LOW_BITS = 11
_LANES = 16


def load_native() -> NativePasses | None:
    """Return the compiled passes, or None where this installation was made without a C compiler."""
    path = Path(__file__).with_name(f"_kernels{EXTENSION_SUFFIXES[0]}")
    return NativePasses(ctypes.CDLL(str(path))) if path.is_file() else None


class NativePasses:
    """One go over memory each."""

    name = "C"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._mask = library.sinian_mask
        self._mask.argtypes = [_Count, _Pointer, _Pointer, ctypes.c_float, _Pointer, _Pointer]
        self._mask.restype = ctypes.c_int32
        self._unmask = library.sinian_unmask
        self._unmask.argtypes = [
            *[_Count] * 3,
            *[_Pointer] * 4,
            *[_Count, _Flag, _Pointer, _Flag, _Pointer],
            *[_Count, _Pointer, _Pointer, _Pointer],
        ]
        self._unmask.restype = None
        self._weigh = library.sinian_weigh
        self._weigh.argtypes = [*[_Count] * 3, _Pointer, _Count, _Count, _Pointer, _Count, *[_Pointer] * 3]
        self._weigh.restype = None

    def masker(self, values: np.ndarray, scale: float, sent: np.ndarray, steps: np.ndarray) -> Mask:
        """See ``Passes``."""
        at_values, at_sent, at_steps = map(_at, (values, sent, steps))
        inverse = float(np.float32(1 / scale))

        def mask(share: slice, words: np.ndarray) -> int:
            start = share.start
            count = min(share.stop, len(values), len(sent), len(steps)) - start
            if not 0 <= count <= len(words):
                raise ValueError(f"expected a word for each of {count} values, found {len(words)}")
            place = at_values + 4 * start, _at(words), inverse, at_sent + 4 * start, at_steps + start
            return int(self._mask(count, *place))

        return mask

    def unmasker(
        self,
        scale: np.ndarray,
        bias: np.ndarray,
        *,
        by_column: bool,
        relu: bool,
        across: np.ndarray,
        down: np.ndarray,
    ) -> Unmask:
        """See ``Passes``."""
        repetitions = len(across)
        constants = [np.ascontiguousarray(array) for array in (scale, bias, across, down)]
        at_scale, at_bias, at_across, at_down = map(_at, constants)

        def unmask(
            answers: np.ndarray, corrections: np.ndarray, addend: np.ndarray | None, values: np.ndarray
        ) -> np.ndarray:
            sums = np.empty((repetitions, len(answers)), np.int64)
            self._unmask(
                *answers.shape,
                *(_at(answers), _at(corrections), at_scale, at_bias, len(constants[0]), by_column),
                *(None if addend is None else _at(addend), relu, _at(values)),
                *(repetitions, at_across, at_down, _at(sums)),
            )
            return sums

        return unmask

    def weigher(self, across: np.ndarray, down: np.ndarray) -> Weigh:
        """See ``Passes``."""
        repetitions, taps, width = across.shape
        padded = np.zeros((repetitions, taps, -(-width // _LANES) * _LANES), np.int32)
        padded[..., :width] = across
        high = (padded >> _LOW_BITS).astype(np.int16)
        low = (padded & ((1 << _LOW_BITS) - 1)).astype(np.int16)
        constants = [high, low, np.ascontiguousarray(down)]
        at_high, at_low, at_down = map(_at, constants)

        def weigh(steps: np.ndarray) -> np.ndarray:
            # Reading sizes from ``constants`` keeps alive what the pointers point to.
            sums = np.empty((len(steps), repetitions, constants[2].shape[1], taps), np.int64)
            self._weigh(
                *steps.shape,
                *(_at(steps), repetitions, sums.shape[2], at_down, taps, at_high, at_low, _at(sums)),
            )
            return sums

        return weigh


def _at(array: np.ndarray) -> int:
    """Return where a contiguous array lies; any other would be read wrongly without a word."""
    if not array.flags.c_contiguous:
        raise ValueError("expected an array that is contiguous in memory")
    return array.ctypes.data
