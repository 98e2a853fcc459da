"""Addresses as ``HOST:PORT``; an IPv6 host stands in brackets."""

from __future__ import annotations

import re
from typing import NamedTuple

from siniantrust.errors import ChannelError

_FORM = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_MAX_PORT = 65535


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as ``parse_address`` reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``[IPV6]:PORT``.

    Raises:
        ChannelError: if it has another form.
    """
    match = _FORM.fullmatch(text)
    if match is None or int(match["port"]) > _MAX_PORT:
        raise ChannelError(f"address {text[:100]!r}: expected HOST:PORT, for example 127.0.0.1:7443 or [::1]:7443")
    return Address(match["six"] or match["host"], int(match["port"]))
