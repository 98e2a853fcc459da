"""The protocol's messages: the committed code is the .proto's, and the bytes are those that other clients speak."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

import siniantrust
from siniantrust.odla.oip import _methods
from siniantrust.odla.oip import open_inference_pb2 as pb

SOURCE = Path(siniantrust.__file__).parents[1]
PROTO = "siniantrust/odla/oip/open_inference.proto"


def committed() -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor that the committed module carries."""
    found = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(found)
    return found


def without_json_names(message: Any) -> None:
    """Clear what protoc adds to a descriptor set but not to generated code."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        without_json_names(nested)


def test_committed_code_is_generated_from_the_proto(tmp_path: Path) -> None:
    """Running protoc on the .proto gives the descriptor that the committed module has."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    target = tmp_path / "set.bin"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(SOURCE), f"--descriptor_set_out={target}", PROTO]
    subprocess.run(command, check=True, cwd=SOURCE)
    generated = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]
    for message in generated.message_type:
        without_json_names(message)
    assert generated == committed()


def _fields(descriptor: Any) -> dict[str, tuple[int, int, bool]]:
    return {field.name: (field.number, field.type, field.is_repeated) for field in descriptor.fields}


def test_messages_are_those_of_another_client() -> None:
    """Every field of ours has the number and type that Triton's client gives to the field of that name."""
    theirs = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient is not installed")

    def compare(mine: Any, other: Any) -> None:
        ours, known = _fields(mine), _fields(other)
        assert ours == {name: known[name] for name in ours}, mine.full_name
        for name, nested in mine.nested_types_by_name.items():
            compare(nested, other.nested_types_by_name[name])

    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        compare(message, theirs.DESCRIPTOR.message_types_by_name[name])


def test_methods_have_the_published_paths() -> None:
    """Our messages have a package of their own, but the service is called by the specification's name."""
    assert _methods.MODEL_INFER.path == "/inference.GRPCInferenceService/ModelInfer"
    assert pb.DESCRIPTOR.package == "siniantrust.oip"
