"""Commands for Gramine: gramine manifest, gramine reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siniantrust.cli._options import BrokerAddress, BrokerKey, BundleFolder, Keys
from siniantrust.cli._show import show_line

gramine_app = typer.Typer(
    name="gramine",
    help="Prepare an SGX enclave of Gramine for a bundle.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@gramine_app.command()
def manifest(
    bundle: BundleFolder,
    *,
    broker: BrokerAddress,
    broker_key: BrokerKey,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the enclave listens.")] = "0.0.0.0:7443",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the template to.")],
    keys: Keys = None,
) -> None:
    """Write the manifest's template for a bundle's enclave."""
    from siniantrust._files import write_atomic
    from siniantrust.bundle import KeyStore, TrustedPart, load_bundle
    from siniantrust.trust.gramine import NAME, EnclavePlan, manifest_template

    loaded = load_bundle(bundle, keystore=KeyStore(keys))
    parts = [part.name for part in loaded.parts if isinstance(part, TrustedPart)]
    plan = EnclavePlan(
        bundle_id=loaded.id,
        folder=bundle,
        files=["manifest.json", *(name for name in loaded.manifest.files if name.split("/")[0] in parts)],
        enclave_bytes=loaded.enclave_bytes,
        threads=loaded.plan.policy.enclave.threads,
        listen=listen,
        broker=broker,
        broker_key=broker_key,
    )
    path = out / f"{NAME}.manifest.template"
    write_atomic(path, manifest_template(plan).encode())
    show_line(f"manifest for bundle {loaded.id} written to {path}; its first lines say what to run")


@gramine_app.command()
def reference(
    signature: Annotated[Path, typer.Argument(metavar="SIG", help="The .sig file that gramine-sgx-sign wrote.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="TOML file to write.")],
) -> None:
    """Write the reference values of a signed enclave."""
    from siniantrust._files import write_atomic
    from siniantrust.trust.gramine import parse_sigstruct, reference_toml

    found = parse_sigstruct(signature.read_bytes(), origin=str(signature))
    write_atomic(out, reference_toml(found).encode())
    show_line(f"reference values of enclave {found.mrenclave[:16]}… written to {out}")
