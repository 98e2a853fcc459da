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

_SIZES = (1 << 10, 1 << 18, 1 << 20)  # floats: 4 KiB, 1 MiB and 4 MiB
_REPEATS = 15
_SIZES_TEXT = ", ".join(f"{size * 4 >> 10} KiB" for size in _SIZES)
_BASIS = (
    f"medians of {_REPEATS} calls at {_SIZES_TEXT} of an identity part and of one that "
    "returns one element, minus the same parts run bare on one thread; least squares, weighted by 1/latency"
)


def measure_crossing(enclave: Enclave) -> CrossingCost:
    """Measure base latency and the cost of a byte in each direction on a live enclave.

    An identity part moves as many bytes out as in; a part that returns its first element moves bytes in only. Both are
    loaded under names that start with ``crossing-``. What they compute themselves, measured on the same parts run in
    this process, is subtracted.

    Raises:
        EnclaveError: if the enclave cannot load the parts.
    """
    rows, seconds = [], []
    for name, part, out_bytes in (("identity", _identity(), None), ("first", _first(), 4)):
        run_inside = _load(enclave, f"crossing-{name}", part)
        run_bare = _open_bare(part)
        for size in _SIZES:
            x = np.zeros((1, size), np.float32)
            inside_s, bare_s = _medians(partial(run_inside, x), partial(run_bare, x))
            rows.append((1.0, x.nbytes, x.nbytes if out_bytes is None else out_bytes))
            seconds.append(max(inside_s - bare_s, 0.0))
    weights = 1 / np.maximum(np.array(seconds), 1e-6)
    matrix = np.array(rows) * weights[:, None]
    # Scaled columns, or the bytes would drown the constant.
    scale = np.array([1.0, 1e-6, 1e-6])
    solution, *_ = np.linalg.lstsq(matrix * scale, np.array(seconds) * weights, rcond=None)
    base_s, in_s, out_s = (max(float(value), 0.0) for value in solution * scale)
    return CrossingCost(base_s, in_s, out_s, _BASIS)


def _medians(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Time two functions in turns; return the median seconds of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(_REPEATS + 2):
        for function, record in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function()
            if repeat >= 2:  # noqa: PLR2004 - the first two rounds warm up
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


def _identity() -> Part:
    return _part([helper.make_node("Identity", ["x"], ["y"])], [], "n")


def _first() -> Part:
    bounds = [helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value]) for name, value in _FIRST_BOUNDS]
    return _part([helper.make_node("Slice", ["x", "start", "end", "axis"], ["y"])], bounds, 1)


_FIRST_BOUNDS = (("start", 0), ("end", 1), ("axis", 1))


def _part(nodes: list[onnx.NodeProto], initialisers: list[onnx.TensorProto], width: str | int) -> Part:
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "crossing",
        [helper.make_tensor_value_info("x", kind, [1, "n"])],
        [helper.make_tensor_value_info("y", kind, [1, width])],
        initialisers,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x, y = (Tensor(name, "float32", (1, 1)) for name in ("x", "y"))
    return Part("crossing", proto, (x,), (y,), (), None)
