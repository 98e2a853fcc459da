"""Reading what a stranger sent: any bytes give a checked message or a ProtocolError, and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from siniantrust.errors import DataError, ProtocolError
from siniantrust.odla.oip import _grpc_codec as grpc_codec
from siniantrust.odla.oip import _rest_codec as rest_codec
from siniantrust.odla.oip import open_inference_pb2 as pb
from siniantrust.odla.oip._messages import InferAnswer, InferRequest
from siniantrust.odla.oip._tensors import DATATYPES, from_numbers, from_raw, to_raw

ARRAYS = st.sampled_from(sorted(DATATYPES)).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
TENSORS = st.dictionaries(NAMES, ARRAYS, max_size=3)


def same(found: Any, expected: Any) -> None:
    """Assert that two sets of tensors are equal to the bit."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert to_raw(found[name]) == to_raw(array)


@settings(deadline=None)
@given(TENSORS)
def test_grpc_messages_come_back_as_they_were(tensors: dict[str, np.ndarray]) -> None:
    """Requests and answers survive the way through protobuf, NaN and empty tensors included."""
    message = grpc_codec.parsed(pb.ModelInferRequest, grpc_codec.encode_request("m", "1", InferRequest(tensors)))
    same(grpc_codec.decode_request(message).inputs, tensors)
    answer = grpc_codec.decode_answer(grpc_codec.encode_answer(InferAnswer("m", "1", tensors), id_="7"))
    assert (answer.model, answer.version) == ("m", "1")
    same(answer.outputs, tensors)


@settings(deadline=None)
@given(tensors=TENSORS, binary=st.booleans())
def test_rest_messages_come_back_as_they_were(tensors: dict[str, np.ndarray], *, binary: bool) -> None:
    """Requests and answers survive the way through JSON, as binary tensors or, where finite, as numbers."""
    if not binary:
        tensors = {name: np.nan_to_num(a) if a.dtype.kind == "f" else a for name, a in tensors.items()}
    body, length = rest_codec.encode_request(InferRequest(tensors, dict.fromkeys(tensors, binary), binary=binary))
    request = rest_codec.decode_request(body, None if length is None else str(length))
    same(request.inputs, tensors)
    assert request.outputs == dict.fromkeys(tensors, binary)
    body, length = rest_codec.encode_answer(
        InferAnswer("m", "1", tensors), id_="", binary=dict.fromkeys(tensors, binary)
    )
    same(rest_codec.decode_answer(body, None if length is None else str(length)).outputs, tensors)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_over_grpc_are_a_message_or_refused(data: bytes) -> None:
    """Random bytes never raise anything but ProtocolError."""
    for decode in (grpc_codec.decode_answer, grpc_codec.decode_metadata):
        with suppress(ProtocolError):
            decode(data)


CONTENTS = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=4),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
    uint64_contents=st.lists(st.integers(0, 2**64 - 1), max_size=4),
    fp32_contents=st.lists(st.floats(width=32), max_size=4),
    bytes_contents=st.lists(st.binary(max_size=3), max_size=2),
)
OUTPUTS = st.builds(
    pb.ModelInferResponse.InferOutputTensor,
    name=st.sampled_from(["y", "z", ""]),
    datatype=st.sampled_from([*DATATYPES.values(), "BYTES", "FP8", ""]),
    shape=st.lists(st.sampled_from([0, 1, 2, 4, -1, 2**62]), max_size=40),
    contents=st.none() | CONTENTS,
)


@settings(deadline=None)
@given(st.lists(OUTPUTS, max_size=3), st.lists(st.binary(max_size=9), max_size=3))
def test_any_answer_over_grpc_is_consistent_or_refused(outputs: list[Any], raws: list[bytes]) -> None:
    """An answer of valid protobuf whose parts contradict each other never becomes tensors."""
    message = pb.ModelInferResponse(model_name="m", outputs=outputs, raw_output_contents=raws)
    try:
        answer = grpc_codec.decode_answer(message.SerializeToString())
    except ProtocolError:
        return
    assert list(answer.outputs) == [entry.name for entry in outputs]
    for entry in outputs:
        assert answer.outputs[entry.name].shape == tuple(entry.shape)
        assert DATATYPES[answer.outputs[entry.name].dtype.name] == entry.datatype


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
REST_OUTPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("y") | JSON,
        "datatype": st.sampled_from(["FP32", "INT8", "BOOL", "UINT64"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": st.lists(st.integers(-300, 300) | st.floats() | st.booleans(), max_size=4) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | JSON}) | JSON,
    },
)
REST_BODY = st.fixed_dictionaries(
    {},
    optional={
        "model_name": st.just("m") | JSON,
        "model_version": JSON,
        "outputs": st.lists(REST_OUTPUT, max_size=3) | JSON,
        "inputs": st.lists(REST_OUTPUT, max_size=3) | JSON,
        "versions": JSON,
        "parameters": JSON,
        "id": JSON,
    },
)


