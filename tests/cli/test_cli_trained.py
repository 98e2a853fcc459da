"""What comes out of a training becomes a bundle like any other model, and the report says how it came to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from collab_runs import Here, Setup, pictures
from command_line import Command, write_policy
from retrain_models import items, network

ATTACKS = ("--quick", "--attack", "ridge")


def serve(sinian: Command, model: Path, data: Path, folder: Path) -> None:
    """Audit, plan, build and run ``model``; the bundle is ``folder/deploy``, the run's record ``folder/run.json``."""
    policy = write_policy(
        folder / "policy.toml",
        leakage="max = { nmse = 1.0 }\nrequire_converged = false",
        objective="allow_all_trusted = false",
    )
    audit, plan, bundle, keys = (folder / name for name in ("audit", "plan.json", "deploy", "keys"))
    record = ("--against", model, "--record", folder / "run.json")
    for arguments in (
        ("audit", model, data, "--out", audit, *ATTACKS),
        ("plan", model, "-p", policy, "-a", audit, "-o", plan, "--profiles", folder / "profiles"),
        ("build", model, plan, "-a", audit, "-o", bundle, "--keys", keys),
        ("run", bundle, data, "--keys", keys, "-o", folder / "outputs.npz", *record),
    ):
        said = sinian(*arguments)
        assert (said.code, said.err) == (0, ""), said


@pytest.mark.slow
def test_a_masked_and_retrained_model_is_served_and_reported(sinian: Command, tmp_path: Path) -> None:
    """Mask, re-train, audit, plan, build, run: each takes what the one before wrote, and so does the report."""
    model, masked, trained = (tmp_path / f"{name}.onnx" for name in ("model", "masked", "trained"))
    onnx.save(network(), model)
    made = items(120)
    assert made.labels is not None
    assert made.heldout is not None
    data, report = tmp_path / "data.npz", tmp_path / "report.html"
    np.savez(data, inputs=made.inputs, labels=made.labels, heldout=made.heldout)
    for arguments in (
        ("mask", model, "--at", "p1", "--mask", "gaussian:strength=0.2", "--data", data, "-o", masked),
        ("retrain", masked, data, "--at", "p1_masked", "--mode", "joint", "--epochs", 2, "-o", trained),
        ("audit", model, data, "--out", tmp_path / "plain", *ATTACKS),
    ):
        said = sinian(*arguments)
        assert (said.code, said.err) == (0, ""), said
    serve(sinian, trained, data, tmp_path)
    past = ("--training", tmp_path / "training.json", "--before", tmp_path / "plain")
    said = sinian("report", tmp_path / "deploy", "--run", tmp_path / "run.json", *past, "-o", report)
    assert (said.code, said.err) == (0, ""), said
    page = report.read_text(encoding="utf-8")
    assert "Re-training of both parts" in page
    assert "from without the mask" in page


@pytest.mark.slow
def test_a_model_trained_across_edge_and_cloud_is_served_and_reported(sinian: Command, tmp_path: Path) -> None:
    """What edges and cloud trained together, on masked features, is audited, planned, built, run and reported."""
    setup = Setup(
        tmp_path,
        training={"mode": "upload", "steps": 10},
        sections={"mask": {"name": "gaussian", "strength": 0.2, "seed": 3, "calibration": "public.npy"}},
    )
    setup.write()
    with np.load(tmp_path / "a.npz") as arrays:
        np.save(tmp_path / "public.npy", arrays["inputs"][:16])
    Here(setup).run()
    data = tmp_path / "data.npz"
    np.savez(data, inputs=pictures(120, seed=9)[0])
    serve(sinian, tmp_path / "at-cloud" / "model.onnx", data, tmp_path)
    sides = [
        value for side in ("cloud", *setup.edges) for value in ("--training", tmp_path / f"at-{side}" / "training.json")
    ]
    said = sinian("report", tmp_path / "deploy", *sides, "-o", tmp_path / "report.html")
    assert (said.code, said.err) == (0, ""), said
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The cloud refused nobody" in page
    assert page.count('data-label="Sent"') == len(setup.edges)
