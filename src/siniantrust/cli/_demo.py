"""The command that shows the whole path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siniantrust.cli._options import Json
from siniantrust.cli._show import figures, milliseconds, show_json, show_line, show_table


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that it makes.")] = Path(
        "demo-output"
    ),
    as_json: Json = False,
) -> None:
    """Run the whole path on a trained network and real photographs: audit, plan, build, run, report."""
    from siniantrust.demo import run_demo

    result = run_demo(out, say=lambda line: None if as_json else show_line(line))
    if as_json:
        show_json({"plan": result.plan.model_dump(mode="json"), "run": result.run.model_dump(mode="json"),
                   "report": str(result.report)})  # fmt: skip
        return
    candidates = {each.cut_ids: each for each in result.plan.alternatives}
    show_table(
        ("cut", "leakage, upper bound of the best attack", "latency#", "verdict"),
        (
            (
                cut.cut_id,
                figures({metric: estimate.upper for metric, estimate in cut.leakage.items()}),
                milliseconds(candidates[cut.cut_id,].latency_s),
                "CHOSEN" if result.plan.cut_ids == (cut.cut_id,) else candidates[cut.cut_id,].refusal or "allowed",
            )
            for cut in result.audit.cuts
        ),
    )
    run = result.run
    show_table(
        ("", "split", "uncut"),
        (
            ("accuracy", f"{run.accuracy:.4f}", f"{run.accuracy_uncut:.4f}"),
            ("latency of one request", milliseconds(run.measured.latency_s), milliseconds(run.uncut_latency_s)),
            ("largest difference", f"{run.max_abs_difference:.2g}", "-"),
        ),
    )
    show_line(
        f"The enclave is {run.enclave.provenance.value.upper()}: it shows the path, and protects nothing from the "
        "machine's owner."
    )
    show_line(f"report: {result.report}")
