"""The trainings that made the model: a re-training by its epochs, and a run across edge and cloud by its sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.report._axis import Key
from siniantrust.report._line_figure import line_figure, make_lines
from siniantrust.report._load import Sources
from siniantrust.report._text import percent
from siniantrust.report._training_input import CloudRead, CurvePointRead, EdgeRead, EpochRead, RetrainingRead

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class RetrainingView:
    """A re-training, with a legend and pictures of its curves as (caption, picture)."""

    record: RetrainingRead
    keys: tuple[Key, ...]
    figures: tuple[tuple[str, Markup], ...]


@dataclass(frozen=True)
class RunView:
    """One training across edge and cloud, by what its sides left, with a legend and pictures as above."""

    clouds: tuple[CloudRead, ...]
    edges: tuple[EdgeRead, ...]
    keys: tuple[Key, ...]
    figures: tuple[tuple[str, Markup], ...]

    @property
    def mode(self) -> str:
        """The mode, on which the sides agreed."""
        return (*self.clouds, *self.edges)[0].mode

    @property
    def refused(self) -> list[tuple[str, str]]:
        """Return (edge, why) of every edge that the cloud left out."""
        return [pair for cloud in self.clouds for pair in cloud.left_out.items()]


def view_retrainings(sources: Sources) -> list[RetrainingView]:
    """Return the re-trainings, in the order given."""
    records = [record for record in sources.lineage.trainings if isinstance(record, RetrainingRead)]
    return [_retraining(record, f"retraining-{index}") for index, record in enumerate(records)]


def view_runs(sources: Sources) -> list[RunView]:
    """Return the runs across edge and cloud; sides that agreed on one task are of one run."""
    sides = [record for record in sources.lineage.trainings if not isinstance(record, RetrainingRead)]
    agreed = dict.fromkeys(side.agreement_sha256 for side in sides)
    return [
        _run([side for side in sides if side.agreement_sha256 == agreement], f"run-{index}")
        for index, agreement in enumerate(agreed)
    ]


def _retraining(record: RetrainingRead, key: str) -> RetrainingView:
    if not record.epochs:
        return RetrainingView(record, (), ())
    losses = make_lines(
        {
            "training items": _points(record.epochs, lambda epoch: epoch.training_loss),
            "validation items": _points(record.epochs, lambda epoch: epoch.validation_loss),
        }
    )
    best = (float(record.best_epoch), "taken")
    figures = [("Loss", line_figure(f"{key}-loss", losses, across="epoch", up="loss", marked=best))]
    shares = [
        (float(epoch.epoch), 100 * epoch.validation_accuracy)
        for epoch in record.epochs
        if epoch.validation_accuracy is not None
    ]
    if shares:
        held = {"held-out items, before": record.accuracy_before, "held-out items, after": record.accuracy_after}
        levels = {f"{name}: {percent(share)}": 100 * share for name, share in held.items() if share is not None}
        line = make_lines({"training items": (), "validation items": shares})[1:]
        figures.append(
            (
                "Accuracy",
                line_figure(f"{key}-accuracy", line, across="epoch", up="accuracy, %", marked=best, levels=levels),
            )
        )
    return RetrainingView(record, tuple(line.key for line in losses), tuple(figures))


def _points(epochs: Sequence[EpochRead], value: Callable[[EpochRead], float]) -> list[tuple[float, float]]:
    return [(float(epoch.epoch), value(epoch)) for epoch in epochs]


def _run(sides: Sequence[EdgeRead | CloudRead], key: str) -> RunView:
    named = {f"edge {side.name}" if isinstance(side, EdgeRead) else "cloud": side for side in sides}
    drawn = {name: side.curve for name, side in named.items() if side.curve}
    across = "epoch" if any(point.epoch is not None for curve in drawn.values() for point in curve) else "step"
    losses = make_lines({name: _curve(curve, lambda point: point.loss) for name, curve in drawn.items()})
    figures = [("Loss", line_figure(f"{key}-loss", losses, across=across, up="loss"))] if losses else []
    shares = {
        name: [(float(point.place), 100 * point.accuracy) for point in curve if point.accuracy is not None]
        for name, curve in drawn.items()
    }
    if any(shares.values()):
        lines = [line for line in make_lines(shares) if line.points]
        figures.append(
            (
                "Accuracy on the items that were learnt from",
                line_figure(f"{key}-accuracy", lines, across=across, up="accuracy, %"),
            )
        )
    return RunView(
        clouds=tuple(side for side in sides if isinstance(side, CloudRead)),
        edges=tuple(side for side in sides if isinstance(side, EdgeRead)),
        keys=tuple(line.key for line in losses),
        figures=tuple(figures),
    )


def _curve(curve: Sequence[CurvePointRead], value: Callable[[CurvePointRead], float]) -> list[tuple[float, float]]:
    return [(float(point.place), value(point)) for point in curve]
