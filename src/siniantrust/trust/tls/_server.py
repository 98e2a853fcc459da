"""A server: a thread for each connection, and no more of them than the limits say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from siniantrust.errors import ChannelError
from siniantrust.trust._channel import PeerClosedError
from siniantrust.trust.tls._address import Address
from siniantrust.trust.tls._connection import Connection
from siniantrust.trust.tls._handshake import accept
from siniantrust.trust.tls._identity import Identity
from siniantrust.trust.tls._limits import Limits, TokenBucket

_BACKLOG = 16
_PAUSE_S = 0.1


class Server:
    """Accepts connections and hands each to ``serve`` in a thread of its own.

    Args:
        address: where to listen; port 0 takes a free one.
        limits: what a peer may do.
        identity: called for each connection; returns the key of the server's end.
        serve: serves one connection until it returns; what the peer did wrong may end it as ChannelError.

    Raises:
        ChannelError: if the address cannot be listened on.
    """

    def __init__(
        self,
        address: Address,
        *,
        limits: Limits,
        identity: Callable[[], Identity],
        serve: Callable[[Connection, Identity], None],
    ) -> None:
        self._limits = limits
        self._identity = identity
        self._serve = serve
        self._free = threading.Semaphore(limits.sessions)
        self._rate = TokenBucket(limits.connections_per_s, limits.sessions)
        self._open: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            self._listener = socket.create_server(address, family=family, backlog=_BACKLOG)
        except OSError as fault:
            raise ChannelError(f"{address}: cannot be listened on ({fault.strerror}); choose another one") from None
        self.address = Address(*self._listener.getsockname()[:2])

    def run(self) -> None:
        """Accept connections until ``close``."""
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                # Closed, or out of file handles for the moment, which must not end it.
                if self._closed.wait(_PAUSE_S):
                    return
                continue
            if not self._rate.take() or not self._free.acquire(blocking=False):
                raw.close()
                continue
            threading.Thread(target=self._one, args=(raw,), daemon=True).start()

    def _one(self, raw: socket.socket) -> None:
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            identity = self._identity()
            connection = accept(raw, identity=identity, limits=self._limits)
            with self._lock:
                self._open.add(connection)
            try:
                self._serve(connection, identity)
            finally:
                with self._lock:
                    self._open.discard(connection)
                connection.close()
        except (ChannelError, PeerClosedError, OSError):
            pass  # what a peer does wrong ends its own connection and nothing else
        finally:
            self._free.release()

    def close(self) -> None:
        """Stop listening and cut every connection; calling it again does nothing."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                connection.cut()
