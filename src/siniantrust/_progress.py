"""Progress of long work: a bar on a terminal, silence in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Step(Protocol):
    """What a long task calls as it goes."""

    def __call__(self, description: str, *, advance: float = 1.0) -> None:
        """Say what was just done and by how many units the work moved on."""


def _silent(description: str, *, advance: float = 1.0) -> None:
    """Ignore progress."""


@contextmanager
def progress(title: str, total: float) -> Iterator[Step]:
    """Yield a ``Step`` that draws a rich progress bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)

        def step(description: str, *, advance: float = 1.0) -> None:
            bar.update(task, advance=advance, description=f"{title}: {description}")

        yield step
