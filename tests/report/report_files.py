"""Realistic files for the report's tests, made through the schemas of the rooms that write them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from PIL import Image

from siniantrust.leakage import (
    AttackResult,
    AttackSummary,
    Audit,
    CutAudit,
    DataDescription,
    Estimate,
    ScreenResult,
    ScreenSummary,
)
from siniantrust.leakage._audit_file import audit_id
from siniantrust.planner import Alternative, CostTerm, LabelledValue, Plan, PlannedPart, Prediction, parse_policy
from siniantrust.trust import Label, ThreatModel

MODEL_SHA256 = "5f" * 32
NAMES = ("conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "block3", "block4", "pool4", "fc1")
SHARES = (0.021, 0.023, 0.024, 0.19, 0.20, 0.21, 0.48, 0.79, 0.80, 0.995)
SIZES = (131072, 131072, 32768, 65536, 65536, 16384, 16384, 8192, 2048, 512)
SSIM = (0.98, 0.97, 0.90, 0.83, 0.80, 0.66, 0.46, 0.19, 0.11, 0.05)
REIDENTIFICATION = (1.0, 1.0, 1.0, 0.97, 0.94, 0.81, 0.42, 0.06, 0.04, 0.01)
BOUNDS = {"ssim": 0.2, "reidentification": 0.1}


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


def make_audit(folder: Path, names: Sequence[str]) -> Audit:
    """Return an audit and write its pictures beside it."""
    faces = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:8]
    _picture(folder / "originals.png", faces)
    cuts = []
    for index, name in enumerate(names):
        place = index / max(len(names) - 1, 1) * (len(NAMES) - 1)
        ssim = float(np.interp(place, range(len(NAMES)), SSIM))
        again = float(np.interp(place, range(len(NAMES)), REIDENTIFICATION))
        picture = f"inverter-{index}.png"
        _picture(folder / picture, _blurred(faces, ssim))
        attacks = {
            "inverter": AttackResult(
                leakage={"ssim": _estimate(ssim, 0.31), "reidentification": _estimate(again, 0.001)},
                converged=index != 6,
                gain=0.004 if index != 6 else 0.04,
                detail="decoder with 64 channels",
                time_s=41.0,
                picture=picture,
            ),
            "ridge": AttackResult(
                leakage={"ssim": _estimate(ssim * 0.86, 0.31), "reidentification": _estimate(again * 0.7, 0.001)},
                converged=True,
                gain=0.0,
                detail="one regression, closed form",
                time_s=1.2,
            ),
        }
        cuts.append(
            CutAudit(
                cut_id=name,
                tensors=(name,),
                screens={
                    "kl_distribution": ScreenResult(score=-1.2 + math.sin(index * 1.7), raw={"kl": 1.0}, time_s=0.4),
                    "kl_classifier": ScreenResult(score=-0.25 * min(index, 4), raw={"delta": 1.1}, time_s=2.0),
                    "gan_discriminator": ScreenResult(
                        score=1 - 0.3 * math.sqrt(index), raw={"accuracy": 0.9}, time_s=9.0
                    ),
                    "distance_correlation": ScreenResult(score=ssim * 0.9 + 0.05, raw={"dcor": 0.5}, time_s=0.1),
                },
                attacks=attacks,
                leakage=attacks["inverter"].leakage,
                best_attack={"ssim": "inverter", "reidentification": "inverter"},
                converged=attacks["inverter"].converged,
            )
        )
    audit = Audit(
        id="",
        model_name="scenes-resnet",
        model_sha256=MODEL_SHA256,
        data=DataDescription(
            sha256="c4" * 32,
            kind="image",
            input_name="input",
            item_shape=(3, 32, 32),
            attacker_count=8000,
            validation_count=1000,
            heldout_count=1000,
        ),
        seed=7,
        tolerance=0.01,
        cuts=tuple(cuts),
        skipped={"logits": "the answer itself: no layer is left to run outside"},
        screens={
            "kl_distribution": _screen(
                "KL divergence of distributions",
                {"ssim": 0.12, "reidentification": -0.2},
                names[min(1, len(names) - 1)],
            ),
            "kl_classifier": _screen(
                "KL divergence by a classifier", {"ssim": 0.86, "reidentification": 0.82}, names[min(4, len(names) - 1)]
            ),
            "gan_discriminator": _screen(
                "GAN discriminator", {"ssim": 0.97, "reidentification": 0.95}, names[min(6, len(names) - 1)]
            ),
            "distance_correlation": _screen(
                "Distance correlation", {"ssim": 1.0, "reidentification": None}, names[max(len(names) - 2, 0)]
            ),
        },
        attacks={
            "inverter": AttackSummary(
                title="Trained inverter",
                source="Dosovitskiy and Brox, 2016",
                knowledge="Data of the same kind, and the tensor of each of its own inputs at the cut.",
            ),
            "ridge": AttackSummary(
                title="Ridge regression", source="Hoerl and Kennard, 1970", knowledge="As the inverter, but linear."
            ),
        },
        originals_picture="originals.png",
        heldout_accuracy=0.957,
        machine="2 x AMD EPYC, Linux 6.1",
        time_s=412.0,
    )
    return audit.model_copy(update={"id": audit_id(audit.model_dump(mode="json"))})


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
    share = 1.0 if chosen is None else _at(names, chosen, SHARES)
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
            "ssim": _at(names, chosen, SSIM) + 0.02,
            "reidentification": _at(names, chosen, REIDENTIFICATION) + 0.02,
        }
        values.append(_value(cut, Label.OBSCURED, "part1", "part2", int(_at(names, chosen, SIZES)), upper))
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
            "protections": {"landlock": "active", "seccomp": "active", "memfd_secret": "missing: the kernel lacks it"},
            "memory_bytes": 268435456,
        },
        "devices": [{"name": "gpu", "backend": "onnxruntime", "description": "CPUExecutionProvider, 2 threads"}],
        "timeline": timeline,
        "started": "2025-05-04T09:12:44+00:00",
        "versions": {"siniantrust": "0.1.0", "onnxruntime": "1.32.0", "numpy": "2.4.6"},
    }


def _at(names: Sequence[str], index: int, values: Sequence[float]) -> float:
    """Stretch ``values``, given for NAMES, over any number of cuts."""
    place = index / max(len(names) - 1, 1) * (len(NAMES) - 1)
    return float(np.interp(place, range(len(NAMES)), values))


def _alternative(names: Sequence[str], index: int, device: str, rank: int) -> Alternative:
    upper = {"ssim": _at(names, index, SSIM) + 0.02, "reidentification": _at(names, index, REIDENTIFICATION) + 0.02}
    over = [f"{metric} {upper[metric]:.2f} above {bound}" for metric, bound in BOUNDS.items() if upper[metric] > bound]
    share = _at(names, index, SHARES)
    latency = (0.0162 * share + (0.0048 + 0.004 * rank) * (1 - share)) + 0.0009 + _at(names, index, SIZES) * 6e-9
    return Alternative(
        cut_ids=(names[index],),
        device=device,
        latency_s=latency,
        period_s=latency * 0.8,
        trusted_flops_share=share,
        boundary_bytes=int(_at(names, index, SIZES)),
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


def _estimate(mean: float, prior: float) -> Estimate:
    raw = prior + mean * (1 - prior)
    return Estimate(mean=mean, worst_5pct=min(mean + 0.11, 1.0), upper=min(mean + 0.02, 1.0), raw=raw, prior=prior)


def _screen(title: str, correlation: dict[str, float | None], plateau: str) -> ScreenSummary:
    return ScreenSummary(title=title, source="its paper", rank_correlation=correlation, plateau_cut_id=plateau)


def _blurred(faces: np.ndarray, likeness: float) -> np.ndarray:
    """Fade faces towards their mean, as an inverter's output fades with depth."""
    noise = np.random.default_rng(0).normal(0, 0.05, faces.shape)
    return np.asarray(likeness * faces + (1 - likeness) * (faces.mean(axis=0) + noise))


def _picture(path: Path, faces: np.ndarray) -> None:
    strip = np.hstack([np.pad(face, 1, constant_values=1.0) for face in faces])
    stream = io.BytesIO()
    Image.fromarray((strip.clip(0, 1) * 255).astype(np.uint8)).save(stream, format="png")
    path.write_bytes(stream.getvalue())