@settings(max_examples=300, deadline=None)
@given(REST_BODY, st.binary(max_size=20), st.none() | st.integers(-1, 300) | st.text(max_size=4))
@example({"outputs": []}, b"", "0" * 5000 + "5")
@example({"outputs": []}, b"", "\u0661\u0662")
def test_any_body_over_rest_is_consistent_or_refused(
    body: dict[str, Any], blob: bytes, length: int | str | None
) -> None:
    """Whatever JSON, binary data and header come, there is an answer whose parts agree, or a ProtocolError."""
    header = json.dumps(body).encode()
    announced = str(len(header)) if length == -1 else None if length is None else str(length)
    decoders = (
        lambda: rest_codec.decode_answer(header + blob, announced),
        lambda: rest_codec.decode_request(header + blob, announced),
        lambda: rest_codec.decode_metadata(header),
        lambda: rest_codec.decode_server_metadata(header),
    )
    for decode in decoders:
        with suppress(ProtocolError):
            decode()


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{", b"\xff", b"NaN", b"[" * 100_000, b'{"a": NaN}', b'{"a":1}{}']
)
def test_what_is_not_a_json_object_is_refused(data: bytes) -> None:
    """Garbage, other JSON values, deep nesting and the constants that JSON does not have are refused."""
    with pytest.raises(ProtocolError):
        rest_codec.parse_object(data)


@pytest.mark.parametrize(
    ("data", "dtype", "shape", "message"),
    [
        ([1, 2], "float32", (3,), "takes 3 elements, found 2"),
        ([[1, 2], [3]], "float32", (3,), "not a regular list of numbers"),
        ([[1, 2], [3, 4]], "float32", (4, 1), r"found 4 in \[2, 2\]"),
        ([1, "2"], "float32", (2,), "does not hold float32 values"),
        ([1, None], "float32", (2,), "does not hold float32 values"),
        ([1.5], "int32", (1,), "does not hold int32 values"),
        ([True], "int32", (1,), "does not hold int32 values"),
        ([1], "bool", (1,), "does not hold bool values"),
        ([128], "int8", (1,), "does not fit int8"),
        ([-1], "uint8", (1,), "does not fit uint8"),
        ([2**64], "uint64", (1,), "does not fit uint64"),
        ([-1], "uint64", (1,), "does not fit uint64"),
        ([10**400], "float64", (1,), "does not fit float64"),
        ([True], "float32", (1,), "does not hold float32 values"),
        (json.loads("[" * 900 + "]" * 900), "float32", (0,), "not a regular list of numbers"),
        ([[1], 2], "float32", (2,), "not a regular list of numbers"),
        (np.array([300]), "uint8", (1,), "does not fit uint8"),
        (np.array([True]), "float32", (1,), "does not hold float32 values"),
        ([1e39], "float32", (1,), "does not fit float32"),
        ([65520], "float16", (1,), "does not fit float16"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(data: Any, dtype: str, shape: tuple[int, ...], message: str) -> None:
    """JSON numbers become a tensor only if they do so without change."""
    with pytest.raises(ProtocolError, match=f"'t': .*{message}"):
        from_numbers(data, tensor="t", dtype=np.dtype(dtype), shape=shape)


def test_numbers_may_be_flat_or_nested() -> None:
    """Both forms that the protocol allows give the same tensor, and uint64 keeps all its bits."""
    flat = from_numbers([1, 2, 3, 4], tensor="t", dtype=np.dtype("int64"), shape=(2, 2))
    nested = from_numbers([[1, 2], [3, 4]], tensor="t", dtype=np.dtype("int64"), shape=(2, 2))
    np.testing.assert_array_equal(flat, nested)
    large = from_numbers([0, 2**64 - 1], tensor="t", dtype=np.dtype("uint64"), shape=(2,))
    assert int(large[1]) == 2**64 - 1


def test_raw_bytes_must_be_as_many_as_the_shape_takes() -> None:
    """Too few or too many bytes, and a boolean that is neither 0 nor 1, are refused."""
    with pytest.raises(ProtocolError, match=r"'t': float32\[2\] takes 8 bytes, found 7"):
        from_raw(b"0" * 7, tensor="t", dtype=np.dtype("float32"), shape=(2,))
    with pytest.raises(ProtocolError, match="a byte of 0 or 1, found 2"):
        from_raw(b"\x00\x02", tensor="t", dtype=np.dtype("bool"), shape=(2,))


@pytest.mark.parametrize("shape", [[2**40, 2**40], [0, 2**62], [-1], [1.0], [True], "3", None, [1] * 33])
def test_senseless_shapes_are_refused(shape: Any) -> None:
    """Extents that are negative, not integers, too many or beyond any memory are refused before any allocation."""
    body = {"outputs": [{"name": "y", "datatype": "FP32", "shape": shape, "data": []}]}
    with pytest.raises(ProtocolError, match="'y': shape"):
        rest_codec.decode_answer(json.dumps(body).encode(), None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"parameters": {"binary_data_size": 4}}, "4 bytes behind the last binary tensor belong to none"),
        ({"parameters": {"binary_data_size": 9}}, "binary_data_size 9 exceeds the 8 bytes left"),
        ({"parameters": {"binary_data_size": True}}, "binary_data_size True exceeds"),
        ({"parameters": {"binary_data_size": 8}, "data": [1]}, "both binary data and JSON data"),
        ({"parameters": {"binary_data_size": 8}}, r"float32\[1\] takes 4 bytes, found 8"),
        ({"data": [1]}, "8 bytes behind the last binary tensor belong to none"),
        ({}, "'data' must be a list"),
        ({"parameters": []}, "'data' must be a list"),
        ({"parameters": 3}, "'parameters' must be an object"),
    ],
)
def test_binary_data_must_add_up(entry: dict[str, Any], message: str) -> None:
    """Sizes that exceed the body, leave bytes over, or contradict shape or JSON data are refused."""
    header = json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], **entry}]}).encode()
    with pytest.raises(ProtocolError, match=message):
        rest_codec.decode_answer(header + bytes(8), str(len(header)))


