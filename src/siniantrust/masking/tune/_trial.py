"""One trial: restructure, mask, re-train, and attack what kept its accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from siniantrust.errors import SinianError
from siniantrust.graph import Cut, CutSet, Model, load_model
from siniantrust.leakage import Data, Estimate, audit
from siniantrust.masking._compose import apply_masks
from siniantrust.masking._find_cut import find_cut
from siniantrust.masking.objectives import make_objective
from siniantrust.masking.restructure import Step, observe, rewrite, sample_items
from siniantrust.masking.retrain import Epoch, retrain
from siniantrust.masking.tune._search import NONE, Choice, Search, composition

_CLASS_PRIOR = "class mean"
_BATCH = 256


class GivenUpError(SinianError):
    """A trial lost more accuracy than the search allows, and was not attacked."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one trial found: the re-trained model, and its figures; ``Point`` says what they are."""

    onnx: bytes = field(repr=False)
    model_sha256: str
    tensor: str
    accuracy: float
    leakage: Mapping[str, float]
    beyond_class: Mapping[str, float]
    class_alone: Mapping[str, float]
    converged: bool
    best_attack: Mapping[str, str]
    flops: int
    size_bytes: int

    def figures(self) -> dict[str, Any]:
        """Return everything but the model, for JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "onnx"}


def attempt(model: Model, data: Data, search: Search, choice: Choice, *, original: float, folder: Path) -> Found:
    """Make the model that ``choice`` describes, train both its parts to answer as ``model``, and attack it.

    Args:
        model: The model as it is.
        data: As for an audit, with labels.
        search: What the trial is one of.
        choice: What to try.
        original: Accuracy of ``model`` on the held-out items.
        folder: An empty one to work in.

    Raises:
        GivenUpError: if answers suffer so much that attacks are not worth their time.
        SinianError: if a pass or the mask does not fit there, or training fails.
    """
    inputs = sample_items(data, search.seed)
    changed, cut = _restructured(model, inputs, choice)
    if specs := composition(choice.mask, strength=choice.strength):
        changed, cut = apply_masks(changed, cut, specs, seed=search.seed, inputs=inputs)
    trained = retrain(
        changed,
        data,
        cut=cut,
        recipe=search.recipe,
        teacher=model,
        penalty=None if choice.penalty == NONE else make_objective(choice.penalty),
        watch=_watch(original, search),
    )
    accuracy = trained.training.accuracy_after or 0.0
    lost = 100 * (original - accuracy)
    if lost > search.most_lost_points:
        raise GivenUpError(
            f"it lost {lost:.1f} points of accuracy, more than {search.most_lost_points:g}; not attacked"
        )
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
    return Found(
        onnx=trained.proto.SerializeToString(deterministic=True),
        model_sha256=trained.training.retrained_sha256,
        tensor=cut.tensors[0],
        accuracy=accuracy,
        leakage=_upper(at_cut.leakage),
        beyond_class=_upper(at_cut.over_priors.get(_CLASS_PRIOR, {})),
        class_alone=_upper(audited.priors[_CLASS_PRIOR].leakage) if _CLASS_PRIOR in audited.priors else {},
        converged=at_cut.converged,
        best_attack=at_cut.best_attack,
        flops=cut.flops_before,
        size_bytes=cut.size_bytes,
    )


def accuracy_of(model: Model, data: Data) -> float:
    """Return the share of the held-out items, or of all where none are marked, that the model names rightly."""
    labels = np.asarray(data.labels)
    rows = np.arange(len(data)) if data.heldout is None else np.flatnonzero(data.heldout)
    right = 0
    for chosen in np.array_split(rows, math.ceil(len(rows) / _BATCH)):
        inputs = {name: values[chosen] for name, values in data.arrays().items()}
        right += int((observe(model, inputs, model.outputs[0].name).argmax(1) == labels[chosen]).sum())
    return right / len(rows)


def _watch(original: float, search: Search) -> Callable[[Epoch], None]:
    """Return what gives a trial up half-way through its epochs if all of them so far lost too much."""
    best = 0.0

    def watch(epoch: Epoch) -> None:
        nonlocal best
        best = max(best, epoch.validation_accuracy or 0.0)
        lost = 100 * (original - best)
        if epoch.epoch == math.ceil(search.recipe.epochs / 2) and lost > 2 * search.most_lost_points:
            raise GivenUpError(
                f"half-way through training it was {lost:.1f} points below the given model, more than twice "
                f"{search.most_lost_points:g}; not attacked"
            )

    return watch


def _upper(figures: Mapping[str, Estimate]) -> dict[str, float]:
    return {name: estimate.upper for name, estimate in figures.items()}


def _restructured(model: Model, inputs: Mapping[str, np.ndarray], choice: Choice) -> tuple[Model, Cut]:
    """Run the passes without training between them: the trial trains once, in the end."""
    now, cut = model, find_cut(model, [choice.cut])
    if choice.kept_channels < 1:
        now, cut = rewrite(now, cut, inputs, Step("prune", choice.kept_channels))
    if choice.crossing_channels < 1:
        channels = now.tensors[cut.tensors[0]].shape[1]
        now, cut = rewrite(now, cut, inputs, Step("bottleneck", max(1, round(channels * choice.crossing_channels))))
    return now, cut


def _silent(description: str, *, advance: float = 1.0) -> None:
    """Draw no bar: trials run beside each other."""
