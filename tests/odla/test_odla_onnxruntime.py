"""The ONNX Runtime backend: options, failing closed, input checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from odla_parts import conv_part, fixed_part, gemm_part, make_part, random_inputs, scalar_part, several_inputs_part
from onnx import TensorProto, helper

from siniantrust.errors import DataError, DeviceError
from siniantrust.graph import Part, Tensor
from siniantrust.odla import Device, DeviceSpec, list_devices, open_device
from siniantrust.odla import _ort_session as ort_session
from siniantrust.odla._text import one_line


def device(**options: Any) -> Device:
    """Open an ONNX Runtime device."""
    return open_device(DeviceSpec("dev", options=options))


def test_missing_provider_is_an_error_that_names_the_available() -> None:
    """A provider that is not installed is refused where ONNX Runtime would silently take the CPU."""
    with pytest.raises(DeviceError, match=r"'dev': CUDAExecutionProvider is not available.*CPUExecutionProvider"):
        device(provider="CUDA")


@pytest.mark.parametrize("provider", ["CPU", "CPUExecutionProvider"])
def test_provider_is_given_short_or_in_full(provider: str) -> None:
    """Both forms of a provider's name open it."""
    assert "CPUExecutionProvider" in device(provider=provider).info().identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threds": 2}, "no option 'threds'; it has cpu_helpers, provider, spinning, threads"),
        ({"threads": 0}, "'threads' must be an integer of at least 1, found 0"),
        ({"threads": "many"}, "'threads' must be an integer"),
        ({"threads": True}, "'threads' must be an integer"),
        ({"threads": 1.5}, "'threads' must be an integer"),
        ({"spinning": "perhaps"}, "'spinning' must be true or false"),
        ({"provider": 3}, "'provider' must be a string"),
        ({"provider.arena": "1"}, "takes no option provider.arena"),
    ],
)
def test_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    """An unknown option or a value of the wrong type is refused by name."""
    with pytest.raises(DeviceError, match=message):
        device(**options)


def test_options_from_a_command_line_are_strings() -> None:
    """Strings are read as the type that the option has."""
    info = device(threads="1", spinning="off").info()
    assert "threads=1/spinning=False" in info.identity


def test_nodes_that_leave_the_provider_are_an_error() -> None:
    """A provider that is there but takes no node is refused at compile, and its nodes are named by supports."""
    azure = device(provider="Azure")
    with pytest.raises(DeviceError, match="AzureExecutionProvider refused it"):
        azure.compile(gemm_part())
    refused = azure.supports(gemm_part())
    assert {"gemm", "relu"} == {entry.node for entry in refused}
    assert all("CPUExecutionProvider" in entry.reason for entry in refused)


def test_cpu_helpers_do_not_mean_cpu_only() -> None:
    """With cpu_helpers a provider must still take at least one node."""
    with pytest.raises(DeviceError, match="AzureExecutionProvider took none of its nodes"):
        device(provider="Azure", cpu_helpers=True).compile(gemm_part())


def test_placement_is_checked_after_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose nodes went elsewhere is refused even if ONNX Runtime raised nothing."""
    part = gemm_part()
    session = ort_session.create_session(part, ort_session.SessionConfig())
    monkeypatch.setattr(ort_session, "_load", lambda *_: session)
    with pytest.raises(DeviceError, match="ExecutionProvider was asked for, but ONNX Runtime chose"):
        ort_session.create_session(part, ort_session.SessionConfig(provider="CUDAExecutionProvider"))
    monkeypatch.setattr(ort_session, "CPU", "OtherExecutionProvider")
    monkeypatch.setattr(ort_session, "nodes_by_provider", lambda _: {})
    with pytest.raises(DeviceError, match="CPUExecutionProvider took none of its nodes"):
        ort_session.create_session(part, ort_session.SessionConfig(provider="CPUExecutionProvider"))
    monkeypatch.undo()
    monkeypatch.setattr(ort_session, "_load", lambda *_: session)
    monkeypatch.setattr(ort_session, "nodes_by_provider", lambda _: {"OtherExecutionProvider": [("gemm", "Gemm")]})
    with pytest.raises(DeviceError, match="first 'gemm' \\(Gemm\\), went to OtherExecutionProvider"):
        ort_session.create_session(part, ort_session.SessionConfig())


def test_python_layer_does_not_fall_back(capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's own change to the CPU after a failed start or run is off, and nothing is printed."""
    session = ort_session.create_session(gemm_part(), ort_session.SessionConfig())
    assert session._enable_fallback is False
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="example.unknown")
    part = make_part([node], [("x", "float32", [1])], [("y", "float32", [1])])
    with pytest.raises(DeviceError):
        device().compile(part)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing; the part takes 'x'"),
        ({"x": np.zeros((1, 6), np.float32), "z": np.zeros(1)}, "input 'z' is not one of the part's"),
        ({"x": np.zeros((1, 6))}, "input 'x' must be float32, found float64"),
        ({"x": np.zeros((1, 7), np.float32)}, r"x float32\[N,6\] cannot take an array of shape \[1, 7\]"),
        ({"x": np.zeros(6, np.float32)}, r"cannot take an array of shape \[6\]"),
        ({"x": [[0.0] * 6]}, "must be a numpy array, found list"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: dict[str, Any], message: str) -> None:
    """A missing, extra or misshapen input, or one of another dtype, is a DataError that names it."""
    executable = device().compile(gemm_part())
    with pytest.raises(DataError, match=message):
        executable.run(inputs)


