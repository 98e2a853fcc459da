"""Bringing feature maps of any size onto a grid that the image's pixels divide into."""

from __future__ import annotations

import torch
from torch.nn import functional

_MAX_CELL = 4


def cells(height: int, width: int) -> list[int]:
    """Return the cell sides, in pixels, that tile an image: common divisors up to 4, finest first."""
    return [cell for cell in range(1, _MAX_CELL + 1) if height % cell == 0 and width % cell == 0]


def regression_cell(height: int, width: int, map_side: int) -> int | None:
    """Return the coarsest cell at which a map of ``map_side`` is neither shrunk nor spread over many cells.

    None if the map is so coarse that one position stands for more than a cell of 4 x 4 pixels.
    """
    if map_side * _MAX_CELL < height:
        return None
    wanted = min(map_side, height // 2)
    fitting = []
    for cell in cells(height, width):
        grid = height // cell
        if grid >= wanted and (grid >= map_side or map_side % grid == 0):
            fitting.append(cell)
    return max(fitting, default=None)


def decoder_cell(height: int, width: int) -> int:
    """Return the cell at which a decoder works: 2 x 2 pixels, or coarser for images above 32 pixels, where it fits."""
    wanted = 2 if height <= 32 else 4  # noqa: PLR2004 - keeps the grid at about 16 x 16, where steps are cheap
    return max(cell for cell in cells(height, width) if cell <= wanted)


def to_grid(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bring maps (N, C, h, w) to (N, C', height, width): nothing is averaged away where the sizes allow.

    Larger maps of a multiple of the grid move blocks to channels; slightly smaller ones (a convolution without
    padding) are padded at the edges; others are interpolated.
    """
    rows, columns = maps.shape[2:]
    if (rows, columns) == (height, width):
        return maps
    if rows % height == 0 and columns % width == 0 and rows // height == columns // width:
        return functional.pixel_unshuffle(maps, rows // height)
    missing = (height - rows, width - columns)
    if min(missing) >= 0 and max(missing) <= height // 4:
        top, left = missing[0] // 2, missing[1] // 2
        return functional.pad(maps, (left, missing[1] - left, top, missing[0] - top), mode="replicate")
    if height % rows == 0 and width % columns == 0:
        return functional.interpolate(maps, size=(height, width), mode="nearest")
    return functional.interpolate(maps, size=(height, width), mode="bilinear", antialias=rows > height)
