"""The cost profile as data: seconds per node and device, per crossing and per transfer, each with its basis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from siniantrust.odla import CallCost

SCHEMA_VERSION: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AffineCost(_Record):
    """Seconds of one exchange: a fixed share and one per byte in each direction."""

    base_s: float = Field(ge=0)
    seconds_per_byte_in: float = Field(ge=0, description="towards the enclave or device")
    seconds_per_byte_out: float = Field(ge=0, description="back from it")
    basis: str

    @classmethod
    def of(cls, measured: CallCost) -> AffineCost:
        """Return a measured cost as data."""
        return cls(
            base_s=measured.base_s,
            seconds_per_byte_in=measured.seconds_per_byte_in,
            seconds_per_byte_out=measured.seconds_per_byte_out,
            basis=measured.basis,
        )


class ComputeCost(_Record):
    """Seconds per node on one device, for one batch item. ``unsupported`` maps a node to why it cannot run there."""

    latency_s: dict[str, float]
    unsupported: dict[str, str] = Field(default_factory=dict)
    basis: str


class DeviceProfile(_Record):
    """What one device costs for one model: its nodes, and a call beyond them."""

    compute: ComputeCost
    call: AffineCost

    def noted(self, note: str) -> DeviceProfile:
        """Return the same profile with a note on how its nodes came to be known."""
        basis = f"{self.compute.basis}; {note}"
        return self.model_copy(update={"compute": self.compute.model_copy(update={"basis": basis})})


class MaskingProfile(_Record):
    """What layers cost under one-time pads: the enclave's work by kind, and each offerable layer's elsewhere.

    Attributes:
        mask_s: of each number that is sent.
        quantise_s: of each number that was made inside, when it goes to a layer under a pad.
        verify_s: of each number that is sent and each weight that it meets in the check.
        unmask_s: of each number that comes back.
        layer_s: of each layer under a pad, whatever its size.
        product_s: of each multiplication of a layer that stays inside.
        point_s: the same for kernels of one pixel and matrix products.
        weight_s: of each weight of a layer that stays inside.
        pass_s: of each number that passes between a layer under a pad and one that stays inside.
        handover_s: of each value that does.
        arithmetic: in which devices compute under pads, ``int8`` or ``float64``.
        device_s: by device and node, seconds of the layer in that arithmetic, without the way there.
        prepare_s: by node, seconds of the enclave for a correction, in idle time.
        refused: offerable by form, but no bound can be proven; by node, why.
        refusing: devices that do not compute in that arithmetic, and why.
        basis: how all this is known.
    """

    mask_s: float
    quantise_s: float
    verify_s: float
    unmask_s: float
    layer_s: float
    product_s: float
    point_s: float
    weight_s: float
    pass_s: float
    handover_s: float
    arithmetic: Literal["int8", "float64"] = "float64"
    device_s: dict[str, dict[str, float]]
    prepare_s: dict[str, float]
    refused: dict[str, str]
    refusing: dict[str, str] = Field(default_factory=dict)
    basis: str


class CostProfile(_Record):
    """Everything that the solver knows about time, for one model on one machine.

    ``trusted`` is the enclave's compute, ``devices`` that of each untrusted device; ``crossing`` is a call into the
    enclave with encryption both ways, ``transfers`` the way to each device and back. ``masking`` is None where pads
    were not to be considered.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model_sha256: str
    trusted: ComputeCost
    devices: dict[str, ComputeCost]
    crossing: AffineCost
    transfers: dict[str, AffineCost]
    machine: str
    masking: MaskingProfile | None = None

    def with_overheads(self, *, request_s: float, switch_s: Mapping[str, float]) -> CostProfile:
        """Add what a request costs beside its parts, and what each switch between the enclave and a device does."""
        crossing = self.crossing.model_copy(
            update={
                "base_s": self.crossing.base_s + request_s,
                "basis": f"{self.crossing.basis}; and {request_s * 1e6:.0f} us of the session's own for a request",
            }
        )
        transfers = {
            name: cost.model_copy(
                update={
                    "base_s": cost.base_s + switch_s[name],
                    "basis": f"{cost.basis}; and {switch_s[name] * 1e6:.0f} us more taking turns with the enclave",
                }
            )
            for name, cost in self.transfers.items()
        }
        return self.model_copy(update={"crossing": crossing, "transfers": transfers})
