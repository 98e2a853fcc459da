"""Is what a device answered an answer of the part at all? Devices are not trusted to keep to the interface."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from siniantrust.errors import DeviceError
from siniantrust.graph import Part, Tensor


def check_answer(part: Part, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
    """Check the names, dtypes and shapes of a part's outputs, and that no NaN is among them that was not brought in.

    Raises:
        DeviceError: naming the output, what was expected and what was found.
    """
    if outputs.keys() != {tensor.name for tensor in part.outputs}:
        expected = sorted(tensor.name for tensor in part.outputs)
        raise DeviceError(f"it answered with the outputs {sorted(outputs)}, expected {expected}")
    items = next((found for found in (_items(tensor, inputs) for tensor in part.inputs) if found is not None), None)
    for tensor in part.outputs:
        array = outputs[tensor.name]
        if not isinstance(array, np.ndarray) or array.dtype != tensor.dtype or not tensor.fits(array.shape):
            found = f"{array.dtype} of shape {list(array.shape)}" if isinstance(array, np.ndarray) else type(array)
            raise DeviceError(
                f"it answered {tensor.name!r} as {found}, expected {tensor.dtype} of shape {list(tensor.shape)}"
            )
        answered = _items(tensor, outputs)
        if items is not None and answered is not None and answered != items:
            raise DeviceError(f"it answered {answered} items in {tensor.name!r}, expected {items}")
        if _has_nan(array) and not any(_has_nan(each) for each in inputs.values()):
            raise DeviceError(f"it answered NaN in {tensor.name!r}, and its inputs hold none")


def _items(tensor: Tensor, arrays: Mapping[str, np.ndarray]) -> int | None:
    """Return the batch size that an array has; None for one without a batch."""
    if tensor.batch_axis is None:
        return None
    return int(arrays[tensor.name].shape[tensor.batch_axis]) // max(tensor.shape[tensor.batch_axis], 1)


def _has_nan(array: np.ndarray) -> bool:
    # The least of values among which there is NaN is NaN: one pass, and no array of truth values.
    return array.dtype.kind == "f" and array.size > 0 and bool(np.isnan(array.min()))
