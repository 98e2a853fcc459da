"""Write every version that the two environments hold, with its hashes, PyTorch apart.

To move to newer versions, upgrade them in the environments (``.venv``, ``.venvs/mlserver``), run the tests, and
lock what passed. Hashes are those of the Linux x86-64 wheels for each supported Python: one lock serves them all.

Run it from anywhere: ``python tools/lock.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
)
_APART = ("torch", "siniantrust", "pip", "wheel")


def _installed(python: Path) -> list[str]:
    """Return ``name==version`` of everything in an environment."""
    command = [str(python), "-m", "pip", "list", "--format", "json"]
    entries = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [f"{entry['name'].lower()}=={entry['version']}" for entry in entries if entry["name"].lower() not in _APART]


def _hashes(pins: list[str], *, python: str) -> dict[str, str]:
    """Return the SHA-256 of each pinned package's file for one version of Python."""
    platforms = [argument for platform in _PLATFORMS for argument in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--report", str(report), "--target", folder, "--python-version", python, "--implementation", "cp"]
        subprocess.run([*command, "--only-binary=:all:", *platforms, *pins], check=True)
        entries = json.loads(report.read_text())["install"]
    return {
        f"{entry['metadata']['name'].lower()}=={entry['metadata']['version']}": entry["download_info"]["archive_info"][
            "hashes"
        ]["sha256"]
        for entry in entries
    }


def _lock(pins: list[str], out: Path) -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for python in PYTHONS:
        try:
            each = _hashes(pins, python=python)
        except subprocess.CalledProcessError:
            print(f"{out.name}: not every package has a wheel for Python {python}; left out", file=sys.stderr)
            continue
        for pin, digest in each.items():
            found[pin].add(digest)
    lines = []
    for pin, digests in sorted(found.items()):
        lines.append(" \\\n".join([pin, *(f"    --hash=sha256:{digest}" for digest in sorted(digests))]))
    out.write_text("\n".join(lines) + "\n")
    print(f"{out.relative_to(ROOT)}: {len(found)} packages")


def main() -> None:
    """Write both locks."""
    _lock(_installed(Path(sys.executable)), ROOT / "requirements/dev.lock")
    _lock(_installed(ROOT / ".venvs/mlserver/bin/python"), ROOT / "requirements/mlserver.lock")


if __name__ == "__main__":
    main()
