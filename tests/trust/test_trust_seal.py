from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from trust_parts import MakePart

from siniantrust.errors import TrustError
from siniantrust.graph import Part
from siniantrust.trust import seal_file, seal_part, unseal_file, unseal_part

_KEY = bytes(range(32))
_FLOAT = TensorProto.FLOAT


def _run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, inputs)
    return outputs


def _constant(name: str, **value: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], name=f"make-{name}", **value)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    """Return numbers that can be searched for in bytes."""
    return np.random.default_rng(7).normal(size=4).astype(np.float32)


def test_a_sealed_part_computes_the_same(conv_part: Part) -> None:
    """Sealing and unsealing changes no output."""
    sealed = seal_part(conv_part, key=_KEY, context=b"c")
    model = unseal_part(sealed.skeleton, sealed.sealed, key=_KEY, context=b"c")
    onnx.checker.check_model(model)
    x = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    assert np.array_equal(_run(model, x=x)[0], _run(conv_part.proto, x=x)[0])


def test_the_part_itself_is_left_as_it_was(conv_part: Part) -> None:
    """Sealing does not take the weights out of the caller's model."""
    before = conv_part.proto.SerializeToString(deterministic=True)
    seal_part(conv_part, key=_KEY, context=b"c")
    assert conv_part.proto.SerializeToString(deterministic=True) == before


def test_neither_half_shows_a_weight(make_part: MakePart, weights: np.ndarray) -> None:
    """No initialiser, constant or constant of a control-flow body is readable in the skeleton or the sealed half."""
    first, second, third, fourth = (np.array([value], np.float32) for value in weights)
    branches = {
        name: helper.make_graph(
            [_constant("c", value=numpy_helper.from_array(array, "c")), helper.make_node("Add", ["x", "c"], ["out"])],
            name,
            [],
            [helper.make_tensor_value_info("out", _FLOAT, [1])],
        )
        for name, array in (("then_branch", third), ("else_branch", fourth))
    }
    part = make_part(
        [
            _constant("k", value_floats=[float(second[0])]),
            helper.make_node("Mul", ["x", "w"], ["a"]),
            helper.make_node("Add", ["a", "k"], ["b"]),
            helper.make_node("If", ["flag"], ["i"], **branches),
            helper.make_node("Add", ["b", "i"], ["y"]),
        ],
        [("x", _FLOAT, [1]), ("flag", TensorProto.BOOL, [])],
        [("y", _FLOAT, [1])],
        {"w": first},
    )
    sealed = seal_part(part, key=_KEY, context=b"c")
    for array in (first, second, third, fourth):
        assert array.tobytes() in part.proto.SerializeToString()
        assert array.tobytes() not in sealed.skeleton
        assert array.tobytes() not in sealed.sealed
    model = unseal_part(sealed.skeleton, sealed.sealed, key=_KEY, context=b"c")
    x = np.ones(1, np.float32)
    for flag in (True, False):
        expected = _run(part.proto, x=x, flag=np.array(flag))
        assert np.array_equal(_run(model, x=x, flag=np.array(flag))[0], expected[0])


@pytest.mark.parametrize(
    "value",
    [{"value_float": 1.5}, {"value_floats": [1.5, 2.5]}, {"value_int": 3}, {"value_ints": [3, 4]}],
    ids=["float", "floats", "int", "ints"],
)
def test_a_constant_that_is_an_output_keeps_its_name(make_part: MakePart, value: dict[str, Any]) -> None:
    """A constant in any form, even as an output of the part, comes back with the same value and name."""
    kind, shape = (
        (TensorProto.INT64 if "int" in next(iter(value)) else _FLOAT),
        ([2] if "s" in next(iter(value)) else []),
    )
    part = make_part([_constant("y", **value)], [("x", _FLOAT, [1])], [("y", kind, shape)])
    sealed = seal_part(part, key=_KEY, context=b"c")
    model = unseal_part(sealed.skeleton, sealed.sealed, key=_KEY, context=b"c")
    x = np.ones(1, np.float32)
    assert np.array_equal(_run(model, x=x)[0], _run(part.proto, x=x)[0])


def test_what_was_taken_out_stays_declared(make_part: MakePart) -> None:
    """The skeleton has type and shape of every weight, in the order of the sealed ones, whose numbers are raw bytes."""
    part = make_part(
        [_constant("k", value_floats=[1.5, 2.5]), helper.make_node("Gemm", ["x", "w", "k"], ["y"])],
        [("x", _FLOAT, [1, 3])],
        [("y", _FLOAT, [1, 2])],
        {"w": np.ones((3, 2), np.float32)},
    )
    sealed = seal_part(part, key=_KEY, context=b"c")
    declared = onnx.ModelProto.FromString(sealed.skeleton).graph.value_info
    found = [
        (each.name, each.type.tensor_type.elem_type, [d.dim_value for d in each.type.tensor_type.shape.dim])
        for each in declared
    ]
    assert found == [("w", _FLOAT, [3, 2]), ("k", _FLOAT, [2])]
    weights = unseal_part(sealed.skeleton, sealed.sealed, key=_KEY, context=b"c").graph.initializer
    assert [tensor.name for tensor in weights] == ["w", "k"]
    assert all(tensor.HasField("raw_data") for tensor in weights)


