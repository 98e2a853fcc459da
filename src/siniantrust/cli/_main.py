"""The entry point: runs a command and turns every expected error into one line and exit code 2."""

from __future__ import annotations

import os
import sys

import click
import typer

from siniantrust.cli._app import app
from siniantrust.errors import NoPlanError, SinianError

USAGE_ERROR = 2
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run ``sinian`` with ``arguments`` (None: those of the process) and return its exit code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="sinian", standalone_mode=False)
    except NoPlanError as error:
        return _fail(str(error), error.refusals)
    except SinianError as error:
        return _fail(str(error))
    except click.ClickException as error:
        return _fail(f"{error.format_message()} (try: sinian --help)")
    except (click.exceptions.Abort, KeyboardInterrupt):
        _fail("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, and flushing what is left at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    return code if isinstance(code, int) else 0


def _fail(message: str, details: tuple[str, ...] = ()) -> int:
    print(f"sinian: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - the command line's answer
    for line in details:
        print(f"  {line}", file=sys.stderr)  # noqa: T201 - as above
    return USAGE_ERROR
