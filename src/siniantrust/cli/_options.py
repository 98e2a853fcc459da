"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siniantrust.errors import SinianError
from siniantrust.odla import DeviceSpec

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file.")]
BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `sinian build` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Dims = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=VALUE", help="Value of a free dimension; repeat for more.")
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="NAME=URL", help="Reach a device of the policy at a server: grpc:// or http://."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Keys = Annotated[Path | None, typer.Option("--keys", help="Key store; default $SINIAN_KEYS or ~/.config/siniantrust.")]


def parse_dims(given: list[str] | None) -> dict[str, int]:
    """Read ``NAME=VALUE`` options.

    Raises:
        SinianError: for one of another form.
    """
    dims = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not separator or not name or not value.isdecimal() or int(value) < 1:
            raise SinianError(f"--dim {text}: expected NAME=VALUE with a positive whole number")
        dims[name] = int(value)
    return dims


def parse_devices(given: list[str] | None) -> dict[str, DeviceSpec]:
    """Read ``NAME=URL`` options.

    Raises:
        SinianError: for one of another form.
    """
    devices = {}
    for text in given or ():
        name, separator, url = text.partition("=")
        if not separator or not name or not url:
            raise SinianError(f"--device {text}: expected NAME=URL, for example cloud=grpc://127.0.0.1:8001")
        devices[name] = DeviceSpec(name=name, backend="remote", options={"url": url})
    return devices
