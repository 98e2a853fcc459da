from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from leakage_cases import SMALL, photo_tiles, small_network, write_network
from onnx import TensorProto, helper
from PIL import Image

from siniantrust.errors import AuditError, DataError
from siniantrust.graph import Model, enumerate_cuts, load_model
from siniantrust.leakage import Audit, Data, audit, list_attacks, list_screens, load_audit
from siniantrust.leakage._audit_file import audit_id

BRIEF = replace(SMALL, attacker_items=150, heldout_items=60, steps=2, patch_rows=2000, screen_items=40)


def _load(folder: Path, proto: onnx.ModelProto) -> Model:
    return load_model(write_network(folder / "model.onnx", proto))


def _run(model: Model, data: Data, out: Path, **options: Any) -> Audit:
    options = {"budget": BRIEF, "attacks": ["ridge"], "screens": ["distance_correlation"], **options}
    return audit(model, data, cuts=enumerate_cuts(model), out=out, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of one whole audit: every screen and attack on the small network."""
    place = tmp_path_factory.mktemp("whole")
    labels = np.random.default_rng(0).integers(0, 4, 600)
    _run(
        _load(place, small_network()),
        Data(photo_tiles(), labels, "x"),
        place / "audit",
        budget=replace(
            SMALL, seeds=2, optimised_items=8, optimisation_steps=6, discriminator_steps=10, max_weight=None
        ),
        attacks=None,
        screens=None,
    )
    return place / "audit"


def test_a_whole_audit_reads_back(folder: Path) -> None:
    """What an audit writes is what ``load_audit`` returns, from the folder or from the file."""
    found = load_audit(folder)
    assert found == load_audit(folder / "audit.json")
    assert [cut.tensors for cut in found.cuts] == [("mixed",), ("r1",), ("r2",)]
    for cut in found.cuts:
        mounted = set(cut.attacks) - {"downstream"}
        pictorial = {name for name, attack in list_attacks().items() if "image" in attack.kinds}
        assert mounted | set(cut.declined) == pictorial
        # A local regression needs maps, which the dense layer's output is not.
        lacking = {"attribute", "transcript"}
        assert set(cut.declined) == (lacking | {"local_ridge"} if cut.tensors == ("r2",) else lacking)
        assert set(cut.screens) <= set(found.screens) == set(list_screens())
        assert found.seeds == 2
        for name, result in cut.attacks.items():
            runs = 2 if name == "downstream" or list_attacks()[name].varies else 1
            assert {len(figure.by_seed) for figure in result.leakage.values()} == {runs}
        assert set(cut.leakage) == {"ssim", "nmse", "reidentification"}
    assert found.data.attacker_count + found.data.validation_count + found.data.heldout_count <= 600
    assert found.heldout_accuracy is not None
    priors = {name: prior.leakage["nmse"].mean for name, prior in found.priors.items()}
    assert 0 < priors["class mean"] < priors["nearest"] < found.cuts[0].leakage["nmse"].mean
    for cut in found.cuts:
        assert cut.over_priors["nearest"]["nmse"].mean < cut.leakage["nmse"].mean


def test_upper_bounds_leave_room_for_what_the_last_doubling_gained(folder: Path) -> None:
    """An attacker with four times the means may gain twice more what this one gained; a loss takes nothing away."""
    results = [
        result for cut in load_audit(folder).cuts for name, result in cut.attacks.items() if name != "downstream"
    ]
    for result in results:
        for metric, figure in result.leakage.items():
            gain = max(figure.mean, 0) - max(figure.mean - max(result.gains[metric], 0), 0)
            room = 1 - (figure.upper - figure.headroom)
            assert figure.headroom == pytest.approx(max(0, min(2 * gain, room)))
            assert figure.upper - figure.headroom >= max(figure.mean, 0)
    assert any(figure.headroom > 0 for result in results for figure in result.leakage.values())


def test_leakage_falls_with_depth(folder: Path) -> None:
    """The invertible layer leaks nearly all, the narrow dense layer little; the best attack decides."""
    first, second, last = load_audit(folder).cuts
    assert first.leakage["ssim"].mean > 0.9 > second.leakage["ssim"].mean > last.leakage["ssim"].mean
    assert last.leakage["ssim"].mean < 0.3
    for cut in (first, second, last):
        for metric, name in cut.best_attack.items():
            assert cut.leakage[metric] == cut.attacks[name].leakage[metric]
            uppers = [result.leakage[metric].upper for result in cut.attacks.values() if metric in result.leakage]
            assert cut.leakage[metric].upper == max(uppers)


def test_cuts_left_out_say_why(folder: Path) -> None:
    """Every cut is audited or skipped with a reason; a mere change of shape refers to its twin."""
    found = load_audit(folder)
    reasons = {cut_id.split("-", 1)[1]: reason for cut_id, reason in found.skipped.items()}
    twin = next(cut.cut_id for cut in found.cuts if cut.tensors == ("r1",))
    assert reasons["flat"] == f"the same numbers in another shape as cut '{twin}', which is audited"
    assert "fuses into it" in reasons["c1"]
    assert "fuses into it" in reasons["g1"]


def test_pictures_show_the_same_items(folder: Path) -> None:
    """There is one strip of originals, and two of each attack at each cut: the first items and those that leak most."""
    found = load_audit(folder)
    results = [
        result
        for cut in found.cuts
        for name, result in cut.attacks.items()
        if name not in {"downstream", "identification"}
    ]
    pictured = {found.originals_picture: 8} | {result.picture: min(8, result.heldout_items or 8) for result in results}
    strips = {}
    for name, count in pictured.items():
        assert name is not None
        with Image.open(folder / name) as picture:
            assert (picture.mode, picture.size) == ("RGB", (count * 64, 64))
            strips[name] = np.asarray(picture).astype(float)
    for result in results:
        with Image.open(folder / str(result.worst_picture)) as picture:
            assert (picture.mode, picture.size) == ("RGB", (pictured[result.picture] * 64, 2 * 64))
            strips[str(result.worst_picture)] = np.asarray(picture).astype(float)
    assert len(strips) == 1 + 2 * len(results)
    worst = strips[str(found.cuts[0].attacks["inverter"].worst_picture)]
    assert np.abs(worst[:64] - worst[64:]).mean() < 10
    first = found.cuts[0].attacks["inverter"].picture
    assert first is not None
    assert np.abs(strips[first] - strips[str(found.originals_picture)]).mean() < 10
    assert {path.name for path in folder.iterdir()} == {"audit.json", *strips}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    """Two audits with one seed agree; another seed splits the data otherwise."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(300), None, "x")
    options = {"attacks": None, "screens": None, "max_cuts": 1}
    runs = [_run(model, data, tmp_path / str(n), seed=seed, **options) for n, seed in enumerate((1, 1, 2))]
    first, second, third = (run.cuts[0] for run in runs)
    for metric, figure in first.leakage.items():
        assert figure.mean == pytest.approx(second.leakage[metric].mean, abs=1e-4)
        assert figure.upper == pytest.approx(second.leakage[metric].upper, abs=1e-4)
    for name, result in first.screens.items():
        assert result.score == pytest.approx(second.screens[name].score, abs=1e-4)
    assert first.leakage["ssim"].mean != third.leakage["ssim"].mean


def test_a_fixed_batch_gives_the_figures_of_a_free_one(tmp_path: Path) -> None:
    """A model whose batch is fixed at one runs item by item, with the same result."""
    data = Data(photo_tiles(150), None, "x")
    (tmp_path / "free").mkdir()
    (tmp_path / "one").mkdir()
    free = _run(_load(tmp_path / "free", small_network()), data, tmp_path / "a")
    one = _run(_load(tmp_path / "one", small_network(batch=1)), data, tmp_path / "b")
    assert len(free.cuts) == len(one.cuts)
    for first, second in zip(free.cuts, one.cuts, strict=True):
        for metric, figure in first.leakage.items():
            assert figure.mean == pytest.approx(second.leakage[metric].mean, abs=2e-3)


def test_cached_features_give_the_same_figures(tmp_path: Path) -> None:
    """A second audit of other attacks takes the features from the cache; the first attack's figures are the same."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(150), None, "x")
    first = _run(model, data, tmp_path / "a", cache=tmp_path / "cache")
    features = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("features/*")}
    assert len(features) == 1 + len(first.cuts)
    again = _run(model, data, tmp_path / "b", cache=tmp_path / "cache", attacks=["inverter", "ridge"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("features/*")} == features
    for one, other in zip(first.cuts, again.cuts, strict=True):
        assert one.attacks["ridge"].leakage == other.attacks["ridge"].leakage


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cache's disk is full, one line says so; no audit is written, and nothing counts as kept."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(60), None, "x")
    with pytest.raises(AuditError, match="No space left on device") as caught:
        _run(model, data, tmp_path / "a", cache=tmp_path / "cache")
    assert str(tmp_path / "cache") in str(caught.value)
    assert not (tmp_path / "a").exists()
    monkeypatch.undo()
    assert _run(model, data, tmp_path / "a", cache=tmp_path / "cache").cuts


def test_a_damaged_cache_is_not_believed(tmp_path: Path) -> None:
    """Cached pieces that were cut short are computed again; the figures stay."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(150), None, "x")
    first = _run(model, data, tmp_path / "a", cache=tmp_path / "cache", max_cuts=1)
    for path in (tmp_path / "cache").rglob("*.*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = _run(model, data, tmp_path / "b", cache=tmp_path / "cache", max_cuts=1)
    assert first.cuts[0].leakage == again.cuts[0].leakage


def test_a_lost_cut_is_given_up_early_and_never_passes(tmp_path: Path) -> None:
    """With bounds, a cut that surely leaks more gets no further attacks and is not converged; others get them all."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(400), None, "x")
    options = {"attacks": ["ridge", "inverter"], "screens": ["ridge_probe"], "budget": replace(BRIEF, seeds=2)}
    whole = _run(model, data, tmp_path / "whole", **options)
    found = _run(model, data, tmp_path / "short", bounds={"ssim": 0.5}, **options)
    first, *_, last = found.cuts
    assert first.cut_short is not None
    assert "ssim is at least" in first.cut_short
    assert set(first.attacks) - {"downstream"} == {"ridge"}
    assert not first.converged
    assert first.leakage["ssim"].lower is not None
    assert last.cut_short is None
    assert last.leakage == whole.cuts[-1].leakage
    assert found.bounds == {"ssim": 0.5}
    assert whole.bounds == {}
    assert all(cut.cut_short is None for cut in whole.cuts)


def test_reduced_features_are_declared(tmp_path: Path) -> None:
    """Tensors too large to be kept are reduced, the attack still sees through them, and its detail says so."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(300), None, "x")
    budget = replace(SMALL, feature_elements=512, max_side=8)
    found = _run(model, data, tmp_path / "a", max_cuts=1, budget=budget)
    assert "mixed kept as 8x8x8 numbers" in found.cuts[0].attacks["ridge"].detail
    assert found.data.item_shape == (3, 16, 16)
    assert found.data.target_shape == (3, 8, 8)
    assert found.cuts[0].leakage["reidentification"].mean > 0.9


def test_marked_items_alone_are_measured_on(tmp_path: Path) -> None:
    """Items that the data mark as held out are exactly those that leakage is measured on."""
    model, tiles = _load(tmp_path, small_network()), photo_tiles(150)
    marked = np.arange(150) >= 100
    found = _run(model, Data(tiles, None, "x", heldout=marked), tmp_path / "a", max_cuts=1)
    assert found.data.heldout_count == 50
    assert found.data.attacker_count + found.data.validation_count <= 100


def test_overflowing_features_are_skipped(tmp_path: Path) -> None:
    """A tensor that is not finite on a single item is not attacked; its cut is skipped by name, the others stay."""
    model = _load(tmp_path, small_network(blow_up=True))
    tiles, marked = photo_tiles(300).copy(), np.arange(300) >= 200
    tiles[299] *= 10_000
    found = _run(
        model, Data(tiles, None, "x", heldout=marked), tmp_path / "a", budget=replace(BRIEF, heldout_items=100)
    )
    assert [cut.tensors for cut in found.cuts] == [("mixed",), ("r1",)]
    assert "tensor 'r2' is not finite on this data" in found.skipped.values()


def test_a_cap_spreads_over_the_model(tmp_path: Path) -> None:
    """With a cap, cuts from the first to the last are audited and the others say that they were left out."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(60), None, "x")
    found = _run(model, data, tmp_path / "a", max_cuts=2)
    assert [cut.tensors for cut in found.cuts] == [("mixed",), ("r2",)]
    assert "left out: only 2 of 3 cuts were to be audited" in found.skipped.values()


def test_fusable_cuts_are_audited_on_request(tmp_path: Path) -> None:
    """Cuts that only separate a fusable activation are audited when asked for."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(60), None, "x")
    found = _run(model, data, tmp_path / "a", include_fusable=True)
    assert ("c1",) in [cut.tensors for cut in found.cuts]


def test_a_model_of_two_inputs_is_audited_for_the_private_one(tmp_path: Path) -> None:
    """The other inputs go along item by item; only the private one is reconstructed."""
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["m"], name="mul"),
        helper.make_node("Tanh", ["m"], ["t"], name="tanh"),
        helper.make_node("Neg", ["t"], ["y"], name="neg"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5]) for name in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
    )
    model = _load(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    rows = np.random.default_rng(0).uniform(-1, 1, (150, 5)).astype(np.float32)
    found = _run(model, Data(rows, None, "a", {"b": np.ones_like(rows)}), tmp_path / "a", include_fusable=True)
    assert found.data.kind == "array"
    assert found.originals_picture is None
    assert {cut.tensors for cut in found.cuts} == {("m",), ("t",)}
    assert all(cut.leakage["nmse"].mean > 0.95 for cut in found.cuts)


def test_data_that_do_not_fit_are_refused_before_any_work(tmp_path: Path) -> None:
    """Data with NaN, too few items or a wrong name are refused and nothing is written."""
    model = _load(tmp_path, small_network())
    bad = photo_tiles(60).copy()
    bad[0, 0, 0, 0] = np.nan
    for data, message in (
        (Data(bad, None, "x"), "NaN"),
        (Data(photo_tiles(10), None, "x"), "at least 40 items"),
        (Data(photo_tiles(60), None, "z"), "expected inputs 'x', found 'z'"),
    ):
        with pytest.raises(DataError, match=message):
            _run(model, data, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_requests_that_cannot_be_met_are_refused(tmp_path: Path) -> None:
    """Unknown attacks and screens, and an audit without attacks, are refused by name."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(60), None, "x")
    with pytest.raises(AuditError, match="attack 'guess' is unknown"):
        _run(model, data, tmp_path / "out", attacks=["guess"])
    with pytest.raises(AuditError, match="screen 'look' is unknown"):
        _run(model, data, tmp_path / "out", screens=["look"])
    with pytest.raises(AuditError, match="at least one attack"):
        _run(model, data, tmp_path / "out", attacks=[])
    with pytest.raises(AuditError, match="attack attribute: it needs a private label"):
        _run(model, data, tmp_path / "out", attacks=["attribute"])
    with pytest.raises(AuditError, match="attack transcript: it needs what is said or written"):
        _run(model, data, tmp_path / "out", attacks=["transcript"])
    with pytest.raises(AuditError, match="attack token_regression: it reconstructs token; these data are image"):
        _run(model, data, tmp_path / "out", attacks=["token_regression"])
    with pytest.raises(AuditError, match="none of its 0 cuts"):
        audit(model, data, cuts=replace(enumerate_cuts(model), cuts=()), out=tmp_path / "out")


def test_only_an_earlier_audit_is_replaced(tmp_path: Path) -> None:
    """A folder that holds anything but an audit is left alone; an earlier audit is replaced as a whole."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(60), None, "x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(AuditError, match="exists and is no audit"):
        _run(model, data, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    first = _run(model, data, tmp_path / "again", max_cuts=1)
    (tmp_path / "again" / "old.png").write_bytes(b"old")
    second = _run(model, data, tmp_path / "again", max_cuts=1, seed=5)
    assert load_audit(tmp_path / "again").id == second.id != first.id
    assert not (tmp_path / "again" / "old.png").exists()


def test_a_failing_audit_leaves_nothing(tmp_path: Path) -> None:
    """An audit that is interrupted leaves neither its folder nor parts of it."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(60), None, "x")

    def interrupt(description: str, *, advance: float = 1.0) -> None:
        raise KeyboardInterrupt(description, advance)

    with pytest.raises(KeyboardInterrupt):
        _run(model, data, tmp_path / "out", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_progress_adds_up(tmp_path: Path) -> None:
    """Progress counts one unit for the features and, at each cut, one for the screens and one for each seed."""
    model, data = _load(tmp_path, small_network()), Data(photo_tiles(60), None, "x")
    seen: list[float] = []

    def note(description: str, *, advance: float = 1.0) -> None:
        assert description
        seen.append(advance)

    _run(model, data, tmp_path / "out", progress=note)
    assert sum(seen) == pytest.approx(1 + 3 * (1 + BRIEF.seeds))


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edited(content: bytes) -> bytes:
        parsed = json.loads(content)
        change(parsed)
        return json.dumps(parsed).encode()

    return edited


def _resealed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edited(content: bytes) -> bytes:
        parsed = json.loads(content)
        change(parsed)
        return json.dumps({**parsed, "id": audit_id(parsed)}).encode()

    return edited


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_edit(lambda a: a["cuts"][0]["leakage"]["ssim"].update(upper=0.0)), "its id does not match its content"),
        (_edit(lambda a: a["cuts"][2].update(converged=not a["cuts"][2]["converged"])), "its id does not match"),
        (_edit(lambda a: a.update(id="0" * 64)), "its id does not match"),
        (_edit(lambda a: a.pop("id")), "id: Field required"),
        (_edit(lambda a: a.update(more=1)), "more: Extra inputs"),
        (_resealed(lambda a: a.update(schema_version=1)), "schema_version"),
        (_resealed(lambda a: a["cuts"][0]["leakage"]["ssim"].update(upper="much")), "cuts.0.leakage.ssim.upper"),
        (lambda content: content.replace(b'"upper": ', b'"upper": NaN, "x": ', 1), "upper"),
        (lambda content: content[: len(content) // 2], "not a JSON file"),
        (lambda _: b"[" * 100_000, "not a JSON file"),
        (lambda _: b"\xff\xfe", "not a JSON file"),
        (lambda _: b"[]", "the file"),
    ],
)
def test_a_changed_audit_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    """An audit that was changed, cut short or is none is refused by one line that names the file and the place."""
    path = tmp_path / "audit.json"
    path.write_bytes(change((folder / "audit.json").read_bytes()))
    with pytest.raises(AuditError, match=message) as caught:
        load_audit(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_audit_is_refused(tmp_path: Path) -> None:
    """A path without an audit is refused by one line."""
    with pytest.raises(AuditError, match="cannot be read"):
        load_audit(tmp_path / "none")


@settings(max_examples=60, deadline=None)
@given(position=some.integers(0, 10**6), value=some.integers(0, 255))
def test_no_flipped_byte_passes(folder: Path, position: int, value: int) -> None:
    """Changing any one byte of an audit gives the same audit (white space) or an error of ours, never another audit."""
    content = bytearray((folder / "audit.json").read_bytes())
    content[position % len(content)] = value
    path = folder.parent / "flipped.json"
    path.write_bytes(bytes(content))
    try:
        found = load_audit(path)
    except AuditError:
        return
    assert found == load_audit(folder)


def test_the_room_is_light_to_import() -> None:
    """Importing the room and listing its screens and attacks loads no heavy library."""
    code = (
        "import sys, siniantrust.leakage as room; room.list_attacks(); room.list_screens();"
        "print([name for name in ('torch', 'scipy', 'skimage', 'PIL', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
