"""The house rules of docs/architecture.md, held against the code itself."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import siniantrust

PACKAGE = "siniantrust"
SOURCE = Path(siniantrust.__file__).parent
DOCUMENT = Path(__file__).parents[1] / "docs" / "architecture.md"

# What each room may import of the others, directly: the table in docs/architecture.md, and the rooms that are to come.
ROOMS: dict[str, set[str]] = {
    "graph": set(),
    "odla": {"graph"},
    "lowering": {"graph"},
    "trust": {"graph", "odla", "lowering", "masking"},
    "leakage": {"graph", "odla"},
    "masking": {"graph", "odla", "leakage"},
    "planner": {"graph", "trust", "leakage", "odla", "masking"},
    "bundle": {"graph", "odla", "trust", "leakage", "planner", "masking"},
    "runtime": {"graph", "odla", "trust", "leakage", "planner", "bundle", "masking"},
    "collab": {"graph", "odla", "trust", "masking"},
    "methods": {"graph", "odla", "trust"},
    "bench": {"graph", "odla", "leakage", "masking"},
    "report": set(),
}
TO_COME = {"methods"}
BASE = {"errors", "_files", "_extras", "_progress"}
EVERY_ROOM = set(ROOMS)
# The top of the house, which puts the rooms together. The empty name is the package itself.
ROOMS["_stages"] = EVERY_ROOM
ROOMS["demo"] = EVERY_ROOM | {"_stages", ""}
ROOMS["cli"] = EVERY_ROOM | {"_stages", "", "demo"}
ROOMS[""] = {"_stages"}
HERE = sorted(name for name in EVERY_ROOM | {"cli", "demo"} if (SOURCE / name).is_dir())
HEAVY = ("onnxruntime", "onnx", "torch", "pydantic", "matplotlib", "grpc", "skimage", "scipy", "cryptography", "typer")


def _imports(tree: ast.AST, module: str, *, is_package: bool) -> list[tuple[int, str]]:
    """Return line and full name of everything that is imported, in functions and under TYPE_CHECKING too.

    ``from siniantrust import graph`` names ``siniantrust.graph``; ``from siniantrust.graph import Cut`` names
    ``siniantrust.graph.Cut``, since a name may be a module. ``import_module("...")`` with a literal counts as well.
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = parents[: len(parents) - node.level + is_package]
                base = ".".join([*kept, base] if base else kept)
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"import_module", "require"} and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value))
    return found


def _room(name: str) -> str:
    """Return the room of a full module name: the first step below the package, or the empty string for the package."""
    steps = name.split(".")
    return steps[1] if len(steps) > 1 and (steps[1] in ROOMS or steps[1] in BASE) else ""


def _violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return what a module imports against the rules."""
    room = _room(module)
    problems = []
    for line, name in _imports(ast.parse(source), module, is_package=is_package):
        if name.split(".")[0] != PACKAGE:
            continue
        target = _room(name)
        if target in BASE or name == f"{PACKAGE}.__version__":
            continue
        place = f"{module}:{line}"
        if room in BASE:
            problems.append(f"{place}: a base module imports {name}")
        elif target != room and target not in ROOMS[room]:
            problems.append(f"{place}: '{room}' may not import {name}")
        elif target != room and any(step.startswith("_") and step != target for step in name.split(".")[2:]):
            problems.append(f"{place}: {name} is private to '{target}'")
    return problems


def _modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        steps = [PACKAGE, *path.relative_to(SOURCE).with_suffix("").parts]
        found.append((".".join(steps[:-1] if steps[-1] == "__init__" else steps), path))
    return found


MODULES = _modules()


def test_every_module_belongs_to_a_room() -> None:
    """Nothing stands beside the rooms but the base modules and the stages."""
    top = {name.split(".")[1] for name, _ in MODULES if "." in name}
    assert top <= ROOMS.keys() | BASE


def test_the_table_is_the_documented_one() -> None:
    """docs/architecture.md says of every room that is here what it may import, and says what this file says."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    special = {"all": EVERY_ROOM | {"demo"}, "all but `cli`": EVERY_ROOM, "\N{EN DASH}": set()}
    documented = {room: special.get(text, set(text.split(", "))) for room, text in rows}
    assert documented.keys() == set(HERE)
    for room, allowed in documented.items():
        assert allowed - TO_COME == ROOMS[room] - TO_COME - {"_stages", ""}, room


