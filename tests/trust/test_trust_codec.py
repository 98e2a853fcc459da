from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siniantrust.errors import ChannelError
from siniantrust.trust._codec import (
    DTYPES,
    MAX_NAME_BYTES,
    MAX_RANK,
    MAX_TENSORS,
    Message,
    Operation,
    TensorSpec,
    decode,
    encode,
)

_tensors = st.builds(
    TensorSpec,
    name=st.text(max_size=40),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 300), max_size=4).map(tuple),
)
_messages = st.builds(
    Message,
    operation=st.sampled_from(Operation),
    text=st.text(max_size=200),
    tensors=st.lists(_tensors, max_size=8).map(tuple),
)


@given(_messages)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    """Decoding is the inverse of encoding."""
    assert decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_arbitrary_bytes_do_nothing_but_channel_error(raw: bytes) -> None:
    """Bytes from anywhere either decode to a message that encodes to the same bytes, or raise ChannelError."""
    try:
        message = decode(raw)
    except ChannelError:
        return
    assert encode(message) == raw


@given(_messages, st.data())
def test_a_damaged_message_does_nothing_but_channel_error(message: Message, data: st.DataObject) -> None:
    """A message with one byte changed, or cut off, decodes to something well-formed or raises ChannelError."""
    raw = bytearray(encode(message))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    end = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:end]), bytes(raw) + b"\0"):
        try:
            assert encode(decode(damaged)) == damaged
        except ChannelError:
            continue


@pytest.mark.parametrize(
    "message",
    [
        Message(Operation.RUN, "p", (TensorSpec("x", "complex64", (1,)),)),
        Message(Operation.RUN, "p", (TensorSpec("x" * (MAX_NAME_BYTES + 1), "int8", (1,)),)),
        Message(Operation.RUN, "p", (TensorSpec("x", "int8", (1,) * (MAX_RANK + 1)),)),
        Message(Operation.RUN, "p", (TensorSpec("x", "int8", (1 << 20, 1 << 21)),)),
        Message(Operation.RUN, "p", tuple(TensorSpec(str(i), "int8", ()) for i in range(MAX_TENSORS + 1))),
        Message(Operation.RUN, "p" * (1 << 16)),
    ],
    ids=["dtype", "name", "rank", "size", "tensors", "text"],
)
def test_a_message_over_a_limit_is_not_encoded(message: Message) -> None:
    """Every limit of the codec is refused by the sender already."""
    with pytest.raises(ChannelError):
        encode(message)


def test_a_tensor_of_absurd_size_is_refused_before_memory_is_taken() -> None:
    """A shape whose product overflows 64 bits is refused by arithmetic, not by allocation."""
    head = bytes([Operation.RUN]) + (0).to_bytes(4, "big") + (1).to_bytes(2, "big")
    tensor = (1).to_bytes(2, "big") + b"x" + bytes([DTYPES.index("float32"), 3]) + b"\xff" * 24
    with pytest.raises(ChannelError, match="limit"):
        decode(head + tensor)
