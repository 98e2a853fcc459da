"""The timeline of a run as a Chrome trace, which ui.perfetto.dev and chrome://tracing open.

Source: "Trace Event Format", Google, the events ``X`` (complete), ``b`` and ``e`` (asynchronous), ``i`` and ``M``.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from siniantrust._files import write_atomic
from siniantrust.errors import SinianError
from siniantrust.runtime._observe import Call, Move, Observer

_REQUESTS = 1  # the process row of the requests and of their waiting; devices follow


class TraceRecorder(Observer):
    """Records what a session does, to be saved as a timeline. Nothing of a tensor but its size is in it.

    Each device is a row. A call's block there covers the whole stay: compute, and for an enclave or a server the way
    there and back, which no device reports apart.

    Args:
        max_events: events beyond these are counted and left out.
    """

    def __init__(self, *, max_events: int = 1_000_000) -> None:
        self._begin_s = time.perf_counter()
        self._max_events = max_events
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._requests: list[tuple[int, float, float, str | None]] = []
        self._moves: list[Move] = []
        self._left_out = 0

    def on_call(self, call: Call) -> None:
        """Record a call."""
        self._keep(self._calls, call)

    def on_end(self, request: int, start_s: float, end_s: float, error: str | None) -> None:
        """Record a request."""
        self._keep(self._requests, (request, start_s, end_s, error))

    def on_move(self, move: Move) -> None:
        """Record a move."""
        self._keep(self._moves, move)

    def save(self, path: Path) -> None:
        """Write the trace as JSON, whole or not at all.

        Raises:
            SinianError: if it cannot be written.
        """
        try:
            write_atomic(path, json.dumps(self.trace()).encode())
        except OSError as fault:
            raise SinianError(f"trace {path}: cannot be written ({fault.strerror}); give another path") from None

    def trace(self) -> dict[str, Any]:
        """Return the trace as an object for JSON; times are microseconds since the recorder was made."""
        with self._lock:
            calls, requests, moves = list(self._calls), list(self._requests), list(self._moves)
        devices = dict.fromkeys([*(call.device for call in calls), *(move.target for move in moves)])
        rows = {device: number for number, device in enumerate(devices, start=_REQUESTS + 1)}
        events = [_name(_REQUESTS, "requests"), *(_name(row, device) for device, row in rows.items())]
        for request, start_s, end_s, error in requests:
            events += self._stay("request", f"request {request}", request, start_s, end_s, {"error": error})
        for call, lane in _lanes(calls):
            if call.start_s > call.ready_s and call.request is not None:
                what = f"wait for {call.part}"
                about = {"part": call.part, "device": call.device}
                events += self._stay("queue", what, call.request, call.ready_s, call.start_s, about)
            events.append(self._block(call, row=rows[call.device], lane=lane))
        events += [self._mark(move, row=rows[move.target]) for move in moves]
        return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"events left out": self._left_out}}

    def _keep(self, kept: list[Any], event: object) -> None:
        with self._lock:
            if len(self._calls) + len(self._requests) + len(self._moves) < self._max_events:
                kept.append(event)
            else:
                self._left_out += 1

    def _us(self, time_s: float) -> float:
        return round((time_s - self._begin_s) * 1e6, 3)

    def _stay(
        self, kind: str, name: str, request: int, start_s: float, end_s: float, about: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return both ends of something that overlaps with its like."""
        both = {"cat": kind, "name": name, "id": request, "pid": _REQUESTS, "tid": 0}
        args = {"request": request, **{key: value for key, value in about.items() if value is not None}}
        return [{**both, "ph": "b", "ts": self._us(start_s), "args": args}, {**both, "ph": "e", "ts": self._us(end_s)}]

    def _block(self, call: Call, *, row: int, lane: int) -> dict[str, Any]:
        args = {"part": call.part, "device": call.device, "request": call.request, "error": call.error}
        args |= {"sent_bytes": call.sent_bytes, "received_bytes": call.received_bytes}
        return {
            "ph": "X",
            "cat": "compute",
            "name": call.part if call.request is None else f"{call.part} of request {call.request}",
            "pid": row,
            "tid": lane,
            "ts": self._us(call.start_s),
            "dur": round((call.end_s - call.start_s) * 1e6, 3),
            "args": {key: value for key, value in args.items() if value is not None},
        }

    def _mark(self, move: Move, *, row: int) -> dict[str, Any]:
        args = {"part": move.part, "from": move.source, "to": move.target, "cause": move.cause, "reason": move.reason}
        mark = {"ph": "i", "s": "g", "cat": "move", "name": f"{move.part} moves to {move.target}", "pid": row, "tid": 0}
        return {**mark, "ts": self._us(move.at_s), "args": args}


def _name(row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": "process_name", "pid": row, "tid": 0, "args": {"name": name}}


def _lanes(calls: list[Call]) -> list[tuple[Call, int]]:
    """Give calls that overlap on one device lanes of their own, since blocks of one lane must not overlap."""
    ends: dict[str, list[float]] = {}
    placed = []
    for call in sorted(calls, key=lambda call: call.start_s):
        lanes = ends.setdefault(call.device, [])
        lane = next((number for number, end_s in enumerate(lanes) if end_s <= call.start_s), len(lanes))
        if lane == len(lanes):
            lanes.append(call.end_s)
        else:
            lanes[lane] = call.end_s
        placed.append((call, lane))
    return placed
