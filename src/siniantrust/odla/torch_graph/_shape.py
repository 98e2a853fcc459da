"""Operators that move, join, repeat or describe values without changing them, and that make constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from siniantrust.odla.torch_graph._table import Call, one_of, operator
from siniantrust.odla.torch_graph._types import from_proto, integers


@operator("Reshape", attributes="allowzero")
def reshape(call: Call, values: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Reshape; -1 stands for the rest, 0 for the dimension as it was unless ``allowzero``."""
    wanted = integers(shape)
    if not call.get("allowzero", 0):
        wanted = [values.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return values.reshape(wanted)


@operator("Flatten", attributes="axis")
def flatten(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Flatten to two axes, split before ``axis``."""
    axis = call.get("axis", 1)
    axis = axis + values.ndim if axis < 0 else axis
    return values.reshape(math.prod(values.shape[:axis]), math.prod(values.shape[axis:]))


@operator("Transpose", attributes="perm")
def transpose(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Permute the axes, or reverse them."""
    return values.permute(call.get("perm", list(range(values.ndim))[::-1]))


@operator("Concat", attributes="axis")
def concat(call: Call, *inputs: torch.Tensor) -> torch.Tensor:
    """Join along an axis."""
    return torch.cat(inputs, dim=call.get("axis", 1))


@operator("Split", attributes="axis num_outputs split", outputs=None)
def split(call: Call, values: torch.Tensor, sizes: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    """Split along an axis, by sizes (an attribute before opset 13), or evenly with a smaller last piece."""
    axis = call.get("axis", 0)
    wanted = integers(sizes) if sizes is not None else call.get("split")
    if wanted is None:
        length, count = values.shape[axis], call.get("num_outputs", call.outputs)
        each = -(-length // count)
        wanted = [each] * (count - 1) + [length - each * (count - 1)]
    return torch.split(values, wanted, dim=axis)


@operator("Squeeze", attributes="axes")
def squeeze(call: Call, values: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    """Leave out axes of length one (an attribute before opset 13), or all of them."""
    chosen = integers(axes) if axes is not None else call.get("axes")
    return values.squeeze() if chosen is None else values.squeeze(tuple(chosen))


@operator("Unsqueeze", attributes="axes")
def unsqueeze(call: Call, values: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    """Insert axes of length one (an attribute before opset 13); they count in the result."""
    chosen = integers(axes) if axes is not None else call.get("axes")
    rank = values.ndim + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        values = values.unsqueeze(axis)
    return values


@operator("Pad", attributes="pads value", only={"mode": one_of("constant", "reflect", "edge", "wrap")})
def pad(
    call: Call,
    values: torch.Tensor,
    pads: torch.Tensor | None = None,
    constant: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pad or, where negative, crop; the padding is an attribute before opset 11."""
    sizes = integers(pads) if pads is not None else call.get("pads")
    chosen = [axis % values.ndim for axis in integers(axes)] if axes is not None else list(range(values.ndim))
    begins, ends = [0] * values.ndim, [0] * values.ndim
    for place, axis in enumerate(chosen):
        begins[axis], ends[axis] = sizes[place], sizes[place + len(chosen)]
    mode: Any = call.get("mode", "constant")
    if mode == "constant":
        fill = call.get("value", 0.0) if constant is None else constant.item()
        order = [size for axis in reversed(range(values.ndim)) for size in (begins[axis], ends[axis])]
        return functional.pad(values, order, value=fill)
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin or end:
            places = np.pad(np.arange(values.shape[axis]), (max(begin, 0), max(end, 0)), mode=mode)
            places = places[max(-begin, 0) : len(places) - max(-end, 0)]
            values = values.index_select(axis, torch.tensor(places, device=values.device))
    return values


@operator("Expand")
def expand(_: Call, values: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Broadcast to, and with, a shape."""
    rank = max(values.ndim, shape.numel())
    sizes = [1] * (rank - shape.numel()) + integers(shape)
    shown = [1] * (rank - values.ndim) + list(values.shape)
    return values.expand([found if size == 1 else size for size, found in zip(sizes, shown, strict=True)])


@operator("Tile")
def tile(_: Call, values: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    """Repeat along each axis."""
    return values.repeat(integers(repeats))


@operator("DepthToSpace", attributes="blocksize", only={"mode": one_of("DCR", "CRD")})
def depth_to_space(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Move channels to blocks of pixels."""
    block, (count, channels, height, width) = call.get("blocksize"), values.shape
    kept = channels // block**2
    if call.get("mode", "DCR") == "CRD":
        moved = values.reshape(count, kept, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        moved = values.reshape(count, block, block, kept, height, width).permute(0, 3, 4, 1, 5, 2)
    return moved.reshape(count, kept, height * block, width * block)


@operator("SpaceToDepth", attributes="blocksize")
def space_to_depth(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Move blocks of pixels to channels."""
    block, (count, channels, height, width) = call.get("blocksize"), values.shape
    split_up = values.reshape(count, channels, height // block, block, width // block, block)
    moved = split_up.permute(0, 3, 5, 1, 2, 4)
    return moved.reshape(count, channels * block**2, height // block, width // block)


@operator("Shape", attributes="start end")
def shape_of(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Return the shape, or a part of it."""
    return torch.tensor(list(values.shape)[call.get("start", 0) : call.get("end")], dtype=torch.int64)


@operator("Size")
def size_of(_: Call, values: torch.Tensor) -> torch.Tensor:
    """Return the number of elements."""
    return torch.tensor(values.numel(), dtype=torch.int64)


@operator("Constant", attributes="value value_float value_floats value_int value_ints")
def constant(call: Call) -> torch.Tensor:
    """Return the tensor or the numbers that the node holds."""
    (name, value), *_ = call.attributes.items()
    if name == "value":
        return from_proto(value)
    return torch.tensor(value, dtype=torch.float32 if "float" in name else torch.int64)


@operator("ConstantOfShape", attributes="value")
def constant_of_shape(call: Call, shape: torch.Tensor) -> torch.Tensor:
    """Return one number repeated to a shape; the float 0 unless the node holds another."""
    stored = call.get("value")
    fill = torch.zeros(1) if stored is None else from_proto(stored)
    return fill.reshape(()).repeat(integers(shape))


@operator("Range")
def number_range(_: Call, start: torch.Tensor, limit: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return evenly spaced numbers."""
    count = max(0, math.ceil((limit.item() - start.item()) / step.item()))
    return start + torch.arange(count, dtype=start.dtype, device=start.device) * step