def test_sparse_weights_are_sealed(make_part: MakePart, weights: np.ndarray) -> None:
    """A sparse constant leaves the skeleton too."""
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("", _FLOAT, [1], weights[:1]), helper.make_tensor("", TensorProto.INT64, [1], [2]), [4]
    )
    part = make_part(
        [_constant("s", sparse_value=sparse), helper.make_node("Add", ["x", "s"], ["y"])],
        [("x", _FLOAT, [4])],
        [("y", _FLOAT, [4])],
    )
    sealed = seal_part(part, key=_KEY, context=b"c")
    assert weights[:1].tobytes() not in sealed.skeleton
    model = unseal_part(sealed.skeleton, sealed.sealed, key=_KEY, context=b"c")
    x = np.ones(4, np.float32)
    assert np.array_equal(_run(model, x=x)[0], _run(part.proto, x=x)[0])


def test_an_attribute_that_holds_weights_is_refused(make_part: MakePart) -> None:
    """A node whose weights are in an attribute is named, because they would stay readable."""
    part = make_part([helper.make_node("Identity", ["x"], ["y"])], [("x", _FLOAT, [1])], [("y", _FLOAT, [1])])
    part.proto.graph.node.append(
        helper.make_node("TreeEnsembleRegressor", ["x"], ["t"], "trees", domain="ai.onnx.ml", target_weights=[0.5] * 99)
    )
    with pytest.raises(TrustError, match=r"trees.*target_weights"):
        seal_part(part, key=_KEY, context=b"c")


def test_external_weights_are_refused(make_part: MakePart) -> None:
    """An initialiser that lies in another file cannot be sealed and is named."""
    part = make_part(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [("x", _FLOAT, [1])],
        [("y", _FLOAT, [1])],
        {"w": np.ones(1, np.float32)},
    )
    part.proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(TrustError, match="initialiser w"):
        seal_part(part, key=_KEY, context=b"c")


@pytest.mark.parametrize("wrong", ["key", "context", "skeleton"])
def test_sealed_weights_open_for_their_key_context_and_skeleton_only(conv_part: Part, wrong: str) -> None:
    """Another key, context or skeleton is refused."""
    sealed = seal_part(conv_part, key=_KEY, context=b"c")
    key = secrets.token_bytes(32) if wrong == "key" else _KEY
    context = b"d" if wrong == "context" else b"c"
    skeleton = sealed.skeleton + b"\x10\x01" if wrong == "skeleton" else sealed.skeleton
    with pytest.raises(TrustError, match="do not open"):
        unseal_part(skeleton, sealed.sealed, key=key, context=context)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_sealed_weights_are_refused(conv_part: Part, data: st.DataObject) -> None:
    """One changed byte anywhere, or a cut anywhere, is refused with TrustError."""
    sealed = seal_part(conv_part, key=_KEY, context=b"c")
    damaged = bytearray(sealed.sealed)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    short = sealed.sealed[: data.draw(st.integers(0, len(damaged) - 1))]
    for wrong in (bytes(damaged), short):
        with pytest.raises(TrustError):
            unseal_part(sealed.skeleton, wrong, key=_KEY, context=b"c")


def test_a_key_of_another_length_is_refused(conv_part: Part) -> None:
    """AES-256 takes 32 bytes; a shorter key is refused rather than used for a weaker cipher."""
    with pytest.raises(TrustError, match="32 bytes, found 16"):
        seal_part(conv_part, key=bytes(16), context=b"c")


def test_sealing_twice_gives_different_bytes(conv_part: Part) -> None:
    """The nonce is fresh each time."""
    first, second = (seal_part(conv_part, key=_KEY, context=b"c").sealed for _ in range(2))
    assert first != second


def test_a_file_opens_with_its_key_under_its_name_only() -> None:
    """Any bytes can be sealed; another key, another name or a changed byte does not open them."""
    key = secrets.token_bytes(32)
    sealed = seal_file(b"weights", key=key, key_id="k1")
    assert b"weights" not in sealed
    assert unseal_file(sealed, key=key, key_id="k1") == b"weights"
    assert unseal_file(seal_file(b"", key=key, key_id="k1"), key=key, key_id="k1") == b""
    for damaged, name, other in (
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), "k1", key),
        (sealed, "k2", key),
        (sealed, "k1", bytes(32)),
    ):
        with pytest.raises(TrustError, match="do not open"):
            unseal_file(damaged, key=other, key_id=name)
