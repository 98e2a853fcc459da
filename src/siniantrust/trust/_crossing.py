"""What it costs to cross into an enclave and back, and to compute there, measured with small parts."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

import numpy as np
import onnx
from onnx import helper

from siniantrust.graph import Part, Tensor, peak_bytes
from siniantrust.odla import Arrays, DeviceSpec, compute_part, fit_non_negative, open_device
from siniantrust.trust._registry import runs_prelude
from siniantrust.trust._seal import seal_part
from siniantrust.trust._types import CrossingCost, Enclave

_LARGEST_BYTES = 4 << 20
_SMALLEST_BYTES = 4 << 10
_MEMORY_SHARE = 32
_REPEATS = 15
# A slow enclave is not called that often: after this time, few calls must do.
_ENOUGH_S = 3.0
_FEW_REPEATS = 3
_WARM_UPS = 2
_LEAST_S = 1e-6
_BASIS = (
    f"medians of {_REPEATS} calls (fewer, at least {_FEW_REPEATS}, after {_ENOUGH_S:g} s) at {{sizes}} of an identity "
    "part and of one that returns one element, minus the same parts run bare; non-negative least squares of relative "
    "errors"
)

_Call = Callable[[], object]


def measure_crossing(enclave: Enclave) -> CrossingCost:
    """Measure base latency, the cost of a byte in each direction, and how fast it computes, on a live enclave.

    An identity part moves as many bytes out as in; a part that returns its first element moves bytes in only. Both are
    loaded in three sizes, up to 4 MiB or a 32nd of the enclave's memory. What they compute themselves, measured on the
    same parts run in this process, is subtracted. A small network, run in both places, says how many times as long the
    enclave takes to compute: by the fastest runs, which other work on the machine changes least. An enclave too small
    for it is taken to compute as fast as this process. All are loaded under names that start with ``crossing-``.

    Raises:
        EnclaveError: if the enclave cannot load the parts.
    """
    rows, seconds = [], []
    largest = min(_LARGEST_BYTES, enclave.info().memory_limit_bytes // _MEMORY_SHARE)
    sizes_bytes = (_SMALLEST_BYTES, largest // 4, largest)
    with ExitStack() as stack:
        for size_bytes in sizes_bytes:
            x = np.zeros((1, 1, 1, size_bytes // 4), np.float32)
            for name, part in (("identity", _identity(x.size)), ("first", _first(x.size))):
                inside, bare = _taken(stack, enclave, name, part, {"x": x})
                rows.append((1.0, x.nbytes, part.outputs[0].size_bytes))
                seconds.append(max(statistics.median(inside) - statistics.median(bare), _LEAST_S))
        base_s, in_s, out_s = (float(value) for value in fit_non_negative(np.array(rows), np.array(seconds)))
        network, slowdown = compute_part(), 1.0
        if has_room(enclave, network):
            tensor = network.inputs[0]
            items = {tensor.name: np.random.default_rng(0).standard_normal(tensor.shape).astype(tensor.dtype)}
            inside, bare = _taken(stack, enclave, "network", network, items)
            crossed_s = base_s + in_s * tensor.size_bytes + out_s * network.outputs[0].size_bytes
            slowdown = max(min(inside) - crossed_s, _LEAST_S) / min(bare)
    return CrossingCost(
        base_s=base_s,
        seconds_per_byte_in=in_s,
        seconds_per_byte_out=out_s,
        basis=_BASIS.format(sizes=", ".join(f"{size_bytes >> 10} KiB" for size_bytes in sizes_bytes)),
        slowdown=slowdown,
    )


def has_room(enclave: Enclave, part: Part) -> bool:
    """Return whether a part fits an enclave beside others: it may take half of the memory."""
    return 2 * peak_bytes(part) <= enclave.info().memory_limit_bytes


def _taken(
    stack: ExitStack, enclave: Enclave, name: str, part: Part, inputs: Arrays
) -> tuple[list[float], list[float]]:
    """Time a part in the enclave and bare, in turns; return the seconds of each call."""
    calls = (load_sealed(enclave, f"crossing-{name}", part, inputs), _open_bare(stack, enclave, part, inputs))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_WARM_UPS):
        for call in calls:
            call()
    while len(times[0]) < _REPEATS and (len(times[0]) < _FEW_REPEATS or sum(times[0]) < _ENOUGH_S):
        for call, record in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            record.append(time.perf_counter() - start)
    return times


def load_sealed(enclave: Enclave, name: str, part: Part, inputs: Arrays) -> Callable[[], object]:
    """Load a part under ``name`` and a key of its own; return the function that runs it on ``inputs``."""
    key, context = secrets.token_bytes(32), b"siniantrust crossing"
    sealed = seal_part(part, key=key, context=context, prelude=runs_prelude(enclave.info().provider))
    enclave.load(name, sealed.skeleton, sealed.sealed, key, context=context)
    return partial(enclave.run, name, inputs)


def _open_bare(stack: ExitStack, enclave: Enclave, part: Part, inputs: Arrays) -> _Call:
    device = open_device(DeviceSpec("bare", options={"threads": enclave.info().threads}))
    return partial(stack.enter_context(closing(device.compile(part))).run, inputs)


def _identity(size: int) -> Part:
    return _part(helper.make_node("Identity", ["x"], ["y"]), size, size)


def _first(size: int) -> Part:
    return _part(helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], strides=[1, size]), size, 1)


def _part(node: onnx.NodeProto, size_in: int, size_out: int) -> Part:
    """Return a part of one node on single-precision planes of one row; its shapes are fixed, as some enclaves need."""
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "crossing",
        [helper.make_tensor_value_info("x", kind, [1, 1, 1, size_in])],
        [helper.make_tensor_value_info("y", kind, [1, 1, 1, size_out])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x, y = (Tensor(name, "float32", (1, 1, 1, size)) for name, size in (("x", size_in), ("y", size_out)))
    return Part("crossing", proto, (x,), (y,), (), None)
