"""Listening on a port, or saying which one is taken."""

from __future__ import annotations

import errno
import socket

from siniantrust.errors import DeviceError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port`` (0: any that is free).

    Raises:
        DeviceError: if the port is in use or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off for accepted connections: without that, each small
    # answer waits some 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise port_error(host, port) from None
        raise DeviceError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def port_error(host: str, port: int) -> DeviceError:
    """Return the error for a port that somebody else has."""
    return DeviceError(f"cannot listen on {host} port {port}: it is in use; choose another, or 0 for any that is free")
