"""The generated pages and the README's promises are those of the code."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from siniantrust.masking import list_masks
from siniantrust.planner import load_policy

ROOT = Path(__file__).resolve().parents[2]


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "tools/write_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["backends.md", "policy.md", "plan.schema.json"])
def test_generated_page_is_current(name: str) -> None:
    """A generated page is what `make docs` would write now."""
    assert (ROOT / "docs" / name).read_text() == _tool().pages()[name]


def test_readme_policy_is_valid(tmp_path: Path) -> None:
    """The policy that the README shows passes the policy's own check."""
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "policy.toml"
    path.write_text(block)
    assert load_policy(path).device


def test_makefile_has_the_readme_targets() -> None:
    """Every `make` target that the README or CONTRIBUTING names exists."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = {word for call in re.findall(r"`make ([a-z -]+)`", text) for word in call.split()}
    assert named
    assert named <= targets


def test_version_is_the_same_everywhere() -> None:
    """The package says the version that its metadata says."""
    import siniantrust

    with (ROOT / "pyproject.toml").open("rb") as stream:
        assert tomllib.load(stream)["project"]["version"] == siniantrust.__version__


def test_every_mask_is_in_the_table() -> None:
    """docs/masks.md has a row for each mask that there is, with its role, and none for others."""
    section = (ROOT / "docs/masks.md").read_text().split("## The masks")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:\*(\w+):\*)?", section, re.MULTILINE)
    assert {name: role or "defence" for name, role in rows} == {name: mask.role for name, mask in list_masks().items()}
