"""The search: its figures are its models', it goes on where it was killed, and it refuses what is another one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from retrain_models import cut_at, items, network

from siniantrust.errors import DeviceError
from siniantrust.graph import Model, load_model
from siniantrust.leakage import Budget
from siniantrust.masking.retrain import Recipe, retrain
from siniantrust.masking.tune import (
    NONE,
    Choice,
    Limits,
    Search,
    TuneError,
    chosen_cuts,
    composition,
    corners,
    draw_front,
    tune,
    write_tuning,
)
from siniantrust.masking.tune._places import Dropped
from siniantrust.masking.tune._run import _beyond, _ended, _fresh
from siniantrust.masking.tune._trial import GivenUpError, accuracy_of, attempt

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

SMALL = Search(
    cuts=("p1", "p2"),
    masks=("none", "gaussian"),
    penalties=("none",),
    most_lost_points=100.0,
    recipe=Recipe(mode="joint", epochs=2, learning_rate=5e-3),
    budget=Budget(attacker_items=150, heldout_items=60, steps=4, seeds=1, threads=1, repeats=2, kernel_features=64),
    attacks=("ridge",),
)


@cache
def _trained() -> Model:
    model = load_model(network())
    recipe = Recipe(mode="joint", epochs=6, learning_rate=5e-3)
    return load_model(retrain(model, items(), cut=cut_at(model, "p1"), recipe=recipe).proto)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a search of three trials."""
    out = tmp_path_factory.mktemp("search")
    tune(_trained(), items(), SMALL, trials=3, out=out)
    return out


