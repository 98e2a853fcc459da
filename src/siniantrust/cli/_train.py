"""Commands of training across edge and cloud: train edge, cloud, keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siniantrust.cli._show import show_line

train_app = typer.Typer(
    name="train",
    help="Train across edge and cloud: the data stay at the edge.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file; see docs/collaborative-training.md.")]


@train_app.command()
def edge(config: ConfigFile) -> None:
    """Take part in a run as an edge, or go on where an interrupted one stopped."""
    from siniantrust.collab import EdgeConfig, load_config, run_edge

    show_line(f"trained: {run_edge(load_config(config, EdgeConfig))}")


@train_app.command()
def cloud(config: ConfigFile) -> None:
    """Serve a run until every edge has the result, or go on where an interrupted one stopped.

    With `workers = N` in CONFIG, N processes train the cloud's part: by torchrun, or with `ray` by Ray Train.
    """
    from siniantrust.collab import CloudConfig, load_config, run_cloud

    path = run_cloud(load_config(config, CloudConfig), lambda address: show_line(f"training at {address}"))
    show_line(f"trained: {path}")


@train_app.command()
def keys(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the edge or the cloud.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for NAME.key and NAME.crt.")] = Path(),
) -> None:
    """Make a key and a certificate; the other side needs the certificate."""
    from siniantrust.collab import write_identity

    key, certificate, fingerprint = write_identity(name, out)
    show_line(f"{key} (keep it here) and {certificate} (for the other side); the key is {fingerprint}")
