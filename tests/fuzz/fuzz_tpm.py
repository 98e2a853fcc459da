"""Targets: a TPM's responses, keys, statements and logs, and evidence that is made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from fuzz_evidence import appraising
from fuzz_target import MakeTarget, Target
from tpm_world import BINDING, EVENTS, NOW, Authority, SoftwareTpm, ecc_area, make_reference

from siniantrust.errors import TrustError
from siniantrust.trust.attestation.tpm2 import EventLog, FileCounter, parse_event_log, parse_identity
from siniantrust.trust.attestation.tpm2._attest import parse_certified_nv, parse_quote, split_signed
from siniantrust.trust.attestation.tpm2._constants import Command
from siniantrust.trust.attestation.tpm2._enrolment import check_enrolment
from siniantrust.trust.attestation.tpm2._pcr import encode_selection
from siniantrust.trust.attestation.tpm2._public import KeyKind, ek_template, parse_public
from siniantrust.trust.attestation.tpm2._seal import _MAGIC, _parse
from siniantrust.trust.attestation.tpm2._wire import decode_response, sized, uint

# The last bit of the certificate is zero, so that it may be said not to count.
_AUTHORITY = next(each for each in iter(lambda: Authority("maker"), None) if each.issuer[-1] % 2 == 0)
_EK = ecc_area(ec.generate_private_key(ec.SECP256R1()), ek_template(KeyKind.ECC_P256))
_LIAR = SoftwareTpm(_EK)
_REFERENCE = make_reference({"emulated:maker": _AUTHORITY.root})
_EVIDENCE = _LIAR.evidence(
    _LIAR.statement(),
    **{
        "ek-certificate": _AUTHORITY.certify_ek(_EK),
        "ek-intermediate-0": _AUTHORITY.issuer,
        "enrolment": _LIAR.enrolment(),
    },
)
_NV = _LIAR.statement(kind=uint(2, 0x8014), selection=sized(b"\0\x0b" + bytes(32)) + uint(2, 0), digest=sized(bytes(8)))
_RESPONSE_BODY = sized(bytes(20)) + bytes(8)
_RESPONSE = uint(4, len(_RESPONSE_BODY)) + _RESPONSE_BODY + sized(b"") + b"\1" + sized(b"")
_RSA = dataclasses.replace(ek_template(KeyKind.RSA_2048), unique=(b"\xc1" * 256,))


def _response(raw: bytes) -> None:
    decode_response(raw, Command.QUOTE, handles=1, sessions=1)


def _identity(raw: bytes) -> None:
    name, _, value = raw.partition(b"\n")
    parse_identity({**_EVIDENCE.endorsements, name.decode("latin-1"): value})


def _enrolment(raw: bytes) -> None:
    assert check_enrolment(raw, _LIAR.identity, _REFERENCE.anchors)


def _public(raw: bytes) -> None:
    area = parse_public(raw)
    assert area.encode() == raw
    area.public_key()


def _event_log(raw: bytes) -> None:
    assert parse_event_log(raw).encode() == raw


def _counter_file(folder: Path) -> Target:
    def read(raw: bytes) -> None:
        (folder / "version").write_bytes(raw)
        assert FileCounter(folder / "version").value() >= 0

    return Target(read, (b"7\n",), refusals=(TrustError,), form=None)


def _plain(read: Callable[[bytes], object], *seeds: bytes, form: Callable[[bytes], object] | None = None) -> MakeTarget:
    return lambda _: Target(read, seeds, form=form)


def _appraised(_: Path, name: str | None) -> Target:
    return appraising(_EVIDENCE, _REFERENCE, name, binding=BINDING, now=NOW)


TPM: dict[str, MakeTarget] = {
    "tpm2 response": _plain(
        _response, b"\x80\x02" + uint(4, 14 + len(_RESPONSE)) + bytes(4) + uint(4, 1 << 31) + _RESPONSE
    ),
    "tpm2 public": _plain(_public, _EK.encode(), _RSA.encode()),
    "tpm2 quote": _plain(parse_quote, _LIAR.statement()),
    "tpm2 certified nv": _plain(parse_certified_nv, _NV),
    "tpm2 signed": _plain(split_signed, _EVIDENCE.body),
    "tpm2 event log": _plain(_event_log, EventLog(EVENTS).encode()),
    "tpm2 identity": _plain(_identity, b"ek-public\n" + _EK.encode()),
    "tpm2 enrolment": _plain(_enrolment, _EVIDENCE.endorsements["enrolment"], form=bytes),
    "tpm2 sealed": _plain(_parse, _MAGIC + encode_selection([14]) + sized(bytes(30)) + sized(bytes(40))),
    "tpm2 counter file": _counter_file,
    "tpm2 evidence": partial(_appraised, name=None),
    **{f"tpm2 evidence, {name}": partial(_appraised, name=name) for name in _EVIDENCE.endorsements},
}
