"""Messages: the committed code is the .proto's, and tensors come out as they went in or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

import siniantrust
from siniantrust.collab import RefusedError
from siniantrust.collab import collab_pb2 as pb
from siniantrust.collab._wire import from_messages, to_messages
from siniantrust.graph import Tensor

SOURCE = Path(siniantrust.__file__).parents[1]
PROTO = "siniantrust/collab/collab.proto"


def test_committed_code_is_generated_from_the_proto(tmp_path: Path) -> None:
    """Running protoc on the .proto gives the descriptor that the committed module has."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    target = tmp_path / "set.bin"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(SOURCE), f"--descriptor_set_out={target}", PROTO]
    subprocess.run(command, check=True, cwd=SOURCE)
    generated = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]
    for message in generated.message_type:
        for field in message.field:
            field.ClearField("json_name")
    committed = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(committed)
    assert generated == committed


ARRAYS = st.sampled_from(["float32", "float64", "int64", "uint8"]).flatmap(
    lambda dtype: numpy_strategies.arrays(
        dtype,
        numpy_strategies.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None,
    )
)


@settings(max_examples=60, deadline=None)
@given(array=ARRAYS)
def test_a_tensor_comes_out_as_it_went_in(array: np.ndarray) -> None:
    """Any array of a known dtype and shape is read back bit for bit, also one that lies backwards in memory."""
    tensor = Tensor("x", array.dtype.name, (1, *array.shape[1:]), 0)
    for given_ in (array, np.asfortranarray(array)):
        request = pb.StepRequest()
        to_messages({"x": given_}, request.tensors)
        found = from_messages(pb.StepRequest.FromString(request.SerializeToString()).tensors, [tensor], origin="it")
        assert found["x"].dtype == array.dtype
        assert found["x"].tobytes() == np.ascontiguousarray(array).tobytes()


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(["x", "y"]),
    dtype=st.sampled_from(["float32", "float64", "object", "", "<f4"]),
    shape=st.lists(st.integers(-2, 2**62), max_size=5),
    data=st.binary(max_size=64),
)
def test_what_a_stranger_sends_is_read_or_refused(name: str, dtype: str, shape: list[int], data: bytes) -> None:
    """Whatever stands in a message, it gives the expected tensor or is refused."""
    message = pb.Tensor(name=name, dtype=dtype, shape=shape, data=data)
    try:
        found = from_messages([message], [Tensor("x", "float32", (1, 2), 0)], origin="it")
    except RefusedError:
        return
    assert found["x"].shape == (len(data) // 8, 2)
    assert np.isfinite(found["x"]).all()
