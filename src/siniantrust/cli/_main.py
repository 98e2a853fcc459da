"""The entry point: runs a command and turns every expected error into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from siniantrust.cli._app import app
from siniantrust.errors import NoPlanError, SinianError

FAILED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``sinian`` with ``arguments`` (None: those of the process) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    try:
        # Not through the command's own ``main``, which takes broken pipes and interrupts for itself.
        with command.make_context("sinian", given or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        # The reader has gone, and flushing what is left at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", code=INTERRUPTED)
    except (SinianError, TyperException, OSError) as error:
        return _fail(_describe(error), error.refusals if isinstance(error, NoPlanError) else ())
    return 0


def _describe(error: SinianError | TyperException | OSError) -> str:
    if isinstance(error, TyperException):
        return f"{error.format_message()} (try: sinian --help)"
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}"
    return str(error)


def _fail(message: str, details: Sequence[str] = (), *, code: int = FAILED) -> int:
    """Print one line, and one for each detail, in which the message's own line breaks do not count."""
    for start, text in (("sinian: error: ", message), *(("  ", detail) for detail in details)):
        print(f"{start}{' '.join(text.split())}", file=sys.stderr)  # noqa: T201 - the command line's answer
    return code
