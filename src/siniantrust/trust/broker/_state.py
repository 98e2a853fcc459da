"""What follows from the log: the counters of versions, and what was revoked. Nothing else is kept of it anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from siniantrust.trust.broker._log import Entry


class State:
    """Reads entries in order. There is no entry that takes a revocation back or lets a counter go down."""

    def __init__(self) -> None:
        self._read = 0
        self._released: dict[str, int] = {}
        self._revoked: dict[str, set[str]] = {"revoke-key": set(), "revoke-enclave": set()}
        self._held: set[tuple[str, str]] = set()

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take note of the entries that are new."""
        for entry in entries[self._read :]:
            if entry.event == "release":
                self._released[entry.lineage] = max(entry.version, self.counter(entry.lineage))
                self._held.add((entry.enclave, entry.key_id))
            elif entry.event in self._revoked:
                self._revoked[entry.event].add(entry.key_id or entry.enclave)
        self._read = len(entries)

    def counter(self, lineage: str) -> int:
        """Return the highest version of a lineage whose key was ever released; 0 for none."""
        return self._released.get(lineage, 0)

    def is_key_revoked(self, key_id: str) -> bool:
        """Return whether a key was revoked."""
        return key_id in self._revoked["revoke-key"]

    def is_enclave_revoked(self, enclave: str) -> bool:
        """Return whether an enclave was revoked."""
        return enclave in self._revoked["revoke-enclave"]

    def holds(self, enclave: str, key_id: str) -> bool:
        """Return whether an enclave was ever given a key."""
        return (enclave, key_id) in self._held

    def holds_any(self, enclave: str) -> bool:
        """Return whether an enclave was ever given any key."""
        return any(holder == enclave for holder, _ in self._held)
