from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_cases import SECRET_WEIGHT, Case, make_case
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from masked_deployments import deploy_masked
from onnx import TensorProto, helper
from runtime_deployments import deploy, devices, images, images_proto, simulated_policy, vectors

import siniantrust as sinian
from siniantrust.bundle import KeyStore, build_bundle, export_triton, load_bundle
from siniantrust.bundle._triton import _config
from siniantrust.errors import BundleError
from siniantrust.graph import load_model, part_from_proto
from siniantrust.odla import DeviceSpec
from siniantrust.odla.oip import Server

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
model_config_pb2: Any = importlib.import_module("tritonclient.grpc.model_config_pb2")
triton: Any = importlib.import_module("tritonclient.grpc")

# Triton's names of the element types, as its own documentation of the ONNX Runtime backend pairs them.
_TYPES = {
    "TYPE_BOOL": TensorProto.BOOL,
    "TYPE_FP16": TensorProto.FLOAT16,
    "TYPE_FP32": TensorProto.FLOAT,
    "TYPE_FP64": TensorProto.DOUBLE,
    **{f"TYPE_{sign}INT{bits}": getattr(TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32)},
    **{f"TYPE_{sign}INT64": getattr(TensorProto, f"{sign}INT64") for sign in ("", "U")},
}


def _parsed(text: str) -> Any:
    """Parse a ``config.pbtxt`` by Triton's own message; an unknown field or a syntax error raises."""
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _shapes(config: Any, ports: Any) -> dict[str, tuple[int, list[int]]]:
    """Return type and whole shape of each tensor, as Triton reads the configuration: -1 is free."""
    name_of = model_config_pb2.DataType.Name
    batch = [-1] if config.max_batch_size > 0 else []
    return {port.name: (_TYPES[name_of(port.data_type)], batch + list(port.dims)) for port in ports}


def _onnx_shapes(values: Any) -> dict[str, tuple[int, list[int]]]:
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def _assert_agrees(config: Any, proto: onnx.ModelProto) -> None:
    """Fail unless the configuration's tensors are those of the ONNX file."""
    assert _shapes(config, config.input) == _onnx_shapes(proto.graph.input)
    assert _shapes(config, config.output) == _onnx_shapes(proto.graph.output)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a plan of three parts of which the first and the last are trusted."""
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def bundle(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its bundle."""
    return case.build(tmp_path_factory.mktemp("bundle") / "deploy")


def test_the_repository_holds_the_untrusted_part(case: Case, bundle: Path, tmp_path: Path) -> None:
    """One model, named after its part, byte for byte the bundle's; the configuration says what the file says."""
    assert export_triton(bundle, tmp_path / "models", keystore=case.keystore) == ("part2",)
    files = {str(path.relative_to(tmp_path / "models")) for path in tmp_path.rglob("models/**/*") if path.is_file()}
    assert files == {"part2/config.pbtxt", "part2/1/model.onnx"}
    model = (tmp_path / "models/part2/1/model.onnx").read_bytes()
    assert model == (bundle / "part2/model.onnx").read_bytes()
    config = _parsed((tmp_path / "models/part2/config.pbtxt").read_text(encoding="utf-8"))
    _assert_agrees(config, onnx.ModelProto.FromString(model))
    assert (config.name, config.platform, config.max_batch_size) == ("part2", "onnxruntime_onnx", 32)
    assert list(config.version_policy.specific.versions) == [1]
    loaded = load_bundle(bundle, keystore=case.keystore)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters == {
        "siniantrust.bundle": loaded.id,
        "siniantrust.sha256": hashlib.sha256(model).hexdigest(),
    }


def test_trusted_parts_are_never_exported(case: Case, bundle: Path, tmp_path: Path) -> None:
    """Neither a name nor a number of a trusted part is in the repository."""
    export_triton(bundle, tmp_path / "models", keystore=case.keystore, kserve_uri="s3://models")
    row = SECRET_WEIGHT[0].tobytes()
    for path in (tmp_path / "models").rglob("*"):
        assert not path.name.startswith(("part1", "part3"))
        if path.is_file():
            data = path.read_bytes()
            assert row not in data
            assert b"part1" not in data
            assert b"part3" not in data


