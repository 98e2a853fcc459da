"""The commands, in the order of the stages."""

from __future__ import annotations

from typing import Annotated

import typer

from siniantrust import __version__
from siniantrust.cli import (
    _attest,
    _bench,
    _demo,
    _deploy,
    _enclave,
    _gramine,
    _host,
    _keys,
    _mask,
    _restructure,
    _retrain,
    _study,
    _tune,
    _verify,
)

app = typer.Typer(
    name="sinian",
    help="Run the private part of a neural network on trusted hardware, the rest wherever it is fast, and show by "
    "attack what leaks.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it by position
    if asked:
        typer.echo(f"sinian {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *, version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False
) -> None:
    """Take the options that come before a command."""


app.command()(_study.inspect)
app.command()(_mask.mask)
app.command()(_study.audit)
app.command()(_retrain.retrain)
app.command()(_restructure.restructure)
app.command()(_tune.tune)
app.command()(_study.plan)
app.command()(_deploy.build)
app.command()(_deploy.run)
app.command()(_deploy.serve)
app.command()(_deploy.export)
app.command()(_study.report)
app.command()(_host.devices)
app.command()(_host.doctor)
app.command()(_attest.attest)
app.command()(_attest.seal)
app.command()(_attest.unseal)
app.command()(_verify.verify)
app.command()(_demo.demo)
app.add_typer(_bench.bench_app)
app.add_typer(_enclave.enclave_app)
app.add_typer(_keys.keys_app)
app.add_typer(_gramine.gramine_app)
