"""What the fuzzer found once: each of these was a crash, or was accepted."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_target import Target
from test_fuzz_parsers import TARGETS

Change = Callable[[bytes], bytes]


def _jose(header: dict[str, object]) -> Change:
    """Return a change of a token's header."""

    def change(raw: bytes) -> bytes:
        head, _, rest = raw.partition(b".")
        fields = json.loads(base64.urlsafe_b64decode(head + b"=="))
        spoilt = json.dumps({**fields, **header}).encode()
        return base64.urlsafe_b64encode(spoilt).rstrip(b"=") + b"." + rest

    return change


def _json(**fields: str) -> Change:
    return lambda raw: json.dumps({**json.loads(raw), **fields}).encode()


def _in_last_line(name: str) -> Change:
    def change(raw: bytes) -> bytes:
        *lines, last = raw.splitlines()
        spoilt = json.dumps({**json.loads(last), name: "\ud800"}, sort_keys=True).encode()
        return b"\n".join([*lines, spoilt]) + b"\n"

    return change


def _doubled_root(raw: bytes) -> bytes:
    return raw + b"-----BEGIN" + raw.split(b"-----BEGIN")[-1]


def _pem(old: bytes, new: bytes) -> Change:
    """Return a change of the DER in a PEM block."""

    def change(raw: bytes) -> bytes:
        begin, *body, end = raw.strip().split(b"\n")
        der = base64.b64decode(b"".join(body))
        assert old in der
        return b"\n".join((begin, base64.b64encode(der.replace(old, new, 1)), end)) + b"\n"

    return change


def _unused_bits(raw: bytes) -> bytes:
    """Say that the last bit of a certificate's signature, its last field, does not count."""
    start = next(at for at in range(len(raw) - 60, 0, -1) if raw[at] == 3 and at + 2 + raw[at + 1] == len(raw))
    assert raw[start + 2] == 0
    return raw[: start + 2] + b"\1" + raw[start + 3 :]


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("key broker's answer (JWE)", _jose({"epk": {"kty": "EC", "crv": "P-0", "x": "AA", "y": "AA"}})),
        ("key broker's answer (JWE)", _jose({"enc": [[]]})),
        ("key broker's log", lambda raw: raw.replace(b'"mac": "', b'"mac": "", "mac": "', 1)),
        ("key broker's log", _in_last_line("mac")),
        ("key broker's log", _in_last_line("hash")),
        ("key broker's key file", lambda raw: raw.replace(b'"sealed": "', b'"sealed": " ')),
        ("key broker's identity", _pem(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030108"))),
        ("key request", _json(key_id="\ud800")),
        ("process evidence", _json(measurement="\ud800")),
        ("nvidia-gpu chain", _doubled_root),
        ("tpm2 counter file", lambda raw: raw + b"\x1e"),
        ("tpm2 evidence, ek-intermediate-0", _unused_bits),
        ("gramine attestation_type", lambda raw: raw + b"\x1f"),
        ("configfs-tsm provider", lambda raw: raw + b"\x1f"),
        ("key broker's log head", lambda raw: raw + b"\x1f"),
        ("configfs-tsm provider", lambda raw: raw * 1000),
    ],
)
def test_what_was_found_stays_refused(name: str, change: Change, tmp_path: Path) -> None:
    """The reader refuses it with its own kind of error, in one line."""
    target: Target = TARGETS[name](tmp_path)
    target.read(target.seeds[0])
    with pytest.raises(target.refusals) as caught:
        target.read(change(target.seeds[0]))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
