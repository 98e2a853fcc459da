"""Why every node is where it is, as data. Written as ``explanation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from siniantrust._files import write_atomic
from siniantrust.errors import PlanError
from siniantrust.trust import Label


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NodeExplanation(_Record):
    """One node: where it runs, what it is predicted to cost there and elsewhere, and why it is there."""

    node: str
    operator: str
    part: str
    device: str = Field(description="its part's devices, with a + between replicas")
    latency_s: float = Field(description="predicted seconds there; of replicas on the first one named")
    elsewhere_s: Mapping[str, float] = Field(description="predicted seconds where else it may run")
    refused: Mapping[str, str] = Field(description="devices that may not have it, and why")
    label: Label = Field(description="of the most private of its outputs")
    reason: str
    detail: str = Field(default="", description="figures and names behind the reason")


class NodeRun(_Record):
    """Consecutive nodes with the same answers; seconds are sums, elsewhere only where all of them may run."""

    first: str
    last: str
    count: int
    operators: Mapping[str, int]
    part: str
    device: str
    latency_s: float
    elsewhere_s: Mapping[str, float]
    refused: Mapping[str, str]
    label: Label
    reasons: tuple[str, ...] = Field(description="the most frequent first")


class Explanation(_Record):
    """Every node of a plan, in the model's order, and runs of them for reading."""

    schema_version: Literal[1] = 1
    model_name: str
    model_sha256: str
    plan_sha256: str = Field(description="of plan.json")
    basis: Mapping[str, str] = Field(description="how the seconds of the enclave and of each device are known")
    runs: tuple[NodeRun, ...]
    nodes: tuple[NodeExplanation, ...]


def save_explanation(explanation: Explanation, path: Path) -> None:
    """Write ``explanation`` to ``path`` as JSON.

    Raises:
        PlanError: if the file cannot be written.
    """
    try:
        write_atomic(path, explanation.model_dump_json(indent=1).encode() + b"\n")
    except OSError as error:
        raise PlanError(f"explanation {path}: cannot be written ({error.strerror})") from None
