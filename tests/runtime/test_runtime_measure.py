from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planner_models import chain_model
from runtime_deployments import Deployment

from siniantrust.errors import DataError, SinianError
from siniantrust.planner import CostTerm, Prediction
from siniantrust.report import write_report
from siniantrust.runtime import RunRecord, Session, compare_terms, record_run
from siniantrust.runtime import _measure as measure
from siniantrust.runtime._record import Measured, MeasuredTerm


@pytest.fixture(autouse=True)
def few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure less than a user would."""
    for name, count in (("_LATENCY_RUNS", 5), ("_WARM_UP_RUNS", 1), ("_PIPELINED_RUNS", 20)):
        monkeypatch.setattr(measure, name, count)


def _record(
    deployment: Deployment, session: Session, *, labels: np.ndarray | None = None, batch: int = 1
) -> tuple[RunRecord, dict[str, np.ndarray]]:
    return record_run(
        session, deployment.model, deployment.inputs(9), labels=labels, keystore=deployment.keystore, batch_items=batch
    )


@pytest.mark.parametrize("batch", [1, 4])
def test_a_run_is_held_against_the_uncut_model(vector_deployment: Deployment, session: Session, batch: int) -> None:
    """The record has the difference, the accuracies, and terms that add up to about the latency."""
    inputs = vector_deployment.inputs(9)
    truth = vector_deployment.expected(inputs)["t7"].argmax(axis=1)
    labels = np.where(np.arange(9) < 3, (truth + 1) % 8, truth)
    record, outputs = _record(vector_deployment, session, labels=labels, batch=batch)
    assert outputs["t7"].shape == (9, 8)
    assert record.count == 9
    assert record.max_abs_difference <= 1e-5
    assert record.accuracy == record.accuracy_uncut == pytest.approx(6 / 9)
    assert [(term.what, term.where) for term in record.measured.terms] == [
        ("cross into part 1 and back", "enclave"),
        ("compute part 1", "enclave"),
        ("move to the device and back", "cloud"),
        ("compute part 2", "cloud"),
    ]
    assert all(term.latency_s >= 0 for term in record.measured.terms)
    assert record.measured.terms[2].latency_s > 0
    assert 0 < record.measured.latency_s <= record.measured.latency_p95_s
    assert record.enclave.provenance.value == "simulated"
    assert record.enclave.accept == ("simulated",)
    assert len(record.enclave.measurement) == 64
    assert {span.stage for span in record.timeline} == {"part1", "part2"}
    assert min(span.start_s for span in record.timeline) >= 0


def test_prediction_and_measurement_are_joined_term_by_term() -> None:
    """Terms of one name and place are summed, one that only one side has is kept, and the whole comes last."""

    def predicted(what: str, where: str, latency_s: float) -> CostTerm:
        return CostTerm(what=what, where=where, latency_s=latency_s, basis="made up")

    prediction = Prediction(
        latency_s=9.0,
        period_s=5.0,
        terms=(predicted("cross", "enclave", 1.0), predicted("compute", "gpu", 3.0), predicted("compute", "gpu", 5.0)),
    )
    terms = tuple(
        MeasuredTerm(what=what, where=where, latency_s=latency_s)
        for what, where, latency_s in (("compute", "gpu", 7.0), ("compute", "npu", 2.0))
    )
    found = compare_terms(prediction, Measured(latency_s=9.5, latency_p95_s=10.0, period_s=7.0, terms=terms))
    assert [(term.what, term.where, term.predicted_s, term.measured_s) for term in found] == [
        ("cross", "enclave", 1.0, None),
        ("compute", "gpu", 8.0, 7.0),
        ("compute", "npu", None, 2.0),
        ("whole request", "", 9.0, 9.5),
    ]


def test_a_saved_run_reads_back_and_the_report_takes_it(
    vector_deployment: Deployment, session: Session, tmp_path: Path
) -> None:
    """``run.json`` loses nothing, and is what the report expects."""
    pytest.importorskip("jinja2", reason="the extra 'report' is not installed")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    record, _ = _record(vector_deployment, session)
    record.save(tmp_path / "run.json")
    assert RunRecord.model_validate_json((tmp_path / "run.json").read_bytes()) == record
    page = write_report(
        tmp_path / "report.html",
        plan=vector_deployment.path / "plan.json",
        audit=vector_deployment.audit_folder,
        run=tmp_path / "run.json",
    )
    assert "simulated" in page.read_text()


def test_a_record_that_cannot_be_written_is_named(
    vector_deployment: Deployment, session: Session, tmp_path: Path
) -> None:
    """An error of the file system is one line that names the file."""
    record, _ = _record(vector_deployment, session)
    (tmp_path / "file").write_text("")
    with pytest.raises(SinianError, match=r"run record .*run\.json: cannot be written \("):
        record.save(tmp_path / "file" / "run.json")


def test_another_model_is_refused(vector_deployment: Deployment, session: Session) -> None:
    """A run is compared with the model that the bundle was built from and no other."""
    with pytest.raises(DataError, match="the bundle is for"):
        record_run(session, chain_model(5), vector_deployment.inputs(), keystore=vector_deployment.keystore)


@pytest.mark.parametrize(
    "labels", [np.zeros(8, np.int64), np.zeros((9, 8), np.int64), np.zeros(9, np.float32)], ids=["few", "rows", "float"]
)
def test_labels_that_do_not_fit_are_refused(
    vector_deployment: Deployment, session: Session, labels: np.ndarray
) -> None:
    """Labels of another number, shape or kind are an error before anything runs."""
    with pytest.raises(DataError, match=r"labels: expected integers of shape \(9,\)"):
        _record(vector_deployment, session, labels=labels)


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [([1.0, 2.5], [1.0, 2.0], 0.5), ([np.inf, 1.0], [np.inf, 1.0], 0.0), ([True, False], [True, True], 1.0)],
)
def test_differences_are_of_numbers(found: list[float], expected: list[float], difference: float) -> None:
    """Equal infinities do not differ, and truth values can be compared."""
    assert measure._difference("y", {"y": np.array(found)}, {"y": np.array(expected)}) == difference


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_small_difference(value: float) -> None:
    """NaN or infinity on one side is an error, never a difference of nothing."""
    with pytest.raises(DataError, match="output 'y': it holds NaN or infinity"):
        measure._difference("y", {"y": np.array([1.0, value])}, {"y": np.array([1.0, 2.0])})
