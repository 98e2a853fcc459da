"""The null backend: shapes run through, values do not come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from odla_parts import conv_part, double_part, gemm_part, make_part, random_inputs
from onnx import helper

from siniantrust.errors import DataError, DeviceError
from siniantrust.odla import DeviceSpec, Executable, memory_use, open_device, open_part

NULL = DeviceSpec("nowhere", "null")


def compiled() -> Executable:
    """Compile the convolutions."""
    return open_device(NULL).compile(conv_part())


def test_outputs_have_dtype_and_shape() -> None:
    """Every output has the dtype and shape that a real device would give, for any batch."""
    found = open_device(NULL).compile(double_part()).run(random_inputs(double_part(), batch=3))
    assert {name: (value.dtype.name, value.shape) for name, value in found.items()} == {
        "y": ("float64", (3, 4)),
        "bytes": ("uint8", (3, 4)),
        "ints": ("int32", (3, 4)),
    }
    assert found["y"].nbytes == 96


@pytest.mark.parametrize(
    "read",
    [np.asarray, float, bool, len, list, np.isfinite, np.sum, lambda value: value + 1, lambda value: value[0]],
)
def test_reading_a_value_is_an_error(read: Callable[[Any], object]) -> None:
    """Whoever reads an output is told that there is nothing to read."""
    value = compiled().run(random_inputs(conv_part()))["y"]
    with pytest.raises(DeviceError, match=r"part 'conv' on null: output 'y' .* cannot be read"):
        read(value)


def test_parts_follow_one_another() -> None:
    """The outputs of one null part are the inputs of the next, and of no real device."""
    _, first = open_part(NULL, gemm_part())
    tanh = helper.make_node("Tanh", ["y"], ["z"])
    follow = make_part([tanh], [("y", "float32", ["N", 4])], [("z", "float32", ["N", 4])])
    middle = first.run(random_inputs(gemm_part(), batch=5))
    assert open_part(NULL, follow)[1].run(middle)["z"].shape == (5, 4)
    with pytest.raises(DeviceError, match="device 'cpu', part 'part': "):
        open_part(DeviceSpec("cpu"), follow)[1].run(middle)


def test_inputs_are_checked_as_elsewhere() -> None:
    """Inputs that do not fit are refused."""
    with pytest.raises(DataError, match="must be float32, found float64"):
        compiled().run({"x": np.zeros((1, 3, 8, 8))})


def test_a_size_that_depends_on_values_is_declined() -> None:
    """A part whose output size nobody knows before it has run is declined by name."""
    node = helper.make_node("NonZero", ["x"], ["where"], name="find")
    part = make_part([node], [("x", "float32", [4])], [("where", "int64", [1, "K"])])
    (refused,) = open_device(NULL).supports(part)
    assert (refused.node, refused.op_type) == ("find", "NonZero")
    with pytest.raises(DeviceError, match="depends on values"):
        open_device(NULL).compile(part)


def test_memory_is_counted_from_the_graph() -> None:
    """Weights and the activations alive at once are counted, and the figure says so."""
    use = memory_use(compiled())
    weights = 4 * (8 * 3 * 9 + 8 + 8 * 8 * 9)
    assert use.resident_bytes == weights
    assert use.peak_bytes == weights + 3 * 4 * 8 * 64
    assert "counted from the graph" in use.basis


def test_a_closed_executable_says_so() -> None:
    """A run after close is an error."""
    executable = compiled()
    executable.close()
    with pytest.raises(DeviceError, match="part 'conv' was closed"):
        executable.run(random_inputs(conv_part()))
