"""Convolutions and transposed convolutions over one, two or three axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from siniantrust.odla.torch_graph._table import Call, one_of, operator

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
AUTO_PAD = one_of("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
"""The values of ``auto_pad``."""


def edges(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return the padding of the last axes as torch wants it: the last axis first, begin and end of each."""
    return [size for pair in reversed(list(zip(begins, ends, strict=True))) for size in pair]


def paddings(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return how far a window operator pads each axis at its begin and at its end."""
    auto = call.get("auto_pad", "NOTSET")
    rank = len(sizes)
    if auto in {"NOTSET", "VALID"}:
        pads = call.get("pads") if auto == "NOTSET" else None
        pads = pads or [0] * (2 * rank)
        return list(pads[:rank]), list(pads[rank:])
    begins, ends = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        whole = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        small, large = whole // 2, whole - whole // 2
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return begins, ends


@operator("Conv", attributes="dilations group kernel_shape pads strides", only={"auto_pad": AUTO_PAD})
def convolution(
    call: Call, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Convolve (N, C, *sizes) with (M, C / group, *kernel)."""
    sizes, kernel = values.shape[2:], weight.shape[2:]
    rank = len(kernel)
    strides, dilations = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
    begins, ends = paddings(call, sizes, kernel, strides, dilations)
    if begins != ends:
        values, begins = functional.pad(values, edges(begins, ends)), [0] * rank
    return _CONVOLVE[rank](values, weight, bias, strides, begins, dilations, call.get("group", 1))


@operator(
    "ConvTranspose",
    attributes="dilations group kernel_shape output_padding output_shape pads strides",
    only={"auto_pad": AUTO_PAD},
)
def transposed_convolution(
    call: Call, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Convolve transposed (N, C, *sizes) with (C, M / group, *kernel): whole first, then cropped by the padding."""
    rank = values.ndim - 2
    strides, dilations = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
    extra = call.get("output_padding", [0] * rank)
    group = call.get("group", 1)
    whole = _TRANSPOSED[rank](values, weight, None, strides, 0, 0, group, dilations)
    begins, ends = _crops(call, whole.shape[2:], values.shape[2:], strides, extra)
    ends = [end - more for end, more in zip(ends, extra, strict=True)]
    answer = functional.pad(whole, edges([-size for size in begins], [-size for size in ends]))
    return answer if bias is None else answer + bias.reshape(-1, *[1] * rank)


def _crops(
    call: Call, whole: Sequence[int], sizes: Sequence[int], strides: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return how much of each axis of the whole transposed convolution is cut off at its begin and at its end."""
    auto, wanted = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    if wanted is None and auto in {"NOTSET", "VALID"}:
        return paddings(call, sizes, (), (), ())
    if wanted is None:
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    total = [full + more - size for full, more, size in zip(whole, extra, wanted[-len(whole) :], strict=True)]
    small = [size // 2 for size in total]
    large = [size - half for size, half in zip(total, small, strict=True)]
    return (small, large) if auto == "SAME_UPPER" else (large, small)
