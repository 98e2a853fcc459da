"""What a server grants a connection: sizes, rates and times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one connection, and of all together.

    Attributes:
        frame_bytes: size of a frame.
        payload_bytes: size of what follows one frame.
        idle_s: how long one frame may take to come, from the moment at which it is waited for to its last byte.
        lifetime_s: how long a connection may last.
        requests_per_s: requests on one connection, in the long run.
        burst: requests that may come at once.
        sessions: connections at the same time.
        connections_per_s: new connections, in the long run; up to ``sessions`` of them at once.
        handshake_s: how long the TLS handshake may take.
    """

    frame_bytes: int = 1 << 20
    payload_bytes: int = 1 << 30
    idle_s: float = 600.0
    lifetime_s: float = 12 * 3600.0
    requests_per_s: float = 1000.0
    burst: int = 1000
    sessions: int = 16
    connections_per_s: float = 10.0
    handshake_s: float = 10.0


class TokenBucket:
    """A rate limit: ``burst`` at once, ``per_s`` in the long run.

    Args:
        per_s: tokens that come back in a second; ``inf`` for no limit.
        burst: tokens that it holds at most, and at first.
        clock: seconds that only go forward.
    """

    def __init__(self, per_s: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at_s = clock()

    def take(self) -> bool:
        """Take a token if there is one."""
        if self._per_s == inf:
            return True
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at_s) * self._per_s)
        self._at_s = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
