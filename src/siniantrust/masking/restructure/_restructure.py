"""Restructuring as a whole: passes one after the other, each followed by distillation from the model as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx

from siniantrust.graph import Cut, Model, load_model
from siniantrust.leakage import Data
from siniantrust.masking._find_cut import find_cut
from siniantrust.masking.restructure._figures import PartFigures
from siniantrust.masking.restructure._pass import RestructureError, Step, Subject, list_passes
from siniantrust.masking.retrain import Recipe, Training, retrain

FORMAT = "siniantrust.restructuring/1"
_SAMPLE_ITEMS = 512


@dataclass(frozen=True, slots=True)
class StepResult:
    """One pass and the distillation behind it."""

    step: str
    changes: tuple[str, ...]
    tensor: str
    figures: PartFigures
    training: Training


@dataclass(frozen=True, slots=True)
class Restructured:
    """A model with a smaller Part 1, what crosses in it, and how it came about."""

    proto: onnx.ModelProto = field(repr=False)
    tensor: str
    before: PartFigures
    after: PartFigures
    steps: tuple[StepResult, ...]

    @property
    def accuracy_before(self) -> float | None:
        """Share of right labels among held-out items of the model that was given; None without labels."""
        return self.steps[0].training.accuracy_teacher

    @property
    def accuracy_after(self) -> float | None:
        """The same of the model that came out."""
        return self.steps[-1].training.accuracy_after

    def described(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        return {
            "format": FORMAT,
            "tensor": self.tensor,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "accuracy_before": self.accuracy_before,
            "accuracy_after": self.accuracy_after,
            "steps": [asdict(step) for step in self.steps],
        }


def restructure(
    model: Model,
    data: Data,
    *,
    cut: Cut,
    steps: Sequence[Step],
    recipe: Recipe,
    say: Callable[[str], None] = lambda _: None,
) -> Restructured:
    """Run the passes ``steps`` over what comes before ``cut``, each followed by distillation of both parts.

    Args:
        model: The model; it is the teacher of every step.
        data: As for an audit; labels are only used to say how accurate the models are.
        cut: What one tensor crosses.
        steps: Passes, in order.
        recipe: How to distil after each; its mode must be ``joint``.
        say: Called with a line as each step ends.

    Raises:
        RestructureError: if several tensors cross, what crosses is an output, or a pass finds nothing to change.
        RetrainError: if the model cannot be distilled with these data.
        DeviceError: if PyTorch cannot run or train an operator of the model.
    """
    if len(cut.tensors) != 1 or any(output.name in cut.tensors for output in model.outputs):
        raise RestructureError(f"cut '{cut.id}': expected one tensor that is no output of the model")
    if recipe.mode != "joint" or not steps:
        raise RestructureError("restructuring needs at least one pass, and the mode 'joint' to distil both parts")
    sample = sample_items(data, recipe.seed)
    results: list[StepResult] = []
    now, place = model, cut
    for step in steps:
        made = list_passes()[step.name].run(Subject(now, place, sample, step.amount))
        changed = load_model(made.proto)
        found = retrain(changed, data, cut=find_cut(changed, [made.tensor]), recipe=recipe, teacher=model)
        now = load_model(found.proto)
        place = find_cut(now, [made.tensor])
        figures = PartFigures.of(now, place)
        results.append(StepResult(str(step), made.changes, made.tensor, figures, found.training))
        say(
            f"{step}: {figures.flops / cut.flops_before:.1%} of the FLOPs, {figures.size_bytes / cut.size_bytes:.1%} "
            "of the bytes that leave"
        )
    return Restructured(
        proto=found.proto,
        tensor=made.tensor,
        before=PartFigures.of(model, cut),
        after=PartFigures.of(now, place),
        steps=tuple(results),
    )


def rewrite(model: Model, cut: Cut, inputs: Mapping[str, np.ndarray], step: Step) -> tuple[Model, Cut]:
    """Run one pass, without training, and return the new model with its cut; ``inputs`` are what the pass learns from.

    Raises:
        RestructureError: if the pass finds nothing to change.
    """
    made = list_passes()[step.name].run(Subject(model, cut, inputs, step.amount))
    changed = load_model(made.proto)
    return changed, find_cut(changed, [made.tensor])


def sample_items(data: Data, seed: int) -> dict[str, np.ndarray]:
    """Return some items that are not held out, for passes to learn from."""
    known = np.arange(len(data)) if data.heldout is None else np.flatnonzero(~data.heldout)
    rows = np.sort(np.random.default_rng(seed).permutation(known)[:_SAMPLE_ITEMS])
    return {name: values[rows] for name, values in data.arrays().items()}