def test_imports_point_down_the_table() -> None:
    """No room imports one that the table does not allow, nor the private modules of another one."""
    problems = [
        problem
        for name, path in MODULES
        for problem in _violations(path.read_text(encoding="utf-8"), name, is_package=path.stem == "__init__")
    ]
    assert problems == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("from siniantrust.planner import Plan", "'graph' may not import siniantrust.planner.Plan"),
        ("from siniantrust import planner", "'graph' may not import siniantrust.planner"),
        ("import siniantrust.odla.remote", "'graph' may not import siniantrust.odla.remote"),
        ("def late():\n    from siniantrust.cli import main", "'graph' may not import siniantrust.cli.main"),
        ("if TYPE_CHECKING:\n    from siniantrust.trust import Enclave", "'graph' may not import siniantrust.trust"),
        ("from ..odla import open_device", "'graph' may not import siniantrust.odla.open_device"),
        ("from siniantrust import load", "'graph' may not import siniantrust.load"),
        ("import_module('siniantrust.runtime')", "'graph' may not import siniantrust.runtime"),
    ],
)
def test_an_import_that_points_up_is_found(source: str, problem: str) -> None:
    """The check sees every form of import, also inside functions and for types only."""
    (found,) = _violations(source, "siniantrust.graph._made_up")
    assert problem in found


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from siniantrust.graph._types import Cut", "siniantrust.planner._made_up"),
        ("from siniantrust.graph import _types", "siniantrust.planner._made_up"),
        ("import siniantrust.leakage.attacks._decoder", "siniantrust.planner._made_up"),
        ("from siniantrust.trust.process._host import ProcessEnclave", "siniantrust.runtime._made_up"),
    ],
)
def test_a_private_module_of_another_room_is_found(source: str, module: str) -> None:
    """The check sees private modules under any form of import."""
    (found,) = _violations(source, module)
    assert "is private to" in found


@pytest.mark.parametrize(
    "source",
    [
        "from siniantrust.graph._types import Cut",
        "from siniantrust._files import write_atomic",
        "from siniantrust import errors",
        "from . import _types",
        "import numpy",
    ],
)
def test_what_is_allowed_is_not_found(source: str) -> None:
    """A room's own private modules, the base modules and other packages are free to import."""
    assert _violations(source, "siniantrust.graph._made_up") == []


def test_base_modules_import_no_room() -> None:
    """Errors, files, extras and progress stand on nothing of ours."""
    (found,) = _violations("from siniantrust.graph import Cut", "siniantrust._files")
    assert "a base module imports siniantrust.graph" in found


_WATCH = """
import importlib, sys
for name in sys.argv[2:]:
    before = set(sys.modules)
    importlib.import_module(name)
    heavy = set(sys.argv[1].split()) & (set(sys.modules) - before)
    if heavy:
        print(name, *sorted(heavy))
"""


def _heavy_imports(heavy: Sequence[str], modules: Sequence[str]) -> list[str]:
    """Import modules one after the other in a fresh interpreter; return those that bring something heavy, and what."""
    command = [sys.executable, "-c", _WATCH, " ".join(heavy), *modules]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_importing_the_package_is_light() -> None:
    """``import siniantrust`` brings in none of the large libraries; the stages bring them when they are asked for."""
    found = _heavy_imports(HEAVY, ["siniantrust", "siniantrust._stages"])
    assert [line.split()[0] for line in found] == ["siniantrust._stages"]


def test_importing_a_room_is_light() -> None:
    """A room's runtimes and optional libraries are imported on first use, also by the command line."""
    optional = ("onnxruntime", "torch", "matplotlib", "grpc", "skimage", "scipy", "jinja2", "uvicorn", "httpx")
    assert _heavy_imports(optional, [f"siniantrust.{room}" for room in HERE]) == []


@pytest.mark.parametrize("room", HERE)
def test_public_names_exist_and_are_explained(room: str) -> None:
    """Every name in a room's ``__all__`` is there, sorted once, and has a docstring if it is a class or function."""
    module = importlib.import_module(f"{PACKAGE}.{room}")
    assert module.__doc__
    names = list(module.__all__)
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.startswith("_")
        value = getattr(module, name)
        if isinstance(value, type) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{room}.{name}"


def test_the_packages_own_names_exist_and_are_explained() -> None:
    """``siniantrust.__all__`` holds what is there, and the stages have docstrings."""
    for name in siniantrust.__all__:
        value = getattr(siniantrust, name)
        if callable(value):
            assert value.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        siniantrust.nothing  # noqa: B018 - reading it is the test


def test_modules_stay_small() -> None:
    """No module that people write is over 500 lines."""
    long = {
        name: lines
        for name, path in MODULES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500 and not name.endswith("_pb2")
    }
    assert long == {}
