"""The Verifiers by the kind of evidence that they read: one file each in ``verifiers``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._roles import Verifier


def list_verifiers() -> dict[str, Verifier]:
    """Return all Verifiers by kind, sorted."""
    package = importlib.import_module("siniantrust.trust.attestation.verifiers")
    found: dict[str, Verifier] = {}
    for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")):
        each = getattr(importlib.import_module(f"{package.__name__}.{name}"), "VERIFIER", None)
        if not isinstance(each, Verifier) or each.kind.replace("-", "_") != name:
            raise TypeError(
                f"{package.__name__}.{name} must define VERIFIER, a Verifier of the kind that it is named for"
            )
        found[each.kind] = each
    return found


@cache
def verifier(kind: str) -> Verifier:
    """Return the Verifier that reads evidence of ``kind``.

    Raises:
        AttestationError: if there is none.
    """
    found = list_verifiers()
    if kind not in found:
        raise AttestationError(f"there is no Verifier for evidence of kind {kind!r}; there are: {', '.join(found)}")
    return found[kind]
