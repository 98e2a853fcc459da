"""What the trusted side's work costs here, by kind, fitted to a few layers of different shapes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from siniantrust.graph import Model, Part, load_model, split
from siniantrust.masking.exact._corrections import Corrections
from siniantrust.masking.exact._pads import KEY_BYTES
from siniantrust.masking.exact._program import build_program
from siniantrust.masking.exact._trusted import Meter, RunPart, Trusted
from siniantrust.masking.exact._verify import taps
from siniantrust.masking.exact.resident import Count
from siniantrust.odla import CheckedExecutable, Device, DeviceSpec, fit_non_negative, open_device

_HERE = DeviceSpec("here", options={"threads": 1})
_OPSET = 17
_IR_VERSION = 8
# (channels, side of the image, side of the kernel): from large images of few channels to small ones of many.
_SHAPES = ((32, 112, 1), (64, 56, 3), (64, 56, 1), (256, 14, 3), (256, 14, 1), (4, 1, 1))
# A matrix (columns, rows) that no cache holds, and one that a cache holds.
_MATRICES = ((4096, 2048), (512, 512))


@dataclass(frozen=True, slots=True)
class Costs:
    """What the trusted side takes on one core, in seconds.

    Attributes:
        mask_s: of each number that is sent: pad and sum.
        quantise_s: of each number that was made inside, when it goes to a layer under a pad.
        verify_s: of each number that is sent and each weight that it meets in the check.
        unmask_s: of each number that comes back: its pad, the check's sums, conversion.
        layer_s: of each layer under a pad, whatever its size.
        product_s: of each multiplication of a layer that stays inside.
        point_s: the same for kernels of one pixel and matrix products.
        weight_s: of each weight of a layer that stays inside.
        pass_s: of each number that passes between a layer under a pad and one that stays inside.
        handover_s: of each value that does.
    """

    mask_s: float
    quantise_s: float
    verify_s: float
    unmask_s: float
    layer_s: float
    product_s: float
    point_s: float
    weight_s: float
    pass_s: float
    handover_s: float


def measure_costs(*, repeats: int = 5) -> Costs:
    """Measure a few layers in their surroundings, and fit the costs to them (non-negative least squares).

    Args:
        repeats: runs of each; medians count.
    """
    rows: dict[str, list[tuple[float, ...]]] = {"mask_s": [], "verify_s": [], "unmask_s": [], "segment_s": []}
    seconds: dict[str, list[float]] = {kind: [] for kind in rows}
    with closing(open_device(_HERE)) as device:
        for shape in _SHAPES:
            model, (channels, side, kernel) = _block(*shape), shape
            numbers = channels * side**2
            weighed = numbers * taps((kernel, kernel), (1, 1), (side, side), (side, side))
            weights = (channels * kernel) ** 2
            for names, quantised in ((("first", "between", "last"), 1), (("first", "last"), 2)):
                found = _metered(model, names, device, repeats)
                layers = len(names)
                rows["mask_s"].append((numbers * layers, numbers * quantised, layers))
                rows["verify_s"].append((weighed * layers, layers))
                rows["unmask_s"].append((numbers * layers, layers))
                for kind in ("mask_s", "verify_s", "unmask_s"):
                    seconds[kind].append(found[kind])
            # Of the second program, in which the layer between stays inside.
            rows["segment_s"].append(_row(weights * side**2, weights, 2 * numbers, is_point=kernel == 1))
            seconds["segment_s"].append(found["segment_s"])
        for columns, made in _MATRICES:
            rows["segment_s"].append(_row(columns * made, columns * made, columns + made, is_point=True))
            seconds["segment_s"].append(_run_s(_product(columns, made), device, repeats))
    mask, verify, unmask, inside = (_fitted(rows[kind], seconds[kind]) for kind in rows)
    return Costs(
        mask_s=mask[0],
        quantise_s=mask[1],
        verify_s=verify[0],
        unmask_s=unmask[0],
        layer_s=mask[2] + verify[1] + unmask[1],
        product_s=inside[0],
        point_s=inside[1],
        weight_s=inside[2],
        pass_s=inside[3],
        handover_s=inside[4],
    )


def _row(products: int, weights: int, numbers: int, *, is_point: bool) -> tuple[float, ...]:
    return (0 if is_point else products, products if is_point else 0, weights, numbers, 2)


def _fitted(rows: list[tuple[float, ...]], seconds: list[float]) -> list[float]:
    # A clock of coarse steps may show nothing of a small layer.
    return [float(found) for found in fit_non_negative(np.array(rows, float), np.maximum(seconds, 1e-7))]


def _block(channels: int, side: int, kernel: int) -> Model:
    """Return three convolutions, as many channels out as in: what the second gives is added to what it gets."""
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["a"], name="first", pads=pads),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "weight"], ["c"], name="between", pads=pads),
        helper.make_node("Add", ["c", "b"], ["d"], name="sum"),
        helper.make_node("Relu", ["d"], ["e"], name="relu of sum"),
        helper.make_node("Conv", ["e", "weight"], ["y"], name="last", pads=pads),
    ]
    shape = [channels, side, side]
    return _model(nodes, shape, shape, np.zeros((channels, channels, kernel, kernel), np.float32))


def _product(columns: int, rows: int) -> Model:
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"], name="y")]
    return _model(nodes, [columns], [rows], np.zeros((columns, rows), np.float32))


def _model(nodes: list[NodeProto], entry: list[int], result: list[int], weight: np.ndarray) -> Model:
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *entry])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *result])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION))


def _item(model: Model) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=model.inputs[0].shape).astype(np.float32)}


def _metered(model: Model, padded: Sequence[str], device: Device, repeats: int) -> dict[str, float]:
    """Run the trusted side with these layers under pads, and return the seconds of each kind of work.

    Weights are zeros, so that what a device would answer is known beforehand.
    """
    entries = [node.inputs[0] for node in model.nodes if node.name in padded]
    program = build_program(model, padded, dict.fromkeys(entries, 0.03))
    zeros = {
        layer.exit: np.zeros(exchange.form(layer.exit, 1), np.uint8)
        for exchange in program.exchanges
        for layer in exchange.layers
    }
    with ExitStack() as stack:

        def open_here(part: Part) -> RunPart:
            if part.outputs[0].name in zeros:
                return lambda _: {tensor.name: zeros[tensor.name] for tensor in part.outputs}
            return stack.enter_context(closing(_opened(device, part))).run

        trusted = Trusted(program, open_part=open_here, key=os.urandom(KEY_BYTES), ledger=Count())
        kept = Corrections([exchange.corrections for exchange in program.exchanges])
        meters, item = [], _item(model)
        for _ in range(repeats):
            kept.keep(trusted.prepare(1))
            trusted.meter = Meter()
            query = trusted.begin(item)
            while query.request is not None:
                answers = {layer.exit: zeros[layer.exit] for layer in program.exchanges[query.exchange].layers}
                query.accept(kept.added(query.exchange, query.queries, answers))
            kept.forget(query.queries)
            meters.append(trusted.meter)
    return {
        kind: float(np.median([getattr(meter, kind) for meter in meters]))
        for kind in ("mask_s", "verify_s", "unmask_s", "segment_s")
    }


def _run_s(model: Model, device: Device, repeats: int) -> float:
    """Return the processor time of one run inside."""
    (whole,) = split(model, ())
    taken, item = [], _item(model)
    with closing(_opened(device, whole)) as executable:
        for _ in range(repeats):
            start = time.thread_time()
            executable.run(item)
            taken.append(time.thread_time() - start)
    return float(np.median(taken))


def _opened(device: Device, part: Part) -> CheckedExecutable:
    return CheckedExecutable(device.compile(part), part, device.spec)
