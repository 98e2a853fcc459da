"""Operators that pick values: slices, gathers, the largest."""

from __future__ import annotations

import torch

from siniantrust.odla.torch_graph._table import Call, one_of, operator
from siniantrust.odla.torch_graph._types import integers


@operator("Slice", attributes="axes ends starts")
def slice_of(
    call: Call,
    values: torch.Tensor,
    starts: torch.Tensor | None = None,
    ends: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    """Slice along axes as Python does; bounds are attributes before opset 10."""
    first = call.get("starts") if starts is None else integers(starts)
    last = call.get("ends") if ends is None else integers(ends)
    chosen = call.get("axes", list(range(len(first)))) if axes is None else integers(axes)
    strides = [1] * len(first) if steps is None else integers(steps)
    for axis, start, end, step in zip(chosen, first, last, strides, strict=True):
        places = range(values.shape[axis])[start:end:step]
        if step == 1:
            values = values.narrow(axis, places.start if len(places) else 0, len(places))
        else:
            values = values.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=values.device))
    return values


@operator("Gather", attributes="axis")
def gather(call: Call, values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Pick slices along an axis; the indices' shape takes the axis's place."""
    axis = call.get("axis", 0) % values.ndim
    picked = values.index_select(axis, _from_end(indices, values.shape[axis]).flatten())
    return picked.reshape([*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :]])


@operator("GatherElements", attributes="axis")
def gather_elements(call: Call, values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Pick single elements along an axis."""
    axis = call.get("axis", 0)
    return values.gather(axis, _from_end(indices, values.shape[axis]))


@operator("TopK", attributes="axis k largest sorted", outputs=2)
def top_k(call: Call, values: torch.Tensor, count: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest or smallest along an axis and where they are; the count is an attribute before opset 10."""
    wanted = call.get("k") if count is None else int(count.item())
    ordered, places = values.sort(dim=call.get("axis", -1), descending=bool(call.get("largest", 1)), stable=True)
    axis = call.get("axis", -1)
    return ordered.narrow(axis, 0, wanted), places.narrow(axis, 0, wanted)


@operator("ArgMax", attributes="axis keepdims", only={"select_last_index": one_of(0)})
def arg_max(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Return where the largest value along an axis is."""
    return values.argmax(dim=call.get("axis", 0), keepdim=bool(call.get("keepdims", 1)))


@operator("ArgMin", attributes="axis keepdims", only={"select_last_index": one_of(0)})
def arg_min(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Return where the smallest value along an axis is."""
    return values.argmin(dim=call.get("axis", 0), keepdim=bool(call.get("keepdims", 1)))


@operator("Trilu", attributes="upper")
def triangle(call: Call, values: torch.Tensor, diagonal: torch.Tensor | None = None) -> torch.Tensor:
    """Keep the upper or lower triangle of each matrix."""
    offset = 0 if diagonal is None else int(diagonal.item())
    return values.triu(offset) if call.get("upper", 1) else values.tril(offset)


def _from_end(indices: torch.Tensor, length: int) -> torch.Tensor:
    """Return int64 indices in which negative ones have been counted from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + length, indices)
