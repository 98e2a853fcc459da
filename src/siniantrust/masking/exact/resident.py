"""A program inside an enclave: it keeps keys, pads and the requests on their way, and asks its host to relay.

Nothing here, nor what it imports, needs more than numpy and ``cryptography``: it is part of what is measured. A
session's key is drawn where the program is loaded and dies with the enclave, and so does the count of its queries: a
pad cannot be used twice however often enclaves crash, since the next one has another key.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from siniantrust.errors import DataError, EnclaveError, IntegrityError
from siniantrust.masking.exact._pads import KEY_BYTES
from siniantrust.masking.exact._passes import best_passes
from siniantrust.masking.exact._program_file import MAGIC, Piece, load_program
from siniantrust.masking.exact._query import Query
from siniantrust.masking.exact._trusted import Trusted
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
RunModel = Callable[[Arrays], dict[str, np.ndarray]]

__all__ = ["MAGIC", "ResidentProgram", "best_passes"]

_MOST_REQUESTS = 64
_MOST_AGE_S = 600.0
_MOST_PREPARED = 64


@dataclass
class _OnTheWay:
    query: Query
    began_s: float


class ResidentProgram:
    """A loaded program; ``run`` takes and gives arrays as a loaded part does (see ``_wire`` for the names).

    It keeps at most 64 requests that wait for a device, none longer than ten minutes.

    Args:
        head: its head.
        body: its opened body.
        open_model: makes a serialised ONNX model ready to run inside.

    Raises:
        TrustError: if the program is malformed.
        PlanError: if the bound of a layer cannot be proven.
    """

    def __init__(self, head: bytes, body: memoryview, open_model: Callable[[bytes], RunModel]) -> None:
        program, settings = load_program(head, body)

        def open_piece(piece: object) -> RunModel:
            assert isinstance(piece, Piece)  # noqa: S101 - what load_program makes parts of
            return open_model(piece.model)

        self._trusted = Trusted(
            program,
            open_part=open_piece,
            key=os.urandom(KEY_BYTES),
            ledger=Count(),
            soundness_bits=settings.soundness_bits,
            wait_when_dry=settings.wait_when_dry,
        )
        self._requests: dict[int, _OnTheWay] = {}
        self._numbers = itertools.count(1)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Begin a request, go on with one, prepare, or report, as the names in ``inputs`` say.

        Raises:
            DataError: if the arrays do not fit, or a value on the way is not finite.
            TrustError: if a correction was changed, or the stock is dry and may not be waited for.
            EnclaveError: if a request is not known, or too many are on their way.
        """
        control = {name: array for name, array in inputs.items() if name.startswith(RESERVED)}
        if QUERY in control:
            return self._go_on(control, {name: array for name, array in inputs.items() if name not in control})
        if PREPARE in control:
            return self._prepare(_number(control, PREPARE))
        if STATUS in control:
            return self._status()
        return self._begin(inputs)

    def _begin(self, inputs: Arrays) -> dict[str, np.ndarray]:
        now = time.monotonic()
        for number in [number for number, each in self._requests.items() if now - each.began_s > _MOST_AGE_S]:
            self._forget(number)
        if len(self._requests) >= _MOST_REQUESTS:
            raise EnclaveError(
                f"exact masks: {_MOST_REQUESTS} requests wait for devices, the limit; finish or drop some of them"
            )
        query = self._trusted.begin(inputs)
        number = next(self._numbers)
        self._requests[number] = _OnTheWay(query, now)
        return {**_prepared(query.prepared), **self._next(number, query)}

    def _go_on(self, control: Arrays, answers: Arrays) -> dict[str, np.ndarray]:
        number = _number(control, QUERY)
        found = self._requests.get(number)
        if found is None:
            raise EnclaveError(f"exact masks: no request {number} waits here; it was answered, dropped or never made")
        if DROP in control:
            self._forget(number)
            return {}
        query = found.query
        try:
            if STOCK in control:
                return self._require_untouched(query, control)
            if COMPUTE in control:
                query.compute_here()
            else:
                query.accept(answers)
        except IntegrityError as fault:
            return {QUERY: _numbers(number), REFUSED: np.frombuffer(str(fault).encode(), np.uint8)}
        except BaseException:
            self._forget(number)
            raise
        return self._next(number, query)

    def _next(self, number: int, query: Query) -> dict[str, np.ndarray]:
        if query.request is None:
            self._forget(number)
            return query.outputs
        return {
            **query.request,
            QUERY: _numbers(number),
            EXCHANGE: _numbers(query.exchange),
            ITEMS: _numbers(*query.queries),
        }

    def _require_untouched(self, query: Query, control: Arrays) -> dict[str, np.ndarray]:
        """Hold what the host kept for the exchange that was refused against its tags. Raises TrustError as ``run``."""
        exchange = self._trusted.program.exchanges[query.exchange]
        size_bytes = sum(correction.size_bytes for correction in exchange.corrections)
        rows, items = control[STOCK], control.get(PREPARED, _numbers())
        own = set(query.queries)
        if rows.dtype != np.uint8 or rows.shape != (len(items), size_bytes) or not own.issuperset(items.tolist()):
            raise DataError(
                f"exact masks: corrections: expected uint8[items, {size_bytes}] of this request's items, found "
                f"{rows.dtype}{list(rows.shape)}"
            )
        for item, row in zip(items.tolist(), rows, strict=True):
            self._trusted.require_untouched(item, exchange, row)
        return {}

    def _prepare(self, count: int) -> dict[str, np.ndarray]:
        if not 0 < count <= _MOST_PREPARED:
            raise DataError(f"exact masks: prepare: expected 1 to {_MOST_PREPARED} items at once, found {count}")
        return {**_prepared(self._trusted.prepare(count)), **self._status()}

    def _status(self) -> dict[str, np.ndarray]:
        known = {**asdict(self._trusted.meter), "stock_level": self._trusted.stock_level}
        return {STATUS: np.frombuffer(json.dumps(known).encode(), np.uint8)}

    def _forget(self, number: int) -> None:
        del self._requests[number]


class Count:
    """Counts queries under a key that dies with the count."""

    def __init__(self) -> None:
        self._next = itertools.count()

    def take(self) -> int:
        return next(self._next)


def _number(control: Arrays, name: str) -> int:
    array = control[name]
    if array.dtype != np.uint64 or array.shape != (1,):
        raise DataError(f"exact masks: {name}: expected uint64[1], found {array.dtype}{list(array.shape)}")
    return int(array[0])


def _prepared(rows: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    return {PREPARED: _numbers(*rows), STOCK: np.stack(list(rows.values()))} if rows else {}


def _numbers(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)
