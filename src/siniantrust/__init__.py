"""SinianTrust: run the private part of a neural network where you trust the hardware, the rest where it is fast.

The stages, in order; each one's result is a file that the next one reads:

    import siniantrust as st

    model = st.load("model.onnx")
    audit = st.audit(model, "data.npz", out="audit/")
    plan = st.plan(model, audit="audit/", policy="policy.toml")
    bundle = st.build(model, plan, "deploy/", audit="audit/")
    with st.open(bundle) as session:
        outputs = session.run({"input": x})
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from siniantrust import errors
from siniantrust.errors import NoPlanError, SinianError

if TYPE_CHECKING:
    from siniantrust._stages import (
        audit,
        build,
        explain,
        load,
        measure,
        open,  # noqa: A004 - the verb that users know
        plan,
        write_report,
    )

__version__ = "0.1.0"

# ONNX Runtime 1.29 and later send usage data unless told not to before they are imported. Private data stay private.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_STAGES = ("audit", "build", "explain", "load", "measure", "open", "plan", "write_report")

__all__ = [
    "NoPlanError",
    "SinianError",
    "__version__",
    "audit",
    "build",
    "errors",
    "explain",
    "load",
    "measure",
    "open",
    "plan",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Import a stage when it is first asked for, so that ``import siniantrust`` costs next to nothing."""
    if name in _STAGES:
        return getattr(import_module("siniantrust._stages"), name)
    raise AttributeError(f"module 'siniantrust' has no attribute {name!r}")
