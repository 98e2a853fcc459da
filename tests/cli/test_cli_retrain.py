"""`sinian retrain`: the file that it writes trains on in every other tool, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Command
from retrain_models import items, network

from siniantrust.graph import load_model


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
    assert training["retrained_sha256"] == load_model(out).sha256
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
    refused("restructure", model, data, "--at", "p1", "--pass", "magic", *end, names="pass 'magic' is unknown")
    refused("restructure", model, data, "--at", "p1", "--pass", "prune", *end, "--epochs", 0, names="epochs")
    refused("tune", model, data, "--mask", "magic", "-o", tmp_path / "search", names="there are none, bank")


def test_a_smaller_part_one_is_written_with_its_record(
    sinian: Command, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """`sinian restructure` writes a model of which less leaves, as restructuring.json and the table say."""
    model, data = files
    out = tmp_path / "small" / "small.onnx"
    command = ("restructure", model, data, "--at", "p2", "--pass", "prune=0.5", "--epochs", 2, "-o", out)
    said = sinian(*command, "--json")
    assert said.code == 0, said.err
    record = json.loads(said.out)
    assert record == json.loads(out.with_name("restructuring.json").read_text())
    assert record["after"]["size_bytes"] == record["before"]["size_bytes"] / 2
    assert record["after"]["flops"] < record["before"]["flops"]
    (tensor,) = (each for each in onnx.load(out).graph.initializer if each.name == "w2")
    assert list(tensor.dims) == [4, 3, 3, 3]
    table = sinian(*command)
    assert "prune=0.5" in table.out
    assert "'p2' crosses" in table.out


def test_a_search_is_written_as_a_table_and_a_picture(
    sinian: Command, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """`sinian tune` writes its points and the front, and going on with nothing left to do says the same."""
    pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
    model, data = files
    out = tmp_path / "search"
    only = ("--at", "p1", "--mask", "none", "--penalty", "none", "--attack", "ridge")
    command = ("tune", model, data, "--budget", 1, *only, "--epochs", 1, "--give-up", 100)
    said = sinian(*command, "-o", out, "--json")
    assert said.code == 0, said.err
    record = json.loads(said.out)
    assert record == json.loads((out / "tune.json").read_text())
    (point,) = record["points"]
    assert point["on_front"]
    assert point["model_sha256"] == load_model(out / "trials" / "0.onnx").sha256
    assert (out / "front.png").is_file()
    table = sinian(*command, "-o", out)
    assert "1 trials, 0 given up for their accuracy, 0 failed" in table.out