def test_typed_contents_are_read_by_datatype() -> None:
    """Servers that fill the typed lists are understood, and a list of another type is refused."""
    message = pb.ModelInferResponse(model_name="m")
    message.outputs.add(name="y", datatype="INT8", shape=[2], contents=pb.InferTensorContents(int_contents=[-128, 127]))
    same(grpc_codec.decode_answer(message.SerializeToString()).outputs, {"y": np.array([-128, 127], np.int8)})
    message.outputs[0].datatype = "FP32"
    with pytest.raises(ProtocolError, match="FP32 belongs in fp32_contents, found int_contents"):
        grpc_codec.decode_answer(message.SerializeToString())
    message.outputs[0].datatype = "FP16"
    with pytest.raises(ProtocolError, match="FP16 can only travel as raw contents"):
        grpc_codec.decode_answer(message.SerializeToString())


def test_empty_typed_contents_beside_raw_ones_pass() -> None:
    """MLServer adds an empty message beside raw contents; one with elements contradicts them."""
    message = pb.ModelInferResponse(model_name="m", raw_output_contents=[b"\x05"])
    message.outputs.add(name="y", datatype="INT8", shape=[1], contents=pb.InferTensorContents())
    same(grpc_codec.decode_answer(message.SerializeToString()).outputs, {"y": np.array([5], np.int8)})
    message.outputs[0].contents.int_contents.append(5)
    with pytest.raises(ProtocolError, match="'y' has both raw and typed contents"):
        grpc_codec.decode_answer(message.SerializeToString())


def test_json_cannot_carry_nan() -> None:
    """NaN is refused where it would become something that is not JSON."""
    with pytest.raises(DataError, match="'y' has NaN or infinity, which JSON cannot carry"):
        rest_codec.encode_answer(InferAnswer("m", "1", {"y": np.array([np.nan])}), id_="", binary={"y": False})
