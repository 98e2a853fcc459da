"""What it costs to cross into an enclave and back, measured with three small parts."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
from onnx import helper

from siniantrust.graph import Part, Tensor
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
_BASIS = (
    f"medians of {_REPEATS} calls (fewer, at least {_FEW_REPEATS}, after {_ENOUGH_S:g} s) at {{sizes}} of an identity "
    "part and of one that returns one element, minus the same parts run bare on one thread; least squares, weighted by "
    "1/latency"
)


def measure_crossing(enclave: Enclave) -> CrossingCost:
    """Measure base latency and the cost of a byte in each direction on a live enclave.

    An identity part moves as many bytes out as in; a part that returns its first element moves bytes in only. Both are
    loaded in three sizes, up to 4 MiB or a 32nd of the enclave's memory, under names that start with ``crossing-``.
    What they compute themselves, measured on the same parts run in this process, is subtracted.

    Raises:
        EnclaveError: if the enclave cannot load the parts.
    """
    rows, seconds = [], []
    largest = min(_LARGEST_BYTES, enclave.info().memory_limit_bytes // _MEMORY_SHARE)
    sizes_bytes = (_SMALLEST_BYTES, largest // 4, largest)
    for size_bytes in sizes_bytes:
        x = np.zeros((1, 1, 1, size_bytes // 4), np.float32)
        for name, part, out_bytes in (("identity", _identity(x.size), x.nbytes), ("first", _first(x.size), 4)):
            run_inside = _load(enclave, f"crossing-{name}", part)
            run_bare = _open_bare(part)
            inside_s, bare_s = _medians(partial(run_inside, x), partial(run_bare, x))
            rows.append((1.0, x.nbytes, out_bytes))
            seconds.append(max(inside_s - bare_s, 0.0))
    weights = 1 / np.maximum(np.array(seconds), 1e-6)
    matrix = np.array(rows) * weights[:, None]
    # Scaled columns, or the bytes would drown the constant.
    scale = np.array([1.0, 1e-6, 1e-6])
    solution, *_ = np.linalg.lstsq(matrix * scale, np.array(seconds) * weights, rcond=None)
    base_s, in_s, out_s = (max(float(value), 0.0) for value in solution * scale)
    sizes = ", ".join(f"{size_bytes >> 10} KiB" for size_bytes in sizes_bytes)
    return CrossingCost(base_s, in_s, out_s, _BASIS.format(sizes=sizes))


def _medians(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Time two functions in turns; return the median seconds of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_WARM_UPS):
        first()
        second()
    while len(times[0]) < _REPEATS and (len(times[0]) < _FEW_REPEATS or sum(times[0]) < _ENOUGH_S):
        for function, record in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function()
            record.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _load(enclave: Enclave, name: str, part: Part) -> Callable[[np.ndarray], object]:
    key, context = secrets.token_bytes(32), b"siniantrust crossing"
    sealed = seal_part(part, key=key, context=context)
    enclave.load(name, sealed.skeleton, sealed.sealed, key, context=context)
    return lambda x: enclave.run(name, {"x": x})


def _open_bare(part: Part) -> Callable[[np.ndarray], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        part.proto.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"x": x})


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
