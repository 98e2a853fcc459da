"""The command about the newest version of a bundle's lineage, below which none opens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siniantrust.cli._options import BundleFolder, Json, Keys
from siniantrust.cli._show import show_json, show_line
from siniantrust.errors import SinianError


def counter(
    bundle: BundleFolder,
    *,
    tpm: Annotated[
        str | None, typer.Option(metavar="WHERE", help="Set up a counter in this TPM, such as /dev/tpmrm0.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", "-r", help="TOML file of kind tpm2: who vouches for the TPM.")
    ] = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Say which version of a bundle's lineage is the newest that was opened; with --tpm, a TPM counts from there."""
    from siniantrust.bundle import KeyStore, load_bundle, newest_version, set_up_tpm
    from siniantrust.trust.attestation import load_reference

    keystore = KeyStore(keys)
    manifest = load_bundle(bundle, keystore=keystore).manifest
    shown = {"lineage": manifest.lineage, "version": manifest.version}
    if tpm is not None:
        if reference is None:
            raise SinianError("counter: who vouches for the TPM is not said; give --reference FILE")
        provenance = set_up_tpm(keystore, lineage=manifest.lineage, where=tpm, reference=load_reference(reference))
        shown |= {"tpm": tpm, "provenance": str(provenance)}
    shown |= {"newest": newest_version(keystore, manifest.lineage)}
    if as_json:
        show_json(shown)
        return
    show_line(f"version {manifest.version} of {manifest.lineage}; the newest that was opened is {shown['newest']}")
    if tpm is not None:
        show_line(
            f'TPM {tpm} ({shown["provenance"]}) counts from there; in the policy: [enclave] rollback_tpm = "{tpm}"'
        )
