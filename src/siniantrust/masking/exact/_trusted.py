"""The trusted side: masks what it sends, checks and unmasks what comes back, and computes the rest itself.

query = trusted.begin(inputs)
while query.request is not None:
query.accept(device.run(query.exchange, query.request))
outputs = query.outputs
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from siniantrust.errors import DataError, IntegrityError, TrustError
from siniantrust.graph import Part
from siniantrust.masking.exact import _field
from siniantrust.masking.exact._layer import Layer, dequantised, quantised
from siniantrust.masking.exact._ledger import PadLedger
from siniantrust.masking.exact._pads import KEY_BYTES, PadSource
from siniantrust.masking.exact._program import Exchange, Program
from siniantrust.masking.exact._stock import Stock
from siniantrust.masking.exact._verify import DEFAULT_SOUNDNESS_BITS, LayerCheck

Arrays = Mapping[str, np.ndarray]
RunPart = Callable[[Arrays], dict[str, np.ndarray]]


@dataclass
class Meter:
    """What the trusted side did so far, in seconds and counts. ``prepare_s`` is the offline cost, never left out.

    Seconds are processor time of the thread that calls: what neighbours on the machine do does not count.
    """

    queries: int = 0
    prepared: int = 0
    ran_dry: int = 0
    refused: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    prepare_s: float = 0.0
    mask_s: float = 0.0
    verify_s: float = 0.0
    unmask_s: float = 0.0
    segment_s: float = 0.0


class Trusted:
    """Runs a program's trusted side in one session.

    Args:
        program: what to run.
        open_part: opens a part on this side of the boundary.
        key: the session's secret, 32 random bytes; pads, stock and ledger take their own keys from it.
        ledger: hands out query numbers; its key must be ``ledger_key(key)``.
        outside: where prepared corrections lie, encrypted.
        soundness_bits: a wrong answer passes with a probability of at most 2 to minus this.
        wait_when_dry: prepare a query on the spot where none is in stock; else refuse it.
    """

    def __init__(
        self,
        program: Program,
        *,
        open_part: Callable[[Part], RunPart],
        key: bytes,
        ledger: PadLedger,
        outside: dict[bytes, bytes] | None = None,
        soundness_bits: int = DEFAULT_SOUNDNESS_BITS,
        wait_when_dry: bool = True,
    ) -> None:
        if len(key) != KEY_BYTES:
            raise TrustError(f"exact masks: expected a session key of {KEY_BYTES} bytes, found {len(key)}")
        self.program = program
        self.meter = Meter()
        self._pads = PadSource(_derived(key, b"pads"))
        self._stock = Stock(_derived(key, b"stock"), {} if outside is None else outside)
        self._ledger = ledger
        self._wait_when_dry = wait_when_dry
        self._segments = [None if part is None else open_part(part) for part in program.segments]
        self._local = [open_part(exchange.part) for exchange in program.exchanges]
        self._checks = {layer.name: LayerCheck(layer, soundness_bits=soundness_bits) for layer in program.layers}
        self._first_layer = {}
        counted = 0
        for exchange in program.exchanges:
            self._first_layer[exchange.number] = counted
            counted += len(exchange.layers)

    @property
    def stock_level(self) -> int:
        """Queries that are prepared."""
        return self._stock.level

    @property
    def stock_bytes(self) -> int:
        """Bytes of corrections that lie outside."""
        return self._stock.stored_bytes

    def prepare(self, count: int) -> None:
        """Work out the corrections of ``count`` further queries, in idle time.

        Raises:
            TrustError: if the ledger hands out no number.
        """
        for _ in range(count):
            start = time.thread_time()
            query = self._ledger.take()
            self._stock.put(query, self._corrections(query))
            self.meter.prepared += 1
            self.meter.prepare_s += time.thread_time() - start

    def _corrections(self, query: int) -> list[np.ndarray]:
        made: list[np.ndarray] = []
        for exchange, run in zip(self.program.exchanges, self._local, strict=True):
            pads = {name: self.pad(query, exchange, name) for name in exchange.entries}
            found = run(pads)
            made += [found[layer.exit] for layer in exchange.layers]
        return made

    def pad(self, query: int, exchange: Exchange, entry: str) -> np.ndarray:
        """Return the pad of one entry in one query, shaped like one item."""
        shape = (1, *self.program.shapes[entry][1:])
        return self._pads.pad(query, exchange.entries[entry], int(np.prod(shape))).reshape(shape)

    def begin(self, inputs: Arrays) -> Query:
        """Start a request; every item of it becomes a query of its own.

        Raises:
            DataError: if the inputs do not fit the model.
            TrustError: if the stock is dry and waiting is not allowed, or the ledger fails.
        """
        wanted = {tensor.name: tensor for tensor in self.program.inputs}
        if inputs.keys() != wanted.keys():
            raise DataError(f"exact masks: expected inputs {sorted(wanted)}, found {sorted(inputs)}")
        for name, array in inputs.items():
            if array.dtype != wanted[name].dtype or not wanted[name].fits(array.shape):
                raise DataError(
                    f"exact masks: input '{name}': expected {wanted[name].dtype}{list(wanted[name].shape)}, found "
                    f"{array.dtype}{list(array.shape)}"
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"exact masks: input '{name}' is not finite")
        items = next(iter(inputs.values())).shape[0]
        queries = [self._taken() for _ in range(items)]
        self.meter.queries += items
        return Query(self, dict(inputs), queries)

    def _taken(self) -> int:
        query = self._stock.take()
        if query is None:
            self.meter.ran_dry += 1
            if not self._wait_when_dry:
                raise TrustError("pad stock: it is dry, and the policy says not to wait; prepare more ahead of time")
            self.prepare(1)
            query = self._stock.take()
        if query is None:
            raise TrustError("pad stock: other requests took what was prepared; try again")
        return query

    def correction(self, query: int, exchange: Exchange, place: int) -> np.ndarray:
        """Return the correction of the ``place``-th layer of an exchange in one query, shaped like one item."""
        layer = exchange.layers[place]
        shape = (1, *self.program.shapes[layer.exit][1:])
        return self._stock.open(query, self._first_layer[exchange.number] + place, shape)

    def segment(self, number: int, values: Arrays) -> dict[str, np.ndarray]:
        """Compute what stays inside before exchange ``number``."""
        run, part = self._segments[number], self.program.segments[number]
        if run is None or part is None:
            return {}
        start = time.thread_time()
        found = run({tensor.name: values[tensor.name] for tensor in part.inputs})
        self.meter.segment_s += time.thread_time() - start
        return found

    def compute(self, exchange: Exchange, steps: Arrays) -> dict[str, np.ndarray]:
        """Return the integer results of an exchange's layers, by name, computed on this side."""
        bare = {name: _field.masked(values, np.zeros(1, np.uint32)) for name, values in steps.items()}
        found = self._local[exchange.number](bare)
        return {layer.name: _field.unmasked(found[layer.exit], np.zeros(1, np.uint32)) for layer in exchange.layers}

    def check(self, layer: Layer, entry: np.ndarray, results: np.ndarray) -> bool:
        """Return whether a device's results are a layer's."""
        start = time.thread_time()
        good = self._checks[layer.name].holds(entry, results)
        self.meter.verify_s += time.thread_time() - start
        return good


