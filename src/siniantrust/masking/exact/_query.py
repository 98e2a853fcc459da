"""One request on its way: what a device gets next, and what comes of its answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from siniantrust.errors import DataError, IntegrityError
from siniantrust.masking.exact._passes import NOT_FINITE, OUT_OF_RANGE, Results
from siniantrust.masking.exact._stages import Exchange

if TYPE_CHECKING:
    from siniantrust.masking.exact._trusted import Trusted

Arrays = Mapping[str, np.ndarray]


@dataclass
class _Made:
    """What unmasking an exchange gave, by name: float32 values, and quantised ones."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    steps: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Query:
    """One request: ``request`` is what a device gets next, None when ``outputs`` are there.

    ``prepared`` is what the host is to keep of queries that were prepared for it on the spot. The arrays of ``request``
    are used again for later requests once an answer was accepted.
    """

    trusted: Trusted = field(repr=False)
    values: dict[str, np.ndarray] = field(repr=False)
    queries: list[int]
    prepared: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    exchange: int = 0
    request: dict[str, np.ndarray] | None = field(default=None, repr=False)
    outputs: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _steps: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _entered: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _owned: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        """Compute up to the first exchange."""
        self._advance()

    def accept(self, answers: Arrays) -> None:
        """Check and unmask what a device answered to ``request``, corrections added, and compute up to the next one.

        Raises:
            IntegrityError: if an answer is missing, of another form, or not the layers'; nothing of it was used. The
                same request may be put to another device: what it holds says no more when it is seen twice.
            DataError: if a value is not finite.
        """
        exchange = self.trusted.program.exchanges[self.exchange]
        meter = self.trusted.meter
        if answers.keys() != {layer.exit for layer in exchange.layers}:
            raise self._refused(f"expected {sorted(layer.exit for layer in exchange.layers)}, found {sorted(answers)}")
        for layer in exchange.layers:
            answer = answers[layer.exit]
            form = exchange.form(layer.exit, len(self.queries))
            if answer.dtype != np.uint8 or answer.shape != form:
                raise self._refused(
                    f"'{layer.exit}': expected uint8{list(form)}, found {answer.dtype}{list(answer.shape)}"
                )
            meter.received_bytes += answer.nbytes
        start = time.thread_time()
        made = _Made()
        found = [self._unmasked(exchange, place, answers, made) for place in range(len(exchange.layers))]
        unmasked = time.thread_time()
        meter.unmask_s += unmasked - start
        wrong = [
            layer
            for layer, (sums, flags) in zip(exchange.layers, found, strict=True)
            if flags & OUT_OF_RANGE or not self.trusted.checks[layer.name].holds(self._entered[layer.entry], sums)
        ]
        meter.verify_s += time.thread_time() - unmasked
        if wrong:
            self._give([*made.values.values(), *made.steps.values()])
            raise self._refused(f"'{wrong[0].exit}' is not what layer '{wrong[0].name}' gives")
        self._require_finite(exchange, [flags for _, flags in found])
        self._go_on(made)

    def compute_here(self) -> None:
        """Compute the exchange's layers on this side, where no device is left to ask."""
        exchange = self.trusted.program.exchanges[self.exchange]
        answers = self.trusted.compute(exchange, self._entered)
        made = _Made()
        found = [self._unmasked(exchange, place, answers, made, here=True) for place in range(len(exchange.layers))]
        self._require_finite(exchange, [flags for _, flags in found])
        self._go_on(made)

    def _unmasked(
        self, exchange: Exchange, place: int, answers: Arrays, made: _Made, *, here: bool = False
    ) -> tuple[np.ndarray, int]:
        """Put what a layer gives, finished, into ``made``; return the sums that its check needs, and flags."""
        trusted, uses = self.trusted, self.trusted.uses
        layer, finish = exchange.layers[place], exchange.finishes[place]
        check, answer = trusted.checks[layer.name], np.ascontiguousarray(answers[layer.exit])
        shape = (len(self.queries), *exchange.shapes[layer.exit][1:])
        quantised = finish.value in uses.scales
        values = steps = added = None
        if finish.value in uses.floats or not quantised:
            values = made.values[finish.value] = trusted.arena.take(shape, np.float32)
        if quantised:
            steps = trusted.arena.take(shape, np.int8)
        scale = 1.0
        if finish.addend in uses.steps_added:
            added, scale = made.steps.get(finish.addend), uses.scales[finish.addend]
            added = self._steps[finish.addend] if added is None else added
        elif finish.addend is not None:
            added = made.values.get(finish.addend)
            added = np.ascontiguousarray(self.values[finish.addend] if added is None else added)
        sums = np.zeros((len(self.queries), *check.sums), np.int64)
        results = Results(answer, sums, added, scale, values, steps)
        flags = trusted.unmask(self.queries, exchange, place, results, here=here)
        if steps is not None and finish.pool is not None:
            pooled = trusted.pool(steps, finish.pool)
            trusted.arena.give(steps)
            steps = pooled
        if steps is not None:
            made.steps[finish.value] = steps
        return sums, flags

    @staticmethod
    def _require_finite(exchange: Exchange, flags: Iterable[int]) -> None:
        for finish, each in zip(exchange.finishes, flags, strict=True):
            if each & NOT_FINITE:
                raise DataError(f"exact masks: value '{finish.value}' is not finite")

    def _go_on(self, made: _Made) -> None:
        self.values |= made.values
        self._steps |= made.steps
        self._owned |= made.values.keys()
        for array in (self.request or {}).values():
            self.trusted.sent_arena.give(array)
        self._give(self._entered.pop(name) for name in self.trusted.program.exchanges[self.exchange].joins)
        self._forget(2 * self.exchange + 1)
        self.exchange += 1
        self._advance()

    def _advance(self) -> None:
        program = self.trusted.program
        self.values |= self.trusted.segment(self.exchange, self.values)
        self.request = None
        if self.exchange == len(program.exchanges):
            self.outputs = {tensor.name: self.values[tensor.name] for tensor in program.outputs}
            self.values = {}
            return
        exchange = program.exchanges[self.exchange]
        last_steps = self.trusted.uses.last_steps
        for name, values in self.values.items():
            # At once, also where it is sent later: bytes are less to keep than floats.
            if name not in self._steps and last_steps.get(name, -1) > 2 * self.exchange:
                self._steps[name] = self.trusted.quantise(name, values)
        self._forget(2 * self.exchange)
        self._entered = self.trusted.entered(exchange, self._steps)
        self.request = {
            name: self.trusted.mask(self.queries, exchange, name, steps) for name, steps in self._entered.items()
        }

    def _forget(self, step: int) -> None:
        """Drop values that nothing reads after ``step`` of the program."""
        uses = self.trusted.uses
        for name in [name for name in self.values if uses.last_floats.get(name, -1) <= step]:
            array = self.values.pop(name)
            if name in self._owned:
                self.trusted.arena.give(array)
        for name in [name for name in self._steps if uses.last_steps[name] <= step]:
            self.trusted.arena.give(self._steps.pop(name))

    def _give(self, arrays: Iterable[np.ndarray]) -> None:
        for array in arrays:
            self.trusted.arena.give(array)

    def _refused(self, what: str) -> IntegrityError:
        self.trusted.meter.refused += 1
        return IntegrityError(f"exchange {self.exchange}: a device's answer is refused: {what}")
