"""Predicted seconds of a placement, term by term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """One addend of the latency, over all last cuts. Terms of one ``stage`` share a resource and never overlap."""

    what: str
    where: str
    stage: Literal["enclave", "device"]
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
    trusted, untrusted = costs.trusted.basis, costs.devices[device].basis
    transfer = costs.transfers[device]
    whole = len(compute.trusted_s) - 1
    three = ends != whole
    first_in = traffic.client_to_first
    first_out = traffic.first_to_device + traffic.first_to_client
    to_device = traffic.first_to_device + traffic.client_to_device
    from_device = traffic.device_to_last + traffic.device_to_client
    last_in = traffic.device_to_last + traffic.client_to_last
    first_s = np.full(len(ends), compute.trusted_s[start])
    crossing = costs.crossing
    # Differences of running sums: rounding may take a zero below zero.
    device_s = np.maximum(compute.device_s[ends] - compute.device_s[start], 0.0)
    last_s = np.maximum(compute.trusted_s[whole] - compute.trusted_s[ends], 0.0)
    terms = [
        Term("cross into part 1 and back", ENCLAVE, "enclave", _affine(crossing, first_in, first_out), crossing.basis),
        Term("compute part 1", ENCLAVE, "enclave", first_s, trusted),
        Term(
            "move to the device and back", device, "device", _affine(transfer, to_device, from_device), transfer.basis
        ),
        Term("compute part 2", device, "device", device_s, untrusted),
    ]
    if three.any():
        cross_s = np.where(three, _affine(crossing, last_in, traffic.last_to_client), 0.0)
        terms.append(Term("cross into part 3 and back", ENCLAVE, "enclave", cross_s, crossing.basis))
        terms.append(Term("compute part 3", ENCLAVE, "enclave", last_s, trusted))
    return terms


def trusted_terms(costs: CostProfile, *, in_bytes: float, out_bytes: float, compute_s: float) -> list[Term]:
    """Return the terms of the whole model in the enclave, as arrays of one element."""
    cross_s = _affine(costs.crossing, np.asarray([in_bytes]), np.asarray([out_bytes]))
    return [
        Term("cross into part 1 and back", ENCLAVE, "enclave", cross_s, costs.crossing.basis),
        Term("compute part 1", ENCLAVE, "enclave", np.asarray([compute_s]), costs.trusted.basis),
    ]


def _affine(cost: AffineCost, in_bytes: FloatArray, out_bytes: FloatArray) -> FloatArray:
    seconds: FloatArray = cost.base_s + cost.seconds_per_byte_in * in_bytes + cost.seconds_per_byte_out * out_bytes
    return seconds
