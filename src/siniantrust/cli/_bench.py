"""The bench for researchers: models x data x cuts x masks x attacks, from a file into tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siniantrust.cli._options import Json
from siniantrust.cli._show import show_json, show_line, show_table

bench_app = typer.Typer(
    name="bench", help="Benches for researchers.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@bench_app.callback()
def _group() -> None:
    """Keep ``attacks`` a command of its own name, though it is the only one."""


@bench_app.command()
def attacks(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file; see docs/bench.md.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; a bench that was killed goes on in it.")],
    plots: Annotated[bool, typer.Option(help="Draw the figures.")] = True,
    as_json: Json = False,
) -> None:
    """Attack models, bare and masked, at their cuts, and write tables and plots."""
    from siniantrust import bench

    config = bench.load_config(file)
    found = bench.run_bench(config, out=out)
    tables = {"attacks": bench.attack_rows(found), "screens": bench.screen_rows(found)}
    written = bench.write_tables(tables, out)
    if plots:
        written += bench.write_plots(tables["attacks"], out / "plots")
    if as_json:
        show_json({**tables, "skipped": found.skipped, "files": [str(path) for path in written]})
        return
    show_table(
        ("model", "data", "mask", "strength#", "cut", "metric", "leakage#", "at most#", "best attack", "converged"),
        (
            (
                *(str(row[name]) for name in ("model", "data", "mask")),
                f"{row['strength']:g}",
                *(str(row[name]) for name in ("cut", "metric")),
                f"{row['mean']:.3f}",
                f"{row['upper']:.3f}",
                str(row["attack"]),
                "yes" if row["converged"] else "NO",
            )
            for row in tables["attacks"]
            if row["best"]
        ),
        title="leakage of the best attack, and its upper 95 % bound (0 is a guess, 1 is the input itself)",
    )
    if found.skipped:
        show_line(f"{len(found.skipped)} cuts or masks were not measured; {out / 'bench.json'} says why")
    show_line(f"{len(found.finished)} audits in {found.time_s:.0f} s; tables and plots in {out}")
