"""A program over devices: each exchange goes to a device, and one whose answer fails its check gets no more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from siniantrust.errors import DeviceError, IntegrityError
from siniantrust.graph import Part
from siniantrust.masking.exact._corrections import Corrections
from siniantrust.masking.exact._ledger import SESSION_BYTES, PadLedger
from siniantrust.masking.exact._pads import KEY_BYTES
from siniantrust.masking.exact._query import Query
from siniantrust.masking.exact._stages import Program
from siniantrust.masking.exact._trusted import RunPart, Trusted, ledger_key
from siniantrust.masking.exact._verify import DEFAULT_SOUNDNESS_BITS
from siniantrust.odla import CheckedExecutable, DeviceSpec, open_part

_HERE = DeviceSpec("trusted side", options={"threads": 1})


class ExactSession:
    """Runs a program with its layers on untrusted devices.

    The trusted side lives in this process: this shows and measures the exchange, and protects nothing from whoever can
    read this process; in an enclave it runs behind the enclave's interface.

    Args:
        program: what to run.
        devices: the devices, the first choice first.
        soundness_bits: a wrong answer passes with a probability of at most 2 to minus this.
        when_no_device: what to do when every device failed: refuse, or compute on the trusted side.
        wait_when_dry: prepare a query on the spot where none is in stock; else refuse it.
    """

    def __init__(
        self,
        program: Program,
        devices: Sequence[DeviceSpec],
        *,
        soundness_bits: int = DEFAULT_SOUNDNESS_BITS,
        when_no_device: Literal["refuse", "compute"] = "refuse",
        wait_when_dry: bool = True,
    ) -> None:
        self._when_no_device = when_no_device
        self.quarantined: dict[str, str] = {}
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="siniantrust-pads-")))
            key = os.urandom(KEY_BYTES)
            ledger = PadLedger.create(folder / "ledger", session=os.urandom(SESSION_BYTES), key=ledger_key(key))
            stack.callback(ledger.close)

            def open_here(part: Part) -> RunPart:
                return _opened(part, _HERE, stack).run

            self.trusted = Trusted(
                program,
                open_part=open_here,
                key=key,
                ledger=ledger,
                soundness_bits=soundness_bits,
                wait_when_dry=wait_when_dry,
            )
            self.corrections = Corrections([exchange.corrections for exchange in program.exchanges])
            self._devices = {
                spec.name: [_opened(exchange.part, spec, stack) for exchange in program.exchanges] for spec in devices
            }
            self._stack = stack.pop_all()

    def prepare(self, count: int) -> None:
        """Work out the corrections of ``count`` further queries, in idle time.

        Raises:
            TrustError: if the ledger hands out no number.
        """
        self.corrections.keep(self.trusted.prepare(count))

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the model's outputs.

        Raises:
            DataError: if the inputs do not fit.
            IntegrityError: if no device gave an answer that passes, and computing here is not allowed.
            TrustError: if the stock is dry or was tampered with, or the ledger fails.
        """
        query = self.trusted.begin(inputs)
        self.corrections.keep(query.prepared)
        try:
            while query.request is not None:
                self._exchange(query)
        finally:
            self.corrections.forget(query.queries)
        return query.outputs

    def _exchange(self, query: Query) -> None:
        number, request = query.exchange, query.request
        for name, opened in self._devices.items():
            if name in self.quarantined or request is None:
                continue
            try:
                query.accept(self.corrections.added(number, query.queries, opened[number].run(request)))
            except IntegrityError as fault:
                self._require_untouched(query)
                self.quarantined[name] = str(fault)
            except DeviceError as fault:
                self.quarantined[name] = str(fault)
            else:
                return
        if self._when_no_device == "refuse":
            reasons = "; ".join(f"{name}: {why}" for name, why in self.quarantined.items()) or "there is none"
            raise IntegrityError(f"exact masks: no device is left for exchange {number} ({reasons})")
        query.compute_here()

    def _require_untouched(self, query: Query) -> None:
        exchange = self.trusted.program.exchanges[query.exchange]
        for number, row in zip(query.queries, self.corrections.rows(exchange.number, query.queries), strict=True):
            self.trusted.require_untouched(number, exchange, row)

    def close(self) -> None:
        """Close devices and ledger; calling it again does nothing."""
        self._stack.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()


def _opened(part: Part, spec: DeviceSpec, stack: ExitStack) -> CheckedExecutable:
    device, executable = open_part(spec, part)
    stack.callback(device.close)
    stack.callback(executable.close)
    return executable
