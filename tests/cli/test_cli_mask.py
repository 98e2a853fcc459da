"""``sinian mask``: masks by name into a model that every other command takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Command, Workshop, write_policy
from planner_models import chain_model

from siniantrust.masking import list_masks, read_records


def test_masks_are_listed_with_their_parameters(sinian: Command) -> None:
    """Every mask has a line; as JSON, with source, cost and parameters."""
    told = sinian("mask", "--list").out
    assert all(f"\n {name} " in told for name in list_masks())
    listed = json.loads(sinian("mask", "--list", "--json").out)
    assert listed.keys() == list_masks().keys()
    assert listed["randomised_response"]["parameters"][0]["name"] == "bits"


def test_masks_are_put_behind_a_tensor(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """The masked model says which masks it has, and what they say of themselves is told and given as JSON."""
    out = tmp_path / "masked.onnx"
    wanted = ("--at", "r0", "--mask", "pooling", "--mask", "gaussian:strength=0.5", "--data", workshop.data)
    told = sinian("mask", workshop.model, *wanted, "-o", out)
    assert (told.code, told.err) == (0, "")
    assert "what crosses: r0_masked_masked" in told.out
    assert "unbiased_mse_bound" in told.out
    found = json.loads(sinian("mask", workshop.model, *wanted, "-o", out, "--json").out)
    assert found["crosses"] == ["r0_masked_masked"]
    assert [record["mask"] for record in found["masks"]] == ["pooling", "gaussian"]
    assert [record.mask for record in read_records(onnx.load(out))] == ["pooling", "gaussian"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--at", "r0", "--mask", "gaussian"), "give MODEL, --at TENSOR, --mask NAME and --data FILE"),
        (("--at", "nothing", "--mask", "gaussian", "--data", "DATA"), "model 'model': nothing is no cut"),
        (("--at", "r0", "--mask", "blur", "--data", "DATA"), "mask 'blur' is unknown; there are bank,"),
        (("--at", "r0", "--mask", "gaussian:clip=1", "--data", "DATA"), "'gaussian' has no parameter 'clip'"),
        (("--at", "r0", "--mask", "gaussian:clip", "--data", "DATA"), "expected NAME or NAME:PARAMETER=NUMBER"),
        (("--at", "r0", "--mask", "gaussian", "--data", "none.npz"), "none.npz"),
    ],
)
def test_what_is_wrong_is_named(
    sinian: Command, workshop: Workshop, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """A missing argument, an unknown tensor, mask, parameter or file: one line, exit code 2, and no file."""
    out = tmp_path / "masked.onnx"
    given = [workshop.data if argument == "DATA" else argument for argument in arguments]
    found = sinian("mask", workshop.model, *given, "-o", out)
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.slow
def test_a_masked_model_is_audited_planned_built_and_run(sinian: Command, tmp_path: Path) -> None:
    """The masked model goes the whole way, with its noise drawn in the enclave."""
    model, data, masked = tmp_path / "model.onnx", tmp_path / "data.npz", tmp_path / "masked.onnx"
    onnx.save(chain_model(6).proto, model)
    np.savez(data, inputs=np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32))
    policy = write_policy(
        tmp_path / "policy.toml",
        leakage="max = { nmse = 1.0 }\nrequire_converged = false",
        objective="allow_all_trusted = false",
    )
    keys = ("--keys", tmp_path / "keys")
    weak = ("--quick", "--attack", "ridge", "--max-cuts", 1)
    for arguments in (
        ("mask", model, "--at", "t0", "--mask", "gaussian:strength=0.2", "--data", data, "-o", masked),
        ("audit", masked, data, "--out", tmp_path / "audit", *weak),
        ("plan", masked, "-p", policy, "-a", tmp_path / "audit", "-o", tmp_path / "plan.json"),
        ("build", masked, tmp_path / "plan.json", "-a", tmp_path / "audit", "-o", tmp_path / "deploy", *keys),
        ("run", tmp_path / "deploy", data, *keys, "-o", tmp_path / "outputs.npz", "--against", masked),
    ):
        found = sinian(*arguments)
        assert (found.code, found.err) == (0, ""), found
    with np.load(tmp_path / "outputs.npz") as saved:
        assert [array.shape for array in saved.values()] == [(60, 8)]
