"""Requests for keys as bytes: read as they were written, or refused."""

from __future__ import annotations

import dataclasses

import pytest
from broker_asker import ATTESTER, NONCE, Asker
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siniantrust.errors import (
    AttestationError,
    ChannelError,
)
from siniantrust.trust.broker._request import (
    KeyRequest,
    new_request,
    parse_object,
    parse_request,
    request_binding,
)


def _good(broker_key: bytes = b"broker") -> KeyRequest:
    asker = Asker()
    binding = request_binding(
        NONCE, broker_key, key_id="k", enclave_key=asker.identity.spki, recipient_key=asker.recipient.spki
    )
    return new_request(asker.identity, asker.recipient, ATTESTER.evidence(binding), key_id="k", binding=binding)


GOOD = _good()
RAW = GOOD.to_json()


def test_a_request_is_read_as_it_was_written() -> None:
    """A request survives the wire, and is signed by the key that it names."""
    assert parse_request(RAW) == GOOD
    assert GOOD.is_signed(GOOD.binding(NONCE, b"broker"))
    assert not GOOD.is_signed(GOOD.binding(NONCE, b"another broker"))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        b"",
        b"no key",
        GOOD.enclave_key[:-1],
    ],
    ids=["P-384", "nothing", "text", "cut"],
)
def test_a_key_of_another_kind_is_refused(key: bytes) -> None:
    """Only P-256 keys are read."""
    with pytest.raises(ChannelError, match="P-256"):
        parse_request(dataclasses.replace(GOOD, enclave_key=key).to_json())


def test_a_key_in_another_form_is_refused() -> None:
    """A key written in a second way would give its enclave a second name."""
    compressed = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + ec.generate_private_key(
        ec.SECP256R1()
    ).public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    with pytest.raises(ChannelError, match="not in its plain DER form"):
        parse_request(dataclasses.replace(GOOD, enclave_key=compressed).to_json())


def _parse_any(raw: bytes) -> None:
    """Parse; either it is a request that reads the same when written again, or it is refused in one line."""
    try:
        request = parse_request(raw)
    except (ChannelError, AttestationError) as refusal:
        assert "\n" not in str(refusal)  # noqa: PT017 - one of two allowed outcomes
    else:
        assert parse_request(request.to_json()) == request


def _spoil(raw: bytes, seed: int) -> bytes:
    import random

    source = random.Random(seed)
    spoiled = bytearray(raw)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(spoiled) or 1)
        if source.random() < 0.5 and spoiled:
            spoiled[place] = source.randrange(256)
        else:
            del spoiled[place : place + source.randint(1, 30)]
    return bytes(spoiled)


@settings(max_examples=2000, deadline=None)
@given(raw=st.one_of(st.binary(max_size=300), st.integers(0, 10**9).map(lambda seed: _spoil(RAW, seed))))
def test_any_bytes_are_a_request_or_refused(raw: bytes) -> None:
    """No bytes break the parser of requests."""
    _parse_any(raw)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.one_of(st.binary(max_size=300), st.integers(0, 10**9).map(lambda seed: _spoil(RAW, seed))))
def test_any_bytes_are_a_request_or_refused_at_length(raw: bytes) -> None:
    """No bytes break the parser of requests, in a hundred thousand tries."""
    _parse_any(raw)


@pytest.mark.parametrize("raw", [b"[]", b'{"a": 1}', b'{"a": "b", "c": "d"}', b'"a"', b"x" * (2 << 20)])
def test_an_object_of_another_form_is_refused(raw: bytes) -> None:
    """A message is an object of texts with exactly the names expected."""
    with pytest.raises(ChannelError, match="expected a JSON object of texts with a"):
        parse_object(raw, {"a"})
    assert parse_object(b'{"a": "b"}', {"a"}) == {"a": "b"}
