"""The untrusted stage: a part on one device or on replicas, which moves to another allowed device while it serves.

A part is a pure function and its input stays here until an answer came, so that a request which a device failed is run
again on another device. The caller gets the first answer that passes the checks, and gets it once, because it waits in
``run`` for it. Only then does the part move: a request that every device fails moves nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from siniantrust.errors import DataError, DeviceError, DeviceLostError, PlanError, SinianError
from siniantrust.graph import Part, peak_bytes
from siniantrust.odla import Artifact, CallCost, DeviceInfo, DeviceSpec
from siniantrust.planner import Plan, PlannedPart, move_violations
from siniantrust.runtime._deadline import Deadline
from siniantrust.runtime._observe import Observer
from siniantrust.runtime._roster import Roster
from siniantrust.runtime._seat import Seat
from siniantrust.runtime._stages import Answer, Stopwatch, device_spec

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_JOIN_S = 5.0


class DeviceStage:
    """An untrusted part and the devices that may run it.

    Args:
        part: the part.
        planned: what the plan says of it.
        plan: the plan, whose labels say which devices may see what the part reads and makes.
        devices: other ways to open devices, by name.
        observer: told of calls and moves.
        artifacts: what was compiled of the part ahead of time.
    """

    def __init__(
        self,
        part: Part,
        planned: PlannedPart,
        plan: Plan,
        devices: Mapping[str, DeviceSpec],
        observer: Observer,
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        self.name = part.name
        self.inputs = tuple(tensor.name for tensor in part.inputs)
        self._plan = plan
        self._policy = plan.policy.serving
        self._observer = observer
        self._deadline = Deadline(self._policy.call_timeout_s)
        home = (planned.device, *planned.replicas)
        self.width = len(home)
        self._need_bytes = peak_bytes(part)
        refused = {entry.name: self._violations(entry.name) for entry in plan.policy.device}
        self._refusals = {name: why[0] for name, why in refused.items() if why}
        for name in home:
            if name in self._refusals:
                raise PlanError(f"plan of '{plan.model_name}': {self._refusals[name]}; plan again")
        seats = {
            name: Seat(
                part,
                device_spec(plan.policy, name, devices),
                artifacts=artifacts,
                deadline=self._deadline,
                slow_factor=self._policy.slow_factor,
            )
            for name in refused
            if name not in self._refusals
        }
        spares = [name for name in (*self._policy.takeover, *home) if name in seats]
        self._roster = Roster(part.name, seats, serving=home, spares=spares, observer=observer)
        self._moving = threading.Lock()
        self._mending = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()

    @property
    def where(self) -> str:
        """Return the device that the part runs on, the first one of replicas."""
        return self._roster.serving[0]

    @property
    def devices(self) -> tuple[str, ...]:
        """Return every device that the part runs on now."""
        return self._roster.serving

    def infos(self) -> tuple[DeviceInfo, ...]:
        """Describe the devices, opening those that are not open."""
        return tuple(self._roster.seat(name).info() for name in self._roster.serving)

    def call_cost(self) -> CallCost:
        """Measure what a call of the part's (first) device costs beyond the part.

        Raises:
            DeviceLostError: if the device does not answer.
        """
        return self._roster.seat(self.where).call_cost()

    def run(
        self, inputs: Mapping[str, np.ndarray], *, request: int | None = None, ready_s: float | None = None
    ) -> Answer:
        """Run the part on the least loaded device, and where one fails, on another.

        Raises:
            DataError: if the inputs do not fit the part.
            DeviceLostError: if no allowed device is left, and the last one was lost; naming part and devices.
            DeviceError: if no allowed device is left, or the request failed on as many as the policy has retries.
        """
        faults: dict[str, SinianError] = {}
        tried: list[str] = []
        for _ in range(1 + self._policy.retries):
            seat = self._roster.reserve(tried=tried)
            if seat is None:
                break
            tried.append(seat.name)
            watch = Stopwatch(self._observer, self.name, seat.name, inputs, request, ready_s)
            try:
                answer = watch.answered(seat.run(inputs))
            except BaseException as fault:
                watch.failed(fault)
                if self._closing.is_set():
                    raise self._closed() from None
                if isinstance(fault, DataError) or not isinstance(fault, SinianError):
                    raise
                self._roster.distrust(seat.name)
                faults[seat.name] = fault
            else:
                self._answered(seat, answer, inputs, faults)
                return answer
            finally:
                self._roster.release(seat)
        raise self._given_up(faults)

    def move(self, target: str, *, source: str | None = None) -> None:
        """Move the part to ``target``; requests that are on their way finish where they are.

        Args:
            target: a device of the policy.
            source: which device it leaves; None where it runs on one.

        Raises:
            PlanError: if ``target`` may not see what the part reads and makes, or is no device of the policy.
            DeviceError: if ``target`` cannot be opened or refuses the part, or ``source`` is not clear. The part
                stays where it was.
        """
        violations = self._violations(target)
        if violations:
            raise PlanError(f"move of {self.name} to {target!r}: refused: {violations[0]}")
        with self._moving:
            serving = self._roster.serving
            left = serving[0] if source is None and len(serving) == 1 else source
            if left is None or left not in serving:
                raise DeviceError(f"move of {self.name}: it runs on {', '.join(serving)}; say which one it leaves")
            if target in serving:
                if target != left:
                    raise DeviceError(f"move of {self.name} to {target!r}: it runs there already")
                return
            self._roster.seat(target).open()
            self._roster.replace([left], target, cause="command", reason="on command")

    def close(self) -> None:
        """Free the devices for good; calling it again does nothing."""
        self._closing.set()
        try:
            self._roster.close()
        finally:
            self._deadline.close()
            for thread in self._threads:
                thread.join(_JOIN_S)

    def _violations(self, device: str) -> list[str]:
        return move_violations(self._plan, self.name, device, need_bytes=self._need_bytes)

    def _answered(
        self, seat: Seat, answer: Answer, inputs: Mapping[str, np.ndarray], faults: Mapping[str, SinianError]
    ) -> None:
        """Settle what follows from an answer: the devices that failed before it are left, a slow one is."""
        self._roster.trust(seat.name)
        failed = [name for name in faults if name != seat.name]
        if failed:
            self._roster.replace(failed, seat.name, cause="failure", reason=str(faults[failed[-1]]))
            if len(self._roster.serving) < self.width:
                self._spawn(self._mend)
        slow = seat.note(inputs, answer.call.end_s - answer.call.start_s)
        if slow is not None:
            self._spawn(lambda: self._leave_slow(seat.name, slow))

    def _given_up(self, faults: Mapping[str, SinianError]) -> SinianError:
        last = list(faults.values())[-1]
        why = "; ".join(str(fault) for fault in faults.values())
        for name in self._policy.takeover:
            if name in self._refusals:
                why += f"; {self._refusals[name]}"
        kind = DeviceLostError if isinstance(last, DeviceLostError) else DeviceError
        # A device's fault names the part already.
        error = kind(why if len(faults) == 1 else f"part {self.name!r}: no allowed device answered: {why}")
        error.__cause__ = last
        return error

    def _closed(self) -> SinianError:
        return SinianError(f"part {self.name!r}: its session is closed; open the bundle again")

    def _spawn(self, work: Callable[[], None]) -> None:
        """Do ``work`` beside the requests, one work at a time; what comes meanwhile is left to the next occasion."""
        if self._closing.is_set() or not self._mending.acquire(blocking=False):
            return

        def locked() -> None:
            try:
                work()
            finally:
                self._mending.release()

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=locked, name=f"siniantrust-{self.name}-mend", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _mend(self) -> None:
        """Bring replicas back to the planned number, as devices can be opened (again)."""
        pause_s = _FIRST_PAUSE_S
        while len(self._roster.serving) < self.width and not self._closing.wait(pause_s):
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            with self._moving:
                name = self._first_that_opens()
                if name is not None:
                    self._roster.add(name, reason="a replica was missing")
                    pause_s = _FIRST_PAUSE_S

    def _leave_slow(self, name: str, reason: str) -> None:
        with self._moving:
            if name not in self._roster.serving:
                return
            target = self._first_that_opens()
            if target is not None:
                self._roster.distrust(name)
                self._roster.replace([name], target, cause="slow", reason=reason)

    def _first_that_opens(self) -> str | None:
        """Open and return the first spare device that can be; those that failed or were slow come last."""
        for name in self._roster.spares():
            try:
                self._roster.seat(name).open()
            except SinianError:
                self._roster.distrust(name)
            else:
                return name
        return None
