"""What workers of the tests do, in a module that takes a worker no time to import."""

from __future__ import annotations

import os
import signal
import time


def double(number: int, *, pause_s: float) -> tuple[int, int]:
    """Return twice the number, and the process that computed it, after a while."""
    time.sleep(pause_s)
    return 2 * number, os.getpid()


def die(number: int) -> int:
    """Kill the process at the second of some numbers."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    """Raise what no work should."""
    raise ValueError(f"broken {number}")
