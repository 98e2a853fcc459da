"""What a benchmark leaves behind: one JSON each, and one page that reads them all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from siniantrust._files import write_atomic
from siniantrust.runtime import describe_machine

_PACKAGES = ("siniantrust", "onnx", "onnxruntime", "numpy", "cryptography")


@dataclass(frozen=True)
class Bar:
    """A figure that was promised: ``limit`` and what was measured. ``at_most`` says on which side of it is good."""

    what: str
    limit: float
    measured: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Whether the measured figure is on the good side."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass(frozen=True)
class Outcome:
    """The figures of one benchmark: ``rows`` are tables' rows with the same keys, ``remarks`` are for the reader."""

    title: str
    method: str
    rows: list[dict[str, Any]]
    bars: list[Bar]
    remarks: list[str]


def save(outcome: Outcome, name: str, folder: Path, *, quick: bool) -> None:
    """Write ``name``.json with the figures, the machine and the versions."""
    record = {
        **asdict(outcome),
        "bars": [asdict(bar) | {"met": bar.met} for bar in outcome.bars],
        "name": name,
        "quick": quick,
        "machine": describe_machine(),
        "load_average": list(os.getloadavg()),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {package: version(package) for package in _PACKAGES},
    }
    write_atomic(folder / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())


def write_summary(folder: Path, order: list[str]) -> Path:
    """Write README.md from every benchmark's JSON in ``folder``, in ``order``."""
    records = [
        json.loads((folder / f"{name}.json").read_text()) for name in order if (folder / f"{name}.json").exists()
    ]
    lines = [
        "# Measured",
        "",
        "Written by `python benchmarks/run_all.py`; do not edit. What to bear in mind:",
        "",
        "- Contestants run in turns and medians are compared, because the machine was shared with other work; ratios",
        "  of figures taken in the same turns mean more than any figure alone. Intervals are 95 % bootstrap intervals.",
        "- The enclave is a process with its own memory, namespaces and system-call filter: it is *simulated*.",
        "  Enclaves in hardware add costs of their own (memory encryption, paging), which nothing here measures.",
        "- Unless a table says otherwise, the untrusted device is ONNX Runtime on the CPU of the same machine, and",
        "  both parts compute with one thread.",
        "",
    ]
    for record in records:
        lines += _section(record)
    path = folder / "README.md"
    write_atomic(path, ("\n".join(lines).rstrip() + "\n").encode())
    return path


def _section(record: dict[str, Any]) -> list[str]:
    load = ", ".join(f"{value:.1f}" for value in record["load_average"])
    quick = " Quick run: too few turns for a verdict." if record["quick"] else ""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [f"## {record['title']}", "", record["method"], ""]
    if record["rows"]:
        columns = list(record["rows"][0])
        lines += [_table_row(columns), _table_row(["---"] * len(columns))]
        lines += [_table_row([_text(row[column]) for column in columns]) for row in record["rows"]]
        lines.append("")
    for bar in record["bars"]:
        sign = "at most" if bar["at_most"] else "at least"
        verdict = "met" if bar["met"] else "**missed**"
        lines.append(f"- {bar['what']}: {_text(bar['measured'])}; promised {sign} {_text(bar['limit'])}: {verdict}")
    lines += [f"- {remark}" for remark in record["remarks"]]
    conditions = (
        f"{record['machine']}; load average over 1, 5, 15 minutes at the end: {load}; {versions}; "
        f"{record['finished']}.{quick}"
    )
    return [*lines, "", conditions, ""]


def _table_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
