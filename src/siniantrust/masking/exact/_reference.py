"""The quantised model's own answers, with nothing sent anywhere: what pads must reproduce to the bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np

from siniantrust.graph import Part
from siniantrust.masking.exact._pads import KEY_BYTES
from siniantrust.masking.exact._query import Query
from siniantrust.masking.exact._stages import Program
from siniantrust.masking.exact._trusted import RunPart, Trusted
from siniantrust.odla import DeviceSpec, open_part


class QuantisedModel:
    """Runs a program in this process alone, layer by layer, in the arithmetic of its devices; a context manager."""

    def __init__(self, program: Program, *, threads: int = 1) -> None:
        spec = DeviceSpec("this process", options={"threads": threads})
        with ExitStack() as stack:

            def open_here(part: Part) -> RunPart:
                device, executable = open_part(spec, part)
                stack.callback(device.close)
                stack.callback(executable.close)
                return executable.run

            self._trusted = Trusted(program, open_part=open_here, key=os.urandom(KEY_BYTES), ledger=_NoNumbers())
            self._stack = stack.pop_all()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the program's outputs."""
        items = len(next(iter(inputs.values())))
        # What is masked here goes nowhere, so that its pads may be used again.
        query = Query(self._trusted, dict(inputs), list(range(items)))
        while query.request is not None:
            query.compute_here()
        return query.outputs

    def close(self) -> None:
        """Free what it opened; calling it again does nothing."""
        self._stack.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()


class _NoNumbers:
    """Hands out none: nothing is prepared for answers that stay here."""

    def take(self) -> int:
        raise AssertionError("the quantised model prepares no corrections")
