"""Parts by themselves: read back from a file, identified, and measured for the memory that they need."""

from __future__ import annotations

import onnx

from siniantrust.errors import ModelError
from siniantrust.graph._check import check_contents, run_checker
from siniantrust.graph._infer import dtype_name, infer, known_shapes
from siniantrust.graph._read import expected_bytes, require_model
from siniantrust.graph._shapes import read_type
from siniantrust.graph._skeleton import digest
from siniantrust.graph._types import Part, Tensor
from siniantrust.graph._uses import makes, uses


def part_from_proto(proto: onnx.ModelProto, *, name: str) -> Part:
    """Check a part that was read from a file and describe it; ``proto`` is kept as it is, not copied.

    Raises:
        ModelError: if it is no valid model, node names are missing or repeated, or an input or output is no tensor of
            known shape (one free dimension, the batch, is allowed in each).
    """
    origin = f"part '{name}'"
    require_model(proto, origin=origin)
    check_contents(proto, origin=origin)
    run_checker(proto, origin=origin)
    names = tuple(node.name for node in proto.graph.node)
    if not all(names) or len(set(names)) != len(names):
        raise ModelError(f"{origin}: every node needs a name of its own; this is no part that SinianTrust wrote")
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs, outputs = [], []
    symbols: set[str] = set()
    for value in proto.graph.input:
        tensor, symbol = _described(value, origin=origin)
        if 0 in tensor.shape or value.name in constants:
            raise ModelError(f"{origin}: input '{value.name}' needs a known shape and no default; found {tensor.shape}")
        inputs.append(tensor)
        symbols.update([symbol] if symbol else [])
    for value in proto.graph.output:
        tensor, symbol = _described(value, origin=origin)
        outputs.append(tensor)
        symbols.update([symbol] if symbol else [])
    if len(symbols) > 1:
        raise ModelError(f"{origin}: one free dimension, the batch, is allowed; found {sorted(symbols)}")
    batch_symbol = next(iter(symbols), None)
    return Part(
        name=name,
        proto=proto,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        node_names=names,
        batch_symbol=batch_symbol,
    )


def part_digest(part: Part) -> str:
    """Return the SHA-256 of the part's deterministic serialisation, in hexadecimal; its name does not matter."""
    return digest(part.proto)


def peak_bytes(part: Part) -> int:
    """Return the memory that ``part`` needs for one batch item: all weights, and the most activations alive at once.

    An activation lives from the node that makes it to the last that reads it; inputs from the start, outputs to the
    end. Values of unknown shape count as nothing. What a runtime adds (work space, code) is not in it.
    """
    graph = part.proto.graph
    values = infer(part.proto, symbol=part.batch_symbol, origin=f"part '{part.name}'")
    sizes = {
        name: Tensor(name, dtype_name(values[name].elem_type), shape).size_bytes
        for name, shape in known_shapes(values).items()
    }
    weights = {tensor.name: expected_bytes(tensor) for tensor in graph.initializer}
    last = {name: index for index, node in enumerate(graph.node) for name in uses(node)}
    last |= {value.name: len(graph.node) for value in graph.output}
    live = {value.name for value in graph.input}
    current = sum(sizes.get(name, 0) for name in live)
    peak = current
    for index, node in enumerate(graph.node):
        made = makes(node)
        current += sum(sizes.get(name, 0) for name in made)
        live.update(made)
        peak = max(peak, current)
        for name in {*uses(node), *made}:
            if name in live and last.get(name, index) <= index:
                live.discard(name)
                current -= sizes.get(name, 0)
    return peak + sum(weights.values())


def _described(value: onnx.ValueInfoProto, *, origin: str) -> tuple[Tensor, str | None]:
    kind = value.type.tensor_type
    if not kind.elem_type or kind.elem_type not in onnx.TensorProto.DataType.values():
        raise ModelError(f"{origin}: '{value.name}' is no tensor of a known type")
    if sum(bool(dim.dim_param) for dim in kind.shape.dim) > 1:
        raise ModelError(f"{origin}: '{value.name}' has several free dimensions; only the batch may be free")
    return read_type(value)
