from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from leakage_cases import photo_tiles, small_network, write_network
from typer.testing import CliRunner

from siniantrust.bench import BenchError
from siniantrust.cli._bench import bench_app

FILE = """
[run]
seeds = 1
attacks = ["ridge"]
screens = []
max_cuts = 1
budget = { attacker_items = 100, heldout_items = 40, kernel_features = 128, patch_rows = 1000, steps = 1, threads = 1 }

[[model]]
name = "small"
path = "model.onnx"
data = "tiles"

[[data]]
name = "tiles"
path = "tiles.npy"
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bench's file with what it names."""
    folder = tmp_path_factory.mktemp("command")
    write_network(folder / "model.onnx", small_network())
    np.save(folder / "tiles.npy", photo_tiles()[:200])
    (folder / "bench.toml").write_text(FILE, encoding="utf-8")
    return folder / "bench.toml"


def test_the_command_writes_tables_and_plots(file: Path) -> None:
    """One command leaves both tables and the figures, shows the best attacks, and says how much was not measured."""
    out = file.parent / "out"
    ended = CliRunner().invoke(bench_app, ["attacks", str(file), "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    assert "c001-mixed" in ended.output
    assert "5 cuts or masks were not measured" in ended.output
    assert {path.name for path in out.iterdir()} >= {"attacks.csv", "screens.csv", "bench.json", "plots"}
    assert len(list((out / "plots").iterdir())) == 3


def test_the_command_prints_json(file: Path) -> None:
    """With --json the rows of both tables go to standard output, and nothing else does; plots can be left out."""
    out = file.parent / "json"
    ended = CliRunner().invoke(bench_app, ["attacks", str(file), "--out", str(out), "--no-plots", "--json"])
    assert ended.exit_code == 0, ended.output
    said = json.loads(ended.stdout)
    assert {row["attack"] for row in said["attacks"]} == {"ridge"}
    assert said["screens"] == []
    assert not (out / "plots").exists()


def test_a_wrong_file_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file with an unknown field ends in the error that the command line prints as one line."""
    (tmp_path / "bench.toml").write_text(FILE + "\nspeed = 1\n", encoding="utf-8")
    ended = CliRunner().invoke(bench_app, ["attacks", str(tmp_path / "bench.toml"), "--out", str(tmp_path / "out")])
    assert isinstance(ended.exception, BenchError)
    assert "data.0.speed" in str(ended.exception)
