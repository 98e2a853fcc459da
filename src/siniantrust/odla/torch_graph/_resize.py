"""Resizing maps along any axes: each output place is a weighted sum of a few input places, axis by axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from siniantrust.odla.torch_graph._table import Call, one_of, operator
from siniantrust.odla.torch_graph._types import integers

_COORDINATES = one_of("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_ROUNDINGS = one_of("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@operator(
    "Resize",
    attributes="axes cubic_coeff_a extrapolation_value",
    only={
        "mode": one_of("nearest", "linear", "cubic"),
        "coordinate_transformation_mode": _COORDINATES,
        "nearest_mode": _ROUNDINGS,
        "antialias": one_of(0),
        "exclude_outside": one_of(0),
        "keep_aspect_ratio_policy": one_of("stretch"),
    },
)
def resize(call: Call, values: torch.Tensor, *inputs: torch.Tensor | None) -> torch.Tensor:
    """Resize by scales or to sizes."""
    if call.opset <= 10:  # noqa: PLR2004 - the first form of the operator: scales alone, coordinates from the corner
        (factors,) = inputs
        return _resized(values, call, _scales(factors), None, coordinates="asymmetric", rounding="floor")
    _, factors, sizes = (*inputs, None, None, None)[:3]
    axes = [axis % values.ndim for axis in call.get("axes", range(values.ndim))]
    scales, wanted = [1.0] * values.ndim, list(values.shape)
    given = None if factors is None or not factors.numel() else _scales(factors)
    for place, axis in enumerate(axes):
        if given is not None:
            scales[axis] = given[place]
        elif sizes is not None:
            wanted[axis] = integers(sizes)[place]
            scales[axis] = wanted[axis] / values.shape[axis]
    return _resized(
        values,
        call,
        scales,
        None if given is not None else wanted,
        coordinates=call.get("coordinate_transformation_mode", "half_pixel"),
        rounding=call.get("nearest_mode", "round_prefer_floor"),
    )


@operator("Upsample", attributes="scales", only={"mode": one_of("nearest", "linear")})
def upsample(call: Call, values: torch.Tensor, factors: torch.Tensor | None = None) -> torch.Tensor:
    """Enlarge by scales, which are an attribute before opset 9; coordinates from the corner."""
    scales = call.get("scales") if factors is None else _scales(factors)
    return _resized(values, call, scales, None, coordinates="asymmetric", rounding="floor")


def _resized(
    values: torch.Tensor,
    call: Call,
    scales: Sequence[float],
    sizes: Sequence[int] | None,
    *,
    coordinates: str,
    rounding: str,
) -> torch.Tensor:
    mode = call.get("mode", "nearest")
    for axis, scale in enumerate(scales):
        length = values.shape[axis]
        wanted = math.floor(length * scale) if sizes is None else sizes[axis]
        if scale == 1 and wanted == length:
            continue
        places = _places(torch.arange(wanted, dtype=torch.float64, device=values.device), length, scale, coordinates)
        taps: list[tuple[torch.Tensor, torch.Tensor | None]]
        if mode == "nearest":
            taps = [(_rounded(places, rounding), None)]
        elif mode == "linear":
            taps = _linear(places)
        else:
            taps = _cubic(places, call.get("cubic_coeff_a", -0.75))
        column = [-1 if other == axis else 1 for other in range(values.ndim)]
        parts: list[Any] = []
        for place, weight in taps:
            picked = values.index_select(axis, place.clamp(0, length - 1).to(torch.int64))
            parts.append(picked if weight is None else picked * weight.to(values.dtype).reshape(column))
        values = sum(parts[1:], start=parts[0])
    return values


def _places(index: torch.Tensor, length: int, scale: float, coordinates: str) -> torch.Tensor:
    """Return where in the input each output place lies (ONNX, Resize, ``coordinate_transformation_mode``)."""
    wanted = len(index)
    if coordinates == "align_corners":
        return index * ((length - 1) / (length * scale - 1)) if wanted > 1 else index * 0
    if coordinates == "asymmetric":
        return index / scale
    if coordinates == "pytorch_half_pixel" and wanted == 1:
        return index * 0
    places = (index + 0.5) / scale - 0.5
    if coordinates == "half_pixel_symmetric":
        places = places + length / 2 * (1 - wanted / (length * scale))
    return places


def _rounded(places: torch.Tensor, rounding: str) -> torch.Tensor:
    if rounding == "floor":
        return places.floor()
    if rounding == "ceil":
        return places.ceil()
    return (places - 0.5).ceil() if rounding == "round_prefer_floor" else (places + 0.5).floor()


def _linear(places: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    low = places.floor()
    share = places - low
    return [(low, 1 - share), (low + 1, share)]


def _cubic(places: torch.Tensor, sharpness: float) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Return the four taps of cubic convolution (Keys 1981)."""
    low = places.floor()
    taps: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    for offset in (-1, 0, 1, 2):
        far = (places - low - offset).abs()
        near = ((sharpness + 2) * far - (sharpness + 3)) * far**2 + 1
        outer = ((far - 5) * far + 8) * far * sharpness - 4 * sharpness
        taps.append((low + offset, torch.where(far <= 1, near, outer)))
    return taps


def _scales(factors: torch.Tensor | None) -> list[float]:
    found: list[float] = [] if factors is None else factors.detach().double().tolist()
    return found
