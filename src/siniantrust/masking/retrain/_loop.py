"""The loop: steps, validation, early stopping, checkpoints. A run that was cut off goes on to the same bits.

Whatever is random in a step follows from the seed, the epoch and the step alone, and so does the order of batches:
there are no generators whose state would have to be kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from siniantrust._progress import Step
from siniantrust.masking.retrain._checkpoint import load_checkpoint, save_checkpoint
from siniantrust.masking.retrain._frozen import Frozen
from siniantrust.masking.retrain._items import Items
from siniantrust.masking.retrain._losses import are_classes, class_scores, label_loss, teacher_loss
from siniantrust.masking.retrain._network import Network, joined
from siniantrust.masking.retrain._penalty import Penalty, TrainedPenalty
from siniantrust.masking.retrain._recipe import Recipe, RetrainError
from siniantrust.masking.retrain._record import Epoch

_SAVE_EVERY_S = 60.0
_VALIDATION_BATCH = 256
_ORDER, _STEP, _VALIDATION = range(3)


@dataclass(slots=True)
class _State:
    """Where a training stands, beside the weights and the optimiser."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    spent_s: float = 0.0
    best_loss: float = float("inf")
    best_epoch: int = 0
    epochs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a pass without training found: mean loss, the penalty in it, and the share of right labels."""

    loss: float
    penalty: float
    accuracy: float | None


class Loop:
    """One training. ``run`` ends with the best weights in the network.

    Args:
        network: what is trained.
        items: the items.
        recipe: how.
        taught: the teacher's answers; None if labels are learnt.
        penalty: see ``Penalty``.
        device: where it computes. On a GPU that has bfloat16, forward passes are computed in mixed precision.
    """

    def __init__(
        self,
        network: Network,
        items: Items,
        recipe: Recipe,
        taught: Frozen | None,
        penalty: Penalty | None,
        device: torch.device,
    ) -> None:
        self.network, self.items, self.recipe = network, items, recipe
        self.taught, self.penalty, self.device = taught, penalty, device
        self._mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()
        self._made: Frozen | None = None
        if recipe.mode == "part2":
            self._made = Frozen(network.features, items, device, keep=not network.features_random)
        self._state = _State()
        self._best = self._weights()
        self._optimiser = torch.optim.AdamW(
            network.graph.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    @property
    def features_kept(self) -> bool:
        """Whether Part 1 was computed once for all epochs."""
        return self._made is not None and self._made.kept

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are the best so far; 0 for those that were given."""
        return self._state.best_epoch

    def run(
        self,
        checkpoint: Path | None,
        described: Mapping[str, Any],
        progress: Step,
        watch: Callable[[Epoch], None],
    ) -> list[Epoch]:
        """Train, from the checkpoint on if there is one, and return the curves; ``watch`` may end it by raising.

        Raises:
            RetrainError: if the checkpoint cannot be used or written, or the loss is no longer finite.
        """
        if checkpoint is not None and (found := load_checkpoint(checkpoint, described, self.device)) is not None:
            self._take(found)
            progress(f"from epoch {self._state.epoch + 1}", advance=self._state.epoch)
        recipe, state = self.recipe, self._state
        if not state.epochs and not state.step:
            state.best_loss = self.judge(self.items.validation).loss
            self._require_finite(state.best_loss, "validation loss before training")
        while state.epoch < recipe.epochs and state.epoch - state.best_epoch < recipe.patience:
            self._epoch(checkpoint, described)
            progress(f"validation loss {state.epochs[-1]['validation_loss']:.4f}")
            if checkpoint is not None:
                save_checkpoint(checkpoint, described, self._everything())
            watch(Epoch(**state.epochs[-1]))
        self.network.graph.load_state_dict(self._best)
        return [Epoch(**each) for each in state.epochs]

    def judge(self, rows: np.ndarray) -> Figures:
        """Return the figures of some items, as in inference, with the same noise each time."""
        self.network.graph.eval()
        self._seed(_VALIDATION)
        sums, scored = np.zeros(3), False
        for start in range(0, len(rows), _VALIDATION_BATCH):
            chosen = rows[start : start + _VALIDATION_BATCH]
            with torch.no_grad():
                loss, penalty, answers, labels = self._losses(chosen)
            right = 0.0
            if labels is not None and are_classes(answers):
                scored = True
                right = float((class_scores(answers, labels).argmax(1) == labels).double().mean())
            sums += len(chosen) * np.array([float(loss), float(penalty), right])
        loss_mean, penalty_mean, accuracy = (float(each) for each in sums / len(rows))
        return Figures(loss_mean, penalty_mean, accuracy if scored else None)

    def _epoch(self, checkpoint: Path | None, described: Mapping[str, Any]) -> None:
        recipe, state, rows = self.recipe, self._state, self.items.training
        order = np.random.default_rng((recipe.seed, _ORDER, state.epoch)).permutation(rows)
        # Even pieces: a last batch of one item would be no sample for batch normalisation.
        batches = np.array_split(order, max(1, len(order) // recipe.batch_items))
        started = saved = time.monotonic()
        while state.step < len(batches):
            state.loss_sum += self._step(batches[state.step], (state.epoch + state.step / len(batches)) / recipe.epochs)
            state.step += 1
            if checkpoint is not None and time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                save_checkpoint(checkpoint, described, self._everything(time.monotonic() - started))
        figures = self.judge(self.items.validation)
        self._require_finite(figures.loss, "validation loss")
        epoch = Epoch(
            epoch=state.epoch + 1,
            training_loss=state.loss_sum / len(batches),
            validation_loss=figures.loss,
            penalty=figures.penalty,
            validation_accuracy=figures.accuracy,
            learning_rate=self._optimiser.param_groups[0]["lr"],
            time_s=round(state.spent_s + time.monotonic() - started, 3),
        )
        state.epochs.append(asdict(epoch))
        state.epoch, state.step, state.loss_sum, state.spent_s = state.epoch + 1, 0, 0.0, 0.0
        # Losses against an adversary that has learnt in between do not compare: the last epoch is taken.
        if figures.loss < state.best_loss or isinstance(self.penalty, TrainedPenalty):
            state.best_loss, state.best_epoch, self._best = figures.loss, state.epoch, self._weights()

    def _step(self, rows: np.ndarray, done: float) -> float:
        self.network.graph.train()
        self._seed(_STEP, self._state.epoch, self._state.step)
        for group in self._optimiser.param_groups:
            group["lr"] = self.recipe.rate(done)
        self._optimiser.zero_grad()
        loss, _, _, _ = self._losses(rows, learning=True)
        found = float(loss.detach())
        self._require_finite(found, "loss")
        loss.backward()  # type: ignore[no-untyped-call] # torch's
        self._optimiser.step()
        return found

    def _losses(
        self, rows: np.ndarray, *, learning: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor], torch.Tensor | None]:
        """Return the whole loss, the penalty in it, the answers and the labels of a batch."""
        inputs, labels = self.items.batch(rows, self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._mixed):
            features = self.network.features(inputs) if self._made is None else self._made.of(rows, inputs)
            answers = self.network.answers(features)
        if self.taught is not None:
            loss = teacher_loss(answers, self.taught.of(rows, inputs), temperature=self.recipe.temperature)
        elif labels is not None:
            loss = label_loss(answers, labels)
        else:
            raise RetrainError("data: there are no labels to learn; add them, or name a teacher")
        penalty = torch.zeros((), device=self.device)
        if self.penalty is not None:
            crossing, private = joined(features).float(), inputs[self.items.private]
            if learning and isinstance(self.penalty, TrainedPenalty):
                self.penalty.inner_step(private, crossing.detach(), labels)
            penalty = self.penalty(private, crossing, labels)
        return loss + penalty, penalty, answers, labels

    def _require_finite(self, value: float, what: str) -> None:
        if not np.isfinite(value):
            state = self._state
            raise RetrainError(
                f"epoch {state.epoch + 1}, step {state.step + 1}: the {what} is {value}; try a lower learning rate "
                f"than {self.recipe.learning_rate:g}"
            )

    def _seed(self, *place: int) -> None:
        torch.manual_seed(int(np.random.SeedSequence((self.recipe.seed, *place)).generate_state(1)[0]))

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: values.detach().clone() for name, values in self.network.graph.state_dict().items()}

    def _everything(self, spent_s: float = 0.0) -> dict[str, Any]:
        state = asdict(self._state)
        state["spent_s"] += spent_s
        return {
            "loop": state,
            "weights": self._weights(),
            "best": self._best,
            "optimiser": self._optimiser.state_dict(),
            "penalty": dict(self.penalty.state_dict()) if isinstance(self.penalty, TrainedPenalty) else None,
        }

    def _take(self, found: Mapping[str, Any]) -> None:
        self._state = _State(**found["loop"])
        self.network.graph.load_state_dict(found["weights"])
        self._best = found["best"]
        self._optimiser.load_state_dict(found["optimiser"])
        if isinstance(self.penalty, TrainedPenalty):
            self.penalty.load_state_dict(found["penalty"])
