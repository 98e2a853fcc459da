"""The trusted side: masks what it sends, checks and unmasks what comes back, and computes the rest itself.

kept = trusted.prepare(1)  # the host keeps it, see ``Corrections``
query = trusted.begin(inputs)
while query.request is not None:
query.accept(corrected(device.run(query.exchange, query.request)))
outputs = query.outputs
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from siniantrust.errors import DataError, TrustError
from siniantrust.masking.exact import _ring
from siniantrust.masking.exact._arena import Arena
from siniantrust.masking.exact._joined import put_together
from siniantrust.masking.exact._pads import KEY_BYTES, PadSource
from siniantrust.masking.exact._passes import Results, best_passes
from siniantrust.masking.exact._pool import Pool
from siniantrust.masking.exact._query import Query
from siniantrust.masking.exact._stages import Exchange, Program
from siniantrust.masking.exact._stock import Stock
from siniantrust.masking.exact._uses import uses
from siniantrust.masking.exact._verify import DEFAULT_SOUNDNESS_BITS, LayerCheck

if TYPE_CHECKING:  # an enclave reads this module too, without an ONNX library
    from siniantrust.graph import Part

Arrays = Mapping[str, np.ndarray]
RunPart = Callable[[Arrays], dict[str, np.ndarray]]


class QueryNumbers(Protocol):
    """Hands out query numbers under one key, each once: ``PadLedger``, or a count where the key dies with the count."""

    def take(self) -> int:
        """Return a number that was never returned before under this key."""


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
        ledger: hands out query numbers; the key of a ``PadLedger`` must be ``ledger_key(key)``.
        soundness_bits: a wrong answer passes with a probability of at most 2 to minus this.
        wait_when_dry: prepare a query on the spot where none is in stock; else refuse it.
    """

    def __init__(
        self,
        program: Program,
        *,
        open_part: Callable[[Part], RunPart],
        key: bytes,
        ledger: QueryNumbers,
        soundness_bits: int = DEFAULT_SOUNDNESS_BITS,
        wait_when_dry: bool = True,
    ) -> None:
        if len(key) != KEY_BYTES:
            raise TrustError(f"exact masks: expected a session key of {KEY_BYTES} bytes, found {len(key)}")
        self.program = program
        self.meter = Meter()
        self._pads = PadSource(_derived(key, b"pads"))
        self._stock = Stock(PadSource(_derived(key, b"stock")), _derived(key, b"stock tags"))
        self._ledger = ledger
        self.arena = Arena()
        # What a device has seen is used again for what a device will see, and for nothing else: one that still reads a
        # request that was answered by another one finds masked values there.
        self.sent_arena = Arena()
        self.uses = uses(program)
        self._wait_when_dry = wait_when_dry
        self._segments = [None if part is None else open_part(part) for part in program.segments]
        self._local = [open_part(exchange.inside) for exchange in program.exchanges]
        self._passes = best_passes()
        self.checks = {
            layer.name: LayerCheck(
                layer,
                entry=exchange.shapes[layer.entry],
                exit_=exchange.shapes[layer.exit],
                relu=finish.relu,
                limbs=exchange.limbs,
                step=self.uses.scales.get(finish.value, 1.0),
                passes=self._passes,
                soundness_bits=soundness_bits,
            )
            for exchange in program.exchanges
            for layer, finish in zip(exchange.layers, exchange.finishes, strict=True)
        }
        self._first_layer = {}
        counted = 0
        for exchange in program.exchanges:
            self._first_layer[exchange.number] = counted
            counted += len(exchange.layers)

    @property
    def stock_level(self) -> int:
        """Queries that are prepared."""
        return self._stock.level

    def prepare(self, count: int) -> dict[int, np.ndarray]:
        """Work out the corrections of ``count`` further queries, in idle time.

        Returns:
            For each query what the host is to keep: all layers' sealed corrections in order, uint8.

        Raises:
            TrustError: if the ledger hands out no number.
        """
        rows = {}
        for _ in range(count):
            start = time.thread_time()
            query = self._ledger.take()
            rows[query] = np.frombuffer(b"".join(self._corrections(query)), np.uint8)
            self._stock.add(query)
            self.meter.prepared += 1
            self.meter.prepare_s += time.thread_time() - start
        return rows

    def _corrections(self, query: int) -> Iterator[bytes]:
        for exchange, run in zip(self.program.exchanges, self._local, strict=True):
            found = run({name: self.pad(query, exchange, name) for name in exchange.entries})
            for number, layer in enumerate(exchange.layers, self._first_layer[exchange.number]):
                correction = found[layer.exit].reshape(exchange.limbs, -1)
                yield self._stock.sealed(query, number, correction, share=self.checks[layer.name].share)

    def pad(self, query: int, exchange: Exchange, entry: str) -> np.ndarray:
        """Return the pad of one entry in one query, in the form of one item."""
        form = exchange.form(entry, 1)
        return self._pads.pad(query, exchange.entries[entry], math.prod(form[2:]), limbs=exchange.limbs).reshape(form)

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
        queries: list[int] = []
        rows: dict[int, np.ndarray] = {}
        for _ in range(items):
            query, fresh = self._taken()
            queries.append(query)
            rows |= fresh
        self.meter.queries += items
        return Query(self, dict(inputs), queries, rows)

    def _taken(self) -> tuple[int, dict[int, np.ndarray]]:
        """Return a prepared query, and where it was prepared on the spot what the host is to keep."""
        query = self._stock.take()
        if query is not None:
            return query, {}
        self.meter.ran_dry += 1
        if not self._wait_when_dry:
            raise TrustError("pad stock: it is dry, and the policy says not to wait; prepare more ahead of time")
        rows = self.prepare(1)
        query = self._stock.take()
        if query is None:
            raise TrustError("pad stock: other requests took what was prepared; try again")
        return query, rows

    def unmask(
        self, queries: Sequence[int], exchange: Exchange, place: int, results: Results, *, here: bool = False
    ) -> int:
        """Take the pads off what a host brought of the ``place``-th layer of an exchange; return flags.

        Answers that were computed ``here`` have no pads. What flags mean is in ``Passes``.
        """
        number = self._first_layer[exchange.number] + place
        check, limbs = self.checks[exchange.layers[place].name], exchange.limbs
        count = check.channels * check.each
        unmask = check.begin(results)
        flags = 0
        if here:
            nothing = np.zeros((limbs, count), np.uint8)
            for item in range(len(queries)):
                flags |= unmask(item, 0, nothing)
            return flags
        for item, query in enumerate(queries):
            for first, pads in self._stock.shares(query, number, count, limbs=limbs, share=check.share):
                flags |= unmask(item, first // check.each, pads)
        return flags

    def require_untouched(self, query: int, exchange: Exchange, kept: np.ndarray) -> None:
        """Look for who is to blame for a refused answer, in what the host kept for a query's exchange, uint8.

        Raises:
            TrustError: naming a layer, where the host changed its correction.
        """
        at = 0
        for place, (layer, correction) in enumerate(zip(exchange.layers, exchange.corrections, strict=True)):
            raw = kept[at : at + correction.size_bytes].tobytes()
            at += correction.size_bytes
            if not self._stock.is_untouched(query, self._first_layer[exchange.number] + place, raw):
                raise TrustError(
                    f"pad stock: the correction of layer '{layer.name}' for query {query} does not open; the host "
                    "changed it"
                )

    def segment(self, number: int, values: Arrays) -> dict[str, np.ndarray]:
        """Compute what stays inside before exchange ``number``."""
        run, part = self._segments[number], self.program.segments[number]
        if run is None or part is None:
            return {}
        start = time.thread_time()
        inputs = {tensor.name: values[tensor.name] for tensor in part.inputs}
        found = run(inputs)
        # A runtime may hand back its input under another name; the arena must not give that away.
        for name, array in found.items():
            if any(np.may_share_memory(array, other) for other in inputs.values()):
                found[name] = array.copy()
        self.meter.segment_s += time.thread_time() - start
        return found

    def quantise(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return a value that devices read as steps, int8.

        Raises:
            DataError: if it is not finite.
        """
        start = time.thread_time()
        steps = self.arena.take(values.shape, np.int8)
        if self._passes.quantise(np.ascontiguousarray(values), self.uses.scales[name], steps):
            raise DataError(f"exact masks: value '{name}' is not finite")
        self.meter.mask_s += time.thread_time() - start
        return steps

    def pool(self, steps: np.ndarray, pool: Pool) -> np.ndarray:
        """Return the largest steps of windows over (items, channels, height, width)."""
        pooled = self.arena.take((*steps.shape[:2], *pool.size(steps.shape[2:])), np.int8)
        self._passes.pool(steps.reshape(-1, *steps.shape[2:]), pool, pooled.reshape(-1, *pooled.shape[2:]))
        return pooled

    def entered(self, exchange: Exchange, steps: Arrays) -> dict[str, np.ndarray]:
        """Return what a device gets of values' steps, for each entry; those that are put together are the arena's."""
        start, found = time.thread_time(), {}
        for name in exchange.entries:
            if name in exchange.joins:
                parts = exchange.joins[name]
                items = len(steps[parts[0].value])
                found[name] = self.arena.take((items, *exchange.shapes[name][1:]), np.int8)
                put_together(parts, steps, found[name])
            elif name in exchange.steps:
                rows, columns = exchange.steps[name]
                found[name] = np.ascontiguousarray(steps[name][:, :, ::rows, ::columns])
            else:
                found[name] = steps[name]
        self.meter.mask_s += time.thread_time() - start
        return found

    def mask(self, queries: Sequence[int], exchange: Exchange, entry: str, steps: np.ndarray) -> np.ndarray:
        """Return one entry's steps (of ``entered``) as a device gets them, uint8 with limbs."""
        start = time.thread_time()
        sent = self.sent_arena.take(exchange.form(entry, len(queries)), np.uint8)
        value, limbs, flat = exchange.entries[entry], exchange.limbs, steps.reshape(len(queries), -1)
        mask = self._passes.masker(flat, sent.reshape(len(queries), limbs, -1))
        for item, query in enumerate(queries):
            for first, pads in self._pads.shares(query, value, flat.shape[1], limbs=limbs):
                mask(item, first, pads)
        self.meter.mask_s += time.thread_time() - start
        self.meter.sent_bytes += sent.nbytes
        return sent

    def compute(self, exchange: Exchange, steps: Arrays) -> dict[str, np.ndarray]:
        """Return what a device would answer to unmasked entries, computed on this side."""
        return self._local[exchange.number](
            {name: _ring.to_limbs(values, exchange.limbs, axis=1) for name, values in steps.items()}
        )


def ledger_key(key: bytes) -> bytes:
    """Return the key that authenticates the ledger of the session with this secret."""
    return _derived(key, b"ledger")


def _derived(key: bytes, purpose: bytes) -> bytes:
    """Return 32 bytes for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"siniantrust exact masks " + purpose).derive(key)
