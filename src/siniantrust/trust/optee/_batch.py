"""A loaded part, and its batches: the items of one are run one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from siniantrust.errors import DataError
from siniantrust.lowering import Lowered, Slot
from siniantrust.trust.optee._application import Session
from siniantrust.trust.optee._inputs import Inputs
from siniantrust.trust.process._noise import PREFIX


@dataclass(frozen=True, slots=True)
class Part:
    """A loaded part. With ``batched``, items of a batch are run one after the other."""

    lowered: Lowered
    inputs: Inputs
    session: Session
    batched: bool


def is_batched(proto: onnx.ModelProto) -> bool:
    """Say whether the first axis of every output and input, but for noise, is the free batch."""
    given = (entry for entry in proto.graph.input if not entry.name.startswith(PREFIX))
    shapes = [entry.type.tensor_type.shape for entry in (*given, *proto.graph.output)]
    return all(shape.dim and shape.dim[0].dim_param for shape in shapes)


def batch_items(
    name: str, given: Sequence[Slot], inputs: Mapping[str, np.ndarray], *, batched: bool
) -> list[dict[str, np.ndarray]]:
    """Check the inputs and return those of each item of the batch.

    Raises:
        DataError: if they do not fit the part.
    """
    slots = {slot.name: slot for slot in given}
    if inputs.keys() != slots.keys():
        raise DataError(f"part {name}: expected inputs {sorted(slots)}, found {sorted(inputs)}")
    arrays = {entry: np.asarray(array) for entry, array in inputs.items()}
    counts = set()
    for entry, array in arrays.items():
        slot = slots[entry]
        size = array.shape[0] if batched and array.ndim else None
        if str(array.dtype) != slot.dtype or array.shape != (slot.shape if size is None else (size, *slot.shape[1:])):
            shape = ["batch", *slot.shape[1:]] if batched else list(slot.shape)
            raise DataError(
                f"part {name}: input {entry}: expected {slot.dtype} of shape {shape}, found {array.dtype} of shape "
                f"{list(array.shape)}"
            )
        counts.add(size)
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"part {name}: expected one number of items in all inputs, and at least one; found {counts}")
    (count,) = counts
    if count is None:
        return [arrays]
    return [{entry: array[item : item + 1] for entry, array in arrays.items()} for item in range(count)]
