"""Reading binary evidence from the front, so that every byte of it has a place."""

from __future__ import annotations


class Reader:
    """Takes bytes from the front of ``raw``; fewer than asked for, or more than there should be, is an error."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._place = 0

    def take(self, size_bytes: int) -> bytes:
        """Return the next bytes.

        Raises:
            EOFError: if there are fewer.
        """
        start, self._place = self._place, self._place + size_bytes
        if self._place > len(self._raw):
            raise EOFError("too few bytes")
        return self._raw[start : self._place]

    def number(self, size_bytes: int) -> int:
        """Return the next bytes as a little-endian number.

        Raises:
            EOFError: if there are fewer.
        """
        return int.from_bytes(self.take(size_bytes), "little")

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._raw) - self._place)

    def at_end(self) -> bool:
        """Return whether nothing is left."""
        return self._place == len(self._raw)

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            ValueError: if there is.
        """
        if not self.at_end():
            raise ValueError("more bytes than it says")
