"""What a server costs: it keeps what it serves, so that a model can be measured there only as far as it is held."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

from siniantrust.errors import DeviceError, DeviceLostError, PlanError
from siniantrust.graph import Part, split
from siniantrust.odla import Arrays, CallCost, ModelHolder, least_seconds, measure_call
from siniantrust.planner._costs import AffineCost, ComputeCost, DeviceProfile
from siniantrust.planner._device_profile import speed_of
from siniantrust.planner._pieces import Specimen, moved_bytes

_RUNS = 5
# Where the way there is most of the time, noise must not make the computation free.
_LEAST_SHARE = 0.05
# Names under which bundles and models are served, unless the device's options name the model.
_NAMES = ("part2", "whole")


def profile_server(device: ModelHolder, specimen: Specimen, here_s: Mapping[str, float]) -> DeviceProfile:
    """Measure the way to a server, and its speed by what it holds of the model, else by a small network of its own.

    Args:
        device: the server.
        specimen: the model.
        here_s: the seconds of every node on this machine, which are scaled to what was measured.

    Raises:
        DeviceLostError: if the server does not answer.
        DeviceError: if this machine cannot run the model.
    """
    call = measure_call(device)
    speed, basis = _speed_by_model(device, specimen, call) or speed_of(device.calibration(), specimen.here, call)
    return DeviceProfile(
        compute=ComputeCost(latency_s={name: spent_s * speed for name, spent_s in here_s.items()}, basis=basis),
        call=AffineCost.of(call),
    )


def _speed_by_model(device: ModelHolder, specimen: Specimen, call: CallCost) -> tuple[float, str] | None:
    """Compare server and this machine by the part of the model that the server holds; None if it holds none."""
    held = _held_part(device, specimen)
    if held is None:
        return None
    part, inputs = held
    with ExitStack() as stack:
        try:
            there = stack.enter_context(closing(device.compile(part)))
        except DeviceLostError:
            raise
        except DeviceError:  # another model whose tensors have these names
            return None
        here = stack.enter_context(closing(specimen.here.compile(part)))
        there_s, here_s = least_seconds([partial(each.run, inputs) for each in (there, here)], repeats=_RUNS)
    speed = max(there_s - call.latency_s(*moved_bytes(part)), _LEAST_SHARE * there_s) / here_s
    what = f"{len(part.node_names)} of the model's {len(specimen.model.nodes)} nodes, which it holds"
    return speed, f"estimated: this machine's profile times {speed:.3g}, from the fastest of {_RUNS} runs of {what}"


def _held_part(device: ModelHolder, specimen: Specimen) -> tuple[Part, Arrays] | None:
    """Find the part of the model that the server holds, by the names of what it takes and gives."""
    for name in _NAMES:
        held = device.held(name)
        if held is None:
            continue
        parts = _parts_between(specimen, held.inputs, held.outputs)
        for part, inputs in zip(parts, specimen.fed(parts), strict=True):
            takes, gives = ({tensor.name for tensor in tensors} for tensors in (part.inputs, part.outputs))
            if takes == held.inputs and gives == held.outputs:
                return replace(part, name=name), inputs
    return None


def _parts_between(specimen: Specimen, inputs: frozenset[str], outputs: frozenset[str]) -> tuple[Part, ...]:
    """Split the model before a part with these inputs and behind one with these outputs, as far as it can be."""
    model = specimen.model
    by_tensors = {frozenset(cut.tensors): cut for cut in specimen.cuts.cuts}
    edges = ((inputs, model.inputs), (outputs, model.outputs))
    wanted = [names for names, tensors in edges if names != {tensor.name for tensor in tensors}]
    if not wanted:
        return (specimen.whole,)
    try:
        return split(model, [by_tensors[names] for names in wanted])
    except (KeyError, PlanError):  # such a part would begin or end where the model has no cut
        return ()
