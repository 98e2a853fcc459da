"""Optional dependencies: imported on first use; a missing one gives the line that installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from siniantrust.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``, which the extra ``extra`` brings.

    Raises:
        MissingExtraError: if it is not installed; the message names the ``pip install`` to run.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or not module.startswith(missing.name):
            raise
        raise MissingExtraError(f"{module} is not installed; run: pip install 'siniantrust[{extra}]'") from None
