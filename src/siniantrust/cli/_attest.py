"""Commands about evidence and what is sealed to it: attest, seal, unseal."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from siniantrust.cli._enclave import open_endorsed
from siniantrust.cli._keys import add_key
from siniantrust.cli._options import (
    Attester,
    BrokerAddress,
    BrokerKey,
    BrokerStore,
    Endorsements,
    Lineage,
    ReferenceFile,
    Version,
)
from siniantrust.cli._show import show_line
from siniantrust.errors import SinianError

_KEY_BYTES = 32


def attest(
    *,
    attester: Attester,
    nonce: Annotated[str, typer.Option(metavar="HEX", help="The Verifier's challenge, 32 bytes.")],
    runtime_data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What to vouch for, mostly a public key in DER; default: none."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the evidence, for `sinian verify`.")],
    endorsement: Endorsements = None,
) -> None:
    """Ask this machine's attester for evidence."""
    from siniantrust._files import write_atomic
    from siniantrust.trust.attestation import bind, evidence_to_json

    try:
        challenge = bytes.fromhex(nonce)
    except ValueError:
        raise SinianError(f"--nonce {nonce[:80]}: expected hexadecimal") from None
    binding = bind(challenge, b"" if runtime_data is None else runtime_data.read_bytes())
    evidence = open_endorsed(attester, endorsement).evidence(binding)
    write_atomic(out, evidence_to_json(evidence))
    show_line(f"{evidence.kind} evidence written to {out}")


def seal(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to seal.")],
    *,
    key_id: Annotated[str, typer.Option(help="Name of the new key.")],
    reference: ReferenceFile,
    lineage: Lineage,
    version: Version,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    store: BrokerStore = None,
) -> None:
    """Encrypt a file under a new key, which the broker releases to enclaves that match the reference values."""
    from siniantrust._files import write_atomic
    from siniantrust.trust import seal_file

    key = secrets.token_bytes(_KEY_BYTES)
    sealed = seal_file(file.read_bytes(), key=key, key_id=key_id)
    add_key(store, key_id, key, reference=reference, lineage=lineage, version=version)
    write_atomic(out, sealed)
    show_line(f"{file} sealed under key {key_id}; written to {out}")


def unseal(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `sinian seal` wrote.")],
    *,
    key_id: Annotated[str, typer.Option(help="Name of its key.")],
    attester: Attester,
    broker: BrokerAddress,
    broker_key: BrokerKey,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; it is in the clear.")],
    endorsement: Endorsements = None,
) -> None:
    """Fetch the key from the broker with this machine's evidence, and decrypt a file; run it inside the TEE."""
    from siniantrust._files import write_atomic
    from siniantrust.trust import unseal_file
    from siniantrust.trust.broker import BrokerClient
    from siniantrust.trust.tls import parse_address

    key = BrokerClient(open_endorsed(attester, endorsement), parse_address(broker), pin=broker_key).fetch(key_id)
    write_atomic(out, unseal_file(file.read_bytes(), key=key, key_id=key_id), mode=0o600)
    show_line(f"{file} opened; written to {out}")
