"""Pictures of a bench: leakage over depth, and over the strength of masks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from siniantrust._extras import require
from siniantrust._files import write_atomic
from siniantrust.bench._cases import NO_MASK
from siniantrust.bench._tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110
_MARKERS = "osD^v<>PX*"


def write_plots(rows: Sequence[Row], out: Path) -> list[Path]:
    """Draw the rows of ``attack_rows`` and return the files written to the folder ``out``.

    For each model, data set and metric: ``depth-MODEL-DATA-METRIC.png``, leakage over the cuts with a line for each
    attack and the band between the best one's bounds; and, if there are masks, ``masks-MODEL-DATA-METRIC.png``, the
    best attack's leakage against the strength with a line for each mask and a panel for each cut.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    require("matplotlib", extra="bench")
    written = []
    for model, data, metric in dict.fromkeys((row["model"], row["data"], row["metric"]) for row in rows):
        own = [row for row in rows if (row["model"], row["data"], row["metric"]) == (model, data, metric)]
        bare = [row for row in own if row["mask"] == NO_MASK]
        stem = f"{model}-{data}-{metric}.png"
        title = f"{model} on {data}: {metric}"
        if bare:
            written.append(_save(_depth(bare, title), out / f"depth-{stem}"))
        if len(bare) < len(own):
            written.append(_save(_masks(own, title), out / f"masks-{stem}"))
    return written


def _depth(rows: Sequence[Row], title: str) -> Figure:
    from matplotlib.figure import Figure

    names = {int(row["cut_index"] or 0): str(row["cut"]) for row in rows}
    figure = Figure(figsize=(2.5 + 0.8 * len(names), 4.5), layout="constrained")
    axes = figure.subplots()
    for number, attack in enumerate(dict.fromkeys(row["attack"] for row in rows)):
        points = sorted((int(row["cut_index"] or 0), _number(row["mean"])) for row in rows if row["attack"] == attack)
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, linewidth=1, label=str(attack))
    best = sorted((row for row in rows if row["best"]), key=lambda row: int(row["cut_index"] or 0))
    axes.fill_between(
        [int(row["cut_index"] or 0) for row in best],
        [_number(row["lower"] if row["lower"] is not None else row["mean"]) for row in best],
        [_number(row["upper"]) for row in best],
        alpha=0.2,
        color="black",
        label="best, 95 % bounds",
    )
    axes.set_xticks(list(names), list(names.values()), rotation=60, ha="right", fontsize=7)
    axes.set_xlabel("cut, from the input on")
    _finish(axes, title)
    axes.legend(fontsize=7)
    return figure


def _masks(rows: Sequence[Row], title: str) -> Figure:
    from matplotlib.figure import Figure

    best = [row for row in rows if row["best"]]
    cuts = dict(sorted({int(row["cut_index"] or 0): str(row["cut"]) for row in best if row["mask"] != NO_MASK}.items()))
    figure = Figure(figsize=(1.5 + 3 * len(cuts), 4), layout="constrained")
    panels = figure.subplots(1, len(cuts), sharey=True, squeeze=False)[0]
    for axes, (index, name) in zip(panels, cuts.items(), strict=True):
        own = [row for row in best if row["cut_index"] == index]
        for number, mask in enumerate(dict.fromkeys(row["mask"] for row in own)):
            points = sorted((_number(row["strength"]), _number(row["mean"])) for row in own if row["mask"] == mask)
            if mask == NO_MASK:
                axes.axhline(points[0][1], color="black", linestyle=":", label="no mask")
                continue
            marker = _MARKERS[number % len(_MARKERS)]
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, linewidth=1, label=str(mask))
        axes.set_xlabel("strength")
        _finish(axes, name)
    figure.suptitle(title, fontsize=10)
    panels[0].legend(fontsize=7)
    return figure


def _finish(axes: Axes, title: str) -> None:
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_ylabel("leakage (0: prior, 1: the input)")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)


def _save(figure: Figure, path: Path) -> Path:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    write_atomic(path, stream.getvalue())
    return path


def _number(value: object) -> float:
    assert isinstance(value, int | float)  # noqa: S101 - these columns hold figures alone
    return float(value)
