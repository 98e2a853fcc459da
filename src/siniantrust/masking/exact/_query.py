"""One request on its way: what a device gets next, and what comes of its answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from siniantrust.errors import IntegrityError
from siniantrust.masking.exact._stages import Exchange

if TYPE_CHECKING:
    from siniantrust.masking.exact._trusted import Trusted

Arrays = Mapping[str, np.ndarray]


@dataclass
class Query:
    """One request: ``request`` is what a device gets next, None when ``outputs`` are there.

    The arrays of ``request`` are used again for later requests once an answer was accepted.
    """

    trusted: Trusted = field(repr=False)
    values: dict[str, np.ndarray] = field(repr=False)
    queries: list[int]
    exchange: int = 0
    request: dict[str, np.ndarray] | None = field(default=None, repr=False)
    outputs: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _steps: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _corrections: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _owned: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        """Compute up to the first exchange."""
        self._advance()

    def accept(self, answers: Arrays) -> None:
        """Check and unmask what a device answered to ``request``, and compute up to the next one.

        Raises:
            IntegrityError: if an answer is missing, of another form, or not the layers'; nothing of it was used. The
                same request may be put to another device: what it holds says no more when it is seen twice.
            TrustError: if a prepared correction does not open.
        """
        exchange = self.trusted.program.exchanges[self.exchange]
        meter = self.trusted.meter
        if answers.keys() != {layer.exit for layer in exchange.layers}:
            raise self._refused(f"expected {sorted(layer.exit for layer in exchange.layers)}, found {sorted(answers)}")
        for layer in exchange.layers:
            answer = answers[layer.exit]
            shape = (len(self.queries), *exchange.shapes[layer.exit][1:])
            if answer.dtype != np.uint32 or answer.shape != shape:
                raise self._refused(
                    f"'{layer.exit}': expected uint32{list(shape)}, found {answer.dtype}{list(answer.shape)}"
                )
            meter.received_bytes += answer.nbytes
        start = time.thread_time()
        self._open_corrections(exchange)
        made, sums = self._unmasked(exchange, answers)
        unmasked = time.thread_time()
        meter.unmask_s += unmasked - start
        wrong = [
            layer
            for layer in exchange.layers
            if not self.trusted.checks[layer.name].holds(self._steps[layer.entry], sums[layer.name])
        ]
        meter.verify_s += time.thread_time() - unmasked
        if wrong:
            self._give(made.values())
            raise self._refused(f"'{wrong[0].exit}' is not what layer '{wrong[0].name}' gives")
        self._go_on(made)

    def compute_here(self) -> None:
        """Compute the exchange's layers on this side, where no device is left to ask."""
        exchange = self.trusted.program.exchanges[self.exchange]
        answers = self.trusted.compute(exchange, self._steps)
        self._give(self._corrections.values())
        self._corrections = {place: np.zeros_like(answers[layer.exit]) for place, layer in enumerate(exchange.layers)}
        made, _ = self._unmasked(exchange, answers)
        self._corrections = {}
        self._go_on(made)

    def _open_corrections(self, exchange: Exchange) -> None:
        """Decrypt the layers' corrections for all items; kept until an answer passes, since they open only once."""
        for place, layer in enumerate(exchange.layers):
            if place not in self._corrections:
                shape = (len(self.queries), *exchange.shapes[layer.exit][1:])
                correction = self.trusted.arena.take(shape, np.uint32)
                for item, query in enumerate(self.queries):
                    self.trusted.correction(query, exchange, place, correction[item])
                self._corrections[place] = correction

    def _unmasked(self, exchange: Exchange, answers: Arrays) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the finished float values by name, and by layer the sums that its check needs."""
        made: dict[str, np.ndarray] = {}
        sums: dict[str, np.ndarray] = {}
        for place, (layer, finish) in enumerate(zip(exchange.layers, exchange.finishes, strict=True)):
            addend = None if finish.addend is None else (self.values | made)[finish.addend]
            answer = answers[layer.exit]
            made[finish.value] = self.trusted.arena.take(answer.shape, np.float32)
            check = self.trusted.checks[layer.name]
            sums[layer.name] = check.unmask(answer, self._corrections[place], addend, made[finish.value])
        return made, sums

    def _go_on(self, made: Arrays) -> None:
        self.values |= made
        self._owned |= made.keys()
        self._give([*self._corrections.values(), *self._steps.values()])
        for array in (self.request or {}).values():
            self.trusted.sent_arena.give(array)
        self._corrections = {}
        self._forget(2 * self.exchange + 1)
        self.exchange += 1
        self._advance()

    def _advance(self) -> None:
        program = self.trusted.program
        self.values |= self.trusted.segment(self.exchange, self.values)
        self._forget(2 * self.exchange)
        self.request = None
        if self.exchange == len(program.exchanges):
            self.outputs = {tensor.name: self.values[tensor.name] for tensor in program.outputs}
            self.values = {}
            return
        exchange = program.exchanges[self.exchange]
        masked = {name: self.trusted.mask(self.queries, exchange, name, self.values[name]) for name in exchange.entries}
        self._steps = {name: steps for name, (steps, _) in masked.items()}
        self.request = {name: sent for name, (_, sent) in masked.items()}

    def _forget(self, step: int) -> None:
        """Drop values that nothing reads after ``step`` of the program."""
        last = self.trusted.last_reads
        dead = [name for name in self.values if last.get(name, -1) <= step]
        arrays = {name: self.values.pop(name) for name in dead}
        self._give(array for name, array in arrays.items() if name in self._owned)

    def _give(self, arrays: Iterable[np.ndarray]) -> None:
        for array in arrays:
            self.trusted.arena.give(array)

    def _refused(self, what: str) -> IntegrityError:
        self.trusted.meter.refused += 1
        return IntegrityError(f"exchange {self.exchange}: a device's answer is refused: {what}")
