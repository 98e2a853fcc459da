"""The page as text: what it says, what it must never say, and that names cannot break out of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from report_audits import NAMES
from report_files import Files, edit, edit_audit, write_explanation, write_files

from siniantrust.report import write_report

SECTIONS = ("model", "leakage", "reconstructions", "front", "placement", "costs", "threats", "sources")
NASTY = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "a&b]]>--><!--",
    "$x_{1}$",
    "null\x00bell\x07\ud7ff",
    "flip\u202eped",
    "多言語のテンソル",
    "{{ 7*7 }}",
    "' onmouseover='alert(3)",
    "</title></style>",
)


def page(files: Files, out: Path, *, audit: bool = True, run: bool = True) -> str:
    """Write the report and return its text."""
    write_report(out, audit=files.audit if audit else None, plan=files.plan, run=files.run if run else None)
    return out.read_text(encoding="utf-8")


def words(html: str) -> str:
    """Return the page's text without tags, with single spaces."""
    body = re.sub(r"<style>.*?</style>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a complete set of files."""
    folder = tmp_path_factory.mktemp("full")
    return page(write_files(folder), folder / "report.html")


def test_page_has_every_section(full: str) -> None:
    """Every section of the contents exists once, and the contents point to it."""
    for name in SECTIONS:
        assert full.count(f'<section id="{name}"') == 1
        assert f'href="#{name}"' in full


def test_page_is_the_same_for_the_same_input(tmp_path: Path) -> None:
    """Two reports on the same files are equal byte for byte."""
    files = write_files(tmp_path)
    assert page(files, tmp_path / "one.html") == page(files, tmp_path / "two.html")


def test_the_timeline_has_a_row_for_each_replica(tmp_path: Path) -> None:
    """A part on two devices has two rows in the picture, each with the device's name."""
    files = write_files(tmp_path)
    record = json.loads(files.run.read_text())
    for span in record["timeline"]:
        span["device"] = "enclave" if span["stage"] == "part1" else f"gpu{span['item'] % 2}"
        span["ready_s"] = max(span["start_s"] - 0.001, 0.0)
    files.run.write_text(json.dumps(record))
    shown = words(page(files, tmp_path / "report.html", audit=False))
    assert "part1 on enclave" in shown
    assert "part2 on gpu0" in shown
    assert "part2 on gpu1" in shown


def test_the_explanation_of_nodes_is_shown(tmp_path: Path) -> None:
    """Every run of operators has a row with its seconds here and elsewhere, its label and its reason."""
    files = write_files(tmp_path)
    out = tmp_path / "report.html"
    write_report(out, audit=None, plan=files.plan, run=None, explanation=write_explanation(files, first=NASTY[0]))
    html = out.read_text(encoding="utf-8")
    (row,) = (each for each in html.split("<tr>") if "relu9" in each)
    assert NASTY[0] not in html
    for said in (
        NASTY[0],
        "17",
        "Conv 9",
        "Relu 8",
        "16.2 ms",
        "gpu 1.2",
        "npu: cannot run it",
        "secret",
        "no cut before",
    ):
        assert said in words(row)
    assert "explanation.json" in words(html)


def test_page_refers_to_nothing_outside(full: str) -> None:
    """The page names no address, loads nothing, and forbids loading by its content security policy."""
    assert "http:" not in full
    assert "https:" not in full
    assert "<script" not in full
    assert "<link" not in full
    assert "@import" not in full
    assert all(target.startswith(("#", "data:image/png")) for target in re.findall(r'(?:src|href)="([^"]*)"', full))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", full))
    assert "default-src 'none'" in full


def test_identifiers_are_unique_and_resolve(full: str) -> None:
    """No two elements share an id, and every reference within the page finds its element."""
    ids = re.findall(r'\bid="([^"]+)"', full)
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]+)"', full) + re.findall(r"url\(#([^)]+)\)", full)
    assert set(wanted) <= set(ids)


def test_header_says_cut_leakage_bound_and_latency(full: str) -> None:
    """The header names the model, the cut, the attacker's figures beside the bounds, and both latencies."""
    header = words(full[full.index("<header") : full.index("</header>")])
    assert "scenes-resnet" in header
    assert "after cut 9 of 11" in header
    assert "Likeness (SSIM) 0.11, bound 0.20" in header
    assert "upper bound 0.13 · worst 5 % of inputs 0.22" in header
    assert "15.3 ms a request, measured" in header
    assert "Predicted 14.7 ms" in header


@pytest.mark.parametrize(
    ("provenance", "sentence"),
    [
        ("simulated", "This enclave is SIMULATED: it does not protect against the machine's owner"),
        ("emulated", "This enclave is EMULATED"),
        ("hardware", "This enclave's claims come from HARDWARE"),
    ],
)
def test_badge_says_where_the_enclaves_claims_come_from(tmp_path: Path, provenance: str, sentence: str) -> None:
    """The badge follows the run's provenance, and only a hardware enclave leaves the verdict unqualified."""
    files = write_files(tmp_path)
    enclave = json.loads(files.run.read_text())["enclave"]
    edit(files.run, enclave={**enclave, "provenance": provenance})
    html = page(files, tmp_path / "report.html")
    assert sentence in words(html)
    assert f'<div class="badge {provenance}"' in html
    assert ('<header class="hero within qualified">' in html) == (provenance != "hardware")


def test_what_admitted_the_enclave_is_told(tmp_path: Path) -> None:
    """The policy's line and the measurement stand beside the provenance; an older record says nothing of them."""
    files = write_files(tmp_path)
    shown = words(page(files, tmp_path / "report.html", audit=False))
    assert 'line: [enclave] accept = ["simulated", "hardware"].' in shown
    assert "admitted by the policy's accept" in shown
    assert f"simulated or hardware; measurement {'5e' * 32}" in shown
    enclave = json.loads(files.run.read_text())["enclave"]
    edit(files.run, enclave={name: enclave[name] for name in ("provider", "provenance", "protections")})
    assert "admitted" not in words(page(files, tmp_path / "older.html", audit=False))


def test_badge_names_a_provenance_that_the_policy_refuses(tmp_path: Path) -> None:
    """An enclave that the plan's policy does not accept is called out."""
    files = write_files(tmp_path)
    enclave = json.loads(files.run.read_text())["enclave"]
    edit(files.run, enclave={**enclave, "provenance": "emulated"})
    html = page(files, tmp_path / "report.html", audit=False)
    assert "policy does not accept such an enclave" in words(html)


def test_missing_audit_and_run_are_said_to_be_missing(tmp_path: Path) -> None:
    """Without audit and run the page stands, claims nothing, and each section says that nothing was measured."""
    files = write_files(tmp_path)
    html = page(files, tmp_path / "report.html", audit=False, run=False)
    text = words(html)
    assert "Leakage was not measured: no audit was given" in text
    assert text.count("Nothing was measured") == 4
    assert "no run was given: nothing is known about the enclave" in text.lower()
    assert "stayed within" not in text
    assert "<img" not in html


def test_leakage_above_the_bound_is_the_headline(tmp_path: Path) -> None:
    """A plan whose cut leaks more than the policy allows is called so, whatever the plan says."""
    html = page(write_files(tmp_path, chosen=3), tmp_path / "report.html")
    assert "leaks more than the policy allows" in words(html)
    assert '<header class="hero over' in html


def test_unconverged_attack_is_never_called_within_the_bound(tmp_path: Path) -> None:
    """Below the bound but not converged reads as not shown, in the header and in the strip."""
    files = write_files(tmp_path)
    record = json.loads((files.audit / "audit.json").read_text())
    record["cuts"][8]["converged"] = False
    record["cuts"][8]["attacks"]["inverter"]["converged"] = False
    edit_audit(files, cuts=record["cuts"])
    html = page(files, tmp_path / "report.html")
    assert "could still improve" in words(html[html.index("<h1>") : html.index("</h1>")])
    assert '<div class="leakage open"' in html
    assert "stayed within" not in words(html)


def test_unconverged_points_are_hollow_and_named(full: str) -> None:
    """An attack that could still improve is drawn hollow, with a tip and a legend that say so."""
    tip = full.index("cut 7 block3, Trained inverter: mean 0.46, lower 0.43, upper 0.48, not converged")
    assert "fill: var(--paper)" in full[tip : tip + 900]
    settled = full.index("cut 9 pool4, Trained inverter: mean 0.11, lower 0.08, upper 0.13")
    assert "fill: var(--paper)" not in full[settled : settled + 900]
    assert "not converged: an attack could still improve" in full


def test_screens_are_said_not_to_decide(full: str) -> None:
    """The page says that screens do not decide, and shows each one's rank correlation and what its cut would leak."""
    text = words(full)
    assert "Screens do not decide anything here" in text
    assert "KL divergence of distributions its paper Cost: seconds 2 · relu1 Likeness (SSIM) 0.97 > bound" in text
    assert "0.12 −0.20" in text  # noqa: RUF001 - a real minus sign


def test_plan_without_a_cut_says_that_nothing_leaves(tmp_path: Path) -> None:
    """A model that runs wholly in the enclave has nothing to attack, and the page says so."""
    html = page(write_files(tmp_path, chosen=None), tmp_path / "report.html")
    assert "nothing leaves it but the answer" in words(html)
    assert 'class="layers untrusted"' not in html


def test_refused_candidates_carry_their_reasons(full: str) -> None:
    """Each refused cut stands in the table with the reason that the plan gives."""
    text = words(full)
    assert "8 of 11 candidates refused, and why" in text
    assert "refused: ssim 0.21 above 0.2" in text


def test_costs_stand_side_by_side(full: str) -> None:
    """A term that both sides have shows both figures; one that only the run has is not invented for the plan."""
    costs = words(full[full.index('<section id="costs"') :])
    assert "cross into part 1 and back enclave 410 µs 520 µs" in costs
    assert "waiting client – 240 µs" in costs  # noqa: RUF001 - the page's own dash


def test_names_cannot_break_out(tmp_path: Path) -> None:
    """Markup, templates, control and direction marks in names stay text everywhere: HTML, attributes and pictures."""
    files = write_files(tmp_path, names=NASTY, chosen=8)
    edit(files.plan, model_name="<b onclick=alert(4)>m</b>")
    html = page(files, tmp_path / "report.html")
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "<b onclick" not in html
    assert "&lt;b onclick" in html
    assert "{{ 7*7 }}" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", html)
    assert html.count("</title>") - html.count("<title>") == 0
    assert not re.search(r"<[a-z]+[^>]*\son[a-z]+\s*=\s*'alert", html.replace("&#39;", "&"))


@pytest.mark.parametrize("count", [1, 2, 200])
def test_models_of_any_length_fit(tmp_path: Path, count: int) -> None:
    """One cut or two hundred, on two devices: the page stands, and a long strip is thinned and says so."""
    names = [f"/layers/layers.{index}/Relu_output_0" for index in range(count)]
    files = write_files(tmp_path, names=names, chosen=count - 1, devices=("gpu", "cloud"))
    html = page(files, tmp_path / "report.html")
    assert ("cuts, evenly spread" in html) == (count == 200)
    assert "layers.0/Relu" in html or count == 1


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A folder in the way is an error in one line that names the file, and no part of a page is left."""
    files = write_files(tmp_path)
    out = tmp_path / "taken"
    out.mkdir()
    (out / "inside").touch()
    from siniantrust.report import ReportError

    with pytest.raises(ReportError, match="taken: cannot be written"):
        page(files, out)
    assert not list(tmp_path.glob(".taken*"))


def test_import_is_light() -> None:
    """Importing the room brings neither matplotlib nor Jinja2, which are an extra."""
    code = "import sys, siniantrust.report; print({'matplotlib', 'jinja2', 'markupsafe'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_fixture_covers_the_schemas(tmp_path: Path) -> None:
    """The files that these tests read are valid for the rooms that write them, so that a drift shows here."""
    from siniantrust.leakage import load_audit
    from siniantrust.planner import load_plan
    from siniantrust.runtime import RunRecord

    files = write_files(tmp_path)
    assert len(load_audit(files.audit / "audit.json").cuts) == len(NAMES)
    assert load_plan(files.plan).cut_ids == ("pool4",)
    assert RunRecord.model_validate_json(files.run.read_bytes()).count == 1000
