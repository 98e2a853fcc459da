"""What the trusted side's work costs here, by kind, measured on layers of known size."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Model, load_model, split
from siniantrust.masking.exact._program import build_program
from siniantrust.masking.exact._session import ExactSession
from siniantrust.masking.exact._trusted import Meter
from siniantrust.odla import DeviceSpec, open_part

_HERE = DeviceSpec("here", options={"threads": 1})
_KERNEL = 3
_OPSET = 17
_IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Costs:
    """What the trusted side takes on one core, in seconds.

    Attributes:
        mask_s: of each number that is sent: pad, quantisation, sum.
        verify_s: of each number that is sent and each weight of the kernel that it meets.
        unmask_s: of each number that comes back: its two pads, differences, the check's sums, conversion.
        layer_s: of each layer, whatever its size.
        product_s: of each multiplication of a layer that stays inside.
    """

    mask_s: float
    verify_s: float
    unmask_s: float
    layer_s: float
    product_s: float


def measure_costs(*, repeats: int = 9) -> Costs:
    """Measure on one convolution of middling size, and one so small that only starting it counts.

    Args:
        repeats: runs of each; medians count.
    """
    model = _probe(channels=64, side=56, kernel=_KERNEL)
    numbers = model.inputs[0].elements
    found = _metered(model, repeats)
    tiny = _metered(_probe(channels=4, side=1, kernel=1), repeats)
    return Costs(
        mask_s=_median(found, "mask_s") / numbers,
        verify_s=_median(found, "verify_s") / (numbers * _KERNEL**2),
        unmask_s=_median(found, "unmask_s") / numbers,
        layer_s=sum(_median(tiny, kind) for kind in ("mask_s", "verify_s", "unmask_s")),
        product_s=_inside_s(model, repeats) / (model.flops // 2),
    )


def _probe(*, channels: int, side: int, kernel: int) -> Model:
    """Return a convolution with as many channels out as in, at the side of its input."""
    weight = np.random.default_rng(0).normal(size=(channels, channels, kernel, kernel)).astype(np.float32)
    shape: list[str | int | None] = ["batch", channels, side, side]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["y"], name="layer", pads=[kernel // 2] * 4)],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "weight")],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION))


def _item(model: Model) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=model.inputs[0].shape).astype(np.float32)}


def _metered(model: Model, repeats: int) -> list[Meter]:
    meters, item = [], _item(model)
    with ExactSession(build_program(model, ["layer"], {"x": 0.03}), [_HERE]) as session:
        for _ in range(repeats):
            session.trusted.prepare(1)
            session.trusted.meter = Meter()
            session.run(item)
            meters.append(session.trusted.meter)
    return meters


def _median(meters: list[Meter], kind: str) -> float:
    return float(np.median([getattr(meter, kind) for meter in meters]))


def _inside_s(model: Model, repeats: int) -> float:
    (whole,) = split(model, ())
    device, executable = open_part(_HERE, whole)
    try:
        taken, item = [], _item(model)
        for _ in range(repeats):
            start = time.thread_time()
            executable.run(item)
            taken.append(time.thread_time() - start)
    finally:
        executable.close()
        device.close()
    return float(np.median(taken))
