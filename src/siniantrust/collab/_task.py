"""What is trained: the network's parts, who has which, and what crosses between them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import onnx

from siniantrust._files import sha256_file
from siniantrust.collab._config import MaskSection, TrainingSection
from siniantrust.collab._errors import CollabError
from siniantrust.graph import Cut, Model, Part, Tensor, enumerate_cuts, load_model, part_digest, split
from siniantrust.masking import apply_mask
from siniantrust.odla import DeviceSpec, open_part


@dataclass(frozen=True)
class Task:
    """The network in parts.

    Attributes:
        model: the whole network, with its mask.
        source_sha256: of the network as it was given, without the mask.
        parts: Part 1 (edge), Part 2 (cloud), and where labels stay at the edge Part 3 (edge).
        mask_sha256: of what the mask is made from; empty without one.
    """

    model: Model
    source_sha256: str
    parts: tuple[Part, ...] = field(repr=False)
    mask_sha256: str

    @property
    def features(self) -> Tensor:
        """What Part 1 gives to Part 2."""
        return self.parts[0].outputs[0]

    @property
    def answers(self) -> Tensor:
        """What Part 2 gives: scores, or the values that Part 3 goes on with."""
        return self.parts[1].outputs[0]

    @property
    def labels_at_edge(self) -> bool:
        """Whether the edge has a Part 3, and keeps the labels."""
        return len(self.parts) > 2  # noqa: PLR2004 - the third part

    @property
    def classes(self) -> int:
        """Number of scores."""
        return self.model.outputs[0].shape[-1]


def load_task(training: TrainingSection, mask: MaskSection | None) -> Task:
    """Load the model, put the mask in, and cut it.

    Raises:
        CollabError: if a cut is unknown, more than one tensor crosses it, or the network's only output is no row of
            scores per item.
        ModelError: if the model cannot be used.
    """
    model = load_model(training.model)
    cut = _cut(model, training.cut)
    source_sha256, mask_sha256 = model.sha256, ""
    if mask is not None:
        model, cut, mask_sha256 = _masked(model, cut, mask)
    cuts = [cut] if training.last_cut is None else [cut, _cut(model, training.last_cut)]
    parts = split(model, cuts)
    if len(model.outputs) != 1 or len(model.inputs) != 1 or len(model.outputs[0].shape) != 2:  # noqa: PLR2004
        raise CollabError(f"model {training.model}: expected one input and one output (items, scores)")
    for before, after in pairwise(parts):
        if [t.name for t in before.outputs] != [t.name for t in after.inputs] or len(before.outputs) != 1:
            raise CollabError(f"model {training.model}: exactly one tensor must go from {before.name} to {after.name}")
        if before.outputs[0].batch_axis != 0 or before.outputs[0].dtype != "float32":
            name = before.outputs[0].name
            raise CollabError(f"model {training.model}: '{name}' must be float32 with a free batch as its first axis")
    return Task(model, source_sha256, parts, mask_sha256)


def _cut(model: Model, cut_id: str) -> Cut:
    found = enumerate_cuts(model)
    cut = found.by_id(cut_id)
    if cut is None or len(cut.tensors) != 1:
        single = ", ".join(each.id for each in found.cuts if len(each.tensors) == 1)
        raise CollabError(f"model '{model.name}': {cut_id!r} is no cut of one tensor; there are: {single}")
    return cut


def _masked(model: Model, cut: Cut, mask: MaskSection) -> tuple[Model, Cut, str]:
    """Put the mask in, as strong as the calibration items say; both sides have these, so that both do the same."""
    try:
        inputs = np.load(mask.calibration, allow_pickle=False)
        sha256 = hashlib.sha256(
            f"{mask.name} {mask.strength} {mask.seed} {sha256_file(mask.calibration)}".encode()
        ).hexdigest()
    except (OSError, ValueError, EOFError, SyntaxError) as fault:
        raise CollabError(f"mask calibration {mask.calibration}: cannot be read as .npy ({fault})") from None
    first, _ = split(model, [cut])
    device, run = open_part(DeviceSpec("calibration", options={"threads": 1}), first)
    try:
        sample = run.run({first.inputs[0].name: inputs})
    finally:
        run.close()
        device.close()
    proto = apply_mask(model, cut, mask.name, strength=mask.strength, seed=mask.seed, sample=sample)
    masked = load_model(proto)
    (name,) = cut.tensors
    wanted = next((each for each in enumerate_cuts(masked).cuts if each.tensors == (f"{name}_masked",)), None)
    if wanted is None:
        raise CollabError(f"model '{model.name}': behind the mask {mask.name!r} there is no cut")
    return masked, wanted, sha256


def with_weights(model: Model, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the whole network with trained weights in place of its own, by name.

    Raises:
        CollabError: if the network has no such weight, or of another shape.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    left = dict(weights)
    for tensor in proto.graph.initializer:
        values = left.pop(tensor.name, None)
        if values is None:
            continue
        if tuple(tensor.dims) != values.shape:
            raise CollabError(f"weight '{tensor.name}': expected the shape {tuple(tensor.dims)}, found {values.shape}")
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    if left:
        raise CollabError(f"model '{model.name}' has no weight '{min(left)}'")
    return proto


def shapes_of(task: Task) -> str:
    """Return the shapes of what crosses, for the agreement."""
    return "; ".join(f"{each.name} {each.dtype} {each.shape}" for each in (task.features, task.answers))


def digests_of(task: Task) -> str:
    """Return what identifies the parts, for the agreement."""
    return hashlib.sha256(" ".join(part_digest(part) for part in task.parts).encode()).hexdigest()
