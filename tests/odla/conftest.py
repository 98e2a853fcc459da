"""Fixtures of the odla tests: servers that run in this process, and devices that speak to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from odla_parts import save

from siniantrust.graph import Part
from siniantrust.odla import Device, DeviceSpec, open_device
from siniantrust.odla.oip import Endpoints, Server

Serve = Callable[..., Endpoints]
OpenRemote = Callable[..., Device]


@pytest.fixture
def serve_part(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that serves a part until the test ends."""
    with ExitStack() as stack:

        def start(part: Part, **options: Any) -> Endpoints:
            path = save(part, tmp_path / f"served{len(list(tmp_path.iterdir()))}")
            return stack.enter_context(Server(path, **options))

        yield start


@pytest.fixture
def open_remote() -> OpenRemote:
    """Return a function that opens a remote device."""

    def opened(url: str, **options: Any) -> Device:
        return open_device(DeviceSpec("cloud", "remote", {"url": url, **options}))

    return opened
