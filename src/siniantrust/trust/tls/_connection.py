"""Frames over TLS: a length of four bytes, then as many bytes, all within limits of size, rate and time."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress

from siniantrust.errors import ChannelError
from siniantrust.trust._channel import PeerClosedError
from siniantrust.trust.tls._limits import Limits, TokenBucket

_LENGTH = struct.Struct(">I")
_PIECE_BYTES = 1 << 20


class Connection:
    """One end of an established TLS connection. One thread at a time reads, and one writes.

    Args:
        connection: the socket, after its handshake.
        limits: what the peer may do.
        peer_spki: the peer's public key (DER, SubjectPublicKeyInfo), from its certificate; empty if it showed none.
    """

    def __init__(self, connection: ssl.SSLSocket, *, limits: Limits, peer_spki: bytes = b"") -> None:
        self.peer_spki = peer_spki
        self._socket = connection
        self._limits = limits
        self._end_s = time.monotonic() + limits.lifetime_s
        self._rate = TokenBucket(limits.requests_per_s, limits.burst)

    def receive(self) -> bytearray:
        """Wait for the next frame.

        Raises:
            ChannelError: if it breaks a limit; the connection is of no use then.
            PeerClosedError: if the peer is gone.
        """
        deadline_s = self._deadline_s()
        head = bytearray(_LENGTH.size)
        self._fill(memoryview(head), deadline_s)
        (size_bytes,) = _LENGTH.unpack(head)
        if size_bytes > self._limits.frame_bytes:
            raise ChannelError(
                f"connection: a frame of {size_bytes} bytes is over the limit of {self._limits.frame_bytes}"
            )
        if not self._rate.take():
            raise ChannelError(
                f"connection: over {self._limits.requests_per_s:g} requests a second, the limit; send fewer"
            )
        frame = bytearray(size_bytes)
        self._fill(memoryview(frame), deadline_s)
        return frame

    def receive_payload(self, targets: list[memoryview]) -> None:
        """Fill ``targets`` with the bytes that follow a frame.

        Raises:
            ChannelError: if they are too many, or do not come in time.
            PeerClosedError: if the peer is gone.
        """
        size_bytes = sum(map(len, targets))
        self.check_payload(size_bytes)
        deadline_s = self._deadline_s()
        for target in targets:
            self._fill(target, deadline_s)

    def check_payload(self, size_bytes: int) -> None:
        """Refuse a payload over the limit, before memory is taken for it.

        Raises:
            ChannelError: naming the limit.
        """
        if size_bytes > self._limits.payload_bytes:
            raise ChannelError(
                f"connection: {size_bytes} bytes of tensors are over the limit of {self._limits.payload_bytes}"
            )

    def send(self, frame: bytes, payload: list[memoryview] | None = None) -> None:
        """Send a frame and what follows it.

        Raises:
            ChannelError: if the peer does not take it in time.
            PeerClosedError: if the peer is gone.
        """
        deadline_s = self._deadline_s()
        for data in (memoryview(_LENGTH.pack(len(frame)) + frame), *(payload or ())):
            for start in range(0, len(data), _PIECE_BYTES):
                self._send_piece(data[start : start + _PIECE_BYTES], deadline_s)

    def close(self) -> None:
        """Close it; calling it again does nothing."""
        with suppress(OSError):
            self._socket.close()

    def cut(self) -> None:
        """End it from another thread: whoever reads or writes at its ends finds the peer gone."""
        with suppress(OSError):
            # Not ``SSLSocket.shutdown``, which first turns the socket into one without encryption.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _deadline_s(self) -> float:
        return min(time.monotonic() + self._limits.idle_s, self._end_s)

    def _wait_until(self, deadline_s: float) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise self._too_late()
        self._socket.settimeout(left_s)

    def _too_late(self) -> ChannelError:
        if time.monotonic() >= self._end_s:
            return ChannelError(f"connection: it is older than {self._limits.lifetime_s:g} s, its limit; connect again")
        return ChannelError(f"connection: silent for {self._limits.idle_s:g} s, its limit; connect again")

    def _fill(self, target: memoryview, deadline_s: float) -> None:
        at = 0
        while at < len(target):
            self._wait_until(deadline_s)
            try:
                count = self._socket.recv_into(target[at:])
            except TimeoutError:
                raise self._too_late() from None
            except (OSError, ValueError):  # ValueError: closed by another thread
                raise PeerClosedError from None
            if count == 0:
                raise PeerClosedError
            at += count

    def _send_piece(self, piece: memoryview, deadline_s: float) -> None:
        self._wait_until(deadline_s)
        try:
            self._socket.sendall(piece)
        except TimeoutError:
            raise self._too_late() from None
        except (OSError, ValueError):
            raise PeerClosedError from None
