"""How often a tensor is copied on its way through shared memory: counted while both ends run in this process."""

from __future__ import annotations

import mmap
import os
import socket
import threading
import tracemalloc
from functools import partial

import numpy as np
from results_file import Bar, Outcome
from timing import in_turns, median_ms

from siniantrust.trust import _channel, _cipher, _codec

_WAY = (
    "One way is two cipher passes (counted) and two copies (read from the code: each pass of a record goes with one "
    "copy between private and shared memory). The sender's cipher writes into a private buffer of 128 KiB that stays "
    "in cache, and each such piece is copied once into shared memory; the receiver copies it once out of shared memory "
    "into a buffer of the same kind and decrypts from there into the final array."
)
_WHY = (
    "The private buffers are on purpose: a host could change shared memory between OpenSSL's pass that authenticates "
    "and its pass that decrypts. No array is copied as a whole, and none is serialised; ONNX Runtime reads the "
    "received array, and its output is encrypted from its own buffer."
)
_KEY = bytes(range(32))
_ENDS = 2


class _Counting(_cipher.RecordCipher):
    """A cipher that counts the bytes of tensors that it encrypts or decrypts."""

    def __init__(self, key: memoryview, session_id: bytes, direction: _cipher.Direction) -> None:
        super().__init__(key, session_id, direction)
        self.tensor_bytes = 0

    def seal(self, kind: _cipher.Kind, plain: memoryview, target: memoryview) -> None:
        """Encrypt, and count."""
        super().seal(kind, plain, target)
        self._count(kind, len(plain))

    def open(self, kind: _cipher.Kind, sealed: memoryview, plain: memoryview) -> None:
        """Decrypt, and count."""
        super().open(kind, sealed, plain)
        self._count(kind, len(plain))

    def _count(self, kind: _cipher.Kind, size_bytes: int) -> None:
        if kind is _cipher.Kind.PAYLOAD:
            self.tensor_bytes += size_bytes


class _Way:
    """One direction of a channel with both ends in this process."""

    def __init__(self, slot_bytes: int) -> None:
        self.ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        shared = os.memfd_create("copies")
        os.ftruncate(shared, slot_bytes * _channel.SLOTS)
        windows = [mmap.mmap(shared, slot_bytes * _channel.SLOTS) for _ in range(_ENDS)]
        os.close(shared)
        self.ciphers = [
            _Counting(memoryview(_KEY), b"s" * _cipher.SESSION_ID_BYTES, _cipher.Direction.TO_ENCLAVE)
            for _ in range(_ENDS)
        ]
        self.sender, self.receiver = (
            _channel.Channel(end, outgoing=window, incoming=window, sealer=cipher, opener=cipher)
            for end, window, cipher in zip(self.ends, windows, self.ciphers, strict=True)
        )

    def move(self, array: np.ndarray) -> np.ndarray:
        """Send an array from one thread and receive it in another."""
        payloads = [_channel.payload("x", array)]
        plain = self.sender.prepare(_codec.Operation.RUN, "part", payloads)
        thread = threading.Thread(target=self.sender.send, args=(plain, payloads))
        thread.start()
        _, arrays = self.receiver.receive()
        thread.join()
        return arrays["x"]


def run(*, quick: bool) -> Outcome:
    """Count passes, copies and allocated bytes for tensors of several sizes."""
    rows: list[dict[str, object]] = []
    most = 0.0
    for size_kib in (64, 784) if quick else (64, 784, 3136):
        array = np.random.default_rng(0).normal(size=size_kib * 256).astype(np.float32)
        way = _Way(2 * array.nbytes)
        way.move(array)
        before = [cipher.tensor_bytes for cipher in way.ciphers]
        tracemalloc.start()
        received = way.move(array)
        allocated = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(received, array)
        passes = [(cipher.tensor_bytes - old) / array.nbytes for cipher, old in zip(way.ciphers, before, strict=True)]
        found = in_turns(
            {"move": partial(way.move, array), "copy": array.copy},
            turns=5 if quick else 50,
        )
        for end in way.ends:
            end.close()
        most = max(most, allocated / array.nbytes)
        rows.append(
            {
                "tensor, KiB": size_kib,
                "cipher passes, sender + receiver": " + ".join(f"{count:g}" for count in passes),
                "allocated, tensors": allocated / array.nbytes,
                "one way, ms": median_ms(found["move"]),
                "plain copy, ms": median_ms(found["copy"]),
            }
        )
    return Outcome(
        title="Copies through shared memory",
        method=(
            "A channel with both ends in this process moves one tensor; the ciphers count the tensor's bytes that pass "
            "them and `tracemalloc` the memory that is allocated meanwhile, at the peak."
        ),
        rows=rows,
        bars=[Bar("memory allocated to move one tensor, in tensors (the array that is handed on is one)", 1.5, most)],
        remarks=[_WAY, _WHY],
    )
