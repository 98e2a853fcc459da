"""The encrypted channel: small control frames over a socket, tensors through shared memory.

What a tensor costs: the sender encrypts it from its own memory into shared memory (one pass), the receiver decrypts it
from there into the array that it hands on (one pass). Each pass goes through a buffer of 128 KiB that stays in cache;
beyond that nothing is copied, except that an array which is not contiguous is made so first. Large tensors travel in
records of that size, each announced by a frame of one byte (a *doorbell*), so that the receiver decrypts one while the
sender encrypts the next.

Each direction has a window of shared memory with two slots, used in turn, so that one request can be written while the
one before it is still computed.
"""

from __future__ import annotations

import mmap
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from siniantrust.errors import ChannelError
from siniantrust.trust._cipher import MAX_RECORD_BYTES, TAG_BYTES, Kind, RecordCipher
from siniantrust.trust._codec import (
    DTYPES,
    MAX_MESSAGE_BYTES,
    NAME_OF_DTYPE,
    Message,
    Operation,
    TensorSpec,
    decode,
    encode,
)

SLOTS = 2
_MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + TAG_BYTES
_DOORBELL = b"\x01"
_CACHE_LINE_BYTES = 64
_KEPT_ROOMS = 64
_KEPT_LAYOUTS = 8

Payload = tuple[TensorSpec, memoryview]
Destination = Callable[[Message, TensorSpec], memoryview | None]


class PeerClosedError(Exception):
    """The other end of the socket is gone."""


class UnsendableError(ChannelError):
    """A message breaks a limit of the channel; it was not sent."""


def payload(name: str, array: np.ndarray) -> Payload:
    """Return what to send for ``array``, without copying it if it is contiguous and of native byte order.

    Raises:
        UnsendableError: if its dtype does not travel.
    """
    native = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    dtype = NAME_OF_DTYPE.get(native)
    if dtype is None:
        raise UnsendableError(f"tensor {name}: dtype {array.dtype} does not travel, only {', '.join(DTYPES)}")
    if native is not array.dtype or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, dtype=native).reshape(array.shape)
    return TensorSpec(name, dtype, array.shape), as_bytes(array)


def as_bytes(array: np.ndarray) -> memoryview:
    """Return the bytes of a contiguous array as a view."""
    return array.reshape(-1).view(np.uint8).data


