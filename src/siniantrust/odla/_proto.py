"""Copying protobuf messages in part."""

from __future__ import annotations

from typing import Any


def copy_fields(source: Any, target: Any, *, leaving_out: str) -> None:
    """Copy the repeated and the plain fields of one message to another of its kind, all but the named one.

    Protobuf copies a whole message by serialising it, which takes long for a model with its weights, and fails for one
    of more than 2 GiB.
    """
    for descriptor, value in source.ListFields():
        if descriptor.name == leaving_out:
            continue
        if hasattr(value, "extend"):
            getattr(target, descriptor.name).extend(value)
        else:
            setattr(target, descriptor.name, value)
