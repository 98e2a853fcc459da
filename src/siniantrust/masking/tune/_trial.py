"""One trial: restructure, mask, re-train, audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import onnx

from siniantrust.graph import Cut, CutSet, Model, load_model
from siniantrust.leakage import Data, audit
from siniantrust.masking._find_cut import find_cut
from siniantrust.masking._rewrite import apply_mask
from siniantrust.masking.restructure import Step, observe, rewrite, sample_items
from siniantrust.masking.retrain import retrain
from siniantrust.masking.tune._search import NO_MASK, Search


@dataclass(frozen=True, slots=True)
class Choice:
    """What one trial tries."""

    cut: str
    mask: str
    strength: float
    kept_channels: float
    crossing_channels: float


@dataclass(frozen=True, slots=True)
class Found:
    """What one trial found: the re-trained model, and its figures."""

    proto: onnx.ModelProto = field(repr=False)
    model_sha256: str
    tensor: str
    accuracy: float
    accuracy_original: float
    leakage: Mapping[str, float]
    converged: bool
    best_attack: Mapping[str, str]
    flops: int
    size_bytes: int

    def figures(self) -> dict[str, Any]:
        """Return everything but the model, for JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "proto"}


def attempt(model: Model, data: Data, search: Search, choice: Choice, folder: Path) -> Found:
    """Make the model that ``choice`` describes, train both its parts to answer as ``model``, and attack it.

    Raises:
        SinianError: if a pass or the mask does not fit there, or training fails.
    """
    changed, cut = _restructured(model, data, choice, search.seed)
    if choice.mask != NO_MASK:
        changed, cut = _masked(changed, cut, data, choice, search.seed)
    trained = retrain(changed, data, cut=cut, recipe=search.recipe, teacher=model)
    done = load_model(trained.proto)
    cut = find_cut(done, cut.tensors)
    audited = audit(
        done,
        data,
        cuts=CutSet((cut,), capped=False, cap=1),
        out=folder / "audit",
        seed=search.seed,
        attacks=search.attacks,
        screens=(),
        include_fusable=True,
        budget=search.budget,
        progress=_silent,
    )
    (at_cut,) = audited.cuts
    training = trained.training
    return Found(
        proto=trained.proto,
        model_sha256=training.retrained_sha256,
        tensor=cut.tensors[0],
        accuracy=training.accuracy_after or 0.0,
        accuracy_original=training.accuracy_teacher or 0.0,
        leakage={name: estimate.upper for name, estimate in at_cut.leakage.items()},
        converged=at_cut.converged,
        best_attack=at_cut.best_attack,
        flops=cut.flops_before,
        size_bytes=cut.size_bytes,
    )


def _restructured(model: Model, data: Data, choice: Choice, seed: int) -> tuple[Model, Cut]:
    """Run the passes without training between them: the trial trains once, in the end."""
    inputs = sample_items(data, seed)
    now, cut = model, find_cut(model, [choice.cut])
    if choice.kept_channels < 1:
        now, cut = rewrite(now, cut, inputs, Step("prune", choice.kept_channels))
    if choice.crossing_channels < 1:
        channels = now.tensors[cut.tensors[0]].shape[1]
        now, cut = rewrite(now, cut, inputs, Step("bottleneck", max(1, round(channels * choice.crossing_channels))))
    return now, cut


def _masked(model: Model, cut: Cut, data: Data, choice: Choice, seed: int) -> tuple[Model, Cut]:
    (tensor,) = cut.tensors
    sample = {tensor: observe(model, sample_items(data, seed), tensor)}
    masked = load_model(apply_mask(model, cut, choice.mask, strength=choice.strength, seed=seed, sample=sample))
    return masked, find_cut(masked, [f"{tensor}_masked"])


def _silent(description: str, *, advance: float = 1.0) -> None:
    """Draw no bar: trials run beside each other."""
