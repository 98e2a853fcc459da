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

Attester = Annotated[
    str,
    typer.Option("--attester", help="What makes evidence here: configfs-tsm, gramine, tpm2[:swtpm:...] or simulated."),
]
Endorsements = Annotated[
    list[str] | None,
    typer.Option("--endorsement", metavar="NAME=FILE", help="Add to the evidence, e.g. collateral; repeat for more."),
]
BrokerAddress = Annotated[str, typer.Option("--broker", metavar="HOST:PORT", help="Where the key broker listens.")]
BrokerKey = Annotated[
    str, typer.Option("--broker-key", metavar="SHA256", help="The broker's key, as `sinian keys serve` prints it.")
]
BrokerStore = Annotated[
    Path | None, typer.Option("--store", help="Folder of the key broker; default: broker in the key store.")
]
ReferenceFile = Annotated[
    Path, typer.Option("--reference", "-r", help="TOML file of reference values: who may have the key.")
]
Lineage = Annotated[str, typer.Option("--lineage", help="Name of what has versions, e.g. the model.")]
Version = Annotated[int, typer.Option("--version", min=1, help="Version; once released, older ones are refused.")]


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
