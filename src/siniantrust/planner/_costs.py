"""The cost profile as data: seconds per node and device, per crossing and per transfer, each with its basis."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AffineCost(_Record):
    """Seconds of one exchange: a fixed share and one per byte in each direction."""

    base_s: float = Field(ge=0)
    seconds_per_byte_in: float = Field(ge=0, description="towards the enclave or device")
    seconds_per_byte_out: float = Field(ge=0, description="back from it")
    basis: str


class ComputeCost(_Record):
    """Seconds per node on one device, for one batch item. ``unsupported`` maps a node to why it cannot run there."""

    latency_s: dict[str, float]
    unsupported: dict[str, str] = Field(default_factory=dict)
    basis: str


class CostProfile(_Record):
    """Everything that the solver knows about time, for one model on one machine.

    ``trusted`` is the enclave's compute, ``devices`` that of each untrusted device; ``crossing`` is a call into the
    enclave with encryption both ways, ``transfers`` the way to each device and back.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model_sha256: str
    trusted: ComputeCost
    devices: dict[str, ComputeCost]
    crossing: AffineCost
    transfers: dict[str, AffineCost]
    machine: str
