"""Bytes that move between client, enclave and device, for one first cut and all last cuts at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siniantrust.planner._flow import FloatArray, Flow, IndexArray, union


@dataclass(frozen=True)
class Traffic:
    """Bytes of one request with batch size 1; every array runs over the last cuts.

    ``first`` and ``last`` are the trusted parts before and after the device's. What the first hands to the last
    stays in the enclave and moves nowhere. ``to_device`` and ``from_device`` count the client's exchange with it too.
    """

    client_to_first: FloatArray
    first_to_device: FloatArray
    first_to_client: FloatArray
    to_device: FloatArray
    from_device: FloatArray
    device_to_last: FloatArray
    client_to_last: FloatArray
    last_to_client: FloatArray


def measure_traffic(flow: Flow, start: int, ends: IndexArray) -> Traffic:
    """Count the bytes for the first cut ``start`` and each last cut of ``ends`` (``flow.whole``: no last part)."""

    def over_ends(mask: int) -> FloatArray:
        return flow.at(mask, ends).astype(np.float64)

    def zeros() -> FloatArray:
        return np.zeros(len(ends))

    client_to_first, client_to_last = zeros(), zeros()
    inputs = {tensor.name for tensor in flow.model.inputs}
    for tensor in flow.model.inputs:
        if flow.read_in(tensor.name) >> start & 1:
            client_to_first += flow.size(tensor.name)
        if past := flow.read_after(tensor.name):  # an input that only the first part reads goes nowhere else
            client_to_last += flow.size(tensor.name) * over_ends(past)
    first_to_device, first_to_last = zeros(), zeros()
    for name in flow.crossing[start]:
        first_to_device += flow.size(name) * over_ends(flow.read_between(name, start))
        first_to_last += flow.size(name) * over_ends(flow.read_after(name))
    first_to_client, last_to_client = zeros(), zeros()
    for tensor in flow.model.outputs:
        made = flow.made_in(tensor.name)
        if tensor.name in inputs:
            continue
        if made >> start & 1:
            first_to_client += tensor.size_bytes
        else:
            last_to_client += tensor.size_bytes * over_ends(~made & flow.everywhere)
    to_device, from_device = bytes_through(flow, start, ends)
    return Traffic(
        client_to_first=client_to_first,
        first_to_device=first_to_device,
        first_to_client=first_to_client,
        to_device=to_device,
        from_device=from_device,
        device_to_last=flow.crossing_bytes[ends] - first_to_last,
        client_to_last=client_to_last,
        last_to_client=last_to_client,
    )


def bytes_through(flow: Flow, start: int, ends: IndexArray) -> tuple[FloatArray, FloatArray]:
    """Count the bytes into and out of a device that holds the nodes from ``start`` to each of ``ends``.

    What it reads is sent to it, from wherever it was made; what others or the client read of it comes back.
    """
    bytes_in, bytes_out = np.zeros(len(ends)), flow.crossing_bytes[ends]
    for tensor in flow.model.inputs:
        if flow.read_after(tensor.name):
            bytes_in += tensor.size_bytes * flow.at(flow.read_between(tensor.name, start), ends)
    for name in flow.crossing[start]:
        bytes_in += flow.size(name) * flow.at(flow.read_between(name, start), ends)
        bytes_out -= flow.size(name) * flow.at(flow.read_after(name), ends)
    made_here = [(tensor, flow.made_in(tensor.name)) for tensor in flow.model.outputs]
    for tensor, made in made_here:
        if not made >> start & 1:
            bytes_out += tensor.size_bytes * flow.at(made, ends)
    return bytes_in, bytes_out


def entering_bytes(flow: Flow) -> FloatArray:
    """Return, per prefix, the bytes that the nodes outside it read of what is made inside or of the model's inputs."""
    everywhere = np.arange(flow.whole + 1)
    entering = flow.crossing_bytes.copy()
    for tensor in flow.model.inputs:
        entering += tensor.size_bytes * flow.at(flow.read_after(tensor.name), everywhere)
    return entering


def answered_bytes(flow: Flow) -> FloatArray:
    """Return, per prefix, the bytes of the model's outputs that exist inside it."""
    everywhere = np.arange(flow.whole + 1)
    answered = np.zeros(flow.whole + 1)
    for tensor in flow.model.outputs:
        answered += tensor.size_bytes * flow.at(flow.made_in(tensor.name), everywhere)
    return answered


def tangled_with(flow: Flow, start: int) -> int:
    """Return the mask of the prefixes for which bytes are not those of ``start`` plus those of the prefix.

    They do not hold ``start``, or something that is there at ``start`` is read behind them too, or only behind them.
    """
    mask = ~flow.contained_in[start] & ~(1 << flow.whole)
    mask |= union(flow.read_after(name) for name in flow.crossing[start])
    for tensor in flow.model.inputs:
        if flow.read_after(tensor.name) >> start & 1:
            mask |= ~flow.read_between(tensor.name, start)
    return mask & flow.everywhere
