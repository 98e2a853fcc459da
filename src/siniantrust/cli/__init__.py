"""The command line, thin: every command calls one stage and shows what it made."""

from siniantrust.cli._main import main

__all__ = ["main"]
