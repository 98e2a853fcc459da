"""The front as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from siniantrust._extras import require
from siniantrust._files import write_atomic
from siniantrust.masking.tune._record import Tuning

_DPI = 110
_SMALLEST, _LARGEST = 20.0, 220.0


def draw_front(tuning: Tuning, path: Path) -> None:
    """Draw accuracy lost against the highest leakage: the front filled, the others hollow, the limits as lines.

    Colour is Part 1's FLOPs, size is what crosses.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    require("matplotlib", extra="tune")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    most = max(point.size_bytes for point in tuning.points)
    costs = [point.flops / 1e6 for point in tuning.points]
    places = [(max(point.leakage.values()), point.lost_points) for point in tuning.points]
    sizes = [_SMALLEST + (_LARGEST - _SMALLEST) * point.size_bytes / most for point in tuning.points]
    front = [index for index, point in enumerate(tuning.points) if point.on_front]
    axes.scatter([x for x, _ in places], [y for _, y in places], s=sizes, facecolors="none", edgecolors="0.7")
    shown = axes.scatter(
        [places[index][0] for index in front],
        [places[index][1] for index in front],
        s=[sizes[index] for index in front],
        c=[costs[index] for index in front],
        vmin=min(costs),
        vmax=max(costs) if max(costs) > min(costs) else min(costs) + 1,
    )
    figure.colorbar(shown, label="MFLOP before the cut")
    axes.axvline(tuning.limits["leakage"], linestyle=":", color="0.5")
    axes.axhline(tuning.limits["lost_points"], linestyle=":", color="0.5")
    axes.set_xlabel("highest leakage, upper 95 % bound (0 is a guess, 1 is the input itself)")
    axes.set_ylabel("accuracy lost, points")
    axes.set_title("front filled; size is what crosses; dotted: limits")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    write_atomic(path, stream.getvalue())
