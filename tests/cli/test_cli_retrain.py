"""`sinian retrain`: the file that it writes trains on in every other tool, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Command
from retrain_models import items, network


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return a model and labelled data on disk."""
    model, data = tmp_path / "model.onnx", tmp_path / "data.npz"
    onnx.save(network(), model)
    made = items()
    assert made.labels is not None
    assert made.heldout is not None
    np.savez(data, inputs=made.inputs, labels=made.labels, heldout=made.heldout)
    return model, data


def test_it_writes_the_model_and_its_curves(sinian: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    """The answer, the curves in training.json and the model's accuracy agree; distilling from it needs no labels."""
    model, data = files
    out = tmp_path / "out" / "trained.onnx"
    common = ("--at", "p1", "--epochs", 6, "--learning-rate", 0.005)
    said = sinian("retrain", model, data, *common, "--mode", "joint", "-o", out, "--json")
    assert said.code == 0, said.err
    training = json.loads(said.out)
    assert training == json.loads(out.with_name("training.json").read_text())
    assert training["accuracy_after"] > training["accuracy_before"] + 0.2
    assert [each["epoch"] for each in training["epochs"]] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in out.parent.iterdir()) == ["trained.onnx", "training.json"]
    unlabelled = tmp_path / "unlabelled.npy"
    np.save(unlabelled, items(labelled=False).inputs)
    second = tmp_path / "second" / "student.onnx"
    said = sinian("retrain", model, unlabelled, *common, "--teacher", out, "--mode", "joint", "-o", second)
    assert said.code == 0, said.err
    assert "validation loss" in said.out
    assert onnx.load(second).graph.node == onnx.load(out).graph.node


def test_what_it_refuses(refused: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Data that are not finite, a tensor that is no cut and a checkpoint that is none are one line each."""
    model, data = files
    end = ("-o", tmp_path / "out.onnx")
    bad = tmp_path / "bad.npz"
    with np.load(data) as arrays:
        wrong = dict(arrays)
    wrong["inputs"][3, 0, 0, 0] = np.nan
    np.savez(bad, **wrong)
    assert "item 3" in refused("retrain", model, bad, "--at", "p1", *end, names="bad.npz").err
    refused("retrain", model, data, "--at", "w1", *end, names="w1 is no cut")
    (tmp_path / "out.onnx.checkpoint").write_bytes(b"nothing")
    refused("retrain", model, data, "--at", "p1", *end, names="out.onnx.checkpoint: damaged")
