"""``structure.json``: the graph without weights, so that a plan can be validated where the weights are not."""

from __future__ import annotations

from typing import Literal

import onnx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from siniantrust.errors import BundleError
from siniantrust.graph import Model, Node, Tensor


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class TensorEntry(_Record):
    """A ``graph.Tensor``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    batch_axis: int | None


class NodeEntry(_Record):
    """A ``graph.Node``; its index is its position."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: int = Field(ge=0)
    parameters: int = Field(ge=0)
    parameter_bytes: int = Field(ge=0)
    activation_bytes: int = Field(ge=0)


class Structure(_Record):
    """A ``graph.Model`` without its ``proto``."""

    schema_version: Literal[1] = 1
    name: str
    sha256: str
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    nodes: tuple[NodeEntry, ...]
    tensors: tuple[TensorEntry, ...]
    batch_symbol: str | None


def dump_structure(model: Model) -> bytes:
    """Return the bytes of ``structure.json``."""
    structure = Structure(
        name=model.name,
        sha256=model.sha256,
        inputs=tuple(map(describe_tensor, model.inputs)),
        outputs=tuple(map(describe_tensor, model.outputs)),
        nodes=tuple(
            NodeEntry(
                name=node.name,
                op_type=node.op_type,
                inputs=node.inputs,
                outputs=node.outputs,
                flops=node.flops,
                parameters=node.parameters,
                parameter_bytes=node.parameter_bytes,
                activation_bytes=node.activation_bytes,
            )
            for node in model.nodes
        ),
        tensors=tuple(map(describe_tensor, model.tensors.values())),
        batch_symbol=model.batch_symbol,
    )
    return structure.model_dump_json().encode() + b"\n"


def parse_structure(raw: bytes, *, origin: str) -> Model:
    """Return the model that ``structure.json`` describes; its ``proto`` is empty.

    Raises:
        BundleError: if it is malformed.
    """
    try:
        structure = Structure.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        raise BundleError(" ".join(f"{origin}: {place}: {first['msg']}; build it again".split())) from None
    return Model(
        name=structure.name,
        source=None,
        sha256=structure.sha256,
        proto=onnx.ModelProto(),
        inputs=tuple(map(restore_tensor, structure.inputs)),
        outputs=tuple(map(restore_tensor, structure.outputs)),
        nodes=tuple(Node(index=index, **entry.model_dump()) for index, entry in enumerate(structure.nodes)),
        tensors={entry.name: restore_tensor(entry) for entry in structure.tensors},
        batch_symbol=structure.batch_symbol,
    )


def describe_tensor(tensor: Tensor) -> TensorEntry:
    """Return a tensor as data."""
    return TensorEntry(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, batch_axis=tensor.batch_axis)


def restore_tensor(entry: TensorEntry) -> Tensor:
    """Return the tensor that the data describes."""
    return Tensor(entry.name, entry.dtype, entry.shape, entry.batch_axis)
