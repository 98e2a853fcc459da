"""What a client of the protocol offers, whichever way it speaks, and where it connects to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from siniantrust.errors import DeviceError
from siniantrust.odla._device import Arrays
from siniantrust.odla.oip._guard import is_loopback
from siniantrust.odla.oip._messages import InferAnswer, ModelMetadata

MAX_ANSWER_BYTES = 256 * 2**20
"""An answer beyond this is refused before it is read."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model at a server. ``version`` is empty when the server is to choose."""

    url: str
    scheme: str
    host: str
    port: int
    model: str
    version: str
    timeout_s: float
    ca_file: Path | None
    token: str | None

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection runs over TLS."""
        return self.scheme in {"grpcs", "https"}


class Client(Protocol):
    """One way to speak to a server. A call after a lost connection connects anew."""

    def server_ready(self) -> bool:
        """Ask whether the server takes requests."""

    def model_ready(self) -> bool:
        """Ask whether the model does."""

    def model_metadata(self) -> ModelMetadata:
        """Ask what the model takes and gives."""

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> InferAnswer:
        """Run the model.

        Raises:
            DeviceLostError: if the connection is refused, drops or times out.
            ProtocolError: if the answer is not one.
            DeviceError: if the server refuses the request.
        """

    def close(self) -> None:
        """Hang up; calling it again does nothing."""


def read_url(url: str) -> tuple[str, str, int]:
    """Split ``grpc://host:port``, ``grpcs://``, ``http://`` or ``https://`` into scheme, host and port.

    Raises:
        DeviceError: for any other form.
    """
    problem = DeviceError(
        f"url {url!r} must be grpc://host:port, grpcs://host:port, http://host:port or https://host:port"
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise problem from None
    if parts.scheme not in {"grpc", "grpcs", "http", "https"} or not parts.hostname or port is None:
        raise problem
    if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username is not None:
        raise problem
    return parts.scheme, parts.hostname, port


def check_token_is_safe(target: Target) -> None:
    """Raise DeviceError if a token would travel over a network in the clear."""
    if target.token is not None and not target.is_encrypted and not is_loopback(target.host):
        raise DeviceError(
            f"a token would travel to {target.url} in the clear; use {target.scheme}s:// or leave out token_env"
        )
