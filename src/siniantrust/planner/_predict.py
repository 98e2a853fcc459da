"""Predicted seconds of a placement, term by term."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siniantrust.planner._costs import AffineCost, CostProfile
from siniantrust.planner._flow import FloatArray, IndexArray
from siniantrust.planner._plan import ENCLAVE
from siniantrust.planner._traffic import Traffic


@dataclass(frozen=True)
class Compute:
    """Seconds that every prefix takes in the enclave and on one device."""

    trusted_s: FloatArray
    device_s: FloatArray


@dataclass(frozen=True)
class Term:
    """One addend of the latency, over all last cuts. Terms of one ``where`` share a resource and never overlap."""

    what: str
    where: str
    latency_s: FloatArray
    basis: str


def split_terms(
    traffic: Traffic,
    compute: Compute,
    costs: CostProfile,
    *,
    start: int,
    ends: IndexArray,
    device: str,
) -> list[Term]:
    """Return the terms of trusted, untrusted and (where the last cut is not the whole model) trusted again.

    The enclave's two parts share its thread, so they form one stage of a pipeline, and the device the other.
    """
    first, last = enclave_terms(traffic, compute.trusted_s, costs, start=start, ends=ends, parts=3)
    # Differences of running sums: rounding may take a zero below zero.
    device_s = np.maximum(compute.device_s[ends] - compute.device_s[start], 0.0)
    moved = (traffic.to_device, traffic.from_device)
    return [*first, *device_terms(costs, moved_bytes=moved, compute_s=device_s, device=device, part=2), *last]


def enclave_terms(
    traffic: Traffic, trusted_s: FloatArray, costs: CostProfile, *, start: int, ends: IndexArray, parts: int
) -> tuple[list[Term], list[Term]]:
    """Return the terms of the trusted part before the first cut, and of the one behind the last, if there is one."""
    crossing, basis, whole = costs.crossing, costs.trusted.basis, len(trusted_s) - 1
    first_out = traffic.first_to_device + traffic.first_to_client
    cross_s = exchange_s(crossing, traffic.client_to_first, first_out)
    first = [
        Term("cross into part 1 and back", ENCLAVE, cross_s, crossing.basis),
        Term("compute part 1", ENCLAVE, np.full(len(ends), trusted_s[start]), basis),
    ]
    three = ends != whole
    if not three.any():
        return first, []
    last_in = traffic.device_to_last + traffic.client_to_last
    cross_s = np.where(three, exchange_s(crossing, last_in, traffic.last_to_client), 0.0)
    last_s = np.maximum(trusted_s[whole] - trusted_s[ends], 0.0)
    return first, [
        Term(f"cross into part {parts} and back", ENCLAVE, cross_s, crossing.basis),
        Term(f"compute part {parts}", ENCLAVE, last_s, basis),
    ]


def device_terms(
    costs: CostProfile, *, moved_bytes: tuple[FloatArray, FloatArray], compute_s: FloatArray, device: str, part: int
) -> list[Term]:
    """Return the terms of one untrusted part; ``moved_bytes`` go to the device and come back."""
    transfer = costs.transfers[device]
    return [
        Term("move to the device and back", device, exchange_s(transfer, *moved_bytes), transfer.basis),
        Term(f"compute part {part}", device, compute_s, costs.devices[device].basis),
    ]


def trusted_terms(costs: CostProfile, *, in_bytes: float, out_bytes: float, compute_s: float) -> list[Term]:
    """Return the terms of the whole model in the enclave, as arrays of one element."""
    cross_s = exchange_s(costs.crossing, np.asarray([in_bytes]), np.asarray([out_bytes]))
    return [
        Term("cross into part 1 and back", ENCLAVE, cross_s, costs.crossing.basis),
        Term("compute part 1", ENCLAVE, np.asarray([compute_s]), costs.trusted.basis),
    ]


def exchange_s(cost: AffineCost, in_bytes: FloatArray, out_bytes: FloatArray) -> FloatArray:
    """Return the seconds of exchanges of so many bytes in each direction."""
    seconds: FloatArray = cost.base_s + cost.seconds_per_byte_in * in_bytes + cost.seconds_per_byte_out * out_bytes
    return seconds
