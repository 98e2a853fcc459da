"""Shapes: which dimensions are free, which one is the batch, and what every value looks like for one batch item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TypeProto, helper

from siniantrust.errors import ModelError
from siniantrust.graph._infer import MULTIPLE, Value, dtype_name, infer
from siniantrust.graph._types import Tensor

# A second batch size tells which dimensions follow the batch. A prime that no layer has as a size by accident.
_PROBE = 7


@dataclass(frozen=True)
class Shapes:
    """Every value for one batch item, and for ``_PROBE`` items where the batch is free (else the same again)."""

    one: Mapping[str, Value]
    probe: Mapping[str, Value]
    batch_symbol: str | None

    def tensor(self, name: str) -> Tensor | None:
        """Return the value as a tensor, or None when its shape is unknown or follows the batch irregularly."""
        one, probe = self.one.get(name), self.probe.get(name)
        if one is None or probe is None or len(one.dims) != len(probe.dims):
            return None
        axis = None
        for index, (size, probed) in enumerate(zip(one.dims, probe.dims, strict=True)):
            if size is None or probed is None:
                return None
            if size != probed:
                if axis is not None or probed != size * _PROBE:
                    return None
                axis = index
        known = tuple(size for size in one.dims if size is not None)
        return Tensor(name, dtype_name(one.elem_type), known, axis)

    def fixed(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a value if it is known and does not follow the batch, else None."""
        tensor = self.tensor(name)
        return None if tensor is None or tensor.batch_axis is not None else tensor.shape

    def type_of(self, name: str) -> TypeProto | None:
        """Return the value's ONNX type, the batch written as its symbol and unknown dimensions left open."""
        one = self.one.get(name)
        if one is None:
            return None
        probe = self.probe.get(name, one)
        if len(probe.dims) != len(one.dims):
            return None
        dims: list[int | str | None] = []
        for size, probed in zip(one.dims, probe.dims, strict=True):
            if size == probed:
                dims.append(size)
            elif size and probed == size * _PROBE:
                dims.append(self.batch_symbol if size == 1 else f"{size}*{self.batch_symbol}")
            else:
                dims.append(None)
        return helper.make_tensor_type_proto(one.elem_type, dims)


def resolve_shapes(proto: onnx.ModelProto, dims: Mapping[str, int], *, origin: str) -> Shapes:
    """Give every free dimension of the inputs its value (in place), find the batch, and infer all shapes.

    The batch is a free first dimension that all inputs share, that is free nowhere else, and that every output has as
    its first dimension too. An unnamed free dimension is called ``INPUT.AXIS``, or ``batch`` where it is the first of
    the only input.

    Raises:
        ModelError: if a free dimension has no value, ``dims`` names none that exists, or shapes contradict each other.
    """
    symbol = _settle_dims(proto.graph, dims, origin=origin)
    one = infer(proto, symbol=symbol, origin=origin)
    if symbol is None:
        return Shapes(one=one, probe=one, batch_symbol=None)
    first = proto.graph.input[0].name
    try:
        probe = infer(proto, symbol=symbol, size=_PROBE, origin=origin)
    except ModelError:
        raise _free_error(origin, first, 0, symbol, why="the model works for one batch size only") from None
    for value in proto.graph.output:
        sizes = probe[value.name].dims if value.name in probe else ()
        declared = [dim.dim_param for dim in _dims(value)]
        leading = sizes[0] if sizes else 0
        if leading != _PROBE and not (leading is None and declared and declared[0] == symbol):
            raise _free_error(
                origin, first, 0, symbol, why=f"output '{value.name}' does not have it as first dimension"
            )
    return Shapes(one=one, probe=probe, batch_symbol=symbol)


def _settle_dims(graph: onnx.GraphProto, dims: Mapping[str, int], *, origin: str) -> str | None:
    """Write ``dims`` into the graph and return what may be the batch; raise for anything else that is still free."""
    _name_free_dims(graph)
    names = list(dict.fromkeys(dim.dim_param for value in graph.input for dim in _dims(value) if dim.dim_param))
    for name, size in dims.items():
        if name not in names:
            known = ", ".join(f"'{each}'" for each in names) or "none"
            raise ModelError(f"{origin}: no input has a free dimension '{name}'; free dimensions: {known}")
        if size < 1:
            raise ModelError(f"{origin}: dimension '{name}' must be at least 1, found {size}")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in _dims(value):
            if dim.dim_param in dims:
                dim.dim_value = dims[dim.dim_param]
    symbol = _batch_candidate(graph)
    for value in graph.input:
        for axis, dim in enumerate(_dims(value)):
            if dim.dim_param and dim.dim_param != symbol:
                raise _free_error(origin, value.name, axis, dim.dim_param)
    return symbol


def read_type(value: onnx.ValueInfoProto) -> tuple[Tensor, str | None]:
    """Read back what ``Shapes.type_of`` wrote: the tensor of one item, and the symbol of its batch axis if it has one.

    Open dimensions become 0.
    """
    shape: list[int] = []
    axis, symbol = None, None
    for index, dim in enumerate(_dims(value)):
        multiple = MULTIPLE.match(dim.dim_param)
        if dim.dim_param:
            axis, symbol = index, multiple[2] if multiple else dim.dim_param
        shape.append(int(multiple[1]) if multiple else 1 if dim.dim_param else dim.dim_value)
    return Tensor(value.name, dtype_name(value.type.tensor_type.elem_type), tuple(shape), axis), symbol


def _free_error(origin: str, name: str, axis: int, symbol: str, *, why: str = "") -> ModelError:
    reason = f" and cannot stay free ({why})" if why else ""
    what = f"input '{name}': dimension {axis} is '{symbol}', without a value"
    return ModelError(f"{origin}: {what}{reason}; give it: --dim {symbol}=VALUE")


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _name_free_dims(graph: onnx.GraphProto) -> None:
    """Name the free dimensions of the inputs that have no name."""
    taken = {dim.dim_param for value in graph.input for dim in _dims(value)}
    for value in graph.input:
        for axis, dim in enumerate(_dims(value)):
            if not dim.HasField("dim_value") and not dim.dim_param:
                alone = len(graph.input) == 1 and axis == 0 and "batch" not in taken
                dim.dim_param = "batch" if alone else f"{value.name}.{axis}"


def _batch_candidate(graph: onnx.GraphProto) -> str | None:
    """Return the free first dimension that all inputs share, if it is free nowhere else."""
    leading = {dims[0].dim_param if (dims := _dims(value)) else "" for value in graph.input}
    others = {dim.dim_param for value in graph.input for dim in _dims(value)[1:]}
    if len(leading) != 1:
        return None
    symbol = leading.pop()
    return symbol if symbol and symbol not in others else None