def test_exchanges_under_pads_are_exported(tmp_path: Path) -> None:
    """What devices compute under pads is in the repository beside part 2, in bytes; the program is not."""
    deployment = deploy_masked(tmp_path, mask="auto", cut="p")
    names = ("part1-exchange0", "part1-exchange1", "part2")
    out = tmp_path / "models"
    assert export_triton(deployment.path, out, keystore=deployment.keystore) == names
    assert {path.name for path in out.iterdir()} == set(names)
    for name, folder in zip(names, ("part1/exchange0", "part1/exchange1", "part2"), strict=True):
        model = (out / name / "1/model.onnx").read_bytes()
        assert model == (deployment.path / folder / "model.onnx").read_bytes()
        config = _parsed((out / name / "config.pbtxt").read_text(encoding="utf-8"))
        _assert_agrees(config, onnx.ModelProto.FromString(model))
        assert (config.name, config.max_batch_size, config.instance_group[0].count) == (name, 32, 1)
    data_type = model_config_pb2.DataType.Value("TYPE_UINT8")
    config = _parsed((out / "part1-exchange0/config.pbtxt").read_text(encoding="utf-8"))
    assert {port.data_type for port in (*config.input, *config.output)} == {data_type}


def test_a_bundle_without_an_untrusted_part_has_nothing_to_export(tmp_path: Path) -> None:
    """A plan that keeps everything in the enclave is refused, and no folder is made."""
    model = vectors()
    policy = simulated_policy(device=[], objective={})
    plan = sinian.plan(model, policy=policy)
    keystore = KeyStore(tmp_path / "keys")
    build_bundle(model, plan, tmp_path / "deploy", keystore=keystore)
    with pytest.raises(BundleError, match="every part is trusted; there is nothing to export"):
        export_triton(tmp_path / "deploy", tmp_path / "models", keystore=keystore)
    assert not (tmp_path / "models").exists()


def test_a_bundle_that_was_changed_is_not_exported(case: Case, tmp_path: Path) -> None:
    """The bundle is checked as before a run."""
    changed = case.build(tmp_path / "deploy")
    part = changed / "part2/model.onnx"
    part.write_bytes(part.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"part2/model\.onnx"):
        export_triton(changed, tmp_path / "models", keystore=case.keystore)
    with pytest.raises(BundleError, match="no signature over"):
        export_triton(case.build(tmp_path / "other"), tmp_path / "models", keystore=KeyStore(tmp_path / "nobody"))
    assert not (tmp_path / "models").exists()


def test_a_folder_in_use_is_left_alone(case: Case, bundle: Path, tmp_path: Path) -> None:
    """What is there stays; an empty folder is taken."""
    out = tmp_path / "models"
    out.mkdir()
    (out / "other").write_text("kept")
    with pytest.raises(BundleError, match="the folder holds something"):
        export_triton(bundle, out, keystore=case.keystore)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    with pytest.raises(BundleError, match="it exists and is no folder"):
        export_triton(bundle, out / "other", keystore=case.keystore)
    assert (out / "other").read_text() == "kept"
    (out / "other").unlink()
    export_triton(bundle, out, keystore=case.keystore)
    assert (out / "part2/config.pbtxt").exists()


def test_a_failure_leaves_nothing_behind(
    case: Case, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full half-way there is neither a repository nor half of one."""
    from siniantrust._files import write_atomic

    def full(path: Path, data: bytes) -> None:
        if path.name == "config.pbtxt":
            raise OSError(28, "No space left on device")
        write_atomic(path, data)

    monkeypatch.setattr("siniantrust.bundle._triton.write_atomic", full)
    with pytest.raises(BundleError, match="cannot be written \\(No space left on device\\); nothing was left behind"):
        export_triton(bundle, tmp_path / "models", keystore=case.keystore)
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch_is_part_of_the_shape(tmp_path: Path) -> None:
    """Without a free batch Triton is told not to batch, and dimensions are the file's own."""
    deployment = deploy(load_model(images_proto(batch=2)), tmp_path, cut="r0")
    export_triton(deployment.path, tmp_path / "models", keystore=deployment.keystore)
    config = _parsed((tmp_path / "models/part2/config.pbtxt").read_text(encoding="utf-8"))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [2, 8, 12, 12]
    _assert_agrees(config, onnx.load(tmp_path / "models/part2/1/model.onnx"))


def test_replicas_become_instances(tmp_path: Path) -> None:
    """A part with a replica is computed by two instances."""
    deployment = deploy(vectors(), tmp_path, cut="t3", replicas=("second",), device=devices("cloud", "second"))
    export_triton(deployment.path, tmp_path / "models", keystore=deployment.keystore, max_batch=7)
    config = _parsed((tmp_path / "models/part2/config.pbtxt").read_text(encoding="utf-8"))
    (group,) = config.instance_group
    assert group.count == 2
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO
    assert config.max_batch_size == 7


def _configured(proto: onnx.ModelProto) -> Any:
    """Configure a part, and parse what came out."""
    part = part_from_proto(proto, name="part2")
    return _parsed(_config(part, max_batch=5, instances=1, parameters={}))


def _identities(inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    names = [(i.name, o.name) for i, o in zip(inputs, outputs, strict=True)]
    nodes = [helper.make_node("Identity", [i], [o], name=f"n{n}") for n, (i, o) in enumerate(names)]
    return _model(nodes, inputs, outputs)


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


_DIMS = st.lists(st.integers(1, 5), max_size=4)
_NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)


@given(
    names=st.lists(_NAMES, min_size=2, max_size=6, unique=True),
    kinds=st.lists(st.sampled_from(sorted(_TYPES.values())), min_size=3, max_size=3),
    dims=st.lists(_DIMS, min_size=3, max_size=3),
    free=st.sampled_from([(), ("batch",)]),
)
def test_every_configuration_says_what_its_file_says(
    names: list[str], kinds: list[int], dims: list[list[int]], free: tuple[str, ...]
) -> None:
    """For any names, types and shapes: what Triton parses are the tensors of the ONNX file."""
    count = len(names) // 2
    shapes: list[list[str | int | None]] = [[*free, *each] or [1] for each in dims]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, kinds[i], shapes[i]) for i, name in enumerate(side[:count])]
        for side in (names[:count], names[count:])
    )
    proto = _identities(inputs, outputs)
    config = _configured(proto)
    _assert_agrees(config, proto)
    assert config.name == "part2"
    # Triton batches only where the batch leads every tensor, and more than the batch is in it.
    assert (config.max_batch_size > 0) == (free == ("batch",) and all(dims[i] for i in range(count)))


