"""What importing the package adds to importing ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import numpy as np
from results_file import Bar, Outcome
from timing import in_turns

_BAR_S = 0.3
_BASE = "import onnxruntime"
_MODULES = ("siniantrust", "siniantrust.cli", "siniantrust._stages")


def run(*, quick: bool) -> Outcome:
    """Time fresh interpreters, in turns."""
    contestants = {"python": "pass", _BASE: _BASE} | {module: f"{_BASE}, {module}" for module in _MODULES}
    found = in_turns(
        {name: partial(_start, code) for name, code in contestants.items()},
        turns=1 if quick else 15,
        warm_up=0 if quick else 1,
    )
    base_s = found[_BASE]
    beyond_s = {name: float(np.median(values - base_s)) for name, values in found.items()}
    return Outcome(
        title="Import time",
        method=(
            "Seconds of fresh interpreters that import ONNX Runtime alone and with a module of ours. *Beyond* is the "
            "median of the differences within a turn. `siniantrust` loads its stages when they are first used; "
            "`siniantrust._stages` is all of them."
        ),
        rows=[
            {"process": name, "median, s": float(np.median(values)), "beyond onnxruntime, s": beyond_s[name]}
            for name, values in found.items()
        ],
        bars=[
            Bar(f"`import {name}` beyond onnxruntime's own import, seconds", _BAR_S, beyond_s[name])
            for name in ("siniantrust",)
        ],
        remarks=[],
    )


def _start(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)
