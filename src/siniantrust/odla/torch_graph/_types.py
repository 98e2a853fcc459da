"""Element types and numbers, between ONNX and torch."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from siniantrust.errors import ModelError

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
}
"""Torch's element types by ONNX's numbers."""


def is_known_type(number: int) -> bool:
    """Return whether torch has ONNX's element type ``number``."""
    return number in DTYPES


def from_proto(tensor: onnx.TensorProto) -> torch.Tensor:
    """Return a stored tensor on the default device, as a copy.

    Raises:
        ModelError: if torch has no such element type.
    """
    if not is_known_type(tensor.data_type):
        kind = TensorProto.DataType.Name(tensor.data_type)
        raise ModelError(f"tensor '{tensor.name}': torch has no element type {kind}")
    values = numpy_helper.to_array(tensor)
    if tensor.data_type == TensorProto.BFLOAT16:
        # Numpy has no such type of its own; it comes widened or as two bytes.
        values = values.astype(np.float32)
    return torch.tensor(values, dtype=DTYPES[tensor.data_type])


def integers(values: torch.Tensor) -> list[int]:
    """Return the numbers of a tensor that holds a shape, axes or the like."""
    found: list[int] = values.detach().flatten().tolist()
    return found
