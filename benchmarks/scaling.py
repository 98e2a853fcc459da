"""How `sinian inspect` and `sinian plan` grow with the number of nodes, as whole processes."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from networks import make_chain, make_residual
from results_file import Bar, Outcome
from timing import in_turns

_COMMAND = (sys.executable, "-c", "import sys; from siniantrust.cli import main; sys.exit(main())")
_SIZES = (100, 1000, 10_000)
_BARS = {"inspect": 2.0, "plan": 5.0}
_BARRED_NODES = 1000
_POLICY = """
[enclave]
accept = ["simulated"]
[[device]]
name = "cloud"
"""


def run(*, quick: bool) -> Outcome:
    """Time both commands on chains and residual networks (quick: the smallest only, once)."""
    sizes = _SIZES[:1] if quick else _SIZES
    rows: list[dict[str, object]] = []
    at_bar: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = folder / "policy.toml"
        policy.write_text(_POLICY)
        onnx.save(make_chain(2), folder / "tiny.onnx")
        for shape, make in (("chain", make_chain), ("residual", make_residual)):
            for nodes in sizes:
                onnx.save(make(nodes), folder / f"{shape}{nodes}.onnx")
            for command, options in (
                ("inspect", ()),
                ("plan", ("--policy", str(policy), "--out", str(folder / "plan"), "--measure-again")),
            ):
                cpu_s: dict[str, list[float]] = {}
                contestants = {
                    stem: partial(
                        _call, cpu_s.setdefault(stem, []), [command, str(folder / f"{stem}.onnx"), *options, "--json"]
                    )
                    for stem in ("tiny", *(f"{shape}{nodes}" for nodes in sizes))
                }
                found = in_turns(contestants, turns=1 if quick else 3, warm_up=0)
                start_s = float(np.median(found["tiny"]))
                total_s = [float(np.median(found[f"{shape}{nodes}"])) for nodes in sizes]
                row = _row(command, shape, sizes, start_s, total_s)
                row |= {
                    f"{nodes:,} nodes, CPU s": float(np.median(cpu_s[f"{shape}{nodes}"]))
                    for nodes in sizes
                    if nodes <= _BARRED_NODES
                }
                rows.append(row)
                if not quick:
                    barred_s = total_s[sizes.index(_BARRED_NODES)]
                    at_bar[command] = max(at_bar.get(command, 0.0), barred_s)
    return Outcome(
        title="Growth with the number of nodes",
        method=(
            "Seconds of the whole process, from start to exit, medians over runs in turns. *Start* is the same command "
            "on two nodes. The exponent is the slope of log(time beyond start) over log(nodes) between the two largest "
            "sizes: 1 is linear. *CPU s* is what processors worked, which other work "
            "on the machine changes little. `plan` runs without an audit and launches, attests and measures an enclave."
        ),
        rows=rows,
        bars=[
            Bar(f"`sinian {command}` on {_BARRED_NODES:,} nodes, seconds", limit, at_bar[command])
            for command, limit in _BARS.items()
            if command in at_bar
        ],
        remarks=[],
    )


def _row(command: str, shape: str, sizes: tuple[int, ...], start_s: float, total_s: list[float]) -> dict[str, object]:
    row: dict[str, object] = {"command": f"sinian {command}", "network": shape, "start, s": start_s}
    row |= {f"{nodes:,} nodes, s": spent_s for nodes, spent_s in zip(sizes, total_s, strict=True)}
    if len(sizes) > 1:
        growth = max(total_s[-1] - start_s, 1e-9) / max(total_s[-2] - start_s, 1e-3)
        row["exponent"] = math.log(growth) / math.log(sizes[-1] / sizes[-2])
    return row


def _call(cpu_s: list[float], arguments: list[str]) -> None:
    """Run the command and append the processor seconds that it and its children took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*_COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
