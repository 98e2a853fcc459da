"""The host's share of pads: it keeps sealed corrections, and adds them to what devices answer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from siniantrust.errors import TrustError
from siniantrust.masking.exact._passes import best_passes
from siniantrust.masking.exact._stages import Correction

Arrays = Mapping[str, np.ndarray]


class Corrections:
    """Keeps rows of corrections by the number of the item that they are for. Safe for several threads.

    Args:
        exchanges: what each exchange's layers have, in order.
    """

    def __init__(self, exchanges: Sequence[Sequence[Correction]]) -> None:
        self._exchanges = [tuple(each) for each in exchanges]
        self._ends = np.cumsum([0, *(sum(each.size_bytes for each in exchange) for exchange in exchanges)])
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Bytes that lie here."""
        with self._lock:
            return sum(row.nbytes for row in self._kept.values())

    def keep(self, rows: Mapping[int, np.ndarray]) -> None:
        """Keep what was prepared, by item: uint8 (bytes,), all layers' corrections one after the other.

        Raises:
            TrustError: if a row has another size.
        """
        for row in rows.values():
            if row.shape != (self._ends[-1],):
                raise TrustError(
                    f"exact masks: expected {self._ends[-1]} bytes of corrections an item, found {row.shape}"
                )
        with self._lock:
            self._kept.update(rows)

    def rows(self, exchange: int, items: Sequence[int]) -> np.ndarray:
        """Return one exchange's share of what is kept, uint8 (items, bytes).

        Raises:
            TrustError: if an item's are gone.
        """
        return np.stack(self._shares(exchange, items))

    def added(self, exchange: int, items: Sequence[int], answers: Arrays) -> dict[str, np.ndarray]:
        """Return a device's answers with the corrections of their items added.

        An answer of another form stays as it is: the enclave refuses it, and says why.

        Raises:
            TrustError: if an item's are gone.
        """
        rows, found, at, add = self._shares(exchange, items), dict(answers), 0, best_passes().add
        for each in self._exchanges[exchange]:
            size = each.limbs * each.count
            answer = answers.get(each.exit)
            if answer is not None and answer.dtype == np.uint8 and answer.size == size * len(items):
                whole, made = np.ascontiguousarray(answer), np.empty(answer.shape, np.uint8)
                form = len(items), each.limbs, each.count
                for row, one, to in zip(rows, whole.reshape(form), made.reshape(form), strict=True):
                    add(one, row[at : at + size].reshape(each.limbs, each.count), to)
                found[each.exit] = made
            at += each.size_bytes
        return found

    def _shares(self, exchange: int, items: Sequence[int]) -> list[np.ndarray]:
        share = slice(self._ends[exchange], self._ends[exchange + 1])
        with self._lock:
            rows = {item: self._kept.get(item) for item in items}
        found = [row[share] for row in rows.values() if row is not None and len(row) == self._ends[-1]]
        if len(found) != len(items):
            raise TrustError(
                f"pad stock: corrections for queries {[*items]} are gone, or not whole; the host lost them"
            )
        return found

    def forget(self, items: Iterable[int]) -> None:
        """Drop what is kept for items."""
        with self._lock:
            for item in items:
                self._kept.pop(item, None)
