"""Several masks, one behind the other, each calibrated on what the one before lets through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from siniantrust._extras import require
from siniantrust.errors import DeviceError, MissingExtraError
from siniantrust.graph import Cut, Model, enumerate_cuts, load_model, split
from siniantrust.masking._fold import fold_linear_masks
from siniantrust.masking._record import note_facts, read_records
from siniantrust.masking._registry import list_masks
from siniantrust.masking._rewrite import apply_mask
from siniantrust.masking._site import Fact, MaskError
from siniantrust.odla import DeviceSpec, open_device

CALIBRATION_ITEMS = 256
_BATCH = 64


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """A mask that is asked for: its name, its strength (None: the usual one), and further parameters."""

    name: str
    strength: float | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)


def parse_mask(text: str) -> MaskSpec:
    """Read ``NAME`` or ``NAME:PARAMETER=VALUE,...``, where ``strength`` is one of the parameters.

    Raises:
        MaskError: for text of another form.
    """
    name, _, rest = text.partition(":")
    if not name:
        raise MaskError(f"mask {text!r}: expected NAME or NAME:PARAMETER=NUMBER,..., found no name")
    values: dict[str, float] = {}
    for entry in rest.split(",") if rest else ():
        key, separator, value = entry.partition("=")
        try:
            number = float(value)
        except ValueError:
            separator = ""
        if not (key and separator) or key in values:
            raise MaskError(f"mask {text!r}: expected NAME or NAME:PARAMETER=NUMBER,..., found {entry!r}")
        values[key] = number
    return MaskSpec(name, values.pop("strength", None), values)


def apply_masks(
    model: Model, cut: Cut, masks: Sequence[MaskSpec], *, seed: int, inputs: Mapping[str, np.ndarray]
) -> tuple[Model, Cut]:
    """Return ``model`` with all of ``masks`` at ``cut``, the first one next to the model, and the cut that crosses now.

    Masks that only choose or mix channels become part of the weights before them where they can
    (``fold_linear_masks``).

    Args:
        model: the model.
        cut: one of its cuts.
        masks: what to put there, at least one.
        seed: chooses what is fixed and secret.
        inputs: calibration items for every input of the model, (items, ...); the first 256 are used.

    Raises:
        MaskError: if a mask cannot be put there.
    """
    known = list_masks()
    for number, mask in enumerate(masks):
        strength = mask.strength
        if strength is None:
            strength = known[mask.name].usual if mask.name in known else 1.0
        proto = apply_mask(
            model,
            cut,
            mask.name,
            strength=strength,
            seed=seed + number,
            sample=calibrate(model, cut, inputs),
            parameters=mask.parameters,
        )
        _note_bound(proto, model, cut, inputs, seed=seed)
        fold_linear_masks(proto)
        wanted = {f"{name}_masked" for name in cut.tensors}
        model = load_model(proto)
        found = next((each for each in enumerate_cuts(model).cuts if set(each.tensors) == wanted), None)
        if found is None:
            raise MaskError(f"mask {mask.name!r}: what it masks ({', '.join(sorted(wanted))}) is no cut of the model")
        cut = found
    return model, cut


def _note_bound(proto: onnx.ModelProto, model: Model, cut: Cut, inputs: Mapping[str, np.ndarray], *, seed: int) -> None:
    """Note what noise at the cut leaves any unbiased attacker to know of the input, where no mask before drew noise."""
    records = {record.tensor: record for record in read_records(proto)}
    key = "fisher_information_per_number"
    information = {name: float(records[name].facts[key]) for name in cut.tensors if key in records[name].facts}
    drawn = any(node.op_type.startswith("Random") for node in model.proto.graph.node)
    if len(information) < len(cut.tensors) or drawn:
        return
    bound: dict[str, Fact]
    try:
        require("torch", extra="leakage")
        from siniantrust.masking._fisher import fisher_bound

        least = fisher_bound(model, information, inputs, seed=seed)
        bound = {"unbiased_mse_bound": least if math.isfinite(least) else "infinite: nothing of the input crosses"}
    except (DeviceError, MissingExtraError) as fault:
        bound = {"unbiased_mse_bound": f"not known: {fault}"}
    for name in cut.tensors:
        note_facts(proto, name, bound)


def calibrate(model: Model, cut: Cut, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the values of the cut's tensors on the first items, to calibrate a mask with.

    Raises:
        MaskError: if values of an input are missing, or there are none.
    """
    first = split(model, (cut,))[0]
    missing = [each.name for each in first.inputs if not len(inputs.get(each.name, ()))]
    if missing:
        raise MaskError(f"model '{model.name}': no items of input '{missing[0]}' to calibrate a mask with")
    executable = open_device(DeviceSpec("calibration")).compile(first)
    count = min(CALIBRATION_ITEMS, *(len(inputs[each.name]) for each in first.inputs))
    size = _BATCH if model.batch_symbol else 1
    answers = []
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        answers.append(executable.run({each.name: inputs[each.name][rows] for each in first.inputs}))
    axes = {name: model.tensors[name].batch_axis or 0 for name in cut.tensors}
    return {name: np.concatenate([answer[name] for answer in answers], axis=axes[name]) for name in cut.tensors}