def test_a_batch_that_does_not_lead_every_tensor_is_left_alone() -> None:
    """Where one tensor has a multiple of the batch, Triton is told not to batch, and both dimensions are free."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["2*batch", 4])]
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], name="n", axis=0)]
    config = _configured(_model(nodes, inputs, outputs))
    assert config.max_batch_size == 0
    assert list(config.output[0].dims) == [-1, 4]


@pytest.mark.parametrize(("kind", "shape"), [(TensorProto.FLOAT, []), (TensorProto.BFLOAT16, [2])])
def test_a_tensor_that_triton_cannot_serve_is_refused(kind: int, shape: list[int]) -> None:
    """A scalar has no dimension to write down, and bfloat16 passes between no devices."""
    inputs, outputs = ([helper.make_tensor_value_info(name, kind, shape)] for name in ("x", "y"))
    with pytest.raises(BundleError, match="part2: Triton serves no tensor like 'x'"):
        _configured(_identities(inputs, outputs))


def test_kserve_gets_a_service(case: Case, bundle: Path, tmp_path: Path) -> None:
    """The manifest is YAML for KServe's Triton runtime, and names where the repository will lie, whatever is in it."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    uri = 's3://models/"deploy": #1'
    export_triton(bundle, tmp_path / "models", keystore=case.keystore, kserve_uri=uri)
    service = yaml.safe_load((tmp_path / "models/inference-service.yaml").read_text(encoding="utf-8"))
    loaded = load_bundle(bundle, keystore=case.keystore)
    assert service == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": f"siniantrust-{loaded.id[:8]}", "annotations": {"siniantrust/bundle": loaded.id}},
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "triton", "version": "2"},
                    "protocolVersion": "v2",
                    "storageUri": uri,
                }
            }
        },
    }


def test_a_server_with_the_repositorys_names_serves_the_session(tmp_path: Path) -> None:
    """What a server answers that serves the exported file under its configured name is what the session asks for.

    Triton itself does not install here: ours takes its place, and Triton's own client looks at it.
    """
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    deployment = deploy(images(), tmp_path, cut="r0", threat_model="output-privacy")
    export_triton(deployment.path, tmp_path / "models", keystore=deployment.keystore)
    config = _parsed((tmp_path / "models/part2/config.pbtxt").read_text(encoding="utf-8"))
    served = tmp_path / f"{config.name}.onnx"
    served.write_bytes((tmp_path / "models" / config.name / "1/model.onnx").read_bytes())
    with Server(served) as endpoints:
        client = triton.InferenceServerClient(endpoints.grpc_url.partition("://")[2])
        try:
            metadata = client.get_model_metadata(config.name)
        finally:
            client.close()
        spec = DeviceSpec("cloud", "remote", {"url": endpoints.grpc_url})
        inputs = deployment.inputs(3)
        with deployment.open({"cloud": spec}) as session:
            found = session.run(inputs)["scores"]
    np.testing.assert_allclose(found, deployment.expected(inputs)["scores"], atol=1e-5)
    assert metadata.versions == [config.parameters["siniantrust.sha256"].string_value]
    for tensors, ports in ((metadata.inputs, config.input), (metadata.outputs, config.output)):
        listed = {tensor.name: (_TYPES[f"TYPE_{tensor.datatype}"], list(tensor.shape)) for tensor in tensors}
        assert listed == _shapes(config, ports)
