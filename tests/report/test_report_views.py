"""What the page is computed from: the order of cuts, sides of the boundary, the front, and figures in words."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_audits import BOUNDS, NAMES
from report_files import SHARES, edit, write_files

from siniantrust.leakage import Metric
from siniantrust.report import _attack_sweep, _text
from siniantrust.report._candidates import candidates, notable
from siniantrust.report._cuts import bound_ratio, thin_out, view_cuts
from siniantrust.report._load import Sources, load_sources


def load(folder: Path) -> Sources:
    """Read the three files below a folder."""
    return load_sources(audit=folder / "audit", plan=folder / "plan.json", run=folder / "run.json")


def three_parts(folder: Path) -> None:
    """Turn the plan into one for output privacy that cuts at pool4 and comes back at fc1."""
    plan = json.loads((folder / "plan.json").read_text())
    tail = {**plan["parts"][0], "name": "part3", "inputs": ["fc1"], "outputs": ["logits"], "flops": 5_000}
    head, middle = {**plan["parts"][0], "flops": 800_000}, {**plan["parts"][1], "flops": 195_000}
    pairs = [
        {**item, "cut_ids": [item["cut_ids"][0], "fc1"], "trusted_flops_share": item["trusted_flops_share"] + 0.005}
        for item in plan["alternatives"]
        if item["cut_ids"] and item["cut_ids"][0] != "fc1"
    ]
    edit(
        folder / "plan.json",
        cut_ids=["pool4", "fc1"],
        parts=[head, middle, tail],
        alternatives=[plan["alternatives"][0], *reversed(pairs)],
        threat_model="output-privacy",
    )


def test_cuts_follow_the_model_whatever_the_plans_order(tmp_path: Path) -> None:
    """Cuts are numbered along the model even where the plan lists its candidates backwards."""
    write_files(tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    edit(tmp_path / "plan.json", alternatives=plan["alternatives"][::-1])
    assert [cut.id for cut in view_cuts(load(tmp_path))][: len(NAMES)] == list(NAMES)


def test_second_cut_of_a_pair_is_placed_and_the_tail_is_trusted(tmp_path: Path) -> None:
    """With two cuts, the layers between them are untrusted, the others trusted, and every cut finds its place."""
    write_files(tmp_path)
    three_parts(tmp_path)
    cuts = view_cuts(load(tmp_path))
    assert [cut.id for cut in cuts][: len(NAMES)] == list(NAMES)
    assert [cut.trusted_before for cut in cuts][: len(NAMES)] == [True] * 9 + [False]
    assert [cut.id for cut in cuts if cut.chosen] == ["pool4", "fc1"]
    assert [cut.share for cut in cuts[: len(NAMES)]] == pytest.approx(list(SHARES))


def test_segments_add_up(tmp_path: Path) -> None:
    """The shares between cuts add up to the share before the last one, thinned out or not."""
    write_files(tmp_path, names=[f"n{index}" for index in range(150)], chosen=71)
    cuts = view_cuts(load(tmp_path))
    for some in (cuts, thin_out(cuts)):
        known = [cut for cut in some if cut.segment_share is not None]
        assert sum(cut.segment_share or 0.0 for cut in known) == pytest.approx(known[-1].share or 0.0)
    assert len(thin_out(cuts)) <= 61
    assert any(cut.chosen for cut in thin_out(cuts))


def test_ratio_needs_every_bounded_metric() -> None:
    """The multiple of the bound is the worst metric's, and unknown where a bounded metric was not measured."""
    assert bound_ratio({"ssim": 0.1, "reidentification": 0.3}, BOUNDS) == pytest.approx(3.0)
    assert bound_ratio({"ssim": 0.1}, BOUNDS) is None
    assert bound_ratio(None, BOUNDS) is None
    assert bound_ratio({"ssim": 0.1}, {"ssim": 0.0}) == pytest.approx(100.0)


