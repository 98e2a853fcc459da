from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation.tpm2 import Event, EventLog, parse_event_log
from siniantrust.trust.attestation.tpm2._constants import Attributes
from siniantrust.trust.attestation.tpm2._pcr import encode_selection, read_selection
from siniantrust.trust.attestation.tpm2._public import KeyKind, PublicArea, parse_public
from siniantrust.trust.attestation.tpm2._wire import Reader

_EVENTS = st.builds(
    Event, st.from_regex(r"[a-z0-9][a-z0-9.-]{0,63}", fullmatch=True), st.binary(min_size=32, max_size=32)
)
_NUMBERS = {KeyKind.ECC_P256: (32, 32), KeyKind.RSA_2048: (256,)}


@given(st.lists(_EVENTS, max_size=20))
def test_an_event_log_survives_its_written_form(events: list[Event]) -> None:
    """Parsing is the inverse of writing, and the register follows from the digests alone."""
    log = EventLog(tuple(events))
    assert parse_event_log(log.encode()) == log
    value = bytes(32)
    for event in events:
        value = hashlib.sha256(value + event.digest).digest()
    assert log.value() == value


@given(st.sets(st.integers(0, 23)))
def test_a_selection_of_registers_survives_its_written_form(pcrs: set[int]) -> None:
    """Reading is the inverse of writing."""
    reader = Reader(encode_selection(pcrs), "selection")
    assert read_selection(reader) == pcrs
    reader.end()


@given(
    kind=st.sampled_from(KeyKind),
    attributes=st.integers(0, 2**32 - 1).map(Attributes),
    policy=st.binary(max_size=32),
    signs=st.booleans(),
    source=st.randoms(use_true_random=False),
)
def test_a_public_area_survives_its_written_form(
    kind: KeyKind,
    attributes: Attributes,
    policy: bytes,
    signs: bool,  # noqa: FBT001 - drawn by hypothesis
    source: random.Random,
) -> None:
    """Parsing is the inverse of writing for every key that is known, and its name is the hash of its bytes."""
    unique = tuple(source.randbytes(size) for size in _NUMBERS[kind])
    area = PublicArea(kind=kind, attributes=attributes, policy=policy, signs=signs, unique=unique)
    assert parse_public(area.encode()) == area
    assert area.name == b"\x00\x0b" + hashlib.sha256(area.encode()).digest()


@pytest.mark.parametrize(
    ("name", "digest"),
    [("", b"d" * 32), ("-a", b"d" * 32), ("A", b"d" * 32), ("a b", b"d" * 32), ("a" * 65, b"d" * 32), ("a", b"d" * 20)],
)
def test_a_measurement_that_cannot_be_written_is_refused(name: str, digest: bytes) -> None:
    """Names are plain, and digests are SHA-256."""
    with pytest.raises(AttestationError, match="expected a name of a-z"):
        Event(name, digest)
