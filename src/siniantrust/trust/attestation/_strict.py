"""Readers for JSON and base64url that take one form only, and what they say in one line."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from siniantrust.errors import AttestationError


def read_object(raw: bytes, what: str, *, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object of at most ``max_bytes`` in which no name stands twice; ``what`` names it in errors.

    Raises:
        AttestationError: if it is none.
    """
    if len(raw) > max_bytes:
        raise AttestationError(f"{what}: expected at most {max_bytes} bytes, found {len(raw)}")
    try:
        found = json.loads(raw, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as fault:
        raise AttestationError(f"{what}: expected JSON, found a fault in it ({fault})") from None
    if not isinstance(found, dict):
        raise AttestationError(f"{what}: expected a JSON object, found {type(found).__name__}")
    return found


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that stands twice")
    return found


def one_line(text: object) -> str:
    """Return a library's message, or a name that somebody chose, without its line breaks."""
    return " ".join(str(text).split())


def to_base64url(raw: bytes) -> str:
    """Return bytes as base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(text: object, what: str) -> bytes:
    """Return the bytes that ``to_base64url`` made this text from.

    Raises:
        AttestationError: if it made no such text.
    """
    try:
        if isinstance(text, str):
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if to_base64url(raw) == text:
                return raw
    except (binascii.Error, ValueError):
        pass
    raise AttestationError(f"{what}: expected base64url without padding, found something else")