def test_front_is_what_nothing_beats(tmp_path: Path) -> None:
    """An allowed candidate is on the front exactly when no allowed one is as good in both and better in one."""
    write_files(tmp_path, devices=("gpu", "cloud"))
    sources = load(tmp_path)
    found = candidates(sources, view_cuts(sources))
    allowed = [item for item in found if item.refusal is None]
    for item in allowed:
        beaten = any(
            other.latency_s <= item.latency_s
            and (other.ratio or 0) <= (item.ratio or 0)
            and (other.latency_s < item.latency_s or (other.ratio or 0) < (item.ratio or 0))
            for other in allowed
        )
        assert item.on_front != beaten
    assert not any(item.on_front for item in found if item.refusal is not None)
    assert sum(item.chosen for item in found) == 1


def test_many_candidates_are_thinned_but_never_the_front_or_the_choice(tmp_path: Path) -> None:
    """Of very many candidates the chosen, the front, and one for each first cut and device stay."""
    write_files(tmp_path, names=[f"n{index}" for index in range(200)], chosen=170, devices=("gpu", "cloud"))
    plan = json.loads((tmp_path / "plan.json").read_text())
    slower = [{**item, "latency_s": item["latency_s"] * 2} for item in plan["alternatives"]]
    edit(tmp_path / "plan.json", alternatives=plan["alternatives"] + slower)
    sources = load(tmp_path)
    found = candidates(sources, view_cuts(sources))
    shown = notable(found)
    assert len(found) == 802
    assert len(shown) == 402  # one for each cut and device, the whole model, and the chosen one's slower twin
    assert [item for item in found if item.on_front] == [item for item in shown if item.on_front]
    assert {(item.label, item.device) for item in found} == {(item.label, item.device) for item in shown}


@given(st.floats(min_value=0, max_value=1e4))
def test_multiple_is_never_rounded_across_the_bound(value: float) -> None:
    """A multiple above 1 never reads as 1 or less, nor one below as 1 or more."""
    text = _text.multiple(value).removesuffix(_text.TIMES)
    if text.startswith((">", "<")):
        assert (value > 1) == text.startswith(">")
    else:
        assert (float(text) > 1) == (value > 1)
        assert (float(text) < 1) == (value < 1)


@given(st.floats(min_value=1e-7, max_value=1e4))
def test_seconds_keep_three_figures(value: float) -> None:
    """A duration in words is within half a percent of the duration."""
    figure, unit = _text.seconds(value).split(" ")
    factor = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}[unit]
    assert float(figure.replace(",", "")) * factor == pytest.approx(value, rel=0.006, abs=6e-10)


@given(st.text(max_size=80))
def test_clean_text_can_be_printed(name: str) -> None:
    """No control, format or surrogate character is left in a cleaned name, and its length stays."""
    assert _text.clean(name).isprintable()
    assert len(_text.clean(name)) == len(name)


@given(st.lists(st.text(string.ascii_letters + "/._0", min_size=1, max_size=20), min_size=1, unique=True))
def test_readable_names_stay_apart(names: list[str]) -> None:
    """Shortened as a family, different names never become the same."""
    labels = _text.readable(names)
    assert set(labels) == set(names)
    assert len(set(labels.values())) == len(names)
    assert all(labels.values())


def test_readable_names_lose_what_says_nothing() -> None:
    """Exporters' suffixes, a shared folder and repeated folders go."""
    labels = _text.readable(["/features/features.3/conv/Relu_output_0", "/features/features.4/pool/MaxPool_output_0"])
    assert list(labels.values()) == ["features.3/conv/Relu", "features.4/pool/MaxPool"]


def test_every_metric_of_an_audit_has_words() -> None:
    """Whatever leakage is counted in has a title, a meaning and a short name."""
    for names in (_text.METRIC_TITLES, _text.METRIC_MEANINGS, _attack_sweep._SHORT):
        assert set(names) == set(get_args(Metric))
