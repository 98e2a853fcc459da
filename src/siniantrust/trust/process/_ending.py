"""Why an enclave process ended, in words that help."""

from __future__ import annotations

import signal

from siniantrust.errors import ChannelError, EnclaveLostError, TrustError
from siniantrust.trust._types import EnclaveSpec
from siniantrust.trust.process._common import EXIT_CHANNEL, EXIT_MEMORY
from siniantrust.trust.process._launcher import Started


def explain(process: Started, code: int, spec: EnclaveSpec) -> TrustError:
    """Return the error for an enclave that ended with ``code`` (negative: the signal) without having been closed."""
    end = _describe(code)
    if code == EXIT_MEMORY or process.was_over_memory():
        return EnclaveLostError(f"{over_memory(process.name, spec)}; it was {end}")
    if code == EXIT_CHANNEL:
        return ChannelError(f"{process.name}: a frame that it received does not authenticate; it ended the session")
    words = process.last_words()
    return EnclaveLostError(f"{process.name}: {end}{words and f' ({words})'}; launch another one")


def over_memory(name: str, spec: EnclaveSpec) -> str:
    """Say that an enclave reached its memory limit, and what can be done."""
    return (
        f"{name}: it reached its memory limit of {spec.memory_bytes} bytes ({spec.memory_bytes >> 20} MiB); "
        "raise [enclave] memory_bytes, or place less in the enclave"
    )


def _describe(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