def test_free_dimension_is_the_same_in_all_inputs() -> None:
    """Two inputs may have any batch size, but the same."""
    part = several_inputs_part()
    inputs = random_inputs(part, batch=2)
    inputs["b"] = inputs["b"][:1]
    with pytest.raises(DataError, match="1 stands where 2 is expected"):
        device().compile(part).run(inputs)


def test_fixed_batch_is_kept() -> None:
    """A part without a free dimension takes its own batch only."""
    with pytest.raises(DataError, match=r"\[2,3\] cannot take an array of shape \[1, 3\]"):
        device().compile(fixed_part()).run({"x": np.zeros((1, 3), np.float32)})


def test_scalar_output_is_an_array() -> None:
    """A scalar comes back as an array without dimensions."""
    part = scalar_part()
    found = device().compile(part).run(random_inputs(part))["y"]
    assert isinstance(found, np.ndarray)
    assert found.shape == ()


def test_closed_executable_says_so() -> None:
    """A run after close is an error that names the part."""
    executable = device().compile(gemm_part())
    executable.close()
    with pytest.raises(DeviceError, match="part 'gemm' was closed"):
        executable.run(random_inputs(gemm_part()))


def test_failing_operator_is_one_line_and_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """An operator that fails while running gives a one-line DeviceError, and nothing on standard error."""
    part = several_inputs_part()
    inputs = {**random_inputs(part), "index": np.array([0, 1, 99])}
    with pytest.raises(DeviceError, match=r"part 'part': ONNX Runtime failed: .*[Ii]ndices") as caught:
        device().compile(part).run(inputs)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_dtype_that_devices_do_not_share_is_refused() -> None:
    """A part with a bfloat16 port is refused by name at compile."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"], name="id")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [1])],
        [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [1])],
    )
    proto = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    part = Part("brain", proto, (Tensor("x", "bfloat16", (1,)),), (Tensor("y", "bfloat16", (1,)),), ("id",), None)
    with pytest.raises(DeviceError, match="part 'brain': 'x' is bfloat16, which does not pass between devices"):
        device().compile(part)


def test_unsupported_nodes_are_all_named() -> None:
    """Operators that ONNX Runtime does not know, or not for a dtype, are listed with node, operator and reason."""
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="odd", domain="example.unknown"),
        helper.make_node("Relu", ["i"], ["b"], name="integer-relu"),
        helper.make_node("Relu", ["i"], ["c"], name="another"),
        helper.make_node("Relu", ["x"], ["y"], name="fine"),
    ]
    part = make_part(
        nodes,
        [("x", "float32", ["N", 2]), ("i", "int64", ["N", 2])],
        [("a", "float32", ["N", 2]), ("b", "int64", ["N", 2]), ("c", "int64", ["N", 2]), ("y", "float32", ["N", 2])],
    )
    refused = {entry.node: entry for entry in device().supports(part)}
    assert set(refused) == {"odd", "integer-relu", "another"}
    assert refused["odd"].op_type == "Frobnicate"
    assert "not a registered function/op" in refused["odd"].reason
    assert "Could not find an implementation for Relu" in refused["another"].reason
    with pytest.raises(DeviceError, match="part 'part': CPUExecutionProvider refused it"):
        device().compile(part)


def test_weights_beyond_the_message_limit_travel_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part too large for one protobuf message runs as before, and its proto is left as it was."""
    part = conv_part()
    inputs = random_inputs(part)
    before = part.proto.SerializeToString(deterministic=True)
    expected = device().compile(part).run(inputs)["y"]
    monkeypatch.setattr(ort_session, "_INLINE_LIMIT_BYTES", 100)
    monkeypatch.setattr(ort_session, "_EXTERNAL_THRESHOLD_BYTES", 16)
    found = device().compile(part).run(inputs)["y"]
    np.testing.assert_array_equal(found, expected)
    assert part.proto.SerializeToString(deterministic=True) == before


def test_devices_are_those_of_this_machine() -> None:
    """Every provider that runs operators here is listed, the CPU with its cores and memory."""
    found = {info.name: info for info in list_devices() if info.backend == "onnxruntime"}
    providers = set(onnxruntime.get_available_providers()) - {"AzureExecutionProvider"}
    assert {f"{name}executionprovider" for name in found} == {provider.lower() for provider in providers}
    assert "cores" in found["cpu"].description
    assert (found["cpu"].memory_bytes or 0) > 2**28


def test_foreign_errors_become_one_printable_line() -> None:
    """Source locations, line breaks and escape sequences of a foreign error do not reach a message."""
    text = "/build/core/session.cc:12 void ns::Create(const Map&) Invalid option: bogus"
    assert one_line(text) == "Invalid option: bogus"
    assert one_line("[ONNXRuntimeError] : 1 : FAIL : no\n such\x1b[2J thing") == "no such?[2J thing"
