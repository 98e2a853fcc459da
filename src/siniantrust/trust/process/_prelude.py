"""What a part makes of noise and constants alone: it runs when noise is drawn, and not when a request comes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from siniantrust.errors import EnclaveError
from siniantrust.trust.process._noise import PREPARED


class Prelude:
    """A model that is sealed beside a part's weights, whose inputs are drawn numbers.

    Args:
        name: the part's name.
        session: the model in ONNX Runtime; None where the part has none.
        reserved: the part's reserved inputs, by name.

    Raises:
        EnclaveError: if it does not make just those of them that are to be prepared, or reads what is not drawn.
    """

    def __init__(self, name: str, session: Any | None, reserved: Collection[str]) -> None:
        self._session = session
        self._made = [] if session is None else [entry.name for entry in session.get_outputs()]
        self.inputs = [] if session is None else session.get_inputs()
        self._passed = {each for each in reserved if not each.startswith(PREPARED)}
        expected, found = set(reserved) - self._passed, {PREPARED + value for value in self._made}
        if expected != found:
            raise EnclaveError(
                f"part {name}: expected a prelude that makes {sorted(expected)}, found {sorted(found)}; seal it again"
            )

    def prepare(self, drawn: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what the part is fed, by name: drawn numbers as they are, and what the prelude makes of them."""
        fed = {name: array for name, array in drawn.items() if name in self._passed}
        if self._session is not None:
            made = self._session.run(self._made, {entry.name: drawn[entry.name] for entry in self.inputs})
            fed |= {PREPARED + name: array for name, array in zip(self._made, made, strict=True)}
        return fed
