"""The command that appraises evidence: verify."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siniantrust.cli._options import Json
from siniantrust.cli._show import show_json, show_line, show_table
from siniantrust.errors import AttestationError, SinianError

if TYPE_CHECKING:
    from siniantrust.trust.attestation import AttestationResult


def verify(
    evidence: Annotated[Path, typer.Argument(metavar="EVIDENCE", help="Evidence bundle (JSON); see attestation.md.")],
    *,
    reference: Annotated[Path, typer.Option("--reference", "-r", help="Reference values (TOML).")],
    binding: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="What the evidence must carry: 64 bytes, zeros added."),
    ] = None,
    nonce: Annotated[str | None, typer.Option(metavar="HEX", help="Our challenge; with --runtime-data.")] = None,
    runtime_data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the Attester vouches for, mostly its public key in DER.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Appraise as of this time (ISO 8601 with zone)."),
    ] = None,
    ear_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Private key (P-256 or Ed25519) to sign the EAR.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the EAR, with --ear-key.")] = None,
    as_json: Json = False,
) -> None:
    """Appraise evidence against reference values; exit code 0 only if all that is required is affirmed."""
    from siniantrust._files import write_atomic
    from siniantrust.trust import attestation

    if (ear_key is None) != (out is None):
        raise SinianError("verify: --ear-key and --out go together: one signs the result, the other says where it goes")
    wanted = _binding(binding, nonce, runtime_data)
    now = datetime.now(UTC) if at is None else _time(at)
    given = attestation.load_reference(reference)
    bundle = attestation.load_evidence(evidence)
    result = attestation.verifier(bundle.kind).appraise(bundle, binding=wanted, reference=given.values, now=now)
    refusal = given.refusal(result)
    if ear_key is not None and out is not None:
        token = attestation.sign_result(result, ear_key.read_bytes(), binding=wanted, now=datetime.now(UTC))
        write_atomic(out, token.encode())
    if as_json:
        show_json({**_fields(result), "refusal": refusal})
    else:
        _show(result)
    if refusal is not None:
        raise AttestationError(f"evidence {evidence}: not affirmed: {refusal}")


def _binding(binding: str | None, nonce: str | None, runtime_data: Path | None) -> bytes:
    from siniantrust.trust.attestation import BINDING_BYTES, bind

    if binding is not None and nonce is None and runtime_data is None:
        found = _from_hex("--binding", binding)
        if len(found) > BINDING_BYTES:
            raise SinianError(f"--binding: expected at most {BINDING_BYTES} bytes, found {len(found)}")
        return found.ljust(BINDING_BYTES, b"\0")
    if binding is None and nonce is not None and runtime_data is not None:
        return bind(_from_hex("--nonce", nonce), runtime_data.read_bytes())
    raise SinianError("verify: expected either --binding, or --nonce with --runtime-data: else a replay would pass")


def _from_hex(option: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise SinianError(f"{option} {text}: expected hexadecimal") from None


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise SinianError(f"--at {text}: expected a time with its zone, for example 2025-06-20T12:00:00Z")
    return found


def _fields(result: AttestationResult) -> dict[str, object]:
    return {
        "kind": result.kind,
        "provenance": result.provenance.value,
        "status": result.tier.name.lower(),
        "affirmed": result.affirmed,
        "vector": {claim.value: tier.name.lower() for claim, tier in result.vector.items()},
        "required": sorted(result.required),
        "claims": dict(result.claims),
        "unchecked": list(result.unchecked),
        "appraised_at": result.appraised_at.isoformat(),
    }


def _show(result: AttestationResult) -> None:
    show_table(("claim", "value"), sorted(result.claims.items()), title=f"what the {result.kind} evidence says")
    show_table(
        ("trust in", "tier", "required"),
        (
            (claim.value, tier.name.lower(), "yes" if claim in result.required else "")
            for claim, tier in result.vector.items()
        ),
        title="trust vector",
    )
    for each in result.unchecked:
        show_line(f"unchecked: {each}")
    show_line(f"provenance: {result.provenance}; status: {result.tier.name.lower()}")
