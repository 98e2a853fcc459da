"""Put a mask into a model: behind the tensors of a cut, before everything that reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx

from siniantrust.graph import Cut, Model, Tensor, prefix_nodes
from siniantrust.masking._registry import Mask, MaskError, list_masks
from siniantrust.masking._site import Site

_FLOATS = ("float16", "float32", "float64")
# From here on Min and Max broadcast.
_LEAST_OPSET = 8


def apply_mask(
    model: Model, cut: Cut, name: str, *, strength: float, seed: int, sample: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """Return ``model`` with a mask on what crosses ``cut``.

    Behind each tensor T of the cut the mask's nodes compute ``T_masked``, of the same shape and type, with the batch
    still free; everything after the cut reads that instead. The model before the cut and the names of its inputs and
    outputs stay. In the result, ``T_masked`` is what crosses.

    Args:
        model: The model.
        cut: Where what crosses is masked; a cut of this model.
        name: One of ``list_masks``.
        strength: How strong the mask is, in the mask's own unit: as a rule the tensor's standard deviation.
        seed: Chooses what is fixed and secret (a permutation, a bank). Noise drawn for each query has no seed.
        sample: Values of each of the cut's tensors on calibration items, as the model gives them; only their mean,
            standard deviation and range are used.

    Raises:
        MaskError: if the mask is unknown, the strength is negative or not finite, a tensor of the cut is an output of
            the model (it would leave unmasked all the same), is no floating-point number or has no axis, values are
            missing or not finite, or the model's opset is older than 8.
        PlanError: if the cut is of another model.
    """
    masks = list_masks()
    if name not in masks:
        raise MaskError(f"mask {name!r} is unknown; there are {', '.join(masks)}")
    if not (math.isfinite(strength) and strength >= 0):
        raise MaskError(f"mask {name!r}: strength must be a finite number of at least 0, found {strength}")
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
    for index, tensor_name in enumerate(cut.tensors):
        tensor = _maskable(model, tensor_name)
        site = _site(tensor, _values(sample, tensor_name), strength=strength, seed=(seed, index))
        renamed[tensor_name] = _build(masks[name], site, model)
        added += site.nodes
        proto.graph.initializer.extend(site.constants)
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


def _site(tensor: Tensor, values: np.ndarray, *, strength: float, seed: tuple[int, int]) -> Site:
    low, high = float(values.min()), float(values.max())
    alike = high == low
    return Site(
        tensor=tensor,
        strength=strength,
        mean=float(values.mean()),
        spread=1.0 if alike else float(values.std()),
        low=low,
        high=low + 1.0 if alike else high,
        generator=np.random.default_rng(seed),
    )


def _build(mask: Mask, site: Site, model: Model) -> str:
    """Let the mask add its nodes, give the last one's output its telling name, and return that."""
    mask.build(site)
    masked = f"{site.value}_masked"
    taken = model.tensors.keys() | {tensor.name for tensor in model.proto.graph.initializer}
    made = {masked, *(output for node in site.nodes for output in node.output), *(c.name for c in site.constants)}
    if clash := made & taken:
        raise MaskError(f"model '{model.name}' already has a value '{min(clash)}'; rename it to mask '{site.value}'")
    site.nodes[-1].output[0] = masked
    return masked


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
