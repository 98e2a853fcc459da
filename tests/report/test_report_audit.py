"""What the page shows of an audit: galleries, curves, screens, attack cards, and the facts that qualify them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_files import Files, edit_audit, write_files
from test_report_page import page, words

from siniantrust.report import _pictures, _text
from siniantrust.report._axis import legend_keys


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a complete set of files."""
    folder = tmp_path_factory.mktemp("audit")
    return page(write_files(folder), folder / "report.html")


def with_audit(files: Files, change: Callable[[dict[str, Any]], None]) -> str:
    """Change the audit as if it had been measured so, and return the page's text."""
    record = json.loads((files.audit / "audit.json").read_text())
    change(record)
    edit_audit(files, **record)
    return page(files, files.plan.parent / "report.html")


def section(html: str, name: str) -> str:
    """Return the words of one section of the page."""
    return words(re.split(r'<section id="', html[html.index(f'<section id="{name}"') :])[1])


def test_leakage_begins_in_plain_words(full: str) -> None:
    """What was measured, how sure it is and what it does not say stand before any figure of leakage."""
    text = section(full, "leakage")
    asked = [text.index(question) for question in ("What was measured", "How sure it is", "What it does not say")]
    assert asked == sorted(asked)
    assert asked[-1] < text.index("Along the model")
    assert "At 10 cuts of the model, 3 kinds of attack tried to rebuild private pictures" in text
    assert "Every attack ran 3 times" in text
    assert "2 cuts leaked too much for certain" in text


def test_facts_say_that_a_cut_is_never_passed_early(full: str) -> None:
    """The limits beyond which cuts were given up stand there, with which cuts and what that means."""
    text = section(full, "leakage")
    assert "surely leak more than Likeness (SSIM) 0.20, Re-identification 0.10: cuts 1–2." in text  # noqa: RUF001 - the page's dash
    assert "never passed early" in text
    assert "3, seeds 7 to 9" in text


def test_audit_in_full_gave_no_cut_up(tmp_path: Path) -> None:
    """Without limits to give up by, the page says that every cut got the whole suite."""
    text = words(with_audit(write_files(tmp_path), lambda audit: audit.update(bounds={})))
    assert "no cut: every one got the whole suite" in text


def test_repeated_questions_are_named(tmp_path: Path) -> None:
    """Where answers are random, the page says how many of them an attacker averaged, and that more may teach more."""
    text = words(with_audit(write_files(tmp_path), lambda audit: audit.update(averaged_queries=16)))
    assert "attackers also average 16 answers for the same item" in text
    assert "asks more than 16 times" in text


def test_curves_mark_given_up_cuts_and_guessers(full: str) -> None:
    """A cut given up early reads as at least so much, and each prior's level is in the picture and in its words."""
    assert "cut 1 conv1, Trained inverter: mean 0.98, lower 0.95, upper 1.00, given up early, at least this" in full
    assert "nearest prior 0.14; class mean prior 0.05" in full
    assert ">class mean 0.05<" in full
    assert ">policy 0.20<" in full


def test_table_holds_what_the_curves_show(full: str) -> None:
    """The table has band, worst case, what leaks beyond each guesser, and why a cut is not settled."""
    text = section(full, "leakage")
    assert "0.46 0.43 to 0.48 0.57 0.37 – not converged: try 16,000 items to learn from, 6,000 steps next" in text  # noqa: RUF001 - the page's dash
    assert "given up early: ssim is at least 0.96, allowed 0.2 by inverter" in text


def test_screens_stand_against_the_attacks(full: str) -> None:
    """Each screen has a picture for each metric of the policy, with its rank correlation, its pick and what leaks."""
    assert "KL divergence of distributions: rank correlation 0.12" in full
    assert ">picks 2: 0.97<" in full
    assert "cut 2 relu1: KL divergence of distributions −0.21, best attack 0.97" in full  # noqa: RUF001 - a real minus
    assert full.count("Numbers are cuts; the rank correlation") == 2


def test_cards_hold_threat_model_cost_and_reach(full: str) -> None:
    """A card says what an attack knows, takes and reaches, where it converged, and what to try next where not."""
    text = section(full, "leakage")
    card = text[text.index("Trained inverter Knows") : text.index("Ridge regression Knows")]
    assert "tensor of each of its own inputs" in card
    assert "minutes at a cut; 6.83 min in this audit" in card
    assert "Likeness (SSIM) 0.98 at cut 1; 0.11 at the plan's cut" in card
    assert "Still gaining at cut 7: try 16,000 items to learn from, 6,000 steps next." in card
    assert "4,000 items to learn from, 1,500 steps, 32 channels wide" in card


def test_declined_attack_has_a_card_with_the_reason(full: str) -> None:
    """An attack that could not be mounted is not hidden: its card says where and why, and where it was never tried."""
    text = section(full, "leakage")
    card = text[text.index("Maximum likelihood Knows") :]
    assert "cuts 3–10: needs more than 2 GiB of memory" in card  # noqa: RUF001 - the page's dash
    assert "Not run at cuts 1–2, given up before its turn." in card  # noqa: RUF001 - the page's dash


