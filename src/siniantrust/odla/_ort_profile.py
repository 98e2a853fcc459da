"""ONNX Runtime's profile, attributed to the nodes of the part as it was given."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla._device import Arrays
from siniantrust.odla._ort_session import SessionConfig, create_session
from siniantrust.odla._profile import NodeProfile

_KERNEL = "_kernel_time"
_LAYOUT = "_nchwc"
# Layout changes and casts that the runtime puts in take a small part of a run. Where kernels without a namesake take
# more, the provider has compiled nodes into one.
_MAX_UNKNOWN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class _Origin:
    """A node of the part, as the attribution needs it."""

    name: str
    op_type: str
    inputs: tuple[str, ...]


def profile_part(part: Part, config: SessionConfig, inputs: Arrays, *, repeats: int) -> NodeProfile:
    """Measure ``part`` under the profiler.

    Args:
        part: The part.
        config: How the session is made.
        inputs: Arrays that fit the part.
        repeats: Runs to take medians over, after one that does not count.

    Raises:
        DeviceError: if ONNX Runtime refuses the part or writes no usable profile.
    """
    with tempfile.TemporaryDirectory(prefix="siniantrust-profile-") as folder:
        session = create_session(part, config, profile_prefix=str(Path(folder) / "ort"))
        for _ in range(repeats + 1):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_bytes())
    kernels = _median_kernels(events, part)
    return NodeProfile(
        latency_s=_attributed(part, kernels),
        basis=f"ONNX Runtime profile on {config.provider}, {config.threads} threads, median of {repeats} runs",
    )


def _median_kernels(events: Iterable[dict[str, Any]], part: Part) -> list[tuple[str, str, float]]:
    """Return (kernel name, operator, median seconds) in the order in which the kernels first ran.

    The first run is left out: it allocates.
    """
    runs: list[list[dict[str, Any]]] = [[]]
    for event in sorted((e for e in events if e.get("ph") == "X"), key=lambda e: e["ts"] + e["dur"]):
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            runs[-1].append(event)
        elif event["name"] == "model_run":
            runs.append([])
    counted = [kernels for kernels in runs[1:] if kernels]
    if not counted:
        if len(part.proto.graph.node) and runs[0]:
            raise DeviceError(f"part {part.name!r}: ONNX Runtime's profile does not show its runs")
        return []
    seconds: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for kernels in counted:
        for event in kernels:
            arguments = event["args"]
            key = (event["name"].removesuffix(_KERNEL), arguments["op_name"], arguments.get("node_index", ""))
            seconds[key].append(event["dur"] * 1e-6)
    # A node in a loop's body runs several times in one run: the sum over one run is what counts.
    per_run = len(counted)
    return [
        (name, operator, statistics.median(values) * len(values) / per_run)
        for (name, operator, _), values in seconds.items()
    ]


def _attributed(part: Part, kernels: Sequence[tuple[str, str, float]]) -> dict[str, float]:
    graph = part.proto.graph
    origins = [
        _Origin(name=part.node_names[index], op_type=node.op_type, inputs=tuple(node.input))
        for index, node in enumerate(graph.node)
    ]
    by_name = {origin.name: origin for origin in origins}
    by_output = {output: origin for origin, node in zip(origins, graph.node, strict=True) for output in node.output}
    found = [_origin(name, by_name, by_output) for name, _, _ in kernels]
    taken = {origin.name for origin in found if origin is not None}
    unknown = sum(kernel_s for origin, (_, _, kernel_s) in zip(found, kernels, strict=True) if origin is None)
    if unknown > _MAX_UNKNOWN_SHARE * sum(kernel_s for _, _, kernel_s in kernels):
        names = [name for origin, (name, _, _) in zip(found, kernels, strict=True) if origin is None]
        raise DeviceError(
            f"part {part.name!r}: the cost of its nodes cannot be told apart: most of it is in {names[0]!r}, "
            "which the execution provider made of several"
        )
    seconds = dict.fromkeys(by_name, 0.0)
    pending = 0.0
    last: str | None = None
    for origin, (_, operator, kernel_s) in zip(found, kernels, strict=True):
        if origin is None:
            # Layout changes and casts that the runtime put in: they belong to what ran before them.
            if last is None:
                pending += kernel_s
            else:
                seconds[last] += kernel_s
            continue
        last = _absorbed(origin, operator, by_output, taken).name
        seconds[last] += kernel_s + pending
        pending = 0.0
    return seconds


def _origin(kernel: str, by_name: dict[str, _Origin], by_output: dict[str, _Origin]) -> _Origin | None:
    """Find the node that a kernel is named after.

    ONNX Runtime names a fused kernel after one of its nodes, with words before (``fused gemm``) or after it
    (``fc/MatMulAddFusion``), and one in its blocked layout after the tensor that it gives (``r0_nchwc``).
    """
    if kernel in by_name:
        return by_name[kernel]
    if kernel.endswith(_LAYOUT) and (origin := by_output.get(kernel.removesuffix(_LAYOUT))):
        return origin
    bare = kernel.removeprefix("fused ")
    while bare:
        if bare in by_name:
            return by_name[bare]
        bare = max(bare.rpartition("/")[0], bare.rpartition("_")[0], key=len)
    return by_output.get(kernel)


def _absorbed(origin: _Origin, operator: str, by_output: dict[str, _Origin], taken: set[str]) -> _Origin:
    """Walk back from a fused kernel's namesake to the node whose operator the kernel carries out.

    A convolution that took in the activation behind it is named after the activation's output; its cost belongs to the
    convolution.
    """
    wanted = operator.removeprefix("Fused")
    seen = origin
    while seen.op_type != wanted:
        behind = [by_output[name] for name in seen.inputs if name in by_output]
        idle = [node for node in behind if node.name not in taken]
        if not idle:
            return origin
        seen = next((node for node in idle if node.op_type == wanted), idle[0])
    return seen
