"""The table of operators: what each function may be asked, and how it is found. Importing this imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import onnx
from onnx import helper

from siniantrust._extras import require

_MODULES = (
    "_elementwise",
    "_convolution",
    "_pooling",
    "_shape",
    "_select",
    "_resize",
    "_reduction",
    "_normalisation",
    "_product",
    "_quantise",
    "_random",
)
_DOMAINS = ("", "ai.onnx")
_table: dict[str, Operator] = {}


@dataclass(frozen=True, slots=True)
class Call:
    """One node as its operator's function sees it; ``outputs`` counts the outputs up to the last one that is named."""

    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or ``default`` if the node does not have it."""
        return self.attributes.get(name, default)


@dataclass(frozen=True, slots=True)
class Operator:
    """A function from a call and its inputs to one tensor or several, and the calls that it can serve.

    Attributes:
        run: gets the call, then one tensor (None where omitted) for each of the node's inputs.
        attributes: the attributes that it knows.
        only: for some of them, which values it can serve.
        outputs: how many outputs it can give, None for any number.
        train: what takes the place of ``run`` where the node acts as in training, if that differs.
    """

    run: Callable[..., Any]
    attributes: frozenset[str] = frozenset()
    only: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    outputs: int | None = 1
    train: Callable[..., Any] | None = None


def operator(
    *names: str,
    attributes: str = "",
    only: Mapping[str, Callable[[Any], bool]] | None = None,
    outputs: int | None = 1,
    train: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the decorated function into the table under the operators' ``names``; see ``Operator``."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        known = frozenset(attributes.split()) | frozenset(only or {})
        for name in names:
            _table[name] = Operator(function, known, only or {}, outputs, train)
        return function

    return enter


def one_of(*values: Any) -> Callable[[Any], bool]:
    """Return a check that an attribute has one of ``values``."""
    return lambda found: found in values


def each_is(value: int) -> Callable[[Any], bool]:
    """Return a check that every number of an attribute is ``value``."""
    return lambda found: all(number == value for number in found)


@cache
def operators() -> Mapping[str, Operator]:
    """Return the table by ONNX's names; the first call imports torch.

    Raises:
        MissingExtraError: if torch is not installed.
    """
    require("torch", extra="leakage")
    for module in _MODULES:
        importlib.import_module(f"{__package__}.{module}")
    return _table


def make_call(node: onnx.NodeProto, opset: int) -> Call:
    """Return ``node`` with its attributes as Python values, text decoded."""
    attributes = {attribute.name: _plain(helper.get_attribute_value(attribute)) for attribute in node.attribute}
    named = [index for index, name in enumerate(node.output) if name]
    return Call(node.op_type, opset, attributes, max(named, default=-1) + 1)


def why_not(node: onnx.NodeProto, call: Call) -> str | None:
    """Return why ``node`` cannot be run, or None if it can."""
    found = operators().get(node.op_type)
    if node.domain not in _DOMAINS or found is None:
        return "the operator is not in the table"
    for name, value in call.attributes.items():
        if name not in found.attributes:
            return f"attribute '{name}' is not supported"
        if name in found.only and not found.only[name](value):
            return f"attribute '{name}' = {value!r} is not supported"
    if found.outputs is not None and call.outputs > found.outputs:
        return f"{call.outputs} outputs are asked for, {found.outputs} can be given"
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return [text.decode() for text in value]
    return value
