from __future__ import annotations

import mmap
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from siniantrust.errors import ChannelError
from siniantrust.trust._channel import Channel, PeerClosedError, UnsendableError, payload
from siniantrust.trust._cipher import Direction, RecordCipher
from siniantrust.trust._codec import DTYPES, Operation

_WINDOW_BYTES = 1 << 20
_KEYS = {Direction.TO_ENCLAVE: b"a" * 32, Direction.TO_CLIENT: b"b" * 32}


@dataclass
class Ends:
    """Both ends of a channel, and what a host between them can reach."""

    client: Channel
    enclave: Channel
    client_socket: socket.socket
    enclave_socket: socket.socket
    to_enclave: mmap.mmap

    def send(self, text: str, **arrays: np.ndarray) -> None:
        """Send a request of the client."""
        payloads = [payload(name, array) for name, array in arrays.items()]
        self.client.send(self.client.prepare(Operation.RUN, text, payloads), payloads)


def _cipher(direction: Direction) -> RecordCipher:
    return RecordCipher(memoryview(_KEYS[direction]), bytes(16), direction)


def _ends() -> Ends:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    to_enclave, to_client = mmap.mmap(-1, _WINDOW_BYTES), mmap.mmap(-1, _WINDOW_BYTES)
    client = Channel(
        ours,
        outgoing=to_enclave,
        incoming=to_client,
        sealer=_cipher(Direction.TO_ENCLAVE),
        opener=_cipher(Direction.TO_CLIENT),
    )
    enclave = Channel(
        theirs,
        outgoing=to_client,
        incoming=to_enclave,
        sealer=_cipher(Direction.TO_CLIENT),
        opener=_cipher(Direction.TO_ENCLAVE),
    )
    return Ends(client, enclave, ours, theirs, to_enclave)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Return a channel."""
    made = _ends()
    with made.client_socket, made.enclave_socket:
        yield made


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        hnp.arrays(
            dtype=st.sampled_from(DTYPES).map(np.dtype),
            shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
        ),
        max_size=5,
    )
)
def test_tensors_arrive_bit_for_bit(arrays: list[np.ndarray]) -> None:
    """Names, dtypes, shapes and every bit arrive, for all dtypes, empty tensors and scalars too."""
    made = _ends()
    with made.client_socket, made.enclave_socket:
        made.send("part", **{f"t{index}": array for index, array in enumerate(arrays)})
        message, received = made.enclave.receive()
    assert message.text == "part"
    assert list(received) == [f"t{index}" for index in range(len(arrays))]
    for sent, got in zip(arrays, received.values(), strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert got.tobytes() == sent.tobytes()


def test_nan_payloads_arrive_unchanged(ends: Ends) -> None:
    """Signalling and quiet NaN, infinities and negative zero keep their bits."""
    bits = np.array([0x7F800001, 0xFFC00123, 0x7F800000, 0xFF800000, 0x80000000, 1], np.uint32)
    ends.send("part", x=bits.view(np.float32))
    _, received = ends.enclave.receive()
    assert np.array_equal(received["x"].view(np.uint32), bits)


def test_arrays_that_are_not_contiguous_or_native_arrive_as_they_read(ends: Ends) -> None:
    """A transposed view and a big-endian array arrive with the values that they show."""
    x = np.arange(12, dtype=np.float32).reshape(3, 4).T
    y = np.arange(3, dtype=">i4")
    ends.send("part", x=x, y=y)
    _, received = ends.enclave.receive()
    assert np.array_equal(received["x"], x)
    assert np.array_equal(received["y"], y)
    assert received["y"].dtype == np.int32


def test_plain_text_is_nowhere_in_shared_memory(ends: Ends) -> None:
    """What crosses is not readable in the window."""
    ends.send("part", x=np.frombuffer(b"a private sentence" * 100, np.uint8))
    assert b"private" not in ends.to_enclave[:]


def _flip_first(window: mmap.mmap) -> None:
    window[0] ^= 1


def _flip_tag(window: mmap.mmap) -> None:
    window[4000] ^= 0x80


def _swap(window: mmap.mmap) -> None:
    window[:64] = window[4096 : 4096 + 64]


@pytest.mark.parametrize("tamper", [_flip_first, _flip_tag, _swap], ids=["first bit", "tag", "swapped"])
def test_tampered_shared_memory_is_detected(ends: Ends, tamper: Callable[[mmap.mmap], None]) -> None:
    """A change of the host in the window is found before the tensor is used."""
    ends.send("part", x=np.arange(1000, dtype=np.float32))
    tamper(ends.to_enclave)
    with pytest.raises(ChannelError, match="does not authenticate"):
        ends.enclave.receive()


def test_a_replayed_frame_is_detected(ends: Ends) -> None:
    """A frame that the host sends twice is refused the second time, with its tensor still in place."""
    ends.send("part", x=np.ones(4, np.float32))
    frame = ends.enclave_socket.recv(1 << 16)
    ends.client_socket.send(frame)
    ends.enclave.receive()
    ends.client_socket.send(frame)
    with pytest.raises(ChannelError, match="replayed"):
        ends.enclave.receive()


def test_reordered_frames_are_detected(ends: Ends) -> None:
    """Two frames that the host delivers in the other order are refused."""
    ends.send("one")
    ends.send("two")
    first, second = ends.enclave_socket.recv(1 << 16), ends.enclave_socket.recv(1 << 16)
    ends.client_socket.send(second)
    ends.client_socket.send(first)
    with pytest.raises(ChannelError, match="reordered"):
        ends.enclave.receive()


def test_a_dropped_frame_is_detected(ends: Ends) -> None:
    """A frame after one that never arrived is refused."""
    ends.send("one")
    ends.enclave_socket.recv(1 << 16)
    ends.send("two")
    with pytest.raises(ChannelError):
        ends.enclave.receive()


@pytest.mark.parametrize("size_bytes", [1, 16, 17, 1000, 70_000])
def test_junk_frames_are_refused(ends: Ends, size_bytes: int) -> None:
    """Frames of any length that nobody sealed are refused."""
    ends.client_socket.send(b"j" * size_bytes)
    with pytest.raises(ChannelError):
        ends.enclave.receive()


def test_a_message_that_cannot_be_sent_leaves_the_session_intact(ends: Ends) -> None:
    """Tensors that do not fit are refused before anything is sent, and the next message goes through."""
    with pytest.raises(UnsendableError, match="memory_bytes"):
        ends.send("part", x=np.zeros(_WINDOW_BYTES, np.uint8))
    with pytest.raises(UnsendableError, match="complex64"):
        ends.send("part", x=np.zeros(1, np.complex64))
    ends.send("part", x=np.ones(1, np.float32))
    assert ends.enclave.receive()[0].text == "part"


def test_two_messages_can_be_on_their_way_at_once(ends: Ends) -> None:
    """The second message's tensors do not overwrite the first's."""
    ends.send("one", x=np.full(9, 1, np.int64))
    ends.send("two", x=np.full(9, 2, np.int64))
    assert ends.enclave.receive()[1]["x"].tolist() == [1] * 9
    assert ends.enclave.receive()[1]["x"].tolist() == [2] * 9


def test_releasing_a_slot_leaves_the_other_alone(ends: Ends) -> None:
    """Giving back the pages of message 0 does not touch message 1."""
    ends.send("one", x=np.ones(9, np.int64))
    ends.enclave.receive()
    ends.send("two", x=np.full(9, 2, np.int64))
    ends.client.release_outgoing(0)
    assert ends.enclave.receive()[1]["x"].tolist() == [2] * 9


def test_a_peer_that_is_gone_is_told_apart(ends: Ends) -> None:
    """The end of the connection is not taken for a frame."""
    ends.client_socket.close()
    with pytest.raises(PeerClosedError):
        ends.enclave.receive()
    with pytest.raises(PeerClosedError):
        ends.enclave.send(ends.enclave.prepare(Operation.DONE))
