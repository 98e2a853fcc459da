"""What the report reads of training.json, which re-training, an edge and a cloud each write in a form of their own."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, RootModel, Tag, model_validator

from siniantrust.report._inputs import Bytes, Provenance, Record, Seconds

_FORMAT = "siniantrust.training/1"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class EpochRead(Record):
    """One pass over the training items."""

    epoch: Count
    training_loss: float
    validation_loss: float
    validation_accuracy: Share | None


class RetrainingRead(Record):
    """A re-training by ``sinian retrain``."""

    format: Literal["siniantrust.training/1"]
    model_sha256: str
    trained_sha256: str = Field(alias="retrained_sha256")
    tensors: tuple[str, ...]
    mode: Literal["part2", "joint"]
    teacher_sha256: str | None
    training_items: Count
    validation_items: Count
    heldout_items: Count
    best_epoch: Count
    accuracy_before: Share | None
    accuracy_after: Share | None
    accuracy_teacher: Share | None
    agreement: Share | None
    epochs: tuple[EpochRead, ...]


class CurvePointRead(Record):
    """The loss after a step or an epoch."""

    step: Count | None = None
    epoch: Count | None = None
    loss: float
    accuracy: Share | None = None

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if (self.step is None) == (self.epoch is None):
            raise ValueError("expected either a step or an epoch")
        return self

    @property
    def place(self) -> int:
        """Where it stands along the training."""
        return (self.step if self.epoch is None else self.epoch) or 0


class EpsilonRead(Record):
    """Differential privacy of one item's tensors."""

    one_step: Annotated[float, Field(ge=0)]
    all_steps: Annotated[float, Field(ge=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    passes: Count


class _SideRead(Record):
    """What both sides of a training across edge and cloud write."""

    agreement_sha256: str
    trained_sha256: str
    mode: Literal["upload", "split"]
    seconds: Seconds
    curve: tuple[CurvePointRead, ...] = ()


class EdgeRead(_SideRead):
    """An edge's part in a training: what it sent and got, and what it protected."""

    side: Literal["edge"]
    name: str
    items: Count
    calls: dict[str, Count]
    payload_bytes: Bytes
    sent_bytes: Bytes
    received_bytes: Bytes
    model_bytes: Bytes
    cloud_provenance: Provenance | Literal[""]
    accuracy: Share | None = None
    similarity_gap: float | None = None
    epsilon: EpsilonRead | None = None
    epsilon_is_for: str = ""


class CloudRead(_SideRead):
    """The cloud's part in a training. ``left_out`` says of each edge that was refused why."""

    side: Literal["cloud"]
    edges: tuple[str, ...]
    provenance: dict[str, Provenance]
    left_out: dict[str, str]


def _kind(found: Any) -> str | None:
    """Return which of the forms a file's content claims to have."""
    if not isinstance(found, dict):
        return None
    if found.get("format") == _FORMAT:
        return "retraining"
    side = found.get("side")
    return side if side in ("edge", "cloud") else None


class TrainingRead(
    RootModel[
        Annotated[
            Annotated[RetrainingRead, Tag("retraining")]
            | Annotated[EdgeRead, Tag("edge")]
            | Annotated[CloudRead, Tag("cloud")],
            Discriminator(
                _kind,
                custom_error_type="training",
                custom_error_message=f"expected the format {_FORMAT}, or the side of an edge or a cloud",
            ),
        ]
    ]
):
    """Any of the forms."""
