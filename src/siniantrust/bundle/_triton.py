"""A bundle's untrusted parts as a model repository for NVIDIA's Triton server, and what KServe needs to run one.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md and
``model_configuration.md`` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf import text_encoding

from siniantrust._files import folder_atomic, write_atomic
from siniantrust.bundle._keys import KeyStore
from siniantrust.bundle._load import Bundle, load_bundle
from siniantrust.bundle._read_once import open_folder, read_listed
from siniantrust.errors import BundleError
from siniantrust.graph import Part

VERSION = "1"
"""The version under which every part is served: its folder's name, which Triton wants to be a number."""

INFERENCE_SERVICE = "inference-service.yaml"
_DATA_TYPES: Mapping[int, str] = {
    onnx.TensorProto.BOOL: "TYPE_BOOL",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
    onnx.TensorProto.INT8: "TYPE_INT8",
    onnx.TensorProto.INT16: "TYPE_INT16",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.UINT16: "TYPE_UINT16",
    onnx.TensorProto.UINT32: "TYPE_UINT32",
    onnx.TensorProto.UINT64: "TYPE_UINT64",
}


def export_triton(
    path: Path, out: Path, *, keystore: KeyStore, max_batch: int = 32, kserve_uri: str | None = None
) -> tuple[str, ...]:
    """Write the untrusted parts of a bundle as a Triton model repository: the folder ``out``, whole or not at all.

    Each part, and each exchange of layers under pads, is a model of its own name, as the ``remote`` backend asks for
    it: ``PART/config.pbtxt`` and ``PART/1/model.onnx``, byte for byte the bundle's. Trusted parts stay where they are.

    Args:
        path: the bundle's folder; it is checked as it is before it runs.
        out: the repository to make; nothing or an empty folder may be there.
        keystore: holds the keys whose signatures count.
        max_batch: the largest batch that a server takes, where the batch size is free and Triton can batch.
        kserve_uri: where KServe will find the repository (``s3://...``, ``pvc://...``): writes an ``InferenceService``
            for it too. None writes none.

    Returns:
        The names of the models.

    Raises:
        BundleError: if the bundle fails a check, has nothing that is untrusted, or something that Triton cannot serve,
            or ``out`` holds something or cannot be written; nothing is left behind then.
    """
    bundle = load_bundle(path, keystore=keystore)
    models = _models(bundle)
    if not models:
        raise BundleError(f"bundle {path}: every part is trusted; there is nothing to export")
    contents: dict[str, bytes] = {}
    for each in models:
        part, file = each.part, f"{each.folder}/model.onnx"
        with open_folder(path) as folder:
            model = read_listed(folder, {file: bundle.manifest.files[file]}, origin=f"bundle {path}")
        contents[f"{part.name}/{VERSION}/model.onnx"] = model[file]
        config = _config(
            part,
            max_batch=max_batch,
            instances=each.instances,
            parameters={"siniantrust.bundle": bundle.id, "siniantrust.sha256": bundle.manifest.files[file].sha256},
        )
        contents[f"{part.name}/config.pbtxt"] = config.encode()
    if kserve_uri is not None:
        contents[INFERENCE_SERVICE] = _inference_service(bundle, kserve_uri).encode()
    _write(out, contents)
    return tuple(each.part.name for each in models)


@dataclass(frozen=True)
class _Served:
    """What becomes a model of the repository, and the bundle's folder that holds it.

    ``instances`` is how many requests it gets at a time: as many as the plan has devices for it.
    """

    part: Part
    folder: str
    instances: int


def _models(bundle: Bundle) -> list[_Served]:
    """Return what devices compute: exchanges of a masked part, which one device gets at a time, and untrusted parts."""
    found = []
    for part, planned in zip(bundle.parts, bundle.plan.parts, strict=True):
        if isinstance(part, Part):
            found.append(_Served(part, part.name, 1 + len(planned.replicas)))
        elif part.masked is not None:
            exchanges = enumerate(part.masked.exchanges)
            found += [_Served(each, f"{part.name}/exchange{number}", 1) for number, each in exchanges]
    return found


def _config(part: Part, *, max_batch: int, instances: int, parameters: Mapping[str, str]) -> str:
    """Return the text of ``config.pbtxt``, a message ``inference.ModelConfig`` in protobuf's text format."""
    graph = part.proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    batched = _is_batched(part, [*inputs, *graph.output])
    lines = [
        f"name: {_quoted(part.name)}",
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {max_batch if batched else 0}",
        *_ports("input", part, inputs, batched=batched),
        *_ports("output", part, graph.output, batched=batched),
        f"instance_group {{ kind: KIND_AUTO count: {instances} }}",
        f"version_policy {{ specific {{ versions: {VERSION} }} }}",
        *(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
            for key, value in parameters.items()
        ),
    ]
    return "\n".join([*lines, ""])


def _is_batched(part: Part, values: Sequence[onnx.ValueInfoProto]) -> bool:
    """Return whether Triton can batch: the batch is the first dimension of every tensor, and not the only one."""
    shapes = [value.type.tensor_type.shape.dim for value in values]
    return part.batch_symbol is not None and all(
        len(shape) > 1 and shape[0].dim_param == part.batch_symbol for shape in shapes
    )


def _ports(kind: str, part: Part, values: Sequence[onnx.ValueInfoProto], *, batched: bool) -> Iterator[str]:
    for value in values:
        tensor = value.type.tensor_type
        dims = [each.dim_value if each.HasField("dim_value") else -1 for each in tensor.shape.dim][batched:]
        if tensor.elem_type not in _DATA_TYPES or not dims:
            raise BundleError(
                f"{part.name}: Triton serves no tensor like {value.name!r}: it is a scalar, or of a type that does not "
                "pass between devices; cut elsewhere"
            )
        shown = ", ".join(map(str, dims))
        yield f"{kind} {{ name: {_quoted(value.name)} data_type: {_DATA_TYPES[tensor.elem_type]} dims: [{shown}] }}"


def _quoted(text: str) -> str:
    return f'"{text_encoding.CEscape(text, as_utf8=True)}"'


def _inference_service(bundle: Bundle, uri: str) -> str:
    """Return an ``InferenceService`` for KServe's Triton runtime; strings are quoted as JSON, which YAML reads."""
    return f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: siniantrust-{bundle.id[:8]}
  annotations:
    siniantrust/bundle: {json.dumps(bundle.id)}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
        version: "2"
      protocolVersion: v2
      storageUri: {json.dumps(uri)}
"""


def _write(out: Path, contents: dict[str, bytes]) -> None:
    where = f"repository {out}"
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BundleError(f"{where}: it exists and is no folder; choose another path")
    if out.is_dir() and any(out.iterdir()):
        raise BundleError(f"{where}: the folder holds something; choose another path or empty it")
    try:
        with folder_atomic(out) as folder:
            for path, data in contents.items():
                write_atomic(folder / path, data)
    except OSError as error:
        raise BundleError(f"{where}: cannot be written ({error.strerror}); nothing was left behind") from None
