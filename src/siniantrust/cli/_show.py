"""How results are shown: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def show_json(content: Any) -> None:
    """Print ``content`` as JSON on standard output."""
    json.dump(content, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def show_line(text: str = "") -> None:
    """Print one line of text as it is."""
    from rich.console import Console

    Console(soft_wrap=True, highlight=False, emoji=False).print(text, markup=False)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; columns whose heading ends with a number sign hold figures and are set to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.rstrip("#"), justify="right" if column.endswith("#") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        # In a pipe there is no width to keep to, and a folded cell cannot be searched for.
        console = Console(highlight=False, width=10_000)
    console.print(table)


def size(size_bytes: float) -> str:
    """Return bytes in a readable unit."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:  # noqa: PLR2004 - binary units
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.2f} GiB"


def milliseconds(latency_s: float) -> str:
    """Return seconds as milliseconds."""
    return f"{latency_s * 1e3:.3f} ms"


def figures(leakage: dict[str, float] | None) -> str:
    """Return leakage per metric in one cell."""
    return "-" if not leakage else ", ".join(f"{metric} {value:.2f}" for metric, value in leakage.items())
