from __future__ import annotations

import random
import socket
import struct
from math import inf

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siniantrust.errors import ChannelError
from siniantrust.trust._channel import PeerClosedError, payload
from siniantrust.trust._codec import Message, Operation, TensorSpec, encode
from siniantrust.trust.service._channel import TlsChannel
from siniantrust.trust.tls import Connection, Limits

LIMITS = Limits(frame_bytes=2000, payload_bytes=4000, idle_s=10.0, requests_per_s=inf)
MESSAGE = encode(Message(Operation.RUN, "part", (TensorSpec("x", "float32", (3, 5)), TensorSpec("y", "uint8", ()))))
GOOD = struct.pack(">I", len(MESSAGE)) + MESSAGE + bytes(61)


def _receive(raw: bytes) -> None:
    """Let the server's end of a channel read ``raw``: messages, and then exactly one of two errors."""
    here, there = socket.socketpair()
    with here, there:
        # The limits do not depend on TLS, which would only be in the way of so many tries.
        channel = TlsChannel(Connection(there, limits=LIMITS))  # type: ignore[arg-type]
        here.sendall(raw)
        here.shutdown(socket.SHUT_WR)
        with pytest.raises((ChannelError, PeerClosedError)):
            _drain(channel, most=len(raw))


def _drain(channel: TlsChannel, *, most: int) -> None:
    for _ in range(most + 1):
        message, arrays = channel.receive()
        assert arrays.keys() == {spec.name for spec in message.tensors}
        assert sum(array.nbytes for array in arrays.values()) <= LIMITS.payload_bytes


def _spoil(seed: int) -> bytes:
    source = random.Random(seed)
    spoiled = bytearray(GOOD * source.randint(1, 2))
    for _ in range(source.randint(0, 3)):
        place = source.randrange(len(spoiled))
        kind = source.randrange(3)
        if kind == 0:
            spoiled[place] = source.randrange(256)
        elif kind == 1:
            del spoiled[place : place + source.randint(1, 20)]
        else:
            spoiled[place:place] = source.randbytes(source.randint(1, 20))
        spoiled = spoiled or bytearray(GOOD)
    return bytes(spoiled)


STREAMS = st.one_of(st.binary(max_size=200), st.integers(0, 10**9).map(_spoil))


@settings(max_examples=2000, deadline=None)
@given(raw=STREAMS)
def test_any_stream_is_messages_or_refused(raw: bytes) -> None:
    """No bytes on a connection break the service's end, or make it take more memory than its limits."""
    _receive(raw)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=STREAMS)
def test_any_stream_is_messages_or_refused_at_length(raw: bytes) -> None:
    """No bytes on a connection break the service's end, in a hundred thousand tries."""
    _receive(raw)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=5), st.lists(st.integers(0, 3), max_size=3)), max_size=4))
def test_messages_arrive_as_they_were_sent(tensors: list[tuple[str, list[int]]]) -> None:
    """A message and its tensors, empty ones and scalars too, come out as they went in."""
    here, there = socket.socketpair()
    with here, there:
        sender, receiver = (TlsChannel(Connection(end, limits=LIMITS)) for end in (here, there))  # type: ignore[arg-type]
        sent = {f"{number}{name}": np.full(shape, number, np.int16) for number, (name, shape) in enumerate(tensors)}
        payloads = [payload(name, array) for name, array in sent.items()]
        sender.send(sender.prepare(Operation.RUN, "part", payloads), payloads)
        message, found = receiver.receive()
    assert (message.operation, message.text) == (Operation.RUN, "part")
    assert found.keys() == sent.keys()
    assert all(np.array_equal(found[name], array) for name, array in sent.items())


@pytest.mark.parametrize("shape", [(1 << 62, 0), (1 << 40, 1 << 40, 0)])
def test_a_shape_that_cannot_be_is_refused(shape: tuple[int, ...]) -> None:
    """A tensor without a byte, whose shape nobody could hold, is refused as a message, not as a crash."""
    raw = encode(Message(Operation.RUN, "part", (TensorSpec("x", "float32", shape),)))
    _receive(struct.pack(">I", len(raw)) + raw)


def test_a_payload_over_the_limit_is_refused_on_its_announcement() -> None:
    """A message that announces more bytes than the limit is refused before memory is taken for them."""
    huge = encode(Message(Operation.RUN, "part", (TensorSpec("x", "uint8", (1 << 39,)),)))
    here, there = socket.socketpair()
    with here, there:
        channel = TlsChannel(Connection(there, limits=LIMITS))  # type: ignore[arg-type]
        here.sendall(struct.pack(">I", len(huge)) + huge)
        with pytest.raises(ChannelError, match="549755813888 bytes of tensors are over the limit of 4000"):
            channel.receive()