@dataclass
class Query:
    """One request on its way: ``request`` is what a device gets next, None when ``outputs`` are there."""

    trusted: Trusted = field(repr=False)
    values: dict[str, np.ndarray] = field(repr=False)
    queries: list[int]
    exchange: int = 0
    request: dict[str, np.ndarray] | None = field(default=None, repr=False)
    outputs: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _steps: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _corrections: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

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
        results = {}
        for place, layer in enumerate(exchange.layers):
            answer = answers[layer.exit]
            shape = (len(self.queries), *self.trusted.program.shapes[layer.exit][1:])
            if answer.dtype != np.uint32 or answer.shape != shape:
                raise self._refused(
                    f"'{layer.exit}': expected uint32{list(shape)}, found {answer.dtype}{list(answer.shape)}"
                )
            start = time.thread_time()
            held = self._held(exchange, place)
            results[layer.name] = _field.unmasked(answer, held)
            meter.unmask_s += time.thread_time() - start
            meter.received_bytes += answer.nbytes
        for layer in exchange.layers:
            if not self.trusted.check(layer, self._steps[layer.entry], results[layer.name]):
                raise self._refused(f"'{layer.exit}' is not what layer '{layer.name}' gives")
        self._go_on(exchange, results)

    def compute_here(self) -> None:
        """Compute the exchange's layers on this side, where no device is left to ask."""
        exchange = self.trusted.program.exchanges[self.exchange]
        self._go_on(exchange, self.trusted.compute(exchange, self._steps))

    def _go_on(self, exchange: Exchange, results: Mapping[str, np.ndarray]) -> None:
        start = time.thread_time()
        for layer in exchange.layers:
            self.values[layer.exit] = dequantised(layer, results[layer.name])
        self.trusted.meter.unmask_s += time.thread_time() - start
        self._corrections.clear()
        self.exchange += 1
        self._advance()

    def _held(self, exchange: Exchange, place: int) -> np.ndarray:
        """Return a layer's corrections for all items; kept until an answer passes, since they open only once."""
        if place not in self._corrections:
            found = [self.trusted.correction(query, exchange, place) for query in self.queries]
            self._corrections[place] = np.concatenate(found)
        return self._corrections[place]

    def _refused(self, what: str) -> IntegrityError:
        self.trusted.meter.refused += 1
        return IntegrityError(f"exchange {self.exchange}: a device's answer is refused: {what}")

    def _advance(self) -> None:
        program, meter = self.trusted.program, self.trusted.meter
        self.values |= self.trusted.segment(self.exchange, self.values)
        if self.exchange == len(program.exchanges):
            self.request = None
            self.outputs = {tensor.name: self.values[tensor.name] for tensor in program.outputs}
            self.values = {}
            return
        exchange = program.exchanges[self.exchange]
        scales = {layer.entry: layer.input_scale for layer in exchange.layers}
        start = time.thread_time()
        self._steps = {name: quantised(self.values[name], scales[name]) for name in exchange.entries}
        self.request = {}
        for name, steps in self._steps.items():
            pads = np.concatenate([self.trusted.pad(query, exchange, name) for query in self.queries])
            self.request[name] = _field.masked(steps, pads)
            meter.sent_bytes += self.request[name].nbytes
        meter.mask_s += time.thread_time() - start


def ledger_key(key: bytes) -> bytes:
    """Return the key that authenticates the ledger of the session with this secret."""
    return _derived(key, b"ledger")


def _derived(key: bytes, purpose: bytes) -> bytes:
    """Return 32 bytes for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"siniantrust exact masks " + purpose).derive(key)
