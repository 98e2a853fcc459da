"""How the model came to be: what the page says of trainings, the search and the mask, and what it refuses to show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_audits import MODEL_SHA256, NAMES
from report_files import edit
from report_lineages import GIVEN_SHA256, TRIAL_SHA256, Trained, edit_before, write_trained
from test_report_load import break_utf8, swap_for_a_list, truncate
from test_report_page import NASTY, SECTIONS, words

from siniantrust.errors import AuditError, SinianError
from siniantrust.report import ReportError
from siniantrust.report._lineage import load_lineage

NEW_SECTIONS = ("before-after", "training", "search")


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """A masked model's files, which a test may change."""
    return write_trained(tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A masked model's files, which no test changes."""
    return write_trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def full(good: Trained) -> str:
    """The page with everything."""
    return good.report(good.files.plan.with_name("full.html"))


def unaudited(trained: Trained, **changes: Any) -> str:
    """Return the page without the audits, which takes a tenth of the time."""
    out = trained.files.plan.with_name("unaudited.html")
    return trained.report(out, **{"audit": None, "before": None, **changes})


def section(page: str, name: str) -> str:
    """Return the text of a section."""
    start = page.index(f'<section id="{name}">')
    ends = [page.find(f'<section id="{other}"', start + 1) for other in (*NEW_SECTIONS, *SECTIONS)]
    return words(page[start : min(end for end in ends if end > 0)])


def refuse(trained: Trained, error: type[SinianError], **changes: object) -> str:
    """Return the message that the files are refused with."""
    out = trained.files.plan.with_name("report.html")
    with pytest.raises(error) as caught:
        trained.report(out, **changes)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def test_sections_are_there_only_where_something_was_given(trained: Trained, full: str) -> None:
    """Each new section is in the page and its contents once, and in none of them without its file."""
    bare = unaudited(trained, trainings=(), tune=None)
    for name in NEW_SECTIONS:
        assert full.count(f'<section id="{name}">') == 1
        assert full.count(f'href="#{name}"') == 1
        assert name not in bare


def test_a_retraining_says_its_accuracy_and_which_epoch_was_taken(full: str) -> None:
    """Items, accuracy before and after, the teacher's, and both curves' ends stand in the section."""
    text = section(full, "training")
    for said in ("Part 2 behind the cut", "epoch 3 of 4", "81.1 % rightly before and 93.4 % after", "95.7 %", "94.1 %"):
        assert said in text
    assert (
        "loss by epoch: training items from 1.5 at 1 to 0.375 at 4; validation items from 1.6 at 1 to 0.7 at 4" in full
    )
    assert "accuracy, % by epoch: validation items from 83 at 1 to 92 at 4. taken: 3." in full


def test_a_training_across_edge_and_cloud_says_what_crossed_and_who_was_refused(full: str) -> None:
    """Bytes, calls, epsilon and what it is for, provenance and the edges left out stand in one run's table."""
    text = section(full, "training")
    for said in (
        "split learning",
        "south was left out: sent NaN",
        "Join 1, Step 120",
        "19.6 MiB 19.5 MiB 38.1 MiB 293 KiB 91.2 %",
        "ε 7.25 a step, 18.5 over 12 passes, at δ 1e-05; for one item's activations and gradients",
        "simulated",
    ):
        assert said in text
    assert text.count("Training across edge and cloud") == 1
    assert "loss by step: cloud from 0.2 at 10 to 0.0167 at 120; edge north from 0.2 at 10" in full


def test_whom_the_cloud_refused_is_unknown_without_its_record(trained: Trained) -> None:
    """An edge's record alone never reads as if nobody had been refused; a cloud's without names does."""
    alone = unaudited(trained, trainings=(trained.retraining, trained.edge))
    assert "whom it refused is not known" in section(alone, "training")
    edit(trained.cloud, left_out={})
    assert "The cloud refused nobody" in section(unaudited(trained), "training")


def test_the_accuracy_of_a_masked_upload_is_drawn_by_epoch(trained: Trained) -> None:
    """What the cloud learnt in a masked upload has epochs and an accuracy; its edges have no curve."""
    curve = [{"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.2 * epoch} for epoch in (1, 2, 3)]
    edit(trained.cloud, mode="upload", curve=curve)
    edge = {name: value for name, value in json.loads(trained.edge.read_text()).items() if "epsilon" not in name}
    trained.edge.write_text(json.dumps({**edge, "mode": "upload", "curve": []}))
    page = unaudited(trained)
    assert "accuracy, % by epoch: cloud from 20 at 1 to 60 at 3" in page
    assert "masked upload" in section(page, "training")
    assert "no noise with an ε" in section(page, "training")


def test_the_search_shows_its_front_and_how_far_it_is_from_its_limits(full: str) -> None:
    """The table holds the front and nothing behind it, the plan's trial is marked, and no success is claimed."""
    text = section(full, "search")
    assert "3 trials, 2 of them on the front" in text
    assert "No trial keeps to all of them. Trial 2 comes nearest: its worst figure is 2.7× its limit" in text  # noqa: RUF001
    assert "The plan's model comes from trial 2" in text
    assert "2 pool4 gaussian 1, trained with nopeek 75.0 %, 50.0 % 0.09 0.18 93.0 % 2.70 5.32 M 512 B beyond" in text
    assert "1 not converged pool4 gaussian 0.5" in text
    assert "0 pool4 none" not in text
    assert "1 trial given up for the accuracy lost 4: it lost 9.0 points" in text
    assert "1 trial failed 3: mask 'bank': fits no tensor" in text
    assert "trial 0, none at pool4: leakage 0.40" in full
    assert "trial 1, gaussian 0.5, trained with nopeek at pool4: leakage 0.42" in full


def test_a_trial_within_the_limits_is_counted(trained: Trained) -> None:
    """Trials that keep to the limits are said to, and a plan of the model that was searched for is no trial."""
    path = trained.tune / "tune.json"
    points = json.loads(path.read_text())["points"]
    points[0] |= {"within": True, "model_sha256": "77" * 32}
    edit(path, points=points, model_sha256=TRIAL_SHA256)
    text = section(unaudited(trained), "search")
    assert "1 trial keeps to all of them" in text
    assert "not one of its trials" in text


def test_before_and_after_stand_beside_each_other(full: str) -> None:
    """The best attack's figures and pictures with and without the mask, at the same tensor, with the policy's bound."""
    text = section(full, "before-after")
    assert "Likeness (SSIM) 0.66 0.68 0.11 0.13 0.20" in text
    assert "without the mask at pool4" in text
    assert "not alike" not in text
    start = full.index('<section id="before-after">')
    shown = full[start : full.index("<table", start)]
    sides = ("without the mask, tensor pool4", "with the mask, cut 9, pool4_masked")
    made = [f'alt="The originals reconstructed by Trained inverter from {side}"' for side in sides]
    assert re.findall(r'alt="[^"]*"', shown)[1:3] == made
    assert shown.count("<img") == 5  # the originals, and for each side the shown and the worst


def test_unlike_attackers_and_unsettled_figures_are_said(trained: Trained, tmp_path: Path) -> None:
    """A weaker suite on one side, or an attack that could still improve, is named beside the figures."""
    record = json.loads((trained.before / "audit.json").read_text())
    record["cuts"][NAMES.index("pool4")]["converged"] = False
    edit_before(trained.before, cuts=record["cuts"], seeds=1, budget={**record["budget"], "width": 32})
    text = section(trained.report(tmp_path / "report.html"), "before-after")
    assert "training runs of an attack: 1 without the mask, 3 with it" in text
    assert "width: 32 without the mask, 64 with it" in text
    assert "figures without the mask are not final" in text
    assert "figures with the mask are not final" not in text


def test_a_restructured_trial_is_compared_at_the_searchs_cut(trained: Trained, tmp_path: Path) -> None:
    """Where the tensor's name alone does not tell, the search says at which cut of the given model its trial began."""
    tuning = json.loads((trained.tune / "tune.json").read_text())
    tuning["points"][0] |= {"cut": "block4"}
    edit(trained.tune / "tune.json", points=tuning["points"])
    cuts = json.loads((trained.before / "audit.json").read_text())["cuts"]
    edit_before(trained.before, cuts=[cut for cut in cuts if cut["cut_id"] != "pool4"])
    assert "without the mask at block4" in section(trained.report(tmp_path / "report.html"), "before-after")
    assert "no cut at pool4_masked or pool4;" in refuse_without_search(trained, tmp_path)


def refuse_without_search(trained: Trained, tmp_path: Path) -> str:
    """Return why a comparison that only the search could place is refused."""
    (tmp_path / "report.html").unlink()
    return refuse(trained, AuditError, tune=None)


def test_data_without_pictures_are_compared_by_figures(trained: Trained, tmp_path: Path) -> None:
    """Audits that made no pictures still have their figures side by side."""
    edit_before(trained.before, originals_picture=None)
    text = section(trained.report(tmp_path / "report.html"), "before-after")
    assert "Not both audits made pictures" in text
    assert "Likeness (SSIM) 0.66" in text


def test_an_audit_that_does_not_compare_is_refused(trained: Trained) -> None:
    """Of the planned model, of other data or items, with a changed figure, or beside no audit: each is refused."""
    data = json.loads((trained.before / "audit.json").read_text())["data"]
    assert "give that one too" in refuse(trained, AuditError, audit=None)
    assert "is of the planned model" in refuse(trained, AuditError, before=trained.files.audit)
    edit_before(trained.before, data={**data, "sha256": "00" * 32})
    assert "audit both on the same data" in refuse(trained, AuditError)
    edit_before(trained.before, data=data, originals_picture="inverter-3.png")
    assert "same seed" in refuse(trained, AuditError)
    edit(trained.before / "audit.json", tolerance=0.5)
    assert "changed after it was written" in refuse(trained, AuditError)


@pytest.mark.parametrize("name", ["retraining", "cloud", "edge", "tune"])
@pytest.mark.parametrize("spoil", [truncate, swap_for_a_list, break_utf8, Path.unlink])
def test_spoiled_file_is_named(trained: Trained, name: str, spoil: Callable[[Path], None]) -> None:
    """A training or a search that is missing, cut short or of another form is refused by name."""
    path = trained.tune / "tune.json" if name == "tune" else getattr(trained, name)
    spoil(path)
    assert str(path) in refuse(trained, ReportError)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("retraining", {"format": "siniantrust.tuning/1"}, "expected the format siniantrust.training/1"),
        ("retraining", {"best_epoch": -1}, "retraining.best_epoch"),
        ("retraining", {"epochs": [{"epoch": 1, "training_loss": "low"}]}, "retraining.epochs.0.training_loss"),
        ("edge", {"side": ["edge"]}, "the side of an edge or a cloud"),
        ("edge", {"curve": [{"loss": 1.0}]}, "expected either a step or an epoch"),
        ("edge", {"sent_bytes": -1}, "edge.sent_bytes"),
        ("cloud", {"provenance": {"north": "secure"}}, "cloud.provenance.north"),
        ("tune", {"points": []}, "points"),
        ("tune", {"format": "siniantrust.training/1"}, "format"),
    ],
)
def test_foreign_content_is_named(trained: Trained, name: str, changes: dict[str, object], said: str) -> None:
    """What has another form, or a figure that cannot be, is refused with the place in the file."""
    path = trained.tune / "tune.json" if name == "tune" else getattr(trained, name)
    edit(path, **changes)
    message = refuse(trained, ReportError)
    assert str(path) in message
    assert said in message


def test_a_training_of_another_model_is_refused(trained: Trained) -> None:
    """A training must end in the planned model or in one that another given training began from, a search likewise."""
    assert "expected one that ends in the model of" in refuse(trained, ReportError, trainings=(trained.edge,))
    edit(trained.retraining, retrained_sha256="00" * 32)
    assert str(trained.retraining) in refuse(trained, ReportError, trainings=(trained.retraining,))
    assert "if a trial was trained further" in refuse(trained, ReportError, trainings=())
    edit(trained.files.plan, model_sha256=GIVEN_SHA256)
    assert "not one of its trials" in unaudited(trained, trainings=())


def test_texts_cannot_break_out(tmp_path: Path) -> None:
    """Markup and control marks in a mask's name and in why an edge was refused stay text."""
    nasty = " ".join(NASTY)
    html = write_trained(tmp_path, mask=nasty, refused=nasty).report(tmp_path / "report.html")
    assert "<script" not in html
    assert "<img src=x" not in html
    assert not [letter for letter in html if not (letter.isprintable() or letter == "\n")]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), kind=st.sampled_from(["retraining", "cloud", "edge", "tune"]))
def test_flipped_bytes_are_read_or_refused(good: Trained, tmp_path: Path, data: st.DataObject, kind: str) -> None:
    """Whatever happens to a file's bytes, reading it gives a record or one of our errors, never another exception."""
    source = good.tune / "tune.json" if kind == "tune" else getattr(good, kind)
    spoiled = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / ("tune.json" if kind == "tune" else "training.json")
    path.write_bytes(spoiled)
    try:
        load_lineage(
            [path if kind == name else getattr(good, name) for name in ("retraining", "cloud", "edge")],
            tmp_path if kind == "tune" else good.tune,
            plan=good.files.plan,
            model_sha256=MODEL_SHA256,
        )
    except SinianError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the error is one of two allowed outcomes