def test_figures_are_those_of_the_models_that_were_kept(folder: Path, tmp_path: Path) -> None:
    """Going on to four trials tries one more; every point's accuracy, FLOPs and bytes are its kept model's own."""
    found = tune(_trained(), items(), SMALL, trials=4, out=folder, limits=Limits(1.0, 1.0, 100.0))
    assert sorted([*(point.number for point in found.points), *found.failed]) == [0, 1, 2, 3]
    data = items()
    assert data.labels is not None
    assert data.heldout is not None
    for point in found.points:
        path = folder / "trials" / f"{point.number}.onnx"
        model = load_model(path)
        cut = cut_at(model, point.tensor)
        assert (cut.flops_before, cut.size_bytes) == (point.flops, point.size_bytes)
        assert 0 <= point.leakage["reidentification"] <= 1.2
        assert point.within
        assert point.lost_points == pytest.approx(100 * (found.accuracy_original - point.accuracy))
        if point.mask == "none":
            session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
            (scores,) = session.run(None, {"x": data.inputs[data.heldout]})
            assert point.accuracy == pytest.approx(np.mean(scores.argmax(1) == data.labels[data.heldout]))
    write_tuning(found, tmp_path / "tune.json")
    assert json.loads((tmp_path / "tune.json").read_text())["points"][0]["number"] == found.points[0].number
    draw_front(found, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_beats_the_front(folder: Path) -> None:
    """Each point is on the front exactly if no other one is at least as good in all four figures and better in one."""
    points = tune(_trained(), items(), SMALL, trials=1, out=folder).points
    goods = [(-max(p.leakage.values()), p.accuracy, -p.flops, -p.size_bytes) for p in points]
    for point, mine in zip(points, goods, strict=True):
        beaten = any(other != mine and all(a >= b for a, b in zip(other, mine, strict=True)) for other in goods)
        assert point.on_front == (not beaten)


def test_another_search_is_refused(folder: Path) -> None:
    """A folder goes on with its own search only; what differs is named."""
    with pytest.raises(TuneError, match="holds another search: seed is 0 there and 1 here"):
        tune(_trained(), items(), replace(SMALL, seed=1), trials=3, out=folder)
    with pytest.raises(TuneError, match="holds another search: data is"):
        tune(_trained(), items(seed=4), SMALL, trials=3, out=folder)


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    """Two searches do not run in one folder at the same time."""
    import fcntl

    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(TuneError, match="another search is running in it"):
            tune(_trained(), items(), SMALL, trials=3, out=folder)


def test_a_trial_that_was_killed_is_given_up(folder: Path) -> None:
    """What a killed search left unfinished counts as failed, and is said to have been interrupted."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    left = optuna.load_study(study_name="tune", storage=storage).ask()
    found = tune(_trained(), items(), SMALL, trials=1, out=folder)
    assert found.failed[left.number] == "interrupted"


def test_a_trial_that_cannot_be_made_is_kept_with_its_reason(tmp_path: Path) -> None:
    """Steps that are far too long make every trial fail; the search says how the first one did."""
    wild = replace(SMALL, masks=("none",), recipe=replace(SMALL.recipe, learning_rate=1e30))
    with pytest.raises(TuneError, match=r"no trial was carried through; the first failed so: epoch 1, step"):
        tune(_trained(), items(), wild, trials=1, out=tmp_path)


LOST = replace(SMALL, masks=("gaussian",), weakest=500.0, strongest=500.0)


@pytest.mark.parametrize(
    ("most", "why"),
    [
        (20.0, r"half-way through training it was .*, more than twice 20"),
        (40.0, r"it lost .* points of accuracy, more"),
    ],
    ids=["half-way", "in the end"],
)
def test_a_trial_that_loses_too_much_is_not_attacked(tmp_path: Path, most: float, why: str) -> None:
    """Under noise that leaves no answer a trial is given up, and no audit is written."""
    original = accuracy_of(_trained(), items())
    search = replace(LOST, most_lost_points=most)
    with pytest.raises(GivenUpError, match=why):
        attempt(_trained(), items(), search, corners(LOST)[0], original=original, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_trial_that_was_given_up_is_kept_with_its_reason(tmp_path: Path) -> None:
    """It counts as a trial, and stands apart from those that failed."""
    search = replace(SMALL, masks=("none", "gaussian"), weakest=500.0, strongest=500.0, most_lost_points=20.0)
    found = tune(_trained(), items(), search, trials=2, out=tmp_path)
    assert [point.number for point in found.points] == [0]
    assert found.failed == {}
    assert "not attacked" in found.given_up[1]


def test_masks_of_a_composition_get_the_searched_strength_where_they_name_none() -> None:
    """A mask's own strength stays, one that can have any gets the searched one, others their usual one."""
    specs = composition("pooling+quantise:strength=2+gaussian", strength=0.7)
    assert [(spec.name, spec.strength) for spec in specs] == [("pooling", None), ("quantise", 2.0), ("gaussian", 0.7)]
    assert composition(NONE, strength=0.7) == ()


def test_a_search_begins_at_its_corners(folder: Path) -> None:
    """The first trial has no mask at the last cut; the second the fewest channels across, and the last penalty."""
    wide = replace(SMALL, cuts=("r1", "p1", "p2"), masks=("none", "quantise"), penalties=("none", "nopeek"))
    bare, masked, middle, thin = corners(wide)
    assert (bare.cut, bare.mask, bare.crossing_channels, bare.penalty) == ("p2", "none", 1.0, "none")
    assert (masked.cut, masked.mask, masked.crossing_channels, masked.penalty) == ("p2", "quantise", 0.0625, "nopeek")
    assert masked.strength == pytest.approx((wide.weakest * wide.strongest) ** 0.5)
    assert (middle.cut, thin.kept_channels) == ("p1", 0.5)
    tried = {point.number: point for point in tune(_trained(), items(), SMALL, trials=1, out=folder).points}
    for number, corner in enumerate(corners(SMALL)[: len(tried)]):
        assert all(getattr(tried[number], name) == value for name, value in asdict(corner).items())


def test_what_was_tried_is_not_tried_again() -> None:
    """Of four choices, three of them tried, the fourth comes next; with all of them tried, one comes all the same."""
    import optuna

    search = replace(SMALL, masks=("none",), cuts=("p1", "p2"), kept_channels=(1.0, 0.5), crossing_channels=(1.0,))
    every = {Choice(cut, NONE, 0.0, kept, 1.0, NONE) for cut in search.cuts for kept in search.kept_channels}
    wanted = Choice("p1", NONE, 0.0, 0.5, 1.0, NONE)
    study = optuna.create_study(directions=["minimize"] * 4, sampler=optuna.samplers.RandomSampler(seed=0))
    assert _fresh(study, search, every - {wanted})[1] == wanted
    assert _fresh(study, search, every)[1] in every
    assert len(_ended(study)) == 0


def test_optuna_is_told_how_far_each_trial_is_beyond_the_limits(folder: Path) -> None:
    """Constraints are figures over limits less 1: below 0 within them; a trial given up is beyond all that ended."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    found = tune(_trained(), items(), SMALL, trials=1, out=folder)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    told = {trial.number: trial.constraints for trial in optuna.load_study(study_name="tune", storage=storage).trials}
    first = next(point for point in found.points if point.number == 0)
    assert told[0]["ssim"] == pytest.approx(first.leakage["ssim"] / 0.15 - 1)
    assert told[0]["reidentification"] == pytest.approx(first.leakage["reidentification"] / 0.1 - 1)
    assert told[0]["lost_points"] == pytest.approx(first.lost_points - 1)
    (lost,) = _beyond(Dropped("it lost 9 points", given_up=True), 0.9, Limits()).values()
    assert lost > sum(told[0].values())
    assert _beyond(Dropped("no such layer", given_up=False), 0.9, Limits()) == {}


def test_what_the_class_alone_tells_is_said_beside_what_leaks(folder: Path) -> None:
    """Every point has what attackers find beyond the predicted class, and what that class tells by itself."""
    for point in tune(_trained(), items(), SMALL, trials=1, out=folder).points:
        assert point.class_alone["nmse"] > 0.02
        assert point.beyond_class["nmse"] < point.leakage["nmse"]


@pytest.mark.slow
def test_a_ray_cluster_finds_what_processes_find(folder: Path, ray_cluster: Any, tmp_path: Path) -> None:
    """Trials on two nodes give the models of those that ran here, and the figures but for noise drawn anew."""
    there = tune(_trained(), items(), SMALL, trials=2, out=tmp_path, workers=2, ray=ray_cluster.address)
    here = {point.number: point for point in tune(_trained(), items(), SMALL, trials=1, out=folder).points}
    assert sorted(point.number for point in there.points) == [0, 1]
    for point in there.points:
        same = here[point.number]
        assert (point.model_sha256, point.accuracy) == (same.model_sha256, same.accuracy)
        if point.mask == NONE:
            assert replace(point, on_front=True) == replace(same, on_front=True)


def test_a_ray_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    """An address at which nothing listens is an error, and the folder can be gone on with."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    # Another test may have joined a cluster in this process, which then can be in no second one.
    missing = r"no Ray cluster at 127\.0\.0\.1:1: .* start one|cannot use the one at 127\.0\.0\.1:1 too"
    with pytest.raises(DeviceError, match=missing):
        tune(_trained(), items(), SMALL, trials=1, out=tmp_path, ray="127.0.0.1:1")


def test_a_search_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    """Masks that there are not, strengths and shares out of range, data without labels."""
    with pytest.raises(TuneError, match="mask 'magic' is unknown; there are none, bank"):
        replace(SMALL, masks=("magic",))
    with pytest.raises(TuneError, match="0 < weakest <= strongest"):
        replace(SMALL, weakest=0.0)
    with pytest.raises(TuneError, match="crossing_channels must be shares"):
        replace(SMALL, crossing_channels=(2.0,))
    with pytest.raises(TuneError, match="mode 'joint'"):
        replace(SMALL, recipe=Recipe())
    with pytest.raises(TuneError, match="needs labels"):
        tune(_trained(), items(labelled=False), SMALL, trials=1, out=tmp_path)
    with pytest.raises(TuneError, match="at least one trial"):
        tune(_trained(), items(), SMALL, trials=0, out=tmp_path)


def test_useful_cuts_are_found() -> None:
    """Without names, all cuts that one float tensor crosses are searched; the output is none of them."""
    model = _trained()
    assert set(chosen_cuts(model, ())) >= {"r1", "p1", "r2", "p2"}
    assert chosen_cuts(model, ["p2"]) == ("p2",)
    assert "y" not in chosen_cuts(model, ())
