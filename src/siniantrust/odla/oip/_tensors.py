"""Tensors as the protocol carries them: datatype names, raw little-endian bytes and JSON numbers.

Everything here reads what a stranger sent: each function checks before it believes, and raises ``ProtocolError``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from siniantrust.errors import ProtocolError

DATATYPES = MappingProxyType(
    {
        "bool": "BOOL",
        "float16": "FP16",
        "float32": "FP32",
        "float64": "FP64",
        **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
        **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    }
)
"""Numpy's dtype names to the protocol's."""

_DTYPES = MappingProxyType({datatype: dtype for dtype, datatype in DATATYPES.items()})
# More dimensions than numpy has, or extents beyond any memory, are refused before anything is multiplied out.
_MAX_RANK = 32
_MAX_ELEMENTS = 2**40
_SHOWN_CHARACTERS = 80
_KINDS = MappingProxyType({"b": bool, "i": int, "u": int, "f": float})
# What a list may hold to become a dtype of each kind.
_HELD_BY = MappingProxyType(
    {"b": frozenset({bool}), "i": frozenset({int}), "u": frozenset({int}), "f": frozenset({int, float})}
)


def dtype_of(datatype: object, *, tensor: str) -> np.dtype[Any]:
    """Return numpy's dtype for a datatype name of the protocol."""
    if not isinstance(datatype, str) or datatype not in _DTYPES:
        raise ProtocolError(f"tensor {tensor!r}: datatype {_shown(datatype)} is not one of {', '.join(_DTYPES)}")
    return np.dtype(_DTYPES[datatype])


def checked_shape(shape: object, *, tensor: str) -> tuple[int, ...]:
    """Return a shape after checking that it is a short list of sensible extents."""
    extents = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str | bytes) else None
    if extents is None or len(extents) > _MAX_RANK or any(not _is_extent(extent) for extent in extents):
        raise ProtocolError(f"tensor {tensor!r}: shape {_shown(shape)} is not a list of at most {_MAX_RANK} extents")
    # An extent of 0 would hide one that numpy cannot represent.
    if math.prod(max(extent, 1) for extent in extents) > _MAX_ELEMENTS:
        raise ProtocolError(f"tensor {tensor!r}: shape {_shown(shape)} has more elements than any message")
    return tuple(extents)


def to_raw(array: np.ndarray) -> bytes:
    """Return an array's elements as little-endian, row-major bytes."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def from_raw(raw: bytes | memoryview, *, tensor: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Read an array of ``dtype`` and ``shape`` from little-endian, row-major bytes; NaN and infinities pass."""
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ProtocolError(f"tensor {tensor!r}: {dtype.name}{list(shape)} takes {expected} bytes, found {len(raw)}")
    if dtype == np.bool_:
        octets = np.frombuffer(raw, dtype=np.uint8)
        if octets.size and octets.max() > 1:
            raise ProtocolError(f"tensor {tensor!r}: a BOOL is a byte of 0 or 1, found {octets.max()}")
    array = np.frombuffer(raw, dtype=dtype.newbyteorder("<")).reshape(shape)
    # A copy, so that the caller may write to it and the message can be freed.
    return array.astype(dtype, copy=True)


def from_numbers(data: object, *, tensor: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Read an array from JSON numbers, flat or nested, or from a flat array of protobuf's; each has to fit ``dtype``.

    Booleans are no numbers, and only integers become integers; floating-point values may be rounded, not overflow.
    """
    held = _leaf_types(data, tensor)
    if not held <= _HELD_BY.get(dtype.kind, frozenset()):
        raise ProtocolError(f"tensor {tensor!r}: its data does not hold {dtype.name} values")
    wide = np.dtype(np.float64) if dtype.kind == "f" else dtype
    try:
        # Numpy refuses a Python integer that the dtype cannot hold, but wraps around those that are numpy's already.
        array = np.asarray(data if isinstance(data, np.ndarray) else np.array(data, wide))
    except OverflowError:
        raise ProtocolError(f"tensor {tensor!r}: its data does not fit {dtype.name}") from None
    except ValueError:
        raise ProtocolError(f"tensor {tensor!r}: its data is not a regular list of numbers") from None
    expected = math.prod(shape)
    if array.size != expected or array.shape not in {(expected,), shape}:
        raise ProtocolError(
            f"tensor {tensor!r}: shape {list(shape)} takes {expected} elements, found {array.size} "
            f"in {list(array.shape)}"
        )
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    changed = np.isinf(cast) != np.isinf(array) if dtype.kind == "f" else cast != array
    if changed.any():
        raise ProtocolError(f"tensor {tensor!r}: its data does not fit {dtype.name}")
    return cast.reshape(shape)


def _leaf_types(data: object, tensor: str, *, depth: int = 0) -> set[type]:
    """Return the types within nested lists: numpy would pad a list with one long string in it to gigabytes."""
    if isinstance(data, np.ndarray):
        return {_KINDS[data.dtype.kind]} if data.size else set()
    if not isinstance(data, list):
        return {type(data)}
    types = set(map(type, data))
    if list in types:
        if types != {list} or depth == _MAX_RANK:
            raise ProtocolError(f"tensor {tensor!r}: its data is not a regular list of numbers")
        return types.union(*(_leaf_types(entry, tensor, depth=depth + 1) for entry in data)) - {list}
    return types


def _is_extent(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: object) -> str:
    text = repr(list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
