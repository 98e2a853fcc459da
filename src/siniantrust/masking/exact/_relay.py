"""The host's side of a program in an enclave: what it sends there, and what it keeps for it, by ``_wire``'s names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from siniantrust.errors import TrustError
from siniantrust.masking.exact._corrections import Corrections
from siniantrust.masking.exact._outline import Outline
from siniantrust.masking.exact._trusted import Meter
from siniantrust.masking.exact._wire import (
    COMPUTE,
    DROP,
    EXCHANGE,
    ITEMS,
    PREPARE,
    PREPARED,
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


class Relay:
    """Speaks with one loaded program, and keeps the corrections that it prepared. Safe for several threads.

    Args:
        call: runs the program once in its enclave.
        outlines: its exchanges.
    """

    def __init__(self, call: Call, outlines: Sequence[Outline]) -> None:
        self._call = call
        self._corrections = Corrections([outline.corrections for outline in outlines])

    def begin(self, inputs: Arrays) -> Pending | dict[str, np.ndarray]:
        """Begin a request; return what a device is to compute, or the outputs where nothing is."""
        return self._read(self._call(inputs))

    def accept(self, pending: Pending, answers: Arrays) -> Pending | dict[str, np.ndarray]:
        """Hand a device's answers over; return what is next. One that is refused comes back with the reason.

        Raises:
            TrustError: if corrections were lost, or the enclave says that they were changed.
        """
        items = pending.items.tolist()
        try:
            corrected = self._corrections.added(pending.exchange, items, answers)
        except TrustError:
            self.drop(pending)
            raise
        state = self._go_on(pending, corrected)
        if state is pending:
            rows = self._corrections.rows(pending.exchange, items)
            self._answer(pending, {PREPARED: pending.items, STOCK: rows})
        return state

    def compute(self, pending: Pending) -> Pending | dict[str, np.ndarray]:
        """Have the exchange computed in the enclave."""
        return self._go_on(pending, {COMPUTE: np.ones(1, np.uint8)})

    def drop(self, pending: Pending) -> None:
        """Have a request forgotten, and forget what was kept for it."""
        self._corrections.forget(pending.items.tolist())
        self._call({QUERY: pending.query, DROP: np.ones(1, np.uint8)})

    def prepare(self, count: int) -> Status:
        """Have pads prepared for so many items, and keep their corrections."""
        answer = self._call({PREPARE: np.array([count], np.uint64)})
        self._keep(answer)
        return _status(answer)

    def status(self) -> Status:
        """Ask what the trusted side did so far."""
        return _status(self._call({STATUS: np.zeros(1, np.uint8)}))

    @property
    def kept_bytes(self) -> int:
        """Bytes of corrections that lie here."""
        return self._corrections.kept_bytes

    def _go_on(self, pending: Pending, arrays: Arrays) -> Pending | dict[str, np.ndarray]:
        answer = self._answer(pending, arrays)
        if REFUSED in answer:
            pending.refused = answer[REFUSED].tobytes().decode(errors="replace")
            return pending
        if QUERY not in answer:
            self._corrections.forget(pending.items.tolist())
        return self._read(answer)

    def _answer(self, pending: Pending, arrays: Arrays) -> dict[str, np.ndarray]:
        try:
            return self._call({**arrays, QUERY: pending.query})
        except BaseException:
            self._corrections.forget(pending.items.tolist())
            raise

    def _read(self, answer: dict[str, np.ndarray]) -> Pending | dict[str, np.ndarray]:
        if QUERY not in answer:
            return answer
        if PREPARED in answer:
            self._keep(answer)
        masked = {name: array for name, array in answer.items() if not name.startswith(RESERVED)}
        return Pending(answer[QUERY], answer[ITEMS], int(answer[EXCHANGE][0]), masked)

    def _keep(self, answer: Arrays) -> None:
        self._corrections.keep(dict(zip(answer[PREPARED].tolist(), answer[STOCK], strict=True)))


def _status(answer: Arrays) -> Status:
    raw = json.loads(answer[STATUS].tobytes())
    return Status(stock_level=int(raw.pop("stock_level")), meter=Meter(**raw))