class Channel:
    """One end of the channel. Its caller sends and receives one message at a time in each direction.

    Args:
        connection: a connected SOCK_SEQPACKET socket, which keeps frames apart.
        outgoing: shared memory that this end writes.
        incoming: shared memory that the other end writes.
        sealer: cipher of the direction that this end sends.
        opener: cipher of the direction that it receives.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        outgoing: mmap.mmap,
        incoming: mmap.mmap,
        sealer: RecordCipher,
        opener: RecordCipher,
    ) -> None:
        self._connection = connection
        self._window = outgoing
        self._outgoing = memoryview(outgoing)
        self._incoming = memoryview(incoming)
        self._sealer = sealer
        self._opener = opener
        self._sent = 0
        self._received = 0
        self._frame = memoryview(bytearray(_MAX_FRAME_BYTES + 1))

    @property
    def slot_bytes(self) -> int:
        """Bytes that one message's tensors may take, with their tags and padding."""
        return len(self._outgoing) // SLOTS

    def prepare(self, operation: Operation, text: str = "", payloads: Sequence[Payload] = ()) -> bytes:
        """Return the message to ``send`` with ``payloads``.

        Raises:
            UnsendableError: if it breaks a limit of the channel. Nothing was sent, and the session goes on.
        """
        sizes_bytes = tuple([len(data) for _, data in payloads])
        if _room(sizes_bytes) > self.slot_bytes:
            raise UnsendableError(
                f"{sum(sizes_bytes)} bytes of tensors do not fit into {self.slot_bytes} bytes, the enclave's memory "
                "limit; raise [enclave] memory_bytes"
            )
        try:
            return encode(Message(operation, text, tuple(spec for spec, _ in payloads)))
        except ChannelError as fault:
            raise UnsendableError(str(fault)) from None

    def send(self, plain: bytes, payloads: Sequence[Payload] = ()) -> None:
        """Send a prepared message and its tensors.

        Raises:
            ChannelError: if all counters are used up.
            PeerClosedError: if the other end is gone.
        """
        frame = memoryview(bytearray(len(plain) + TAG_BYTES))
        self._sealer.seal(Kind.CONTROL, memoryview(plain), frame)
        slot = self._slot(self._outgoing, self._sent)
        self._sent += 1
        announcement: memoryview | bytes = frame
        try:
            for record, piece in _records(slot, [data for _, data in payloads]):
                self._sealer.seal(Kind.PAYLOAD, piece, record)
                self._connection.send(announcement)
                announcement = _DOORBELL
            if announcement is frame:
                self._connection.send(frame)
        except OSError:
            raise PeerClosedError from None

    def receive(self, destination: Destination | None = None) -> tuple[Message, dict[str, np.ndarray]]:
        """Wait for the next message and decrypt its tensors.

        Args:
            destination: where a tensor's bytes go; where it is not given or returns None, into a new array.

        Returns:
            The message, and the tensors that went into new arrays.

        Raises:
            ChannelError: if a frame is malformed or a record is not the next one, unchanged.
            PeerClosedError: if the other end is gone.
        """
        frame = self._next_frame()
        if not TAG_BYTES < len(frame) <= _MAX_FRAME_BYTES:
            raise ChannelError(f"channel: a frame of {len(frame)} bytes is no frame of ours")
        plain = bytearray(len(frame) - TAG_BYTES)
        self._opener.open(Kind.CONTROL, frame, memoryview(plain))
        message = decode(bytes(plain))
        if _room(tuple([spec.size_bytes for spec in message.tensors])) > self.slot_bytes:
            raise ChannelError("channel: a message announces more tensors than a slot holds")
        arrays: dict[str, np.ndarray] = {}
        targets = []
        for spec in message.tensors:
            target = destination(message, spec) if destination is not None else None
            if target is None:
                arrays[spec.name] = np.empty(spec.shape, np.dtype(spec.dtype))
                target = as_bytes(arrays[spec.name])
            targets.append(target)
        slot = self._slot(self._incoming, self._received)
        self._received += 1
        for number, (record, piece) in enumerate(_records(slot, targets)):
            if number > 0 and self._next_frame() != _DOORBELL:
                raise ChannelError("channel: a message came before the tensors of the one before it were complete")
            self._opener.open(Kind.PAYLOAD, record, piece)
        return message, arrays

    def _slot(self, window: memoryview, number: int) -> memoryview:
        start = (number % SLOTS) * self.slot_bytes
        return window[start : start + self.slot_bytes]

    def _next_frame(self) -> memoryview:
        """Wait for a frame; the view holds until the next call."""
        try:
            size_bytes = self._connection.recv_into(self._frame)
        except OSError:
            raise PeerClosedError from None
        if size_bytes == 0:
            raise PeerClosedError
        return self._frame[:size_bytes]

    def release_outgoing(self, number: int) -> None:
        """Give back the pages that message ``number`` (from 0) took in the window; its answer must have come."""
        self._window.madvise(mmap.MADV_REMOVE, (number % SLOTS) * self.slot_bytes, self.slot_bytes)


def _records(slot: memoryview, tensors: Sequence[memoryview]) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield each record's place in the slot and the piece of a tensor that it carries, in the order of sending."""
    for number, start, stop, at in _layout(tuple([len(data) for data in tensors])):
        yield slot[at : at + stop - start + TAG_BYTES], tensors[number][start:stop]


# Requests repeat; code that does not run again leaves the caches to the network (20 us here are 150 us after it).
@lru_cache(_KEPT_LAYOUTS)
def _layout(sizes_bytes: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Return each record's tensor, its start and stop in that tensor, and its place in the slot, in bytes."""
    places = []
    at = 0
    for number, size in enumerate(sizes_bytes):
        for start in range(0, size, MAX_RECORD_BYTES):
            stop = min(start + MAX_RECORD_BYTES, size)
            places.append((number, start, stop, at))
            at += -(-(stop - start + TAG_BYTES) // _CACHE_LINE_BYTES) * _CACHE_LINE_BYTES
    return places


@lru_cache(_KEPT_ROOMS)
def _room(sizes_bytes: tuple[int, ...]) -> int:
    """Return the bytes that tensors of these sizes take in a slot, with a tag and padding for each record."""
    room = 0
    for size in sizes_bytes:
        records, rest = divmod(size, MAX_RECORD_BYTES)
        room += records * (MAX_RECORD_BYTES + _CACHE_LINE_BYTES)
        room += rest and -(-(rest + TAG_BYTES) // _CACHE_LINE_BYTES) * _CACHE_LINE_BYTES
    return room
