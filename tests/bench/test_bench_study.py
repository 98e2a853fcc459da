"""The leakage study runs, and what it writes is right."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from siniantrust.errors import DataError
from siniantrust.graph import enumerate_cuts, load_model
from siniantrust.leakage import list_screens

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests import the study's modules as it does itself."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["lenet", "vgg", "resnet", "mobilenet", "six-convolutions"])
def test_every_network_fits_both_data_sets_and_can_be_cut(name: str, channels: int, side: int) -> None:
    """Each network takes either shape, exports with a free batch, and has six or more cuts worth an audit."""
    import _study_networks as networks

    network = networks.RECIPES[name].make(channels, side, 10).eval()
    written = networks.export(network, (channels, side, side), name)
    model = load_model(onnx.load_from_string(written))
    assert model.batch_symbol == "batch"
    assert sum(not cut.fusable for cut in enumerate_cuts(model).cuts) >= 6


def test_fashion_is_read_from_the_packages_files(tmp_path: Path) -> None:
    """Pixels become 0 to 1, labels class numbers, and the seed draws which items are taken."""
    import gzip

    import _study_data

    folder = tmp_path / "dataset-fashion-mnist" / "usr/share/datasets/fashion-mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 20)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pixels))
        labels = np.arange(count, dtype=np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels))
    found = _study_data.fashion(tmp_path, items=10, heldout=5, seed=1)
    assert found.train_inputs.shape == (10, 1, 28, 28)
    assert found.heldout_inputs.shape == (5, 1, 28, 28)
    assert np.allclose(found.train_inputs[:, 0, 0, 0] * 255, found.train_labels)
    other = _study_data.fashion(tmp_path, items=10, heldout=5, seed=2)
    assert found.train_labels.tolist() != other.train_labels.tolist()


def test_without_apt_fashion_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package can neither be found nor fetched, the error names it."""
    import _study_data

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(_study_data, "_INSIDE", Path("nowhere"))
    with pytest.raises(DataError, match="install Debian's package dataset-fashion-mnist"):
        _study_data.fashion(tmp_path, items=1, heldout=1, seed=0)


@pytest.mark.slow
def test_the_study_writes_tables_and_pictures(tmp_path: Path) -> None:
    """One network, trained and attacked hardly at all: every screen stands beside the best attack at every cut."""
    command = [sys.executable, str(BENCHMARKS / "leakage_study.py"), "--smoke", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    with (tmp_path / "study.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["network"] for row in rows} == {"lenet"}
    assert len({row["cut"] for row in rows}) == 3
    assert {row["screen"] for row in rows} <= set(list_screens())
    assert {"ridge_probe", "distance_correlation"} <= {row["screen"] for row in rows}
    assert all(float(row["leakage_upper"]) >= float(row["leakage_mean"]) for row in rows)
    page = (tmp_path / "tables.md").read_text()
    assert page.count("### ") == 7
    assert "| scenes | inverse network | conv11 |" in page
    for name in ("correlations.png", "reconstructions-lenet-scenes-0.png"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 60
