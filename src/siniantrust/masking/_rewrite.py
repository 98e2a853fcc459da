"""Put a mask into a model: behind the tensors of a cut, before everything that reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx

from siniantrust.graph import Cut, Model, Tensor, prefix_nodes
from siniantrust.masking._record import MaskRecord, write_record
from siniantrust.masking._registry import Mask, list_masks
from siniantrust.masking._site import MaskError, Site

_FLOATS = ("float16", "float32", "float64")
# From here on Min and Max broadcast.
_LEAST_OPSET = 8


def apply_mask(
    model: Model,
    cut: Cut,
    name: str,
    *,
    strength: float,
    seed: int,
    sample: Mapping[str, np.ndarray],
    parameters: Mapping[str, float] | None = None,
) -> onnx.ModelProto:
    """Return ``model`` with a mask on what crosses ``cut``.

    Behind each tensor T of the cut the mask's nodes compute ``T_masked``, which is what crosses in the result, with
    the batch still free. It has T's shape and type, unless the mask makes it smaller: then more nodes make
    ``T_restored`` of it, of T's shape. Everything after the cut reads the last of them. The model before the cut and
    the names of its inputs and outputs stay. What was done is written into the model (``read_records``).

    Args:
        model: The model.
        cut: Where what crosses is masked; a cut of this model.
        name: One of ``list_masks``.
        strength: How strong the mask is, in the mask's own unit: as a rule the tensor's standard deviation.
        seed: Chooses what is fixed and secret (a permutation, a bank). Noise drawn for each query has no seed.
        sample: Values of each of the cut's tensors on calibration items, (items, ...), as the model gives them.
        parameters: The mask's further parameters; those that are not given have their defaults.

    Raises:
        MaskError: if the mask is unknown or cannot stand here, the strength is negative or not finite, a parameter is
            unknown, a tensor of the cut is an output of the model (it would leave unmasked all the same), is no
            floating-point number or has no axis, values are missing or not finite, or the model's opset is older than
            8.
        PlanError: if the cut is of another model.
    """
    mask = _find(name, strength)
    settings = _settings(name, mask, parameters or {})
    before = set(prefix_nodes(model, cut))
    opset = next((entry.version for entry in model.proto.opset_import if not entry.domain), 0)
    if opset < _LEAST_OPSET:
        raise MaskError(f"model '{model.name}': a mask needs opset {_LEAST_OPSET} or newer, found {opset}; convert it")
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    first = [node for index, node in enumerate(proto.graph.node) if index in before]
    rest = [node for index, node in enumerate(proto.graph.node) if index not in before]
    added: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    tensors = [_maskable(model, tensor_name) for tensor_name in cut.tensors]
    values = {tensor.name: _values(sample, tensor.name) for tensor in tensors}
    for index, tensor in enumerate(tensors):
        generator = np.random.default_rng((seed, index))
        site = Site(model, tensor, strength, settings, values, generator)
        renamed[tensor.name] = _build(mask, site)
        added += site.nodes
        proto.graph.initializer.extend(site.constants)
        write_record(proto, MaskRecord(tensor.name, name, strength, dict(settings), site.facts, site.fixed))
    _rename(rest, renamed)
    # What comes before a cut holds all that it needs, so that this order is a valid one.
    ordered = [*first, *added, *rest]
    copies = []
    for node in ordered:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    return proto


def _find(name: str, strength: float) -> Mask:
    masks = list_masks()
    if name not in masks:
        raise MaskError(f"mask {name!r} is unknown; there are {', '.join(masks)}")
    if not (math.isfinite(strength) and strength >= 0):
        raise MaskError(f"mask {name!r}: strength must be a finite number of at least 0, found {strength}")
    return masks[name]


def _settings(name: str, mask: Mask, given: Mapping[str, float]) -> dict[str, float]:
    """Return all parameters of the mask, those that are not given with their defaults."""
    known = {parameter.name: parameter.default for parameter in mask.parameters}
    for parameter, value in given.items():
        if parameter not in known:
            listed = ", ".join(["strength", *known])
            raise MaskError(f"mask {name!r} has no parameter {parameter!r}; it has {listed}")
        if not math.isfinite(value):
            raise MaskError(f"mask {name!r}: {parameter} must be a finite number, found {value}")
    return {**known, **given}


def _maskable(model: Model, name: str) -> Tensor:
    """Return the tensor of that name if a mask can stand behind it."""
    where = f"model '{model.name}', tensor '{name}'"
    tensor = model.tensors.get(name)
    if tensor is None:
        raise MaskError(f"{where}: its shape is not known, so that it cannot be masked")
    if tensor.dtype not in _FLOATS:
        raise MaskError(f"{where}: only floating-point numbers can be masked, found {tensor.dtype}")
    if not tensor.shape:
        raise MaskError(f"{where}: a single number without an axis cannot be masked")
    if any(value.name == name for value in model.proto.graph.output):
        raise MaskError(f"{where}: it is an output of the model and would leave unmasked too; cut somewhere else")
    return tensor


def _values(sample: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    values = sample.get(name)
    if values is None:
        given = ", ".join(f"'{each}'" for each in sample) or "none"
        raise MaskError(f"tensor '{name}': no values to calibrate the mask with; given: {given}")
    values = np.asarray(values, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise MaskError(f"tensor '{name}': the values to calibrate the mask with must be finite and at least one")
    return values


def _build(mask: Mask, site: Site) -> str:
    """Let the mask add its nodes, give what crosses and what is restored their telling names; return the last one."""
    mask.build(site)
    last = site.nodes[-1].output[0]
    crossing = site.crossing or last
    telling = {crossing: f"{site.value}_masked"}
    telling.setdefault(last, f"{site.value}_restored")
    model = site.model
    taken = model.tensors.keys() | {tensor.name for tensor in model.proto.graph.initializer}
    made = {*telling.values(), *(out for node in site.nodes for out in node.output), *(c.name for c in site.constants)}
    if clash := made & taken:
        raise MaskError(f"model '{model.name}' already has a value '{min(clash)}'; rename it to mask '{site.value}'")
    for node in site.nodes:
        node.output[0] = telling.get(node.output[0], node.output[0])
    _rename(site.nodes, telling)
    return telling[last]


def _rename(nodes: list[onnx.NodeProto], renamed: Mapping[str, str]) -> None:
    """Let the nodes, and the graphs inside them that see outer values, read the masked values; in place."""
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                # ONNX forbids an inner graph to use an outer name for something else.
                _rename(list(inner.node), renamed)
                for output in inner.output:
                    output.name = renamed.get(output.name, output.name)
