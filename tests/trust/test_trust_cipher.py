from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust.errors import ChannelError
from siniantrust.trust._cipher import MAX_RECORD_BYTES, TAG_BYTES, Direction, Kind, RecordCipher

_SESSION = bytes(range(16))


def _pair(
    *, session: bytes = _SESSION, direction: Direction = Direction.TO_ENCLAVE, key: bytes = b"k" * 32
) -> RecordCipher:
    return RecordCipher(memoryview(key), session, direction)


def _seal(cipher: RecordCipher, plain: bytes, kind: Kind = Kind.PAYLOAD) -> bytearray:
    sealed = bytearray(len(plain) + TAG_BYTES)
    cipher.seal(kind, memoryview(plain), memoryview(sealed))
    return sealed


def _open(cipher: RecordCipher, sealed: bytes | bytearray, kind: Kind = Kind.PAYLOAD) -> bytes:
    plain = bytearray(b"\xaa" * (len(sealed) - TAG_BYTES))
    cipher.open(kind, memoryview(sealed), memoryview(plain))
    return bytes(plain)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0, 1, 15, 16, 17, MAX_RECORD_BYTES - 1, MAX_RECORD_BYTES]), max_size=4))
def test_records_open_in_the_order_in_which_they_were_sealed(sizes: list[int]) -> None:
    """Records of any size, up to the largest, come back as they were."""
    sender, receiver = _pair(), _pair()
    plains = [os.urandom(size) for size in sizes]
    assert [_open(receiver, _seal(sender, plain)) for plain in plains] == plains


def test_every_bit_flip_is_detected() -> None:
    """A record with any one bit changed does not open, and what was decrypted is zeroed."""
    plain = b"private pixels"
    sealed = _seal(_pair(), plain)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        target = bytearray(len(plain))
        with pytest.raises(ChannelError, match="does not authenticate"):
            _pair().open(Kind.PAYLOAD, memoryview(changed), memoryview(target))
        assert target == bytes(len(plain))


def test_a_replayed_record_is_refused() -> None:
    """A record opens once."""
    receiver = _pair()
    sealed = _seal(_pair(), b"once")
    assert _open(receiver, sealed) == b"once"
    with pytest.raises(ChannelError, match="replayed"):
        _open(receiver, sealed)


def test_reordered_records_are_refused() -> None:
    """The second record does not open before the first."""
    sender, receiver = _pair(), _pair()
    _seal(sender, b"first")
    with pytest.raises(ChannelError):
        _open(receiver, _seal(sender, b"second"))


@pytest.mark.parametrize(
    "other",
    [
        _pair(session=bytes(16)),
        _pair(direction=Direction.TO_CLIENT),
        _pair(key=b"x" * 32),
    ],
    ids=["session", "direction", "key"],
)
def test_a_record_counts_in_one_session_and_direction_only(other: RecordCipher) -> None:
    """A record of another session, direction or key does not open."""
    with pytest.raises(ChannelError):
        _open(other, _seal(_pair(), b"here"))


def test_a_record_counts_as_one_kind_only() -> None:
    """A payload cannot be passed off as a control message."""
    with pytest.raises(ChannelError):
        _open(_pair(), _seal(_pair(), b"data", Kind.PAYLOAD), Kind.CONTROL)


def test_a_truncated_record_is_refused() -> None:
    """The length is authenticated: a shortened record does not open."""
    with pytest.raises(ChannelError):
        _open(_pair(), _seal(_pair(), b"0123456789")[:-1])


def test_a_used_up_counter_refuses_instead_of_repeating() -> None:
    """After the last counter, no record is sealed, because a nonce would come twice."""
    cipher = _pair()
    cipher.counter = (1 << 64) - 1
    _seal(cipher, b"last")
    with pytest.raises(ChannelError, match="used up"):
        _seal(cipher, b"one too many")


def test_equal_plain_texts_look_different() -> None:
    """The same bytes sent twice give two different records."""
    cipher = _pair()
    assert _seal(cipher, b"same") != _seal(cipher, b"same")
