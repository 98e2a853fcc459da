"""What trainings, a search and the audit before the mask leave, for the report's tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report_audits import MODEL_SHA256, NAMES, make_audit
from report_files import Files, write_files

from siniantrust.leakage._audit_file import audit_id
from siniantrust.masking.retrain._record import Epoch, Training, write_training
from siniantrust.masking.tune._record import Point, Tuning, write_tuning
from siniantrust.report import write_report

TRIAL_SHA256, GIVEN_SHA256 = "11" * 32, "22" * 32
MASKED_NAMES = tuple("pool4_masked" if name == "pool4" else name for name in NAMES)


@dataclass(frozen=True)
class Trained:
    """Where the files of a masked and re-trained model stand: a trial of a search, trained further."""

    files: Files
    retraining: Path
    cloud: Path
    edge: Path
    tune: Path
    before: Path

    def report(self, out: Path, **changes: Any) -> str:
        """Write the page with everything, or with some of it changed, and return its text."""
        given = {
            "audit": self.files.audit,
            "trainings": (self.retraining, self.cloud, self.edge),
            "tune": self.tune,
            "before": self.before,
        }
        return write_report(out, plan=self.files.plan, run=None, **{**given, **changes}).read_text(encoding="utf-8")


def write_trained(folder: Path, *, mask: str = "gaussian", refused: str = "sent NaN") -> Trained:
    """Write all of it; ``mask`` and ``refused`` are texts that go onto the page."""
    trained = Trained(
        files=write_files(folder, names=MASKED_NAMES, chosen=NAMES.index("pool4")),
        retraining=folder / "retrained" / "training.json",
        cloud=folder / "at-cloud" / "training.json",
        edge=folder / "at-north" / "training.json",
        tune=folder / "search",
        before=folder / "audit-plain",
    )
    for path in (trained.retraining.parent, trained.cloud.parent, trained.edge.parent, trained.tune, trained.before):
        path.mkdir()
    write_training(_retraining(), trained.retraining)
    write_tuning(_tuning(mask), trained.tune / "tune.json")
    trained.cloud.write_text(json.dumps(_cloud(refused)))
    trained.edge.write_text(json.dumps(_edge()))
    _write_before(trained.before)
    return trained


def edit_before(folder: Path, **changes: Any) -> None:
    """Change an audit's top-level fields as if it had been measured so."""
    path = folder / "audit.json"
    record = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**record, "id": audit_id(record)}))


def _write_before(folder: Path) -> None:
    """Write an audit of the model without the mask, in which what crosses leaks as the sixth cut does."""
    (folder / "audit.json").write_text(make_audit(folder, NAMES).model_dump_json())
    cuts = json.loads((folder / "audit.json").read_text())["cuts"]
    chosen = NAMES.index("pool4")
    cuts[chosen] = {**cuts[5], "cut_id": "pool4", "tensors": ["pool4"]}
    edit_before(folder, model_sha256=GIVEN_SHA256, model_name="scenes-plain", cuts=cuts)


def _retraining() -> Training:
    return Training(
        model_sha256=TRIAL_SHA256,
        retrained_sha256=MODEL_SHA256,
        tensors=("pool4_masked",),
        mode="part2",
        teacher_sha256=GIVEN_SHA256,
        training_items=7200,
        validation_items=800,
        heldout_items=1000,
        features_kept=False,
        best_epoch=3,
        accuracy_before=0.811,
        accuracy_after=0.934,
        accuracy_teacher=0.957,
        agreement=0.941,
        epochs=tuple(
            Epoch(
                epoch=number,
                training_loss=1.5 / number,
                validation_loss=1.6 / number if number < 4 else 0.7,
                penalty=0.0,
                validation_accuracy=0.8 + 0.03 * number,
                learning_rate=1e-3,
                time_s=2.0,
            )
            for number in (1, 2, 3, 4)
        ),
    )


def _tuning(mask: str) -> Tuning:
    def point(number: int, leakage: float, accuracy: float, *, on_front: bool) -> Point:
        return Point(
            number=number,
            model_sha256=TRIAL_SHA256 if number == 2 else f"{number:02d}" * 32,
            cut="pool4",
            tensor="pool4_masked",
            mask=mask if number else "none",
            strength=0.5 * number,
            kept_channels=0.75,
            crossing_channels=0.5,
            penalty="nopeek" if number else "none",
            leakage={"ssim": leakage, "reidentification": 2 * leakage},
            beyond_class={"ssim": leakage / 2, "reidentification": leakage},
            class_alone={"ssim": 0.1, "reidentification": 0.01},
            converged=number != 1,
            best_attack={"ssim": "inverter", "reidentification": "ridge"},
            accuracy=accuracy,
            lost_points=100 * (0.957 - accuracy),
            flops=5_320_000,
            size_bytes=2048 >> number,
            on_front=on_front,
            within=False,
        )

    points = (
        point(2, 0.09, 0.93, on_front=True),
        point(1, 0.21, 0.95, on_front=True),
        point(0, 0.4, 0.9, on_front=False),
    )
    limits = {"leakage": 0.15, "reidentification": 0.1, "lost_points": 1.0}
    return Tuning(
        GIVEN_SHA256, 0.957, limits, points, {3: "mask 'bank': fits no tensor of 2 channels"}, {4: "it lost 9.0 points"}
    )


def _edge() -> dict[str, Any]:
    return {
        "side": "edge",
        "name": "north",
        "agreement_sha256": "ab" * 32,
        "trained_sha256": TRIAL_SHA256,
        "mode": "split",
        "items": 4000,
        "calls": {"Join": 1, "Step": 120},
        "payload_bytes": 40_000_000,
        "sent_bytes": 20_500_000,
        "received_bytes": 20_400_000,
        "model_bytes": 300_000,
        "cloud_provenance": "simulated",
        "seconds": 31.0,
        "batch": 32,
        "curve": [{"step": step, "loss": 2.0 / step} for step in (10, 60, 120)],
        "similarity_gap": 0.31,
        "epsilon": {"one_step": 7.25, "all_steps": 18.5, "delta": 1e-5, "passes": 12},
        "epsilon_is_for": "one item's activations and gradients",
        "accuracy": 0.912,
    }


def _cloud(refused: str) -> dict[str, Any]:
    return {
        "side": "cloud",
        "agreement_sha256": "ab" * 32,
        "trained_sha256": TRIAL_SHA256,
        "mode": "split",
        "edges": ["north"],
        "provenance": {"north": "simulated"},
        "seconds": 32.0,
        "left_out": {"south": refused},
        "curve": [{"step": step, "loss": 2.0 / step} for step in (10, 60, 120)],
    }
