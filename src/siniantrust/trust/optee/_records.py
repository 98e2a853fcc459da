"""The records of a session with an application: each block travels in pieces, every one under its own counter."""

from __future__ import annotations

from siniantrust.trust._cipher import TAG_BYTES, Kind, RecordCipher

# As the application's own channel.h says.
RECORD_BYTES = 32 << 10


class Records:
    """Both directions of a session."""

    def __init__(self, sealer: RecordCipher, opener: RecordCipher) -> None:
        self.sealer = sealer
        self._opener = opener

    def seal(self, kind: Kind, plain: bytes | bytearray | memoryview) -> bytearray:
        """Return one record."""
        sealed = bytearray(len(plain) + TAG_BYTES)
        self.sealer.seal(kind, memoryview(plain), memoryview(sealed))
        return sealed

    def seal_block(self, block: memoryview) -> bytearray:
        """Return a block as records."""
        return bytearray().join(
            self.seal(Kind.PAYLOAD, block[at : at + RECORD_BYTES]) for at in range(0, len(block), RECORD_BYTES)
        )

    def open(self, kind: Kind, sealed: memoryview) -> bytearray:
        """Return what is in one record.

        Raises:
            ChannelError: if it is not the next one, unchanged.
        """
        plain = bytearray(len(sealed) - TAG_BYTES)
        self._opener.open(kind, sealed, memoryview(plain))
        return plain

    def open_block(self, sealed: memoryview) -> bytes:
        """Return the block that came as records; see ``open``."""
        step = RECORD_BYTES + TAG_BYTES
        return b"".join(self.open(Kind.PAYLOAD, sealed[at : at + step]) for at in range(0, len(sealed), step))


def sealed_bytes(size: int) -> int:
    """Return the bytes that a block of ``size`` bytes takes as records."""
    return size + -(-size // RECORD_BYTES) * TAG_BYTES
