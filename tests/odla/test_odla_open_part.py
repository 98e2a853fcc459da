"""A part on its device: whatever a backend does wrong is an error that names device and part."""

from __future__ import annotations

import numpy as np
import pytest
from odla_parts import fixed_part, gemm_part, random_inputs
from test_odla_registry import with_entries

from siniantrust.errors import DataError, DeviceError, DeviceLostError
from siniantrust.odla import DeviceSpec, Executable, open_part

WHERE = "^device 'npu', part 'gemm': "


@pytest.fixture(autouse=True)
def _backend(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entries(monkeypatch, ("misbehaving", "misbehaving_backend:open_device"))


def opened(fault: str) -> Executable:
    """Open the part ``gemm`` on a device with a fault."""
    return open_part(DeviceSpec("npu", "misbehaving", {"fault": fault}), gemm_part())[1]


def test_a_backend_without_fault_passes() -> None:
    """What a good backend returns is handed on as it is."""
    inputs = random_inputs(gemm_part())
    expected = open_part(DeviceSpec("cpu"), gemm_part())[1].run(inputs)
    np.testing.assert_array_equal(opened("none").run(inputs)["y"], expected["y"])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "backend 'misbehaving' raised ZeroDivisionError: in a kernel"),
        ("nan", "output 'y' holds NaN or infinity in 1 of 4 places, from finite inputs"),
        ("infinity", "output 'y' holds NaN or infinity"),
        ("shape", r"it returned output 'y' as float32\[1, 4, 1\], expected float32\[1, 4\]"),
        ("dtype", r"it returned output 'y' as float64\[1, 4\], expected float32"),
        ("name", r"it returned outputs \['z'\], expected \['y'\]"),
        ("nothing", r"it returned outputs \[\], expected \['y'\]"),
    ],
)
def test_a_fault_is_an_error_that_names_device_and_part(fault: str, message: str) -> None:
    """A backend that raises, spoils values or returns something else is found out, by name."""
    executable = opened(fault)
    with pytest.raises(DeviceError, match=WHERE + message):
        executable.run(random_inputs(gemm_part()))


def test_a_lost_device_stays_a_lost_device() -> None:
    """The kind of a device's own error is kept, so that a session can open it again."""
    with pytest.raises(DeviceLostError, match=WHERE + "unplugged"):
        opened("is lost").run(random_inputs(gemm_part()))


def test_a_backend_that_raises_at_compile_is_named() -> None:
    """An error of any kind at compile names device and part too."""
    with pytest.raises(DeviceError, match=WHERE + "backend 'misbehaving' raised KeyError: 'out of registers'"):
        opened("raises at compile")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DeviceSpec("npu", "abacus"), "there is no backend 'abacus'; known are"),
        (DeviceSpec("npu", options={"provider": "QNN"}), "QNNExecutionProvider is not available"),
        (DeviceSpec("npu", "torch", {"device": "cuda:7"}), "PyTorch .* has no device 'cuda:7' here"),
        (DeviceSpec("npu", options={"provider": "Azure"}), "AzureExecutionProvider refused it"),
    ],
)
def test_a_device_that_vanished_is_named_with_its_part(spec: DeviceSpec, message: str) -> None:
    """A device that the plan had and that is not here now is an error, never another device."""
    with pytest.raises(DeviceError, match=WHERE + message):
        open_part(spec, gemm_part())


def test_non_finite_inputs_excuse_non_finite_outputs() -> None:
    """NaN that was put in may come out."""
    _, executable = open_part(DeviceSpec("cpu"), fixed_part())
    assert np.isnan(executable.run({"x": np.full((2, 3), np.nan, np.float32)})["y"]).all()


def test_data_that_do_not_fit_are_no_fault_of_the_device() -> None:
    """Inputs that do not fit stay a DataError."""
    with pytest.raises(DataError, match="input 'x' is missing"):
        opened("none").run({})
