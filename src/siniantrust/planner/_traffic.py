"""Bytes that move between client, enclave and device, for one first cut and all last cuts at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siniantrust.planner._flow import FloatArray, Flow, IndexArray


@dataclass(frozen=True)
class Traffic:
    """Bytes of one request with batch size 1; every array runs over the last cuts.

    ``first`` and ``last`` are the trusted parts before and after the device's. What the first hands to the last
    stays in the enclave and moves nowhere.
    """

    client_to_first: FloatArray
    first_to_device: FloatArray
    first_to_client: FloatArray
    client_to_device: FloatArray
    device_to_last: FloatArray
    device_to_client: FloatArray
    client_to_last: FloatArray
    last_to_client: FloatArray


def measure_traffic(flow: Flow, start: int, ends: IndexArray) -> Traffic:
    """Count the bytes for the first cut ``start`` and each last cut of ``ends`` (``flow.whole``: no last part)."""

    def over_ends(mask: int) -> FloatArray:
        return flow.at(mask, ends).astype(np.float64)

    def zeros() -> FloatArray:
        return np.zeros(len(ends))

    client_to_first, client_to_device, client_to_last = zeros(), zeros(), zeros()
    inputs = {tensor.name for tensor in flow.model.inputs}
    for tensor in flow.model.inputs:
        size = tensor.size_bytes
        if flow.read_in(tensor.name) >> start & 1:
            client_to_first += size
        if past := flow.read_after(tensor.name):  # an input that only the first part reads goes nowhere else
            client_to_last += size * over_ends(past)
            client_to_device += size * over_ends(flow.read_between(tensor.name, start))
    first_to_device, first_to_last = zeros(), zeros()
    for name in flow.crossing[start]:
        first_to_device += flow.size(name) * over_ends(flow.read_between(name, start))
        first_to_last += flow.size(name) * over_ends(flow.read_after(name))
    entering_last = np.asarray([sum(map(flow.size, flow.crossing[end])) for end in ends], dtype=np.float64)
    first_to_client, device_to_client, last_to_client = zeros(), zeros(), zeros()
    for tensor in flow.model.outputs:
        made = flow.made_in(tensor.name)
        if tensor.name in inputs:
            continue
        if made >> start & 1:
            first_to_client += tensor.size_bytes
        else:
            device_to_client += tensor.size_bytes * over_ends(made)
            last_to_client += tensor.size_bytes * over_ends(~made & flow.everywhere)
    return Traffic(
        client_to_first=client_to_first,
        first_to_device=first_to_device,
        first_to_client=first_to_client,
        client_to_device=client_to_device,
        device_to_last=entering_last - first_to_last,
        device_to_client=device_to_client,
        client_to_last=client_to_last,
        last_to_client=last_to_client,
    )
