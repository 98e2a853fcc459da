"""A realistic audit for the report's tests, made through the schema of the room that writes it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

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
from siniantrust.leakage._schema import PriorSummary, Rung

MODEL_SHA256 = "5f" * 32
NAMES = ("conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "block3", "block4", "pool4", "fc1")
SSIM = (0.98, 0.97, 0.90, 0.83, 0.80, 0.66, 0.46, 0.19, 0.11, 0.05)
REIDENTIFICATION = (1.0, 1.0, 1.0, 0.97, 0.94, 0.81, 0.42, 0.06, 0.04, 0.01)
BOUNDS = {"ssim": 0.2, "reidentification": 0.1}
GIVEN_UP = (0, 1)
UNCONVERGED = 6
_MSE = 0.064


def along(names: Sequence[str], index: int, values: Sequence[float]) -> float:
    """Stretch ``values``, given for NAMES, over any number of cuts."""
    place = index / max(len(names) - 1, 1) * (len(NAMES) - 1)
    return float(np.interp(place, range(len(NAMES)), values))


def make_audit(folder: Path, names: Sequence[str]) -> Audit:
    """Return an audit and write its pictures beside it: the first two cuts given up early, the seventh not converged.

    ``names`` may be of any length; the plan's usual cut, the last but one, leaks little.
    """
    faces = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:8]
    _picture(folder / "originals.png", faces)
    audit = Audit(
        id="",
        model_name="scenes-resnet",
        model_sha256=MODEL_SHA256,
        data=DataDescription(
            sha256="c4" * 32,
            kind="image",
            input_name="input",
            item_shape=(3, 32, 32),
            target_shape=(3, 32, 32),
            attacker_count=8000,
            validation_count=1000,
            heldout_count=1000,
        ),
        seed=7,
        tolerance=0.01,
        cuts=tuple(_cut(folder, faces, names, index) for index in range(len(names))),
        skipped={"logits": "the answer itself: no layer is left to run outside"},
        screens=_screens(names),
        attacks={
            "inverter": AttackSummary(
                title="Trained inverter",
                source="Dosovitskiy and Brox, 2016",
                knowledge="Data of the same kind, and the tensor of each of its own inputs at the cut.",
                cost="minutes at a cut",
            ),
            "ridge": AttackSummary(
                title="Ridge regression",
                source="Hoerl and Kennard, 1970",
                knowledge="As the inverter, but linear.",
                cost="seconds at a cut",
            ),
            "optimisation": AttackSummary(
                title="Maximum likelihood",
                source="He, Zhang and Lee, 2019",
                knowledge="The network before the cut, with its weights.",
                cost="minutes for each item",
            ),
        },
        originals_picture="originals.png",
        priors={
            "nearest": PriorSummary(title="the nearest of the attacker's own items", leakage=_leakage(0.14, 0.13)),
            "class mean": PriorSummary(title="the mean of the predicted class", leakage=_leakage(0.05, 0.01)),
        },
        seeds=3,
        budget={"attacker_items": 8000, "steps": 3000, "width": 64, "attack_time_s": 1800.0, "threads": None},
        bounds=BOUNDS,
        averaged_queries=None,
        heldout_accuracy=0.957,
        machine="2 x AMD EPYC, Linux 6.1",
        time_s=412.0,
    )
    return audit.model_copy(update={"id": audit_id(audit.model_dump(mode="json"))})


def _cut(folder: Path, faces: np.ndarray, names: Sequence[str], index: int) -> CutAudit:
    ssim, again = along(names, index, SSIM), along(names, index, REIDENTIFICATION)
    given_up = index in GIVEN_UP and len(names) > len(GIVEN_UP)
    attacks = {"inverter": _inverter(folder, faces, index, ssim, again)}
    declined = {}
    if not given_up:
        attacks["ridge"] = _ridge(folder, faces, index, ssim, again)
        declined = {"optimisation": "needs more than 2 GiB of memory"}
    return CutAudit(
        cut_id=names[index],
        tensors=(names[index],),
        screens={
            "kl_distribution": ScreenResult(score=-1.2 + math.sin(index * 1.7), raw={"kl": 1.0}, time_s=0.4),
            "kl_classifier": ScreenResult(score=-0.25 * min(index, 4), raw={"delta": 1.1}, time_s=2.0),
            "gan_discriminator": ScreenResult(score=1 - 0.3 * math.sqrt(index), raw={"accuracy": 0.9}, time_s=9.0),
            "distance_correlation": ScreenResult(score=ssim * 0.9 + 0.05, raw={"dcor": 0.5}, time_s=0.1),
        },
        attacks=attacks,
        leakage=attacks["inverter"].leakage,
        best_attack=dict.fromkeys(attacks["inverter"].leakage, "inverter"),
        converged=attacks["inverter"].converged and not given_up,
        next_budget={} if attacks["inverter"].converged or given_up else dict(attacks["inverter"].next_budget),
        declined=declined,
        cut_short=f"ssim is at least {ssim - 0.02:.3g}, allowed 0.2 by inverter" if given_up else None,
        over_priors={"nearest": _leakage((ssim - 0.14) / 0.86, (again - 0.13) / 0.87)},
    )


def _inverter(folder: Path, faces: np.ndarray, index: int, ssim: float, again: float) -> AttackResult:
    picture, worst = f"inverter-{index}.png", f"inverter-{index}-worst.png"
    made = _blurred(faces, ssim, seed=index)
    _picture(folder / picture, made)
    _picture(folder / worst, faces[::-1], _blurred(faces, min(ssim + 0.1, 1.0), seed=index)[::-1])
    converged = index != UNCONVERGED
    leakage = _leakage(ssim, again)
    return AttackResult(
        leakage=leakage,
        converged=converged,
        gain=0.004 if converged else 0.04,
        gains=dict.fromkeys(leakage, 0.004 if converged else 0.04),
        rungs=tuple(
            Rung(
                attacker_items=4000 * step,
                steps=1500 * step,
                width=32 * step,
                mean={metric: estimate.mean - 0.03 * (2 - step) for metric, estimate in leakage.items()},
            )
            for step in (1, 2)
        ),
        next_budget={} if converged else {"attacker_items": 16000, "steps": 6000},
        detail="decoder with 64 channels",
        time_s=41.0,
        picture=picture,
        worst_picture=worst,
    )


def _ridge(folder: Path, faces: np.ndarray, index: int, ssim: float, again: float) -> AttackResult:
    picture = f"ridge-{index}.png"
    _picture(folder / picture, _blurred(faces, ssim * 0.8, seed=index + 1000))
    return AttackResult(
        leakage=_leakage(ssim * 0.86, again * 0.7),
        converged=True,
        gain=0.0,
        heldout_items=500,
        detail="one regression, closed form",
        time_s=1.2,
        picture=picture,
    )


def _screens(names: Sequence[str]) -> dict[str, ScreenSummary]:
    last = len(names) - 1
    return {
        "kl_distribution": _screen(
            "KL divergence of distributions", {"ssim": 0.12, "reidentification": -0.2}, names[min(1, last)]
        ),
        "kl_classifier": _screen(
            "KL divergence by a classifier", {"ssim": 0.86, "reidentification": 0.82}, names[min(4, last)]
        ),
        "gan_discriminator": _screen(
            "GAN discriminator", {"ssim": 0.97, "reidentification": 0.95}, names[min(6, last)]
        ),
        "distance_correlation": _screen(
            "Distance correlation", {"ssim": 1.0, "reidentification": None}, names[max(last - 1, 0)]
        ),
    }


def _screen(title: str, correlation: dict[str, float | None], plateau: str) -> ScreenSummary:
    return ScreenSummary(
        title=title, source="its paper", cost="seconds", rank_correlation=correlation, plateau_cut_id=plateau
    )


def _leakage(ssim: float, again: float) -> dict[str, Estimate]:
    return {"ssim": _estimate(ssim, 0.31), "nmse": _error(ssim), "reidentification": _estimate(again, 0.001)}


def _estimate(mean: float, prior: float) -> Estimate:
    return Estimate(
        mean=mean,
        worst_5pct=min(mean + 0.11, 1.0),
        upper=max(min(mean + 0.02, 1.0), 0.0),
        lower=mean - 0.03,
        raw=prior + mean * (1 - prior),
        prior=prior,
        by_seed=(mean - 0.01, mean, mean + 0.01),
    )


def _error(likeness: float) -> Estimate:
    """Return the leakage of a mean squared error that falls as the likeness rises."""
    mean = (1 + 3 * likeness) / 4
    return _estimate(mean, 0.0).model_copy(update={"raw": (1 - mean) * _MSE, "prior": _MSE})


def _blurred(faces: np.ndarray, likeness: float, *, seed: int) -> np.ndarray:
    """Fade faces towards their mean, as an inverter's output fades with depth."""
    noise = np.random.default_rng(seed).normal(0, 0.05, faces.shape)
    return np.asarray(likeness * faces + (1 - likeness) * (faces.mean(axis=0) + noise))


def _picture(path: Path, *rows: np.ndarray) -> None:
    strip = np.vstack([np.hstack([np.pad(face, 1, constant_values=1.0) for face in faces]) for faces in rows])
    stream = io.BytesIO()
    Image.fromarray((strip.clip(0, 1) * 255).astype(np.uint8)).save(stream, format="png")
    path.write_bytes(stream.getvalue())
