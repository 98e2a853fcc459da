"""The policy's documentation, made from the descriptions on its fields, so that the two cannot drift apart."""

from __future__ import annotations

from enum import StrEnum
from types import NoneType
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from siniantrust.planner._policy import Policy

_HEADER = ("| field | type | default | meaning |", "|---|---|---|---|")


def policy_reference() -> str:
    """Return a Markdown table with one row per field of the policy file: name, type, default and meaning."""
    return "\n".join((*_HEADER, *_rows(Policy, prefix=""))) + "\n"


def _rows(section: type[BaseModel], *, prefix: str) -> list[str]:
    rows: list[str] = []
    for name, field in section.model_fields.items():
        nested, repeated = _nested_section(field.annotation)
        if nested is None:
            rows.append(_row(f"{prefix}{name}", field))
            continue
        heading = f"`[[{prefix}{name}]]`" if repeated else f"`[{prefix}{name}]`"
        meaning = field.description or (nested.__doc__ or "").split(": ", 1)[-1].splitlines()[0].rstrip(".")
        rows.append(f"| {heading} | section | - | {_cell(meaning)} |")
        rows.extend(_rows(nested, prefix=f"{prefix}{name}."))
    return rows


def _nested_section(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, get_origin(annotation) is tuple
    return None, False


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
    return f"| `{name}` | {_cell(_type_name(field.annotation))} | {default} | {_cell(field.description or '')} |"


def _default(value: object) -> str:
    return "not set" if value is None else f"`{_toml(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type_name(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f"`{_toml(value)}`" for value in annotation)
    if get_origin(annotation) is tuple:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        keys, values = get_args(annotation)
        return f"table from {_type_name(keys)} to {_type_name(values)}"
    plain = {str: "string", int: "integer", float: "number", bool: "true or false"}
    if isinstance(annotation, type) and annotation in plain:
        return plain[annotation]
    return " or ".join(_type_name(argument) for argument in get_args(annotation) if argument is not NoneType)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }" if value else "{}"
    return str(value)
