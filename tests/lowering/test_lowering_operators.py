"""ONNX's own node tests, lowered and compiled; and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from lowering_host import build_model, compile_part, run_lowered, run_source
from onnx import TensorProto, helper, numpy_helper

from siniantrust.errors import ModelError
from siniantrust.lowering import OPERATORS, Lowered, lower, unsupported
from siniantrust.odla.conformance import Case, node_cases

_FLOAT = TensorProto.FLOAT
# Why a case of a supported operator may be refused: what comes before it in the message is the node.
_REASONS = (
    "only float32",
    "only float32 or int8",
    "only int8 or uint8",
    "spatial axes",
    "only its first output",
    "training mode",
    "by blocks",
    "only with two",
    "runtimes differ",
)


def _attempt(case: Case) -> Lowered | str:
    assert case.part is not None
    try:
        return lower(case.part.proto)
    except ModelError as fault:
        return str(fault)


@pytest.mark.timeout(600)
def test_node_tests_pass_or_are_refused_with_a_reason(tmp_path: Path) -> None:
    """Each of ONNX's cases of each operator computes what ONNX expects, integers exactly, or says what it lacks."""
    cases = [case for case in node_cases() if case.operator in OPERATORS and case.part is not None]
    attempts = [(case, _attempt(case)) for case in cases]
    taken = [(case, found) for case, found in attempts if isinstance(found, Lowered)]
    # ONNX's cases of Cast are all of dtypes that are refused here: test_lowering_numbers.py has others.
    assert set(Counter(case.operator for case, _ in taken)) == set(OPERATORS) - {"Cast"}
    refusals = {case.name: found for case, found in attempts if isinstance(found, str)}
    assert {name: why for name, why in refusals.items() if not any(reason in why for reason in _REASONS)} == {}
    library = compile_part("\n".join(_numbered(found, number) for number, (_, found) in enumerate(taken)), tmp_path)
    wrong = []
    for number, (case, found) in enumerate(taken):
        assert case.part is not None
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in case.part.proto.graph.initializer}
        outputs = run_source(found, library[f"part_run_{number}"], weights, case.inputs)
        wrong += [case.name for name, array in case.expected.items() if not _equal(outputs[name], array)]
    assert wrong == []


def _numbered(lowered: Lowered, number: int) -> str:
    """Return a part's source under a name of its own, so that many fit into one file."""
    sizes = "\n".join(f"#undef PART_{block}_BYTES" for block in ("WEIGHTS", "INPUT", "OUTPUT", "ARENA"))
    return f"{sizes}\n#define part_run part_run_{number}\n{lowered.source}#undef part_run"


def _equal(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if expected.dtype.kind in "iub":
        return np.array_equal(found, expected)
    return np.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def _two_outputs() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("Identity", ["r"], ["y"]),
        helper.make_node("Add", ["f", "r"], ["z"]),
        helper.make_node("Concat", ["z", "x2"], ["c"], axis=1),
    ]
    ports = {"x": (_FLOAT, [1, 2, 3]), "x2": (_FLOAT, [1, 2])}
    outputs = {"y": (_FLOAT, [1, 6]), "r": (_FLOAT, [1, 6]), "c": (_FLOAT, [1, 8])}
    return build_model(nodes, ports, outputs)  # type: ignore[arg-type]


def test_views_and_several_outputs(tmp_path: Path) -> None:
    """Views of inputs and outputs, an output that is read again, and two inputs come out right."""
    x = np.array([[[-1, 2, -3], [4, -5, 6]]], np.float32)
    found = run_lowered(_two_outputs(), {"x": x, "x2": np.array([[7, 8]], np.float32)}, tmp_path)
    flat = x.reshape(1, 6)
    np.testing.assert_array_equal(found["y"], flat.clip(0))
    np.testing.assert_array_equal(found["r"], flat.clip(0))
    np.testing.assert_array_equal(found["c"], np.concatenate([flat + flat.clip(0), [[7, 8]]], axis=1))


def test_a_node_that_cannot_be_lowered_is_named() -> None:
    """Every such node is named with its reason, and nothing is lowered."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"], name="soft"),
        helper.make_node("Relu", ["s"], ["r"], name="fine"),
        helper.make_node("Tanh", ["r"], ["y"], name="tan"),
    ]
    model = build_model(nodes, {"x": (_FLOAT, [1, 4])}, {"y": (_FLOAT, [1, 4])})
    assert unsupported(model) == {
        "soft": "operator Softmax cannot be lowered",
        "tan": "operator Tanh cannot be lowered",
    }
    with pytest.raises(ModelError, match=r"'soft': operator Softmax.*'tan': operator Tanh.*cut before them"):
        lower(model)


def test_a_node_of_another_domain_is_refused() -> None:
    """An operator of the same name in another domain is another operator."""
    node = helper.make_node("Relu", ["x"], ["y"], name="other", domain="com.example")
    model = build_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (_FLOAT, [1])}, {"y": (_FLOAT, [1])})
    model.graph.node[0].CopyFrom(node)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert unsupported(model) == {"other": "operators of the domain com.example cannot be lowered"}


@pytest.mark.parametrize(
    ("shape", "message"),
    [(["batch", "n"], r"'x': axis 1 is free"), ([1, None], r"shape of 'x' is not known")],
    ids=["free", "unknown"],
)
def test_only_the_batch_may_be_free(shape: list[int | str], message: str) -> None:
    """A free dimension other than the batch is refused: the memory would not be known."""
    model = build_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (_FLOAT, shape)}, {"y": (_FLOAT, shape)})
    with pytest.raises(ModelError, match=message):
        lower(model)


def test_an_output_that_no_node_makes_is_refused() -> None:
    """An input that is handed on as an output is no work for an enclave."""
    model = build_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (_FLOAT, [2])}, {"y": (_FLOAT, [2])})
    model.graph.output.append(helper.make_tensor_value_info("x", _FLOAT, [2]))
    with pytest.raises(ModelError, match=r"output 'x' is made by no node"):
        lower(model)
