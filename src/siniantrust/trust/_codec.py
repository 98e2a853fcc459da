"""Control messages: an operation, a short text, and the names, dtypes and shapes of the tensors that go with it.

Big-endian and length-prefixed, with strict limits. The tensors' bytes are not in the message: they follow as records of
their own in shared memory, in the message's order.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from siniantrust.errors import ChannelError

MAX_MESSAGE_BYTES = 60 << 10
MAX_TENSORS = 256
MAX_NAME_BYTES = 512
MAX_RANK = 16
MAX_TENSOR_BYTES = 1 << 40
# A deployment repeats a few messages for ever; what is kept is names and shapes, never a tensor.
_KEPT_MESSAGES = 64

DTYPES: tuple[str, ...] = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
NAME_OF_DTYPE = {np.dtype(name): name for name in DTYPES}
_ITEM_BYTES = {name: np.dtype(name).itemsize for name in DTYPES}
_CODE_OF_DTYPE = {name: code for code, name in enumerate(DTYPES)}
_HEAD = struct.Struct(">BIH")
_NAME = struct.Struct(">H")
_KIND = struct.Struct(">BB")
_SIZE = struct.Struct(">Q")


class Operation(IntEnum):
    """What a message asks for or answers. Those from 16 are answers."""

    LOAD = 1
    RUN = 2
    EVIDENCE = 3
    SEAL = 4
    UNSEAL = 5
    LIMITS = 6
    DONE = 16
    REFUSED_TRUST = 17
    REFUSED_DATA = 18
    REFUSED_ENCLAVE = 19
    ENDED = 20


class TensorSpec(NamedTuple):
    """Name, dtype (numpy's name) and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


class Message(NamedTuple):
    """One control message. ``text`` is a part's name in a request, and the reason in a refusal."""

    operation: Operation
    text: str = ""
    tensors: tuple[TensorSpec, ...] = ()


@lru_cache(_KEPT_MESSAGES)
def encode(message: Message) -> bytes:
    """Return the message as bytes.

    Raises:
        ChannelError: if it breaks a limit or a tensor has a dtype that does not travel.
    """
    text = message.text.encode()
    if len(message.tensors) > MAX_TENSORS:
        raise ChannelError(f"channel: at most {MAX_TENSORS} tensors travel at once, found {len(message.tensors)}")
    pieces = [_HEAD.pack(message.operation, len(text), len(message.tensors)), text]
    for tensor in message.tensors:
        name = tensor.name.encode()
        code = _CODE_OF_DTYPE.get(tensor.dtype)
        if code is None:
            known = ", ".join(DTYPES)
            raise ChannelError(f"channel: tensor {tensor.name}: dtype {tensor.dtype} does not travel, only {known}")
        if len(name) > MAX_NAME_BYTES or len(tensor.shape) > MAX_RANK or tensor.size_bytes > MAX_TENSOR_BYTES:
            raise ChannelError(
                f"channel: tensor {tensor.name[:64]}: expected a name of at most {MAX_NAME_BYTES} bytes, rank at most "
                f"{MAX_RANK} and at most {MAX_TENSOR_BYTES} bytes, found {len(name)}, {len(tensor.shape)} and "
                f"{tensor.size_bytes}"
            )
        pieces += [_NAME.pack(len(name)), name, _KIND.pack(code, len(tensor.shape)), *map(_SIZE.pack, tensor.shape)]
    raw = b"".join(pieces)
    if len(raw) > MAX_MESSAGE_BYTES:
        raise ChannelError(f"channel: a message of {len(raw)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return raw


@lru_cache(_KEPT_MESSAGES)
def decode(raw: bytes) -> Message:
    """Read a message; the inverse of ``encode``.

    Raises:
        ChannelError: for any bytes that ``encode`` would not write.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise ChannelError(f"channel: a message of {len(raw)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    reader = _Reader(raw)
    operation, text_bytes, count = reader.numbers(_HEAD)
    if count > MAX_TENSORS:
        raise ChannelError(f"channel: at most {MAX_TENSORS} tensors travel at once, found {count}")
    if operation not in Operation.__members__.values():
        raise ChannelError(f"channel: a message asks for an unknown operation, {operation}")
    text = reader.text(text_bytes)
    tensors = tuple(_read_tensor(reader) for _ in range(count))
    reader.end()
    return Message(Operation(operation), text, tensors)


class _Reader:
    """Takes pieces off the front of a message and refuses to read past its end."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def _take(self, size_bytes: int) -> bytes:
        piece = self._raw[self._at : self._at + size_bytes]
        if len(piece) != size_bytes:
            raise ChannelError(f"channel: a message of {len(self._raw)} bytes ends in the middle of a field")
        self._at += size_bytes
        return piece

    def numbers(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self._take(layout.size))

    def text(self, size_bytes: int) -> str:
        try:
            return self._take(size_bytes).decode()
        except UnicodeDecodeError:
            raise ChannelError("channel: a text in a message is not UTF-8") from None

    def end(self) -> None:
        if self._at != len(self._raw):
            raise ChannelError(f"channel: a message has {len(self._raw) - self._at} bytes too many")


def _read_tensor(reader: _Reader) -> TensorSpec:
    (name_bytes,) = reader.numbers(_NAME)
    if name_bytes > MAX_NAME_BYTES:
        raise ChannelError(f"channel: a tensor's name has {name_bytes} bytes, the limit is {MAX_NAME_BYTES}")
    name = reader.text(name_bytes)
    code, rank = reader.numbers(_KIND)
    if code >= len(DTYPES) or rank > MAX_RANK:
        raise ChannelError(f"channel: a tensor has dtype code {code} and rank {rank}, which nobody sends")
    shape = tuple(reader.numbers(_SIZE)[0] for _ in range(rank))
    tensor = TensorSpec(name, DTYPES[code], shape)
    if tensor.size_bytes > MAX_TENSOR_BYTES:
        raise ChannelError(f"channel: a tensor has {tensor.size_bytes} bytes, the limit is {MAX_TENSOR_BYTES}")
    return tensor
