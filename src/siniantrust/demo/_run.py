"""The whole path on the demo's model and data, every stage leaving its file."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

import siniantrust as st
from siniantrust import leakage
from siniantrust._files import write_atomic
from siniantrust.bundle import KeyStore
from siniantrust.demo._scenes import Scenes, load_scenes
from siniantrust.planner import Plan, save_plan
from siniantrust.runtime import RunRecord, record_run

SEED = 0


@dataclass(frozen=True)
class DemoResult:
    """What the demo made, and where."""

    folder: Path
    audit: leakage.Audit
    plan: Plan
    run: RunRecord
    report: Path


def run_demo(out: Path, *, say: Callable[[str], None]) -> DemoResult:
    """Audit, plan, build, run and report on the demo's model, writing everything below ``out``.

    Args:
        out: folder for the model, the data, the policy, the keys and every stage's result.
        say: called with one line as each stage ends.

    Raises:
        SinianError: if a stage refuses; the message says which and why.
    """
    package = files("siniantrust.demo")
    for name in ("scenes.onnx", "policy.toml"):
        write_atomic(out / name, package.joinpath(name).read_bytes())
    model = st.load(out / "scenes.onnx")
    scenes = load_scenes(seed=SEED)
    _save_data(out, scenes)
    say(f"data: {len(scenes.train_inputs)} tiles for the attackers, {len(scenes.heldout_inputs)} held out")
    data, policy = out / "audit-data.npz", out / "policy.toml"
    audit = st.audit(model, data, out=out / "audit", seed=SEED, effort="quick", policy=policy)
    say(f"audit: {len(audit.cuts)} cuts attacked in {audit.time_s:.0f} s")
    plan = st.plan(model, audit=audit, policy=policy, seed=SEED)
    save_plan(plan, out / "plan.json")
    say(f"plan: {plan.reason}")
    keystore = KeyStore(out / "keys")
    bundle = st.build(model, plan, out / "deploy", audit=out / "audit", keystore=keystore)
    say(f"bundle: {bundle}")
    with st.open(bundle, keystore=keystore) as session:
        run, _ = record_run(
            session,
            model,
            {model.inputs[0].name: scenes.heldout_inputs},
            labels=scenes.heldout_labels,
            keystore=keystore,
        )
    run.save(out / "run.json")
    say(f"run: {run.count} held-out items, largest difference from the uncut model {run.max_abs_difference:.2g}")
    report = st.write_report(out / "report.html", plan=out / "plan.json", audit=out / "audit", run=out / "run.json")
    return DemoResult(folder=out, audit=audit, plan=plan, run=run, report=report)


def _save_data(out: Path, scenes: Scenes) -> None:
    """Write the audit's data and the held-out items, so that every stage can be repeated by hand."""
    heldout = np.arange(len(scenes.train_inputs) + len(scenes.heldout_inputs)) >= len(scenes.train_inputs)
    _save(
        out / "audit-data.npz",
        inputs=np.concatenate([scenes.train_inputs, scenes.heldout_inputs]),
        labels=np.concatenate([scenes.train_labels, scenes.heldout_labels]),
        heldout=heldout,
    )
    _save(out / "heldout.npz", inputs=scenes.heldout_inputs, labels=scenes.heldout_labels)


def _save(path: Path, **arrays: np.ndarray) -> None:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    write_atomic(path, stream.getvalue())
