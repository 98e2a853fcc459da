"""The host's side of a program in an enclave: what it sends there, and what it keeps for it, by ``_wire``'s names."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from siniantrust.errors import TrustError
from siniantrust.masking.exact._program_file import Outline
from siniantrust.masking.exact._trusted import Meter
from siniantrust.masking.exact._wire import (
    COMPUTE,
    DROP,
    EXCHANGE,
    ITEMS,
    PREPARE,
    QUERY,
    REFUSED,
    RESERVED,
    STATUS,
    STOCK,
)

Arrays = Mapping[str, np.ndarray]
Call = Callable[[Arrays], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Status:
    """What the trusted side says of itself: its meter, and items in stock."""

    meter: Meter
    stock_level: int


@dataclass
class Pending:
    """A request that waits for a device: which exchange, and the masked values to compute on.

    ``refused`` says why the last answer was not taken; None where there was none.
    """

    query: np.ndarray
    items: np.ndarray
    exchange: int
    masked: dict[str, np.ndarray] = field(repr=False)
    refused: str | None = None
    brought: bool = False


class Relay:
    """Speaks with one loaded program, and keeps the corrections that it prepared. Safe for several threads.

    Args:
        call: runs the program once in its enclave.
        outlines: its exchanges.
    """

    def __init__(self, call: Call, outlines: Sequence[Outline]) -> None:
        self._call = call
        self._ends = np.cumsum([0, *(outline.stock_bytes for outline in outlines)])
        self._lock = threading.Lock()
        self._kept: dict[int, np.ndarray] = {}

    def begin(self, inputs: Arrays) -> Pending | dict[str, np.ndarray]:
        """Begin a request; return what a device is to compute, or the outputs where nothing is."""
        return self._read(self._call(inputs))

    def accept(self, pending: Pending, answers: Arrays) -> Pending | dict[str, np.ndarray]:
        """Hand a device's answers over; return what is next. One that is refused comes back with the reason."""
        return self._go_on(pending, answers)

    def compute(self, pending: Pending) -> Pending | dict[str, np.ndarray]:
        """Have the exchange computed in the enclave."""
        return self._go_on(pending, {COMPUTE: np.ones(1, np.uint8)})

    def drop(self, pending: Pending) -> None:
        """Have a request forgotten, and forget what was kept for it."""
        self._forget(pending)
        self._call({QUERY: pending.query, DROP: np.ones(1, np.uint8)})

    def prepare(self, count: int) -> Status:
        """Have pads prepared for so many items, and keep their corrections."""
        answer = self._call({PREPARE: np.array([count], np.uint64)})
        rows, items = answer[STOCK], answer[ITEMS]
        if rows.shape != (len(items), self._ends[-1]):
            raise TrustError(f"exact masks: expected {self._ends[-1]} bytes of corrections an item, found {rows.shape}")
        with self._lock:
            self._kept.update(zip(items.tolist(), rows, strict=True))
        return _status(answer)

    def status(self) -> Status:
        """Ask what the trusted side did so far."""
        return _status(self._call({STATUS: np.zeros(1, np.uint8)}))

    @property
    def kept_bytes(self) -> int:
        """Bytes of corrections that lie here."""
        with self._lock:
            return sum(rows.nbytes for rows in self._kept.values())

    def _go_on(self, pending: Pending, answers: Arrays) -> Pending | dict[str, np.ndarray]:
        stock = {} if pending.brought else self._stock(pending)
        try:
            answer = self._call({**answers, **stock, QUERY: pending.query})
        except BaseException:
            self._forget(pending)
            raise
        if REFUSED in answer:
            pending.refused, pending.brought = answer[REFUSED].tobytes().decode(errors="replace"), True
            return pending
        return self._read(answer, pending)

    def _stock(self, pending: Pending) -> dict[str, np.ndarray]:
        """Return what is kept for this exchange; items whose pads were prepared on the spot have nothing here."""
        with self._lock:
            own = {item: self._kept[item] for item in pending.items.tolist() if item in self._kept}
        if not own:
            return {}
        share = slice(self._ends[pending.exchange], self._ends[pending.exchange + 1])
        return {ITEMS: np.array(list(own), np.uint64), STOCK: np.stack([rows[share] for rows in own.values()])}

    def _read(self, answer: dict[str, np.ndarray], last: Pending | None = None) -> Pending | dict[str, np.ndarray]:
        if QUERY not in answer:
            if last is not None:
                self._forget(last)
            return answer
        masked = {name: array for name, array in answer.items() if not name.startswith(RESERVED)}
        return Pending(answer[QUERY], answer[ITEMS], int(answer[EXCHANGE][0]), masked)

    def _forget(self, pending: Pending) -> None:
        with self._lock:
            for item in pending.items.tolist():
                self._kept.pop(item, None)


def _status(answer: Arrays) -> Status:
    raw = json.loads(answer[STATUS].tobytes())
    return Status(stock_level=int(raw.pop("stock_level")), meter=Meter(**raw))
