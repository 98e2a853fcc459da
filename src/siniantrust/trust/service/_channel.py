"""The channel of the process enclave's server, over TLS: a control message as a frame, its tensors' bytes behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.errors import ChannelError
from siniantrust.trust._channel import Destination, Payload, UnsendableError, as_bytes
from siniantrust.trust._codec import Message, Operation, TensorSpec, decode, encode
from siniantrust.trust.tls import Connection


class TlsChannel:
    """Messages over a connection, whose limits hold for them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def prepare(self, operation: Operation, text: str = "", payloads: Sequence[Payload] = ()) -> bytes:
        """Return the message to ``send`` with ``payloads``.

        Raises:
            UnsendableError: if it breaks a limit. Nothing was sent, and the session goes on.
        """
        try:
            self._connection.check_payload(sum(len(data) for _, data in payloads))
            return encode(Message(operation, text, tuple(spec for spec, _ in payloads)))
        except ChannelError as fault:
            raise UnsendableError(str(fault)) from None

    def send(self, plain: bytes, payloads: Sequence[Payload] = ()) -> None:
        """Send a prepared message and its tensors.

        Raises:
            ChannelError: if the peer does not take it in time.
            PeerClosedError: if the peer is gone.
        """
        self._connection.send(plain, [data for _, data in payloads])

    def receive(self, destination: Destination | None = None) -> tuple[Message, dict[str, np.ndarray]]:
        """Wait for the next message and its tensors.

        Args:
            destination: where a tensor's bytes go; where it is not given or returns None, into a new array.

        Returns:
            The message, and the tensors that went into new arrays.

        Raises:
            ChannelError: if it is malformed or breaks a limit.
            PeerClosedError: if the peer is gone.
        """
        message = decode(bytes(self._connection.receive()))
        self._connection.check_payload(sum(spec.size_bytes for spec in message.tensors))
        arrays: dict[str, np.ndarray] = {}
        targets = []
        for spec in message.tensors:
            target = destination(message, spec) if destination is not None else None
            if target is None:
                arrays[spec.name] = _new(spec)
                target = as_bytes(arrays[spec.name])
            targets.append(target)
        self._connection.receive_payload(targets)
        return message, arrays


def _new(spec: TensorSpec) -> np.ndarray:
    try:
        return np.empty(spec.shape, np.dtype(spec.dtype))
    except (ValueError, MemoryError) as fault:  # no bytes at all may have a shape that numpy refuses
        raise ChannelError(f"channel: tensor {spec.name[:64]}: no room for {list(spec.shape)} ({fault})") from None