def test_gallery_opens_first_chosen_and_last_cut(tmp_path: Path) -> None:
    """Every cut has its pictures; six stand open, the first, the chosen and the last among them."""
    files = write_files(tmp_path, names=[f"n{i}" for i in range(20)], chosen=16)
    html = page(files, tmp_path / "report.html")
    opened = re.findall(r'<section class="cut-gallery[^"]*" aria-label="Cut (\d+)"', html)
    folded = re.findall(r'<details class="cut-gallery">\s*<summary>Cut (\d+)', html)
    assert len(opened) == 6
    assert {"1", "17", "20"} <= set(opened)
    assert sorted(map(int, opened + folded)) == list(range(1, 21))


def test_gallery_shows_worst_case_and_figures(full: str) -> None:
    """Beside the pictures stand SSIM, PSNR and re-identification, with the guesser's, and the worst inputs' leakage."""
    text = section(full, "reconstructions")
    cut = text[text.index("Cut 9 · pool4") : text.index("Cut 10 · fc1")]
    assert "SSIM 0.39 guess 0.31 PSNR 13.7 dB guess 11.9 dB Re-identification 4.1 % guess 0.1 %" in cut
    assert "originals above, what came back below Likeness (SSIM) 0.22" in cut
    assert "1 other attack at cut 9 Ridge regression" in cut
    assert "500 of 1,000 held-out items inverted" in cut


def test_pictures_beyond_the_room_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the page would grow too large, the best attacks at the open cuts stay, and what is left out is named."""
    monkeypatch.setattr(_pictures.Album, "__init__", _small_album)
    html = page(write_files(tmp_path), tmp_path / "report.html")
    text = section(html, "reconstructions")
    left = re.search(r"(\d+) pictures are left out", text)
    assert left
    assert text.count("it stands beside the audit as") == int(left[1])
    assert "as ridge-8.png" in text
    assert html.count("<img ") == 13  # the originals, and two pictures at each of six cuts


def _small_album(self: _pictures.Album, folder: Path) -> None:
    self.folder, self.room, self.left_out, self.taken, self._used = folder, 0, 0, {}, 0


def test_equal_picture_is_embedded_once(tmp_path: Path) -> None:
    """A folded picture that equals another to the pixel points to it."""
    files = write_files(tmp_path)
    (files.audit / "ridge-4.png").write_bytes((files.audit / "inverter-4.png").read_bytes())
    text = section(page(files, tmp_path / "report.html"), "reconstructions")
    assert "the same picture, to the pixel, as Trained inverter at cut 5" in text


def _tokens(audit: dict[str, Any]) -> None:
    """Turn an audit of pictures into one of tokens, with a private label and a transcript."""
    audit["data"].update(kind="token", item_shape=[32], target_shape=[32])
    audit["originals_picture"] = None
    for cut in audit["cuts"]:
        for attack in cut["attacks"].values():
            attack.update(picture=None, worst_picture=None, rungs=[])
            shares, hits = attack["leakage"]["ssim"], attack["leakage"]["reidentification"]
            attack["leakage"] = {"token": shares, "attribute": hits, "word": shares, "character": shares}
        cut["leakage"] = cut["attacks"]["inverter"]["leakage"]
        cut["best_attack"] = dict.fromkeys(cut["leakage"], "inverter")
        cut["over_priors"] = {}
    audit["priors"] = {}


def test_tokens_have_figures_in_place_of_pictures(tmp_path: Path) -> None:
    """An audit of tokens shows its metrics in words and a table, and no picture."""
    html = with_audit(write_files(tmp_path), _tokens)
    text = section(html, "reconstructions")
    assert "its data are tokens" in text
    assert "Tokens recovered 38.6 % (31.0 %)" in text
    assert "Private label guessed" in text
    assert "Words understood 38.6 % (31.0 %)" in text
    assert "Characters understood 38.6 % (31.0 %)" in text
    assert "<img" not in html
    assert "rebuild private texts" in words(html)


def test_sounds_are_said_to_be_shown_as_spectrograms(tmp_path: Path) -> None:
    """Pictures of sounds are spectrograms, and the page says so where they are and where figures count them."""

    def sounds(audit: dict[str, Any]) -> None:
        audit["data"].update(sample_rate_hz=8000, item_shape=[8000], target_shape=[1, 64, 64])

    html = with_audit(write_files(tmp_path), sounds)
    assert "sounds, drawn as spectrograms" in section(html, "reconstructions")
    assert "Sounds were attacked as spectrograms" in section(html, "leakage")
    assert "8,000 samples a second" in section(html, "leakage")


def test_cut_given_up_early_is_never_within(tmp_path: Path) -> None:
    """Where a laxer policy takes a cut that the audit gave up early, the verdict is open and says to audit again."""

    def give_up(audit: dict[str, Any]) -> None:
        audit["cuts"][8].update(cut_short="ssim is at least 0.08, allowed 0.05 by inverter", converged=False)

    html = with_audit(write_files(tmp_path), give_up)
    assert '<header class="hero open' in html
    assert "the audit gave this cut up early" in words(html)
    assert "stayed within" not in words(html)


def test_no_two_entries_of_a_legend_look_alike() -> None:
    """Twenty attacks have twenty different pairs of colour and marker."""
    keys = legend_keys({}, [f"attack{index}" for index in range(20)])
    assert len({(key.colour, key.marker) for key in keys.values()}) == 20


def test_psnr_of_an_error() -> None:
    """A mean squared error of a hundredth is 20 dB, and none at all stays finite."""
    assert _text.raw("nmse", 0.01) == "20.0 dB"
    assert _text.raw("nmse", 0.0) == "120.0 dB"
