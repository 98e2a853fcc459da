"""The profile of one device for one model: seconds per node, and what a call of the device costs beyond them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.graph import Node, Part
from siniantrust.odla import CallCost, Device, Profiler, measure_call, measure_speed, profile
from siniantrust.planner._costs import AffineCost, ComputeCost, DeviceProfile
from siniantrust.planner._pieces import MOST_PIECES, Specimen, moved_bytes
from siniantrust.planner._regression import LEAST_GROUPS, fit_nodes
from siniantrust.planner._timed import time_parts

# Some compilers take many seconds for a piece.
_COMPILE_TIME_S = 15.0


def profile_device(device: Device, specimen: Specimen, here_s: Mapping[str, float] | None = None) -> DeviceProfile:
    """Measure what every node of a model costs on a device that parts can be brought to.

    The whole model and up to eight pieces of it are timed. A device that can tell is asked for its nodes; on
    another one each piece's time is shared out by regression. What the pieces take together beyond the whole is the
    price of the cuts between them.

    Args:
        device: the device.
        specimen: the model.
        here_s: the seconds of every node on this machine, for nodes that can only be scaled from there; None where
            the device is this machine itself.

    Raises:
        DeviceLostError: if the device is gone.
        DeviceError: if it refuses what it said that it supports, or this machine cannot run the model.
    """
    call = measure_call(device)
    refused = device.supports(specimen.whole)
    if refused and here_s is None:
        raise DeviceError(f"this machine cannot run the model: node {refused[0].node!r}: {refused[0].reason}")
    if refused:
        return _profile_some(device, specimen, call, {each.node: each.reason for each in refused}, here_s or {})
    whole = time_parts(device, [specimen.whole], [specimen.inputs])
    pieces = specimen.pieces(int(np.clip(_COMPILE_TIME_S / whole.open_s, 1, MOST_PIECES)))
    apart = time_parts(device, pieces, specimen.fed(pieces))
    whole_s = float(whole.compute_s(call)[0])
    pieces_s = [float(value) for value in apart.compute_s(call)]
    shares, basis = _shares(device, specimen, whole.repeats, pieces, pieces_s, here_s or {})
    excess_s = sum(pieces_s) - whole_s
    # In a piece as it was measured, over all pieces as in the whole.
    scale = whole_s / sum(pieces_s)
    latency_s: dict[str, float] = {}
    for part, piece_s in zip(pieces, pieces_s, strict=True):
        latency_s |= _spread({name: shares[name] for name in part.node_names}, piece_s * scale)
    return DeviceProfile(
        compute=ComputeCost(latency_s=latency_s, basis=basis),
        call=_with_cuts(call, pieces, excess_s),
    )


def _shares(
    device: Device,
    specimen: Specimen,
    repeats: int,
    pieces: Sequence[Part],
    pieces_s: Sequence[float],
    here_s: Mapping[str, float],
) -> tuple[Mapping[str, float], str]:
    """Return seconds per node, of which only their ratios within a piece matter, and how they were found."""
    taken = f"scaled to {len(pieces)} pieces and the whole (medians of {repeats} runs or more)"
    if isinstance(device, Profiler):
        try:
            found = profile(device, specimen.whole, specimen.inputs, repeats=repeats)
        except DeviceLostError:
            raise
        except DeviceError:  # it has made one kernel of many nodes
            pass
        else:
            return found.latency_s, f"{found.basis}; {taken}"
    if len(pieces) >= LEAST_GROUPS:
        costs = fit_nodes(specimen.model, [specimen.nodes(part) for part in pieces], pieces_s)
        basis = (
            "estimated within pieces by regression on FLOPs and bytes, which misses a piece that it was not fitted to "
            f"by {costs.error:.0%} (median); {taken}"
        )
        return {node.name: costs.latency_s(node) for node in specimen.model.nodes}, basis
    return here_s, f"estimated within pieces as on this machine's processor; {taken}"


def _profile_some(
    device: Device, specimen: Specimen, call: CallCost, refused: Mapping[str, str], here_s: Mapping[str, float]
) -> DeviceProfile:
    """Measure the pieces that the device takes, and predict the rest."""
    model = specimen.model
    unsupported = dict(refused)
    if "" in refused:  # the device refuses the model as a whole, and names no node
        unsupported = {node.name: refused[""] for node in model.nodes}
    pieces = specimen.pieces()
    fed = zip(pieces, specimen.fed(pieces), strict=True)
    taken = [(part, inputs) for part, inputs in fed if unsupported.keys().isdisjoint(part.node_names)]
    taken = [(part, inputs) for part, inputs in taken if not device.supports(part)]
    latency_s: dict[str, float] = {}
    groups: list[list[Node]] = []
    seconds: list[float] = []
    timed = time_parts(device, [part for part, _ in taken], [inputs for _, inputs in taken])
    for (part, inputs), piece_s in zip(taken, timed.compute_s(call), strict=True):
        nodes = specimen.nodes(part)
        if isinstance(device, Profiler):
            found = profile(device, part, inputs, repeats=timed.repeats)
            measured = _spread(found.latency_s, float(piece_s))
            latency_s |= measured
            groups += [[node] for node in nodes if measured[node.name] > 0]
            seconds += [measured[node.name] for node in nodes if measured[node.name] > 0]
        else:
            groups.append(nodes)
            seconds.append(float(piece_s))
    if len(groups) >= LEAST_GROUPS:
        costs = fit_nodes(model, groups, seconds)
        predicted = {node.name: costs.latency_s(node) for node in model.nodes}
        basis = (
            f"{len(taken)} pieces of the model that the device takes measured; the rest estimated by regression on "
            f"their FLOPs and bytes, which misses what it was not fitted to by {costs.error:.0%} (median)"
        )
    else:
        speed, basis = speed_of(device, specimen.here, call)
        predicted = {name: spent_s * speed for name, spent_s in here_s.items()}
    return DeviceProfile(
        compute=ComputeCost(latency_s=predicted | latency_s, unsupported=unsupported, basis=basis),
        call=AffineCost.of(call),
    )


def speed_of(device: Device, here: Device, call: CallCost) -> tuple[float, str]:
    """Return how many times as long as here a device computes, and how that is known."""
    try:
        speed = measure_speed(device, here, call)
    except DeviceLostError:
        raise
    except DeviceError:
        return 1.0, "assumed to compute as this machine's processor does: nothing could be measured there"
    return speed, f"estimated: this machine's profile times {speed:.3g}, the ratio measured with a small network"


def _spread(shares: Mapping[str, float], total_s: float) -> dict[str, float]:
    """Scale seconds so that they sum to ``total_s``; evenly if all are zero."""
    together = sum(shares.values())
    if together <= 0:
        return dict.fromkeys(shares, total_s / max(len(shares), 1))
    return {name: seconds * total_s / together for name, seconds in shares.items()}


def _with_cuts(call: CallCost, pieces: Sequence[Part], excess_s: float) -> AffineCost:
    """Add to the cost of a call what a cut itself costs, half of it on either side.

    Layouts and fusions that a cut breaks cost passes over the tensor there: up to two as fast as the call itself takes
    bytes are counted per byte, and what is left per cut.
    """
    count, crossed = len(pieces) - 1, sum(moved_bytes(part)[1] for part in pieces[:-1])
    side_s = max(excess_s, 0.0) / 2
    if not crossed or not side_s:
        return AffineCost.of(call)
    passes_s = min(side_s, crossed * 2 * (call.seconds_per_byte_in + call.seconds_per_byte_out))
    return AffineCost(
        base_s=call.base_s + (side_s - passes_s) / count,
        seconds_per_byte_in=call.seconds_per_byte_in + passes_s / crossed,
        seconds_per_byte_out=call.seconds_per_byte_out + passes_s / crossed,
        basis=f"{call.basis}; {count} cuts with {crossed / 1024:.1f} KiB cost {2e3 * side_s:.2g} ms beyond",
    )
