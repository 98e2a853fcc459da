"""Synchronous split learning: a step is done when every edge has sent its share, and by all sides or by none.

Nothing that a step changes is answered before it is complete, and a checkpoint is on the disk before the answer that
completes its step. So an edge is never ahead of the cloud's newest checkpoint by one of its own, and the sides always
have one in common. Whoever comes back joins again; then all go back to the newest checkpoint in common and do the steps
since once more. All that they compute follows from the checkpoint and the step's number, so that it comes out the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._agreement import Agreement
from siniantrust.collab._config import CloudConfig
from siniantrust.collab._errors import CollabError, DivergedError, JoinAgainError, RefusedError
from siniantrust.collab._middle import FORWARD, LOSS, Arrays, phases
from siniantrust.collab._split_cloud import SplitCloud
from siniantrust.collab._task import Task
from siniantrust.collab._wire import LABELS, check_labels, from_messages

_WAIT_S = 1.0


@dataclass(slots=True)
class _Round:
    """What happens between two times that the edges join.

    Attributes:
        generation: names it; never that of another one, so that a late call is known for what it is.
        offers: the steps that each edge that has joined can go on from.
        start: where all go on from; None while edges are awaited.
    """

    generation: int = field(default_factory=lambda: secrets.randbits(62))
    offers: dict[str, set[int]] = field(default_factory=dict)
    start: int | None = None


class SynchronousCloud(SplitCloud):
    """Coordinates edges that wait for each other."""

    def __init__(self, config: CloudConfig, task: Task, agreement: Agreement) -> None:
        super().__init__(config, task, agreement, steps=config.training.steps)
        self._round = _Round()
        self._done = 0
        self._phase = 0
        self._given: dict[str, Arrays] = {}
        self._answers: dict[tuple[str, int, str], Arrays] = {}
        if not self._checkpoints.steps():
            self._save()
        self._restore(self._checkpoints.steps()[-1])
        if self._done == self._training.steps and not self.is_done:
            self.finish(self._middle.weights())

    def join(self, edge: str, steps: set[int], is_wanted: Callable[[], bool]) -> tuple[int, int]:
        """Wait for all edges, and go back to the newest checkpoint that every side has.

        Raises:
            RefusedError: if the edge was left out, or has no checkpoint in common with the cloud.
            JoinAgainError: if the edge does not wait any more.
        """
        with self.condition:
            self.require_member(edge)
            if self.is_done:
                return self._round.generation, self._training.steps
            if not steps.intersection(self._checkpoints.steps()):
                raise RefusedError(self._apart(edge, steps))
            if self._round.start is not None:
                self._round = _Round()
                self.condition.notify_all()
            current = self._round
            current.offers[edge] = steps
            self._close_round()
            while current.start is None:
                self.pause(edge, is_wanted)
                self.require_member(edge)
            return current.generation, current.start

    def step(self, edge: str, request: pb.StepRequest, is_wanted: Callable[[], bool]) -> Mapping[str, np.ndarray]:
        """Take an edge's share of a phase, and wait until it is done.

        Raises:
            RefusedError: if the share is not what it should be.
            JoinAgainError: if it is of another round.
        """
        with self.condition:
            self.require_member(edge)
            current = self._round
            if request.generation != current.generation or current.start is None:
                raise JoinAgainError(f"edge '{edge}': the others have gone back to a checkpoint; join again")
            key = (edge, request.step, request.phase)
            if key not in self._answers:
                self._take(edge, request)
            while key not in self._answers:
                self.pause(edge, is_wanted)
                if self._round is not current:
                    raise JoinAgainError(f"edge '{edge}': somebody has come back; join again")
            return self._answers[key]

    def pause(self, edge: str, is_wanted: Callable[[], bool]) -> None:
        """Wait for news while the edge's call is still open; ``condition`` is held.

        Raises:
            JoinAgainError: if it is not.
        """
        self.seen(edge)
        if not is_wanted():
            raise JoinAgainError(f"edge '{edge}' has hung up")
        self.condition.wait(_WAIT_S)

    def on_left_out(self) -> None:
        """Let those that are left join again, from where all of them can go on."""
        if self._round.start is not None:
            self._round = _Round()
        for edge in self.left_out:
            self._round.offers.pop(edge, None)
        self._close_round()

    def _close_round(self) -> None:
        offers = self._round.offers
        if not self.members or set(offers) != set(self.members):
            return
        common = set(self._checkpoints.steps()).intersection(*offers.values())
        if not common:
            # Every edge that kept its checkpoints has the older one of the cloud's.
            oldest = self._checkpoints.steps()[0]
            edge = next(edge for edge, steps in offers.items() if oldest not in steps)
            self._leave_out(edge, self._apart(edge, offers[edge]))
            return
        try:
            self._restore(max(common))
        except CollabError as fault:
            self.fail(fault)
            return
        self._round.start = self._done
        self.condition.notify_all()

    def _apart(self, edge: str, steps: set[int]) -> str:
        return (
            f"edge '{edge}' has no checkpoint in common with the others: it has {sorted(steps)[:9]}, the cloud has "
            f"{self._checkpoints.steps()}; bring its folder back, or start all sides anew"
        )

    def _take(self, edge: str, request: pb.StepRequest) -> None:
        origin = f"edge '{edge}', step {request.step}"
        if self.is_done:
            raise RefusedError(f"{origin}: the run is over after {self._done} steps")
        step = self._done + 1
        phase = phases(self._training, self.task, step)[self._phase]
        if (request.step, request.phase) != (step, phase):
            raise RefusedError(f"{origin}: expected step {step}, {phase}; found {request.phase[:20]!r}")
        arrays = from_messages(request.tensors, self._middle.expected(phase), origin=origin)
        if LABELS in arrays:
            check_labels(arrays[LABELS], self.task.classes, origin=origin)
        self._given[edge] = arrays
        if len(self._given) == len(self.members):
            try:
                self._complete(step, phase)
            except DivergedError as fault:
                self._without(fault, step)
            except Exception as fault:  # noqa: BLE001 - whatever it is, edges would send the same again for ever
                self.fail(fault)
                self._round = _Round()

    def _without(self, fault: DivergedError, step: int) -> None:
        """Go on without the edges whose items Part 2 cannot use; if it can use nobody's, they are not what is wrong."""
        if set(fault.edges) == set(self.members):
            self.fail(CollabError(f"step {step}: {fault}"))
            self._round = _Round()
            return
        for edge in fault.edges:
            self._leave_out(edge, f"step {step}: {fault}")

    def _complete(self, step: int, phase: str) -> None:
        given = {edge: self._given[edge] for edge in sorted(self._given)}
        answers = self._middle.run(phase, given, step, self._training.steps)
        self._given = {}
        if phase == FORWARD and LOSS in next(iter(answers.values())):
            self._curve.note(step, float(np.mean([answer[LOSS] for answer in answers.values()])))
        self._phase += 1
        if self._phase == len(phases(self._training, self.task, step)):
            self._done, self._phase = step, 0
            last = step == self._training.steps
            if step % self._training.checkpoint_every == 0 or last:
                self._save()
            if last:
                self.finish(self._middle.weights())
        # The answers of the step before may still be asked for again; older ones cannot.
        self._answers = {key: answer for key, answer in self._answers.items() if key[1] >= step - 1}
        self._answers |= {(edge, step, phase): answer for edge, answer in answers.items()}
        self.condition.notify_all()

    def _save(self) -> None:
        self._checkpoints.save(self._done, {"middle": self._middle.state(), "curve": self._curve.points})

    def _restore(self, step: int) -> None:
        state = self._checkpoints.load(step)
        self._middle.restore(state["middle"])
        self._curve.restore(state["curve"])
        self._done, self._phase = step, 0
        self._given, self._answers = {}, {}
