"""Realistic files for the report's tests, made through the schemas of the rooms that write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report_audits import BOUNDS, MODEL_SHA256, NAMES, REIDENTIFICATION, SSIM, along, make_audit

from siniantrust._files import sha256_bytes
from siniantrust.leakage._audit_file import audit_id
from siniantrust.planner import (
    Alternative,
    CostTerm,
    Explanation,
    LabelledValue,
    NodeRun,
    Plan,
    PlannedPart,
    Prediction,
    parse_policy,
    save_explanation,
)
from siniantrust.trust import Label, ThreatModel

SHARES = (0.021, 0.023, 0.024, 0.19, 0.20, 0.21, 0.48, 0.79, 0.80, 0.995)
SIZES = (131072, 131072, 32768, 65536, 65536, 16384, 16384, 8192, 2048, 512)


@dataclass(frozen=True)
class Files:
    """Where the stages' files stand."""

    audit: Path
    plan: Path
    run: Path


def write_files(
    folder: Path, *, names: Sequence[str] = NAMES, chosen: int | None = 8, devices: Sequence[str] = ("gpu",)
) -> Files:
    """Write audit.json with pictures, plan.json and run.json into ``folder``; ``chosen`` is the index of the cut."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(audit=folder / "audit", plan=folder / "plan.json", run=folder / "run.json")
    files.audit.mkdir(exist_ok=True)
    audit = make_audit(files.audit, names)
    (files.audit / "audit.json").write_text(audit.model_dump_json(), encoding="utf-8")
    files.plan.write_text(make_plan(names, chosen, devices, audit.id).model_dump_json(), encoding="utf-8")
    files.run.write_text(json.dumps(make_run()), encoding="utf-8")
    return files


def edit(path: Path, **changes: Any) -> None:
    """Change top-level fields of a JSON file."""
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, **changes}), encoding="utf-8")


def edit_audit(files: Files, **changes: Any) -> None:
    """Change an audit as if it had been measured so: with the id that fits, and the plan made from it."""
    path = files.audit / "audit.json"
    edit(path, **changes)
    new_id = audit_id(json.loads(path.read_text(encoding="utf-8")))
    edit(path, id=new_id)
    edit(files.plan, audit_id=new_id)


def make_plan(names: Sequence[str], chosen: int | None, devices: Sequence[str], audit_id: str) -> Plan:
    """Return a plan over ``names`` that cuts at index ``chosen``, or keeps all in the enclave."""
    policy = parse_policy(
        {
            "enclave": {"accept": ["simulated", "hardware"]},
            "device": [{"name": device} for device in devices],
            "leakage": {"max": BOUNDS},
        },
        origin="test",
    )
    alternatives = [
        Alternative(
            cut_ids=(),
            device="enclave",
            latency_s=0.0212,
            period_s=0.0212,
            trusted_flops_share=1.0,
            boundary_bytes=0,
            leakage_upper=None,
            refusal=None,
        )
    ]
    for rank, device in enumerate(devices):
        alternatives += [_alternative(names, index, device, rank) for index in range(len(names))]
    cut = None if chosen is None else names[chosen]
    share = 1.0 if chosen is None else along(names, chosen, SHARES)
    parts = [_part("part1", "enclave", trusted=True, share=share, inputs=("input",), outputs=(cut or "logits",))]
    values = [_value("input", Label.SECRET, "client", "part1", 12288)]
    terms = [
        CostTerm(what="compute part 1", where="enclave", latency_s=0.0162 * share, basis="measured, median of 20 runs"),
        CostTerm(
            what="cross into part 1 and back",
            where="enclave",
            latency_s=0.00041,
            basis="measured, round trip of a small frame",
        ),
    ]
    if cut is not None and chosen is not None:
        parts.append(_part("part2", devices[0], trusted=False, share=1 - share, inputs=(cut,), outputs=("logits",)))
        upper = {
            "ssim": along(names, chosen, SSIM) + 0.02,
            "reidentification": along(names, chosen, REIDENTIFICATION) + 0.02,
        }
        values.append(_value(cut, Label.OBSCURED, "part1", "part2", int(along(names, chosen, SIZES)), upper))
        terms += [
            CostTerm(what="move to the device and back", where=devices[0], latency_s=0.00033, basis="measured, affine"),
            CostTerm(
                what="compute part 2",
                where=devices[0],
                latency_s=0.0048 * (1 - share),
                basis="regression on FLOPs and bytes",
            ),
        ]
    values.append(_value("logits", Label.PUBLIC, parts[-1].name, "client", 76))
    return Plan(
        model_name="scenes-resnet",
        model_sha256=MODEL_SHA256,
        audit_id=audit_id,
        policy=policy,
        threat_model=ThreatModel.INPUT_PRIVACY,
        cut_ids=() if cut is None else (cut,),
        parts=tuple(parts),
        values=tuple(values),
        prediction=Prediction(latency_s=sum(term.latency_s for term in terms), period_s=0.0136, terms=tuple(terms)),
        alternatives=tuple(alternatives),
        warnings=("the audit's attack suite holds 2 attacks; more make the figure surer",),
        machine="2 x AMD EPYC, Linux 6.1",
    )


def write_explanation(files: Files, *, first: str = "conv1") -> Path:
    """Write an explanation of the plan whose one run begins with the node ``first``."""
    run = NodeRun(
        first=first,
        last="relu9",
        count=17,
        operators={"Conv": 9, "Relu": 8},
        part="part1",
        device="enclave",
        latency_s=0.0162,
        elsewhere_s={"gpu": 0.0012},
        refused={"npu": "cannot run it: no kernel"},
        label=Label.SECRET,
        reasons=("no cut before it is allowed with one device",),
    )
    explanation = Explanation(
        model_name="scenes-resnet",
        model_sha256=MODEL_SHA256,
        plan_sha256=sha256_bytes(files.plan.read_bytes()),
        basis={"enclave": "measured"},
        runs=(run,),
        nodes=(),
    )
    path = files.plan.with_name("explanation.json")
    save_explanation(explanation, path)
    return path


def make_run() -> dict[str, Any]:
    """Return the record of a measured run."""
    timeline = []
    start = 0.0
    for item in range(6):
        timeline.append({"stage": "part1", "item": item, "start_s": start, "end_s": start + 0.0129})
        timeline.append({"stage": "transfer", "item": item, "start_s": start + 0.0129, "end_s": start + 0.0136})
        timeline.append({"stage": "part2", "item": item, "start_s": start + 0.0136, "end_s": start + 0.0150})
        start += 0.0131
    return {
        "model_name": "scenes-resnet",
        "model_sha256": MODEL_SHA256,
        "bundle_id": "9b" * 16,
        "count": 1000,
        "max_abs_difference": 2.4e-6,
        "accuracy": 0.957,
        "accuracy_uncut": 0.957,
        "measured": {
            "latency_s": 0.0153,
            "latency_p95_s": 0.0181,
            "period_s": 0.0131,
            "terms": [
                {"what": "compute part 1", "where": "enclave", "latency_s": 0.0129},
                {"what": "cross into part 1 and back", "where": "enclave", "latency_s": 0.00052},
                {"what": "move to the device and back", "where": "gpu", "latency_s": 0.00041},
                {"what": "compute part 2", "where": "gpu", "latency_s": 0.00114},
                {"what": "waiting", "where": "client", "latency_s": 0.00024},
            ],
        },
        "uncut_latency_s": 0.0149,
        "machine": "2 x AMD EPYC, Linux 6.1",
        "enclave": {
            "provider": "process",
            "provenance": "simulated",
            "accept": ["simulated", "hardware"],
            "measurement": "5e" * 32,
            "protections": {"landlock": "active", "seccomp": "active", "memfd_secret": "missing: the kernel lacks it"},
            "memory_bytes": 268435456,
        },
        "devices": [{"name": "gpu", "backend": "onnxruntime", "description": "CPUExecutionProvider, 2 threads"}],
        "timeline": timeline,
        "started": "2025-05-04T09:12:44+00:00",
        "versions": {"siniantrust": "0.1.0", "onnxruntime": "1.32.0", "numpy": "2.4.6"},
    }


def _alternative(names: Sequence[str], index: int, device: str, rank: int) -> Alternative:
    upper = {"ssim": along(names, index, SSIM) + 0.02, "reidentification": along(names, index, REIDENTIFICATION) + 0.02}
    over = [f"{metric} {upper[metric]:.2f} above {bound}" for metric, bound in BOUNDS.items() if upper[metric] > bound]
    share = along(names, index, SHARES)
    latency = (0.0162 * share + (0.0048 + 0.004 * rank) * (1 - share)) + 0.0009 + along(names, index, SIZES) * 6e-9
    return Alternative(
        cut_ids=(names[index],),
        device=device,
        latency_s=latency,
        period_s=latency * 0.8,
        trusted_flops_share=share,
        boundary_bytes=int(along(names, index, SIZES)),
        leakage_upper=upper,
        refusal="; ".join(over) or None,
    )


def _part(
    name: str, device: str, *, trusted: bool, share: float, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> PlannedPart:
    return PlannedPart(
        name=name,
        device=device,
        trusted=trusted,
        nodes=tuple(f"{name}_{step}" for step in range(18)),
        inputs=inputs,
        outputs=outputs,
        flops=int(2.1e8 * share),
        parameter_bytes=int(1.3e6 * (0.3 if trusted else 0.7)),
        reason="reads a secret value" if trusted else "fastest device that may see an obscured value",
    )


def _value(
    tensor: str, label: Label, source: str, target: str, size: int, upper: dict[str, float] | None = None
) -> LabelledValue:
    return LabelledValue(
        tensor=tensor,
        label=label,
        source=source,
        targets=(target,),
        size_bytes=size,
        leakage_upper=upper,
        audit_id=None if upper is None else "a3f1c09d5be2",
    )
