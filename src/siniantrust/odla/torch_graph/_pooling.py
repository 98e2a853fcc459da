"""Pooling over windows and over everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from siniantrust.odla.torch_graph._convolution import AUTO_PAD, edges, paddings
from siniantrust.odla.torch_graph._table import Call, each_is, one_of, operator

_MAX: dict[int, Callable[..., torch.Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_AVERAGE: dict[int, Callable[..., torch.Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


@dataclass(frozen=True, slots=True)
class _Windows:
    """Where windows lie: padding at the begin and the end of each axis, and what ``ceil_mode`` adds at the end."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    begins: Sequence[int]
    ends: Sequence[int]
    beyond: Sequence[int]

    @classmethod
    def of(cls, call: Call, sizes: Sequence[int]) -> _Windows:
        kernel = call.get("kernel_shape")
        rank = len(kernel)
        strides, dilations = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
        begins, ends = paddings(call, sizes, kernel, strides, dilations)
        beyond = []
        for axis, size in enumerate(sizes):
            padded = size + begins[axis] + ends[axis]
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            steps = (padded - reach) / strides[axis]
            count = (math.ceil(steps) if call.get("ceil_mode", 0) else math.floor(steps)) + 1
            # A window must not start in the padding at the end.
            if call.get("ceil_mode", 0) and (count - 1) * strides[axis] >= size + begins[axis]:
                count -= 1
            beyond.append(max(0, (count - 1) * strides[axis] + reach - padded))
        return cls(kernel, strides, dilations, begins, ends, beyond)

    def pad(self, values: torch.Tensor, *, inner: float, outer: float) -> torch.Tensor:
        """Pad by the padding with ``inner``, then by what ``ceil_mode`` adds with ``outer``."""
        for begins, ends, value in ((self.begins, self.ends, inner), ([0] * len(self.beyond), self.beyond, outer)):
            # Torch copies all values even where there is nothing to add.
            if any(begins) or any(ends):
                values = functional.pad(values, edges(begins, ends), value=value)
        return values


@operator(
    "MaxPool",
    attributes="ceil_mode dilations kernel_shape pads strides",
    only={"auto_pad": AUTO_PAD, "storage_order": one_of(0)},
)
def max_pool(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each window."""
    windows = _Windows.of(call, values.shape[2:])
    # Torch pools no small integers; they are exact as floats.
    numbers = values if values.is_floating_point() else values.float()
    padded = windows.pad(numbers, inner=-math.inf, outer=-math.inf)
    pooled = _MAX[len(windows.kernel)](padded, windows.kernel, windows.strides, 0, windows.dilations)
    return pooled.to(values.dtype)


@operator(
    "AveragePool",
    attributes="ceil_mode count_include_pad kernel_shape pads strides",
    only={"auto_pad": AUTO_PAD, "dilations": each_is(1)},
)
def average_pool(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Return the mean of each window, over what lies in the image, or in the padding too."""
    windows = _Windows.of(call, values.shape[2:])
    average = _AVERAGE[len(windows.kernel)]
    padding = float(call.get("count_include_pad", 0))
    counted = windows.pad(torch.ones_like(values[:1, :1]), inner=padding, outer=0.0)
    shares = average(counted, windows.kernel, windows.strides)
    return average(windows.pad(values, inner=0.0, outer=0.0), windows.kernel, windows.strides) / shares


@operator("GlobalAveragePool")
def global_average_pool(_: Call, values: torch.Tensor) -> torch.Tensor:
    """Return the mean of each channel."""
    return values.mean(dim=tuple(range(2, values.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(_: Call, values: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each channel."""
    return values.amax(dim=tuple(range(2, values.ndim)), keepdim=True)
