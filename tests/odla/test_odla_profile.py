"""Per-node profiles of the ONNX Runtime backend."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from odla_parts import conv_part, make_part, random_inputs
from onnx import helper, numpy_helper

from siniantrust.errors import DataError, DeviceError
from siniantrust.odla import DeviceSpec, Profiler, open_device, profile
from siniantrust.odla._ort_profile import _attributed, _median_kernels


def test_profile_covers_every_node() -> None:
    """Each node of the part has its seconds, and the basis says how many runs they are medians of."""
    part = conv_part()
    device = open_device(DeviceSpec("cpu", options={"threads": 1}))
    assert isinstance(device, Profiler)
    measured = profile(device, part, random_inputs(part), repeats=5)
    assert set(measured.latency_s) == set(part.node_names)
    assert sum(measured.latency_s.values()) > 0
    assert "median of 5" in measured.basis


def test_fused_kernels_count_for_the_operator_they_carry_out() -> None:
    """A convolution that took in the activation behind it keeps its cost, although the kernel has the other's name."""
    part = conv_part()
    measured = profile(open_device(DeviceSpec("cpu")), part, random_inputs(part), repeats=3)
    assert measured.latency_s["conv0"] > 0
    assert measured.latency_s["conv1"] > 0
    assert measured.latency_s["relu0"] == 0


def test_expensive_node_stands_out() -> None:
    """A large matrix product costs more than a small activation."""
    weight = numpy_helper.from_array(np.ones((1024, 1024), np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Softplus", ["m"], ["s"], name="activation"),
        helper.make_node("Erf", ["s"], ["y"], name="error-function"),
    ]
    part = make_part(nodes, [("x", "float32", ["N", 1024])], [("y", "float32", ["N", 1024])], [weight])
    measured = profile(open_device(DeviceSpec("cpu")), part, random_inputs(part, batch=16), repeats=5)
    assert measured.latency_s["product"] > measured.latency_s["error-function"] > 0


def test_layout_changes_count_for_what_ran_before_them() -> None:
    """Kernels that the runtime put in, or named after a fusion, are attributed and none is lost."""
    part = conv_part()
    kernels = [
        ("ReorderInput", "ReorderInput", 1.0),
        ("r0_nchwc", "Conv", 10.0),
        ("c1_nchwc", "Conv", 1000.0),
        ("ReorderOutput", "ReorderOutput", 100.0),
    ]
    assert _attributed(part, kernels) == {"conv0": 11.0, "relu0": 0.0, "conv1": 1100.0, "add1": 0.0, "relu1": 0.0}


def test_suffixes_of_fusions_are_seen_through() -> None:
    """Words that ONNX Runtime adds to a name, before or behind, do not hide the node."""
    part = conv_part()
    kernels = [("fused conv0", "FusedConv", 1.0), ("conv1/WithBiasFusion", "Conv", 2.0), ("relu1_token_3", "Relu", 4.0)]
    assert _attributed(part, kernels) == {"conv0": 1.0, "relu0": 0.0, "conv1": 2.0, "add1": 0.0, "relu1": 4.0}


def test_nodes_compiled_into_one_are_not_told_apart() -> None:
    """Where a provider makes one kernel of many nodes, the profile is refused rather than made up."""
    with pytest.raises(DeviceError, match="cannot be told apart: most of it is in 'Provider_subgraph_0'"):
        _attributed(conv_part(), [("Provider_subgraph_0", "subgraph", 3.0), ("relu1", "Relu", 1.0)])


def test_first_run_is_left_out_and_the_median_taken() -> None:
    """Kernels of the run that allocates do not count."""

    def kernel(start: int, duration: int) -> dict[str, Any]:
        arguments = {"op_name": "Conv", "node_index": "0"}
        return {
            "cat": "Node",
            "ph": "X",
            "name": "conv0_kernel_time",
            "ts": start,
            "dur": duration,
            "args": arguments,
        }

    def run(start: int, duration: int) -> dict[str, Any]:
        return {"cat": "Session", "ph": "X", "name": "model_run", "ts": start, "dur": duration}

    events = [kernel(1, 900), run(0, 950)]
    for index, duration in enumerate((10, 500, 30)):
        start = 1000 * (index + 1)
        events += [kernel(start + 1, duration), run(start, duration + 5)]
    ((name, operator, seconds),) = _median_kernels(events, conv_part())
    assert (name, operator) == ("conv0", "Conv")
    assert seconds == pytest.approx(30e-6)


def test_thousand_nodes_are_quick() -> None:
    """A profile of 1,000 nodes takes a second or two, not minutes."""
    nodes = [helper.make_node("Tanh", [f"v{i}"], [f"v{i + 1}"], name=f"node{i}") for i in range(1000)]
    part = make_part(nodes, [("v0", "float32", ["N", 16])], [("v1000", "float32", ["N", 16])])
    start = time.perf_counter()
    measured = profile(open_device(DeviceSpec("cpu")), part, random_inputs(part), repeats=5)
    assert time.perf_counter() - start < 15
    assert all(seconds > 0 for seconds in measured.latency_s.values())


def test_device_that_cannot_profile_says_so() -> None:
    """A backend without a profiler is a DeviceError, and so is a profile of no runs; inputs are checked."""
    part = conv_part()
    remote = open_device(DeviceSpec("cloud", "remote", {"url": "grpc://127.0.0.1:1"}))
    with pytest.raises(DeviceError, match="'cloud': backend 'remote' cannot say what each node costs"):
        profile(remote, part, random_inputs(part))
    cpu = open_device(DeviceSpec("cpu"))
    with pytest.raises(DeviceError, match="at least 1 repeat"):
        profile(cpu, part, random_inputs(part), repeats=0)
    with pytest.raises(DataError, match="'x' is missing"):
        profile(cpu, part, {})
