"""A workshop of files for the command line, and ways to run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Command, Outcome, Workshop, make_workshop, run_here


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return files that work together: model, data, policy, audit, plan and bundle. Tests do not change them."""
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def sinian(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs ``sinian`` in this process."""
    return lambda *arguments: run_here(capsys, arguments)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that runs ``sinian``, checks that it refuses as it should, and returns what it said.

    That is: exit code 2, nothing on standard output, one line on standard error that names what it should (and
    indented lines only if asked for), and no file below the test's folder made, changed or removed.
    """

    def run(*arguments: object, names: str | Path, details: bool = False) -> Outcome:
        before = _snapshot(tmp_path)
        outcome = run_here(capsys, arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        first, *rest = outcome.err.splitlines()
        assert first.startswith("sinian: error: ")
        assert str(names) in first
        assert "Traceback" not in outcome.err
        assert bool(rest) == details, outcome.err
        assert all(line.startswith("  ") and line.strip() for line in rest)
        assert _snapshot(tmp_path) == before
        return outcome

    return run


def _snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}
