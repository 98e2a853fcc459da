"""Bad input: every fault is one line that names the file, and no page is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_files import Files, edit, edit_audit, write_explanation, write_files

from siniantrust.errors import AuditError, PlanError, SinianError
from siniantrust.report import ReportError, write_report
from siniantrust.report._load import load_sources

KINDS = (("audit.json", AuditError), ("plan.json", PlanError), ("run.json", ReportError))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A complete set of files that no test changes."""
    return write_files(tmp_path_factory.mktemp("good"))


def place(files: Files, name: str) -> Path:
    """Return the path of one of the three files."""
    return {"audit.json": files.audit / "audit.json", "plan.json": files.plan, "run.json": files.run}[name]


def refuse(files: Files, error: type[SinianError]) -> str:
    """Return the message that the files are refused with."""
    out = files.plan.parent / "report.html"
    with pytest.raises(error) as caught:
        write_report(out, audit=files.audit, plan=files.plan, run=files.run)
    message = str(caught.value)
    assert "\n" not in message
    assert not out.exists()
    return message


def truncate(path: Path) -> None:
    """Cut the file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap_for_a_list(path: Path) -> None:
    """Leave valid JSON of another form."""
    path.write_text("[1, 2]")


def break_utf8(path: Path) -> None:
    """Put a byte there that UTF-8 does not have."""
    path.write_bytes(b'{"model_name": "\xff"}')


def write_nan(path: Path) -> None:
    """Put a number there that JSON does not have."""
    path.write_text(json.dumps({**json.loads(path.read_text()), "count": float("nan"), "seed": float("nan"), "prediction": float("nan")}))  # fmt: skip  # noqa: E501 - one dictionary


def drop_field(path: Path) -> None:
    """Take a field away that the page needs."""
    record = json.loads(path.read_text())
    del record["model_name"]
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(("name", "error"), KINDS)
@pytest.mark.parametrize("spoil", [truncate, swap_for_a_list, break_utf8, write_nan, drop_field, Path.unlink])
def test_spoiled_file_is_named(
    tmp_path: Path, name: str, error: type[SinianError], spoil: Callable[[Path], None]
) -> None:
    """A file that is missing, cut short or of another form is refused by name."""
    files = write_files(tmp_path)
    spoil(place(files, name))
    assert str(place(files, name)) in refuse(files, error)


@pytest.mark.parametrize(("name", "error"), [KINDS[0], KINDS[2]])
def test_file_of_another_model_is_refused(tmp_path: Path, name: str, error: type[SinianError]) -> None:
    """An audit or a run of another model than the plan's is refused."""
    files = write_files(tmp_path)
    edit_audit(files, model_sha256="00" * 32) if name == "audit.json" else edit(files.run, model_sha256="00" * 32)
    assert "expected the model of" in refuse(files, error)


@pytest.mark.parametrize("spoil", [truncate, swap_for_a_list, break_utf8])
def test_spoiled_explanation_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A malformed explanation is one line with its path."""
    files = write_files(tmp_path)
    path = write_explanation(files)
    spoil(path)
    with pytest.raises(PlanError, match=r"^explanation .*explanation\.json: [^\n]*$"):
        write_report(tmp_path / "report.html", audit=None, plan=files.plan, run=None, explanation=path)


def test_explanation_of_another_plan_is_refused(tmp_path: Path) -> None:
    """Reasons of a plan that was made anew since then are not shown beside it."""
    files = write_files(tmp_path)
    path = write_explanation(files)
    edit(files.plan, reason="another")
    with pytest.raises(PlanError, match=r"expected one of .*plan\.json .*plan again with --explain"):
        write_report(tmp_path / "report.html", audit=None, plan=files.plan, run=None, explanation=path)


def test_another_audit_than_the_plans_is_refused(tmp_path: Path) -> None:
    """An audit of the same model that the plan was not made from is refused: its figures did not decide."""
    files = write_files(tmp_path)
    edit_audit(files, seed=8)
    edit(files.plan, audit_id="ff" * 32)
    assert "plan again" in refuse(files, AuditError)


def test_changed_audit_is_refused(tmp_path: Path) -> None:
    """An audit whose figures were changed after it was written no longer has its id, and is refused."""
    files = write_files(tmp_path)
    edit(files.audit / "audit.json", tolerance=0.5)
    assert "changed after it was written" in refuse(files, AuditError)


def test_best_attack_must_exist(tmp_path: Path) -> None:
    """A best attack that is not among the cut's attacks is refused."""
    files = write_files(tmp_path)
    cuts = json.loads((files.audit / "audit.json").read_text())["cuts"]
    cuts[0]["best_attack"]["ssim"] = "oracle"
    edit_audit(files, cuts=cuts)
    assert "best_attack for ssim" in refuse(files, AuditError)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "..", "", "nowhere.png", "audit.json"])
def test_picture_must_be_a_png_beside_the_audit(tmp_path: Path, name: str) -> None:
    """A picture elsewhere, missing, or of another format is refused, and never embedded."""
    files = write_files(tmp_path)
    shutil.copy(files.audit / "originals.png", tmp_path / "outside.png")
    edit_audit(files, originals_picture=name)
    assert str(files.audit) in refuse(files, AuditError)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), kind=st.sampled_from(["audit.json", "plan.json", "run.json"]))
def test_flipped_bytes_are_read_or_refused(good: Files, tmp_path: Path, data: st.DataObject, kind: str) -> None:
    """Whatever happens to a file's bytes, reading it gives a record or one of our errors, never another exception."""
    spoiled = bytearray(place(good, kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / kind).write_bytes(spoiled)
    try:
        load_sources(
            audit=tmp_path if kind == "audit.json" else good.audit,
            plan=tmp_path / kind if kind == "plan.json" else good.plan,
            run=tmp_path / kind if kind == "run.json" else good.run,
        )
    except SinianError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the error is one of two allowed outcomes
