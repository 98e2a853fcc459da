from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leakage_cases import photo_tiles, small_network, write_network
from onnx import TensorProto, helper
from PIL import Image

from siniantrust import bench, graph, leakage
from siniantrust.bench import BenchError

FILE = """
[run]
seeds = 2
attacks = ["ridge"]
screens = ["distance_correlation"]

[run.budget]
attacker_items = 100
heldout_items = 60
kernel_features = 256
patch_rows = 2000
screen_items = 40
steps = 2
threads = 1

[[model]]
name = "small"
path = "model.onnx"
data = "tiles"

[[data]]
name = "tiles"
path = "tiles.npz"

[[mask]]
name = "gaussian"
strength = [1, 8]

[[mask]]
name = "permutation"
"""


def _write(folder: Path, text: str = FILE) -> bench.BenchConfig:
    write_network(folder / "model.onnx", small_network())
    labels = np.random.default_rng(0).integers(0, 4, 400)
    np.savez(folder / "tiles.npz", inputs=photo_tiles()[:400], labels=labels)
    (folder / "bench.toml").write_text(text, encoding="utf-8")
    return bench.load_config(folder / "bench.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small network, its data and the bench's file."""
    place = tmp_path_factory.mktemp("bench")
    _write(place)
    return place


@pytest.fixture(scope="module")
def found(folder: Path) -> bench.Bench:
    """Run the bench."""
    return bench.run_bench(bench.load_config(folder / "bench.toml"), out=folder / "out")


def _best(rows: list[Any], mask: str, strength: float) -> dict[str, float]:
    return {
        row["cut"]: row["mean"]
        for row in rows
        if row["best"] and row["metric"] == "ssim" and (row["mask"], row["strength"]) == (mask, strength)
    }


def test_every_case_is_measured(found: bench.Bench) -> None:
    """There is one audit of the bare model, and one for each mask, strength and cut of it."""
    bare, *masked = found.finished
    cuts = [cut.cut_id for cut in bare.audit.cuts]
    assert len(cuts) == 3
    assert [(one.case.mask, one.case.strength, one.case.cut_id, one.case.cut_index) for one in masked] == [
        (mask, strength, cut, index)
        for mask, strength in (("gaussian", 1), ("gaussian", 8), ("permutation", 1))
        for index, cut in enumerate(cuts)
    ]
    for one in masked:
        (cut,) = one.audit.cuts
        assert all(name.endswith("_masked") for name in cut.tensors)


def test_masks_are_judged_by_attackers_trained_against_them(found: bench.Bench) -> None:
    """Strong noise lowers what leaks at the first cut; a fixed permutation hides nothing from regression."""
    rows = bench.attack_rows(found)
    first, *_ = none = _best(rows, "none", 0.0)
    assert _best(rows, "gaussian", 8.0)[first] < 0.6 * none[first]
    assert _best(rows, "permutation", 1.0)[first] == pytest.approx(none[first], abs=0.02)


def test_a_row_says_what_the_audit_says(found: bench.Bench) -> None:
    """Figures, bounds, seeds and the decision are those of the audit; PSNR is that of the mean squared error."""
    bare = found.finished[0]
    rows = [row for row in bench.attack_rows(found) if row["mask"] == "none"]
    assert len(rows) == sum(len(each.leakage) for cut in bare.audit.cuts for each in cut.attacks.values())
    for row in rows:
        cut = bare.audit.by_cut(str(row["cut"]))
        assert cut is not None
        figure = cut.attacks[str(row["attack"])].leakage[str(row["metric"])]
        assert (row["mean"], row["lower"], row["upper"], row["raw"]) == (
            figure.mean,
            figure.lower,
            figure.upper,
            figure.raw,
        )
        assert [float(value) for value in str(row["by_seed"]).split()] == pytest.approx(figure.by_seed, abs=1e-5)
        assert row["best"] == (cut.best_attack[str(row["metric"])] == row["attack"])
        if row["metric"] == "nmse":
            assert row["psnr_db"] == pytest.approx(-10 * np.log10(figure.raw))
        assert row["accuracy"] == bare.audit.heldout_accuracy


def test_screens_are_held_against_the_attacks_of_the_bare_model(found: bench.Bench) -> None:
    """A screen has a score everywhere, and a rank correlation and a choice where there are several cuts."""
    rows = bench.screen_rows(found)
    bare = [row for row in rows if row["mask"] == "none"]
    assert {row["rank_correlation"] for row in bare if row["metric"] == "ssim"} <= {0.5, 1.0}
    assert {row["pick"] for row in bare} <= {True, False}
    assert {row["pick"] for row in rows if row["mask"] != "none"} == {None}
    assert all(isinstance(row["score"], float) for row in rows)


def test_a_finished_bench_is_taken_over(folder: Path, found: bench.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file again audits nothing anew and finds the same."""
    monkeypatch.setattr(leakage, "audit", lambda *_, **__: pytest.fail("an audit was run again"))
    again = bench.run_bench(bench.load_config(folder / "bench.toml"), out=folder / "out")
    assert [(one.case, one.audit) for one in again.finished] == [(one.case, one.audit) for one in found.finished]


@pytest.mark.parametrize("changed", ["seeds = 1", "seed = 1", "data", "screens = []"])
def test_a_changed_input_is_audited_anew(
    folder: Path, found: bench.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """Other limits, another seed, other screens or other data: the audit that lies there does not pass for it."""
    assert found.finished
    config = _write(tmp_path)
    if changed == "data":
        np.savez(tmp_path / "tiles.npz", inputs=photo_tiles()[100:500])
    elif changed == "seed = 1":
        config = config.model_copy(update={"model": (config.model[0].model_copy(update={"seed": 1}),)})
    else:
        update = {"seeds": 1} if changed == "seeds = 1" else {"screens": ()}
        config = config.model_copy(update={"run": config.run.model_copy(update=update)})
    shutil.copytree(folder / "out" / "audits", tmp_path / "out" / "audits")
    asked: list[object] = []

    def stop(model: graph.Model, *_: object, **__: object) -> None:
        asked.append(model)
        raise KeyboardInterrupt

    monkeypatch.setattr(leakage, "audit", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.run_bench(config, out=tmp_path / "out")
    assert len(asked) == 1


def test_a_damaged_audit_is_measured_again(folder: Path, found: bench.Bench, tmp_path: Path) -> None:
    """An audit that was altered is not believed; measured again, the figures are the same."""
    shutil.copytree(folder / "out", tmp_path / "out")
    name = found.finished[0].folder.name
    damaged = tmp_path / "out" / "audits" / name / "audit.json"
    record = json.loads(damaged.read_text())
    record["cuts"][0]["leakage"]["ssim"]["upper"] = 0.0
    damaged.write_text(json.dumps(record))
    again = bench.run_bench(bench.load_config(folder / "bench.toml"), out=tmp_path / "out")
    figures = [cut.leakage for cut in again.finished[0].audit.cuts]
    assert figures == [cut.leakage for cut in found.finished[0].audit.cuts]


def test_tables_and_plots_are_written(found: bench.Bench, tmp_path: Path) -> None:
    """Each table has one header and a row for each figure; each figure is a picture."""
    rows = bench.attack_rows(found)
    written = bench.write_tables({"attacks": rows}, tmp_path)
    with written[0].open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [each["cut"] for each in read] == [row["cut"] for row in rows]
    assert [float(each["mean"]) for each in read] == [row["mean"] for row in rows]
    drawn = bench.write_plots(rows, tmp_path)
    assert {path.name for path in drawn} == {
        f"{kind}-small-tiles-{metric}.png"
        for kind in ("depth", "masks")
        for metric in ("ssim", "nmse", "reidentification")
    }
    for path in drawn:
        with Image.open(path) as image:
            assert min(image.size) > 200


def test_parquet_holds_the_same(found: bench.Bench, tmp_path: Path) -> None:
    """Where pyarrow is installed, each table is there as Parquet too, with the same rows."""
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    rows = bench.attack_rows(found)
    written = bench.write_tables({"attacks": rows}, tmp_path)
    assert [path.name for path in written] == ["attacks.csv", "attacks.parquet"]
    assert parquet.read_table(written[1]).to_pylist() == rows


def test_a_mask_that_cannot_be_put_somewhere_is_told(tmp_path: Path) -> None:
    """A mask on one of the model's outputs is skipped with the reason, and the tables say nothing of it."""
    config = _write(tmp_path, FILE.replace('data = "tiles"', 'data = "tiles"\ncuts = ["c003-r1"]', 1))
    proto = small_network()
    shape = next(value for value in graph.load_model(proto).tensors.values() if value.name == "r1").shape
    proto.graph.output.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["batch", *shape[1:]]))
    write_network(tmp_path / "model.onnx", proto)
    run = config.run.model_copy(update={"unmasked": False})
    config = config.model_copy(update={"run": run, "mask": config.mask[1:]})
    found = bench.run_bench(config, out=tmp_path / "out")
    assert found.finished == ()
    ((case, reason),) = found.skipped.items()
    assert case == "small on tiles, permutation 1 at c003-r1"
    assert "is an output of the model" in reason
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["skipped"] == found.skipped


def test_a_cut_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A cut that the model does not have stops the bench before anything is audited."""
    config = _write(tmp_path, FILE.replace('data = "tiles"', 'data = "tiles"\ncuts = ["c999-x"]', 1))
    with pytest.raises(BenchError, match="model 'small' has no cut 'c999-x'"):
        bench.run_bench(config, out=tmp_path / "out")
