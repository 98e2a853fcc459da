"""Who may call the server, and how: bearer tokens, TLS files, and the warning where neither protects."""

from __future__ import annotations

import hmac
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from siniantrust.errors import DeviceError

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate chain and private key, as PEM files."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """Raise DeviceError if one of the two cannot be read."""
        for file in (self.certificate, self.key):
            if not os.access(file, os.R_OK):
                raise DeviceError(f"TLS file {file} cannot be read")


def token_from(variable: str) -> str:
    """Return the bearer token that the environment variable holds.

    Raises:
        DeviceError: if it is not set or empty; the message names the variable and never shows a token.
    """
    token = os.environ.get(variable, "")
    if not token or not token.isascii() or not token.isprintable():
        raise DeviceError(f"environment variable {variable!r} holds no token; set it, or leave out token_env")
    return token


def is_authorised(header: str | None, token: str | None) -> bool:
    """Say whether an ``Authorization`` header carries ``token``; without a token everybody may call."""
    if token is None:
        return True
    if header is None or header[: len(_SCHEME)].lower() != _SCHEME:
        return False
    return hmac.compare_digest(header[len(_SCHEME) :].encode(), token.encode())


def is_loopback(host: str) -> bool:
    """Say whether ``host`` is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def warnings_for(host: str, *, tls: bool, token: bool) -> tuple[str, ...]:
    """Return what an operator should know about a server that others can reach."""
    if is_loopback(host):
        return ()
    found = []
    if not tls:
        found.append(f"listening on {host} without TLS: whoever is on the network path can read and change tensors")
    if not token:
        found.append(f"listening on {host} without a token: anybody who reaches it may call it")
    return tuple(found)
