"""A model and its cuts as plain data, for people and for other programs."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from siniantrust.graph._read import expected_bytes
from siniantrust.graph._types import CutSet, Model, Tensor


def describe(model: Model, cuts: CutSet) -> dict[str, Any]:
    """Return what ``sinian inspect`` shows, ready for JSON: interface, totals, operators, and each cut's figures.

    Bytes and FLOPs are for one batch item. ``flops_share_before`` is the share of the whole model's FLOPs that lies
    before a cut, which is what the trusted side would compute.
    """
    constants = model.proto.graph.initializer
    flops = model.flops
    return {
        "name": model.name,
        "sha256": model.sha256,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.proto.opset_import},
        "batch_symbol": model.batch_symbol,
        "inputs": [_tensor(tensor, model.batch_symbol) for tensor in model.inputs],
        "outputs": [_tensor(tensor, model.batch_symbol) for tensor in model.outputs],
        "nodes": len(model.nodes),
        "operators": dict(Counter(node.op_type for node in model.nodes).most_common()),
        "flops": flops,
        "parameters": sum(math.prod(tensor.dims) for tensor in constants),
        "parameter_bytes": sum(expected_bytes(tensor) for tensor in constants),
        "activation_bytes": sum(node.activation_bytes for node in model.nodes),
        "cuts": [
            {
                "id": cut.id,
                "tensors": [_tensor(model.tensors[name], model.batch_symbol) for name in cut.tensors],
                "nodes_before": cut.nodes_before,
                "size_bytes": cut.size_bytes,
                "flops_before": cut.flops_before,
                "flops_share_before": cut.flops_before / flops if flops else 0.0,
                "fusable": cut.fusable,
            }
            for cut in cuts.cuts
        ],
        "single_tensor_cuts": sum(len(cut.tensors) == 1 for cut in cuts.cuts),
        "capped": cuts.capped,
        "cap": cuts.cap,
    }


def _tensor(tensor: Tensor, batch_symbol: str | None) -> dict[str, Any]:
    """Describe a tensor; the batch axis shows its symbol, as a multiple where one item fills several places."""
    shape: list[int | str] = list(tensor.shape)
    if tensor.batch_axis is not None and batch_symbol is not None:
        count = tensor.shape[tensor.batch_axis]
        shape[tensor.batch_axis] = batch_symbol if count == 1 else f"{count}*{batch_symbol}"
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": shape, "size_bytes": tensor.size_bytes}
