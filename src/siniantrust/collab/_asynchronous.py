"""Asynchronous split learning: each edge's step is applied as it comes, by the newest weights; nobody waits.

The edges' parts are mixed into one that the cloud keeps (FedAsync: Xie, Koyejo and Gupta 2019). What comes out depends
on who came when, so that nothing is repeated exactly: an edge that comes back goes on behind the last of its steps that
the cloud has applied, with the weights of its newest checkpoint. No step is applied twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._config import CloudConfig
from siniantrust.collab._errors import CollabError, DivergedError, RefusedError
from siniantrust.collab._middle import (
    AVERAGE,
    BACKWARD,
    FORWARD,
    LOSS,
    Arrays,
    phases,
    to_arrays,
    to_tensors,
)
from siniantrust.collab._split_cloud import SplitCloud
from siniantrust.collab._task import Task
from siniantrust.collab._wire import LABELS, check_labels, from_messages


class AsynchronousCloud(SplitCloud):
    """Coordinates edges that do not wait for each other."""

    def __init__(self, config: CloudConfig, task: Task, agreement: Agreement) -> None:
        super().__init__(config, task, agreement, steps=config.training.steps * len(config.edge))
        self._applied = 0
        self._steps: dict[str, int] = dict.fromkeys((edge.name for edge in config.edge), 0)
        self._phase: dict[str, int] = dict.fromkeys(self._steps, 0)
        self._features: dict[str, Arrays] = {}
        # The last answer of each edge, which it may ask for again.
        self._last: dict[str, tuple[int, str, Arrays]] = {}
        if self._checkpoints.steps():
            self._restore(self._checkpoints.steps()[-1])
        self._finish_if_done()

    def join(self, edge: str, steps: set[int], is_wanted: Callable[[], bool]) -> tuple[int, int]:
        """Return the last step of this edge that was applied."""
        _ = steps, is_wanted
        with self.condition:
            self.require_member(edge)
            last = self._last.get(edge)
            if last is not None and last[0] > self._steps[edge]:
                # A step that was interrupted: done if Part 2 has learnt from it, else to be done from its start.
                if last[1] != FORWARD or not self.task.labels_at_edge:
                    self._steps[edge] = last[0]
                    self._complete()
                del self._last[edge]
            self._phase[edge] = 0
            return 0, self._training.steps if self.is_done else self._steps[edge]

    def step(self, edge: str, request: pb.StepRequest, is_wanted: Callable[[], bool]) -> Mapping[str, np.ndarray]:
        """Apply a phase of an edge's step at once.

        Raises:
            RefusedError: if it is not what it should be.
        """
        _ = is_wanted
        with self.condition:
            self.require_member(edge)
            last = self._last.get(edge)
            if last is not None and last[:2] == (request.step, request.phase):
                return last[2]
            origin = f"edge '{edge}', step {request.step}"
            if self.is_done:
                raise RefusedError(f"{origin}: the run is over after {self._steps[edge]} steps")
            step = self._steps[edge] + 1
            wanted = phases(self._training, self.task, step)
            phase = wanted[self._phase[edge]]
            if (request.step, request.phase) != (step, phase):
                raise RefusedError(f"{origin}: expected step {step}, {phase}; found {request.phase[:20]!r}")
            arrays = from_messages(request.tensors, self._middle.expected(phase), origin=origin)
            if LABELS in arrays:
                check_labels(arrays[LABELS], self.task.classes, origin=origin)
            try:
                answer = self._apply(edge, phase, arrays)
            except DivergedError as fault:
                raise RefusedError(f"{origin}: {fault}") from None
            except Exception as fault:
                self.fail(fault)  # the edge would send the same again for ever
                raise
            self._last[edge] = (step, phase, answer)
            self._phase[edge] += 1
            if self._phase[edge] == len(wanted):
                self._phase[edge], self._steps[edge] = 0, step
                self._complete()
            return answer

    def on_left_out(self) -> None:
        """Finish if those that are left have."""
        self._finish_if_done()

    def _apply(self, edge: str, phase: str, arrays: Arrays) -> Arrays:
        steps = self._training.steps * len(self._steps)
        number = self._applied + 1
        if phase == AVERAGE:
            share = 1 / len(self.members)
            mixed = {
                name: ((1 - share) * values + share * arrays[name]).astype(values.dtype)
                for name, values in self._middle.values().items()
            }
            self._middle.take(mixed)
            return mixed
        if phase == FORWARD:
            self._features[edge] = arrays
        if phase == BACKWARD:
            # Others may have moved the weights since the forward pass, which torch would not go back through.
            self._middle.run(FORWARD, {edge: self._features[edge]}, number, steps)
        answer = self._middle.run(phase, {edge: arrays}, number, steps)[edge]
        if phase == BACKWARD or LOSS in answer:
            self._applied = number
        if LOSS in answer:
            self._curve.note(number, float(answer[LOSS][0]))
        return answer

    def _complete(self) -> None:
        try:
            if self._applied % self._training.checkpoint_every == 0 or self._all_have_ended():
                self._save()
            self._finish_if_done()
        except (OSError, CollabError) as fault:
            self.fail(fault)

    def _all_have_ended(self) -> bool:
        return all(self._steps[edge] == self._training.steps for edge in self.members)

    def _finish_if_done(self) -> None:
        if self.members and self._all_have_ended() and not self.is_done:
            self.finish(self._middle.weights())

    def _save(self) -> None:
        last = {edge: (step, phase, to_tensors(answer)) for edge, (step, phase, answer) in self._last.items()}
        self._checkpoints.save(
            self._applied,
            {
                "middle": self._middle.state(),
                "steps": dict(self._steps),
                "last": last,
                "curve": self._curve.points,
            },
        )

    def _restore(self, step: int) -> None:
        state = self._checkpoints.load(step)
        self._middle.restore(state["middle"])
        self._curve.restore(state["curve"])
        self._steps |= state["steps"]
        self._last = {edge: (step, phase, to_arrays(answer)) for edge, (step, phase, answer) in state["last"].items()}
        self._applied = step
