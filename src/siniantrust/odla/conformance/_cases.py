"""ONNX's cases as parts with inputs and expected outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from siniantrust.errors import ModelError
from siniantrust.graph import Part, part_from_proto

# These draw random numbers, so that only dtype and shape can be compared.
_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
# ONNX gives no tolerance with its light models: they are compared over hundreds of layers.
_LIGHT_RTOL, _LIGHT_ATOL = 1e-3, 1e-5


@dataclass(frozen=True)
class Case:
    """One of ONNX's cases.

    Attributes:
        name: ONNX's name of it.
        operator: the node's operator, ``(several)`` for a case of several nodes, ``(model)`` for a whole network.
        part: the case as a part, or None where it is none.
        why_no_part: why it is no part: a sequence, an optional or a string at its edge, say.
        inputs: arrays by name.
        expected: what ONNX expects, by name.
        values_count: False where the operator draws random numbers; then dtypes and shapes are compared.
        rtol: relative tolerance.
        atol: absolute tolerance.
    """

    name: str
    operator: str
    part: Part | None = field(repr=False)
    why_no_part: str
    inputs: dict[str, np.ndarray] = field(repr=False)
    expected: dict[str, np.ndarray] = field(repr=False)
    values_count: bool = True
    rtol: float = 1e-3
    atol: float = 1e-5


@cache
def node_cases() -> tuple[Case, ...]:
    """Return ONNX's cases for single operators, among them operators written out as functions, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators of these cases overflow on purpose
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    found = {case.name: case for case in collected if case.model is not None and case.data_sets}
    return tuple(_case(found[name]) for name in sorted(found))


@cache
def light_cases() -> tuple[Case, ...]:
    """Return the networks that ship with ONNX: their shapes are real, their weights are constants."""
    from onnx.backend import test

    folder = Path(test.__file__).parent / "data" / "light"
    return tuple(_light(path) for path in sorted(folder.glob("light_*.onnx")))


def sample(cases: Iterable[Case], *, per_operator: int) -> tuple[Case, ...]:
    """Return the first ``per_operator`` cases of each operator that are parts."""
    taken: dict[str, int] = {}
    chosen = []
    for case in cases:
        if case.part is not None and taken.get(case.operator, 0) < per_operator:
            taken[case.operator] = taken.get(case.operator, 0) + 1
            chosen.append(case)
    return tuple(chosen)


def _case(source: Any) -> Case:
    model: onnx.ModelProto = source.model
    nodes = model.graph.node
    operator = nodes[0].op_type if len(nodes) == 1 else "(several)"
    part, reason = _part(model, source.name)
    inputs, outputs = source.data_sets[0]
    try:
        given = _arrays(model.graph.input, inputs)
        expected = _arrays(model.graph.output, outputs)
    except (TypeError, ValueError) as error:
        return Case(source.name, operator, None, reason or str(error), {}, {})
    return Case(
        source.name,
        operator,
        part,
        reason,
        given,
        expected,
        values_count=not any(node.op_type in _RANDOM for node in nodes),
        rtol=source.rtol,
        atol=max(source.atol, Case.atol),
    )


def _part(model: onnx.ModelProto, name: str) -> tuple[Part | None, str]:
    """Return the model as a part, its nodes named, or why it is none."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}{index}"
    try:
        return part_from_proto(proto, name=name), ""
    except ModelError as refusal:
        return None, str(refusal)


def _arrays(ports: Iterable[onnx.ValueInfoProto], values: Iterable[Any]) -> dict[str, np.ndarray]:
    """Return values as arrays by name.

    Raises:
        TypeError: for a value that is no tensor.
        ValueError: if there are more or fewer values than ports.
    """
    found = {}
    for port, value in zip(ports, values, strict=True):
        array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        if not isinstance(array, np.ndarray | np.generic):
            raise TypeError(f"{port.name!r} is no tensor")
        found[port.name] = np.asarray(array)
    return found


def _light(path: Path) -> Case:
    model = onnx.load(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(given)
    model.ir_version = max(model.ir_version, 4)  # before, weights had to be inputs too
    part, reason = _part(model, path.stem)
    inputs = {} if part is None else {tensor.name: _ramp(tensor.shape) for tensor in part.inputs}
    outputs = [
        onnx.load_tensor(path.with_name(f"{path.stem}_output_{index}.pb")) for index in range(len(model.graph.output))
    ]
    expected = _arrays(model.graph.output, outputs)
    return Case(path.stem, "(model)", part, reason, inputs, expected, rtol=_LIGHT_RTOL, atol=_LIGHT_ATOL)


def _ramp(shape: tuple[int, ...]) -> np.ndarray:
    """Return the input that ONNX computed the expected outputs from."""
    size = int(np.prod(shape))
    return (np.arange(size).reshape(shape) / size).astype(np.float32)
