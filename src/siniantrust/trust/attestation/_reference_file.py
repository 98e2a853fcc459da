"""The reference file: what a Relying Party accepts, as TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._certificates import load_certificate, load_pem_chain
from siniantrust.trust.attestation._result import AttestationResult, Tier
from siniantrust.trust.attestation._roles import ReferenceValues
from siniantrust.trust.attestation._strict import one_line

_PEM_START = b"-----BEGIN"


class _ReferenceFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    accept: tuple[Provenance, ...] = (Provenance.HARDWARE,)
    accepted: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    at_least: dict[str, Annotated[int, Field(strict=True, ge=0)]] = Field(default_factory=dict)
    anchors: dict[str, Path] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a reference file says.

    Attributes:
        values: what a Verifier compares claims with.
        accept: where the claims may come from.
    """

    values: ReferenceValues
    accept: frozenset[Provenance]

    def refusal(self, result: AttestationResult) -> str | None:
        """Return why a result does not suffice, in one line, or None if it does."""
        if result.provenance not in self.accept:
            accepted = ", ".join(sorted(self.accept)) or "nothing"
            return f"the evidence is {result.provenance}, the reference accepts: {accepted}"
        if result.affirmed:
            return None
        wrong = [f"{claim} is {tier.name.lower()}" for claim, tier in result.vector.items() if tier > Tier.AFFIRMING]
        unmatched = [
            f"{claim} is not affirmed" for claim in sorted(result.required) if not result.vector.get(claim, Tier.NONE)
        ]
        return "; ".join([*wrong, *unmatched, *(f"unchecked: {each}" for each in result.unchecked)])


def load_reference(path: Path) -> Reference:
    """Read a reference file; anchors are paths of certificates (PEM or DER), seen from the file's folder.

    Raises:
        AttestationError: if it cannot be read, is not TOML, or a field is unknown, missing or of another type.
    """
    what = f"reference {path}"
    try:
        fields = _ReferenceFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        anchors = {name: (path.parent / each).read_bytes() for name, each in fields.anchors.items()}
    except OSError as fault:
        raise AttestationError(f"{what}: {fault.filename} cannot be read ({fault.strerror})") from None
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise AttestationError(f"{what}: {one_line(place)}: {first['msg']}") from None
    except (ValueError, RecursionError) as fault:  # not UTF-8, not TOML, brackets without end
        raise AttestationError(f"{what}: not a TOML file ({one_line(fault)})") from None
    values = ReferenceValues(
        kind=fields.kind,
        accepted={name: frozenset(accepted) for name, accepted in fields.accepted.items()},
        at_least=fields.at_least,
        anchors={name: _as_der(raw, f"{what}, anchor {name}") for name, raw in anchors.items()},
    )
    return Reference(values=values, accept=frozenset(fields.accept))


def _as_der(raw: bytes, what: str) -> bytes:
    if not raw.startswith(_PEM_START):
        return load_certificate(raw, what).public_bytes(Encoding.DER)
    chain = load_pem_chain(raw, what)
    if len(chain) != 1:
        raise AttestationError(f"{what}: expected one certificate, found {len(chain)}")
    return chain[0].public_bytes(Encoding.DER)
