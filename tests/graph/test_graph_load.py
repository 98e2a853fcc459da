"""Loading: what is accepted, what it becomes, and what is refused in one line that names it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import chain, model_of, random_inputs, random_models, residual, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from siniantrust.errors import ModelError
from siniantrust.graph import enumerate_cuts, load_model, split

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


def write(path: Path, proto: onnx.ModelProto) -> Path:
    """Write a model to one file."""
    path.write_bytes(proto.SerializeToString())
    return path


def write_external(folder: Path, proto: onnx.ModelProto, *, location: str = "weights.bin") -> Path:
    """Write a model with its initialisers in another file."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(copy, folder / "m.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "m.onnx"


def message(source: Path | onnx.ModelProto, **dims: int) -> str:
    """Return the one-line message with which loading is refused."""
    with pytest.raises(ModelError) as refused:
        load_model(source, dims=dims)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_models_of_onnx_load_and_split(path: Path) -> None:
    """Each well-known architecture that ships with onnx loads, has cuts, and splits into valid parts."""
    model = load_model(path)
    cuts = enumerate_cuts(model, cap=64).cuts
    assert len(cuts) > 20
    assert model.flops > 2e8
    parts = split(model, [cuts[len(cuts) // 2]])
    assert sum(len(part.node_names) for part in parts) == len(model.nodes)


def test_light_squeezenet_split_gives_the_expected_output() -> None:
    """The parts of a shipped network reproduce the output that ships with it."""
    path = next(path for path in LIGHT if "squeezenet" in path.stem)
    model = load_model(path)
    expected = onnx.TensorProto.FromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    arrays = {"data_0": np.ones((1, 3, 224, 224), np.float32)}
    whole = run(model.proto, arrays)
    one, two = split(model, [enumerate_cuts(model, max_tensors=1).cuts[15]])
    middle = run(one.proto, arrays)
    output = run(two.proto, middle)
    name = model.outputs[0].name
    np.testing.assert_allclose(output[name], whole[name], rtol=1e-5)
    np.testing.assert_allclose(output[name].ravel(), numpy_helper.to_array(expected).ravel(), rtol=1e-3)


def test_external_data_gives_the_same_model(tmp_path: Path) -> None:
    """Weights in other files give the same identity, wherever they lie, and the same outputs."""
    proto = residual(1)
    inline = load_model(write(tmp_path / "inline.onnx", proto))
    one = write_external(tmp_path / "a", proto)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = load_model(one), load_model(tmp_path / "b" / "m.onnx")
    assert first.sha256 == second.sha256 == inline.sha256
    arrays = random_inputs(proto, batch=2)
    np.testing.assert_array_equal(run(first.proto, arrays)["y"], run(proto, arrays)["y"])


def test_identity_depends_on_every_weight(tmp_path: Path) -> None:
    """One changed bit in an external file is another model."""
    path = write_external(tmp_path, residual(1))
    before = load_model(path).sha256
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[-1] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert load_model(path).sha256 != before


def test_identity_is_of_the_model_as_given() -> None:
    """Dimensions, folding and sorting do not change the identity; loading again gives the same."""
    proto = residual(1)
    assert load_model(proto).sha256 == load_model(proto, dims={"N": 4}).sha256


def test_missing_external_file_is_named(tmp_path: Path) -> None:
    """The tensor, the file and the folder where it should be are in the message."""
    path = write_external(tmp_path, residual(1))
    (tmp_path / "weights.bin").unlink()
    text = message(path)
    assert "weights.bin" in text
    assert "missing" in text
    assert "'w0'" in text


def test_truncated_external_file_is_named(tmp_path: Path) -> None:
    """A short file is refused with the sizes expected and found."""
    path = write_external(tmp_path, residual(1))
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[:-4])
    assert "weights.bin' is truncated" in message(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "", "a\0b"])
def test_external_file_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    """Neither .., an absolute path nor a link leads out of the model's folder."""
    folder = tmp_path / "model"
    path = write_external(folder, residual(1))
    (tmp_path / "secret.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    proto = onnx.ModelProto.FromString(path.read_bytes())
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    assert "outside the model's folder" in message(write(path, proto))


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize("value", ["-5", "x", "1000000000"])
def test_odd_external_ranges_are_refused(tmp_path: Path, key: str, value: str) -> None:
    """Offsets and lengths that are negative, no numbers, or past the end are refused."""
    path = write_external(tmp_path, residual(1))
    proto = onnx.ModelProto.FromString(path.read_bytes())
    entries = {entry.key: entry for entry in proto.graph.initializer[0].external_data}
    entries[key].value = value
    assert "weights.bin" in message(write(path, proto))


def test_external_data_in_memory_is_refused(tmp_path: Path) -> None:
    """A model in memory has no folder in which its files could be found."""
    path = write_external(tmp_path, residual(1))
    assert "give the model as a path" in message(onnx.ModelProto.FromString(path.read_bytes()))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A model cut off at any byte raises ModelError, never another error and never loads."""
    whole = residual(1).SerializeToString()
    path = tmp_path_factory.mktemp("cut") / "m.onnx"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 12))])
    assert str(path) in message(path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No string of bytes that is no model raises anything but ModelError."""
    path = tmp_path_factory.mktemp("noise") / "m.onnx"
    path.write_bytes(data)
    message(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A model with damaged bytes either still is a model or raises ModelError."""
    damaged = bytearray(chain(4).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "m.onnx"
    path.write_bytes(damaged)
    with contextlib.suppress(ModelError):
        load_model(path)


def test_name_with_a_line_break_is_refused() -> None:
    """A name that would break the one-line errors is no name; documentation may hold any text."""
    proto = residual(1)
    proto.doc_string = "two\nlines"
    load_model(proto)
    proto.graph.node[0].name = "two\nlines"
    assert "no printable text" in message(proto)


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """Text, an empty file, a folder and an absent path are refused by name."""
    text = tmp_path / "notes.onnx"
    text.write_text("this is no model")
    empty = tmp_path / "empty.onnx"
    empty.touch()
    assert "not an ONNX model" in message(text)
    assert "empty" in message(empty)
    assert "is a folder" in message(tmp_path)
    assert "cannot be read" in message(tmp_path / "absent.onnx")


def test_unknown_operator_is_named() -> None:
    """An operator that the opset does not have is refused with its node, name and opset."""
    nodes = [helper.make_node("Reluu", ["x"], ["y"], name="odd")]
    text = message(model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]}))
    assert "'odd'" in text
    assert "'Reluu' is unknown in opset 18" in text


def test_operator_newer_than_its_opset_is_named() -> None:
    """Gelu came with opset 20."""
    nodes = [helper.make_node("Gelu", ["x"], ["y"])]
    assert "'Gelu' is unknown in opset 18" in message(model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]}))


def test_unknown_operator_in_a_branch_is_named() -> None:
    """Subgraphs are looked into."""
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Bogus", ["x"], ["o"], name="deep")], "b", [], [value])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    assert "'deep'" in message(model_of(nodes, {"x": [1]}, {"y": [1]}))


def test_opset_beyond_the_newest_is_refused() -> None:
    """A future opset is not read as the newest one."""
    assert "opset 999 is newer" in message(model_of(chain(2).graph.node, {"x": [1]}, {"y": [1]}, opset=999))


def test_domain_without_import_is_refused() -> None:
    """A node of a domain that the model does not import is named."""
    nodes = [helper.make_node("Mystery", ["x"], ["y"], name="m", domain="com.example")]
    assert "'com.example'" in message(model_of(nodes, {"x": [1]}, {"y": [1]}))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("Relu", ["nothing"], ["y"])], "reads 'nothing'"),
        ([("Relu", ["x"], ["a"])], "output 'y' is made by no node"),
        ([("Relu", ["x"], ["y"]), ("Tanh", ["x"], ["y"])], "'y' is made twice"),
        ([("Add", ["x", "b"], ["a"]), ("Relu", ["a"], ["b"]), ("Relu", ["b"], ["y"])], "cycle"),
        ([("Add", ["x"], ["y"])], "invalid graph"),
        ([("MatMul", ["x", "w"], ["y"])], "shapes contradict"),
    ],
)
def test_invalid_graph_is_refused(nodes: list[tuple[str, list[str], list[str]]], expected: str) -> None:
    """Dangling, doubled and cyclic values, wrong arity and wrong shapes are refused with their reason."""
    made = [helper.make_node(op, inputs, outputs) for op, inputs, outputs in nodes]
    weights = {"w": np.zeros((7, 7), np.float32)}
    assert expected in message(model_of(made, {"x": [1, 2]}, {"y": [1, 2]}, weights))


def test_weight_with_missing_bytes_is_refused() -> None:
    """An initialiser shorter than its shape says is named."""
    proto = residual(1)
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    assert "tensor 'w0'" in message(proto)


def test_batch_symbol_stays_free() -> None:
    """A first dimension that all inputs and outputs share stays symbolic; figures count one item."""
    model = load_model(residual(1))
    assert model.batch_symbol == "N"
    assert model.inputs[0].shape == (1, 2, 4, 4)
    assert model.inputs[0].batch_axis == 0
    assert model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_unnamed_batch_is_named() -> None:
    """The unnamed first dimension of the only input is called batch."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    assert load_model(model_of(nodes, {"x": [None, 3]}, {"y": [None, 3]})).batch_symbol == "batch"


def test_batch_can_be_fixed() -> None:
    """A value for the batch makes it an ordinary dimension."""
    model = load_model(residual(1), dims={"N": 4})
    assert model.batch_symbol is None
    assert model.inputs[0].shape == (4, 2, 4, 4)
    assert model.flops == 4 * load_model(residual(1)).flops


def test_free_dimension_needs_a_value() -> None:
    """The input, the dimension and the option that gives it are named; giving it is enough."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    proto = model_of(nodes, {"x": ["N", "seq"]}, {"y": ["N", "seq"]})
    text = message(proto)
    assert "input 'x'" in text
    assert "--dim seq=VALUE" in text
    model = load_model(proto, dims={"seq": 16})
    assert (model.batch_symbol, model.outputs[0].shape) == ("N", (1, 16))


def test_unnamed_dimension_goes_by_input_and_axis() -> None:
    """A free dimension without a name can be given a value too."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    proto = model_of(nodes, {"x": ["N", None]}, {"y": ["N", None]})
    assert "--dim x.1=VALUE" in message(proto)
    assert load_model(proto, dims={"x.1": 5}).inputs[0].shape == (1, 5)


def test_dimension_that_inputs_do_not_share_is_no_batch() -> None:
    """Two inputs with first dimensions of their own need values."""
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    proto = model_of(nodes, {"a": ["M", 3], "b": [3, 2]}, {"y": ["M", 2]})
    assert "--dim M=VALUE" in message(proto)


def test_dimension_that_outputs_lose_is_no_batch() -> None:
    """A model that sums over its first dimension does not work item by item."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    proto = model_of(nodes, {"x": ["N", 3]}, {"y": []})
    text = message(proto)
    assert "'y' does not have it" in text
    assert load_model(proto, dims={"N": 2}).outputs[0].shape == ()


def test_model_for_one_batch_size_says_so() -> None:
    """A free first dimension that the model's own constants contradict needs its value."""
    nodes = [helper.make_node("Concat", ["x", "c"], ["y"], axis=1)]
    proto = model_of(nodes, {"x": ["N", 2]}, {"y": ["N", 4]}, {"c": np.ones((1, 2), np.float32)})
    assert "one batch size only" in message(proto)
    assert load_model(proto, dims={"N": 1}).outputs[0].shape == (1, 4)


@pytest.mark.parametrize(
    ("dims", "expected"), [({"M": 2}, "no input has a free dimension 'M'"), ({"N": 0}, "at least 1")]
)
def test_wrong_dims_are_refused(dims: dict[str, int], expected: str) -> None:
    """A name that no input has, and a size below one, are refused."""
    assert expected in message(residual(1), **dims)


def test_non_tensor_input_is_refused() -> None:
    """Sequences cannot enter a model."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["s"], ["y"])],
        "g",
        [helper.make_value_info("s", kind)],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert "'s' is no tensor" in message(proto)


def test_output_of_open_size_is_described_with_zero() -> None:
    """What only the run decides is 0 in the output's shape, and accepts any size."""
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)]
    model = load_model(model_of(nodes, {"x": [2, 3]}, {"y": [2, "k"]}))
    assert model.outputs[0].shape == (2, 0)
    assert model.outputs[0].fits((2, 5))
    assert not model.outputs[0].fits((3, 5))


@settings(max_examples=60, deadline=None)
@given(random_models())
def test_nodes_are_sorted_and_uniquely_named(proto: onnx.ModelProto) -> None:
    """Whatever the order in the file, values are made before they are read, and names are unique and stable."""
    model = load_model(proto)
    assert len({node.name for node in model.nodes}) == len(model.nodes)
    assert [node.name for node in model.proto.graph.node] == [node.name for node in model.nodes]
    assert all(model.producers.get(name, -1) < node.index for node in model.nodes for name in node.inputs)
    assert [node.name for node in load_model(proto).nodes] == [node.name for node in model.nodes]


def test_repeated_node_names_are_made_unique() -> None:
    """Two nodes of one name keep it and get another."""
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="n"), helper.make_node("Tanh", ["a"], ["y"], name="n")]
    model = load_model(model_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]}))
    assert [node.name for node in model.nodes] == ["n", "n_y"]


def test_source_message_is_left_alone() -> None:
    """Loading a model in memory does not change it."""
    proto = residual(1)
    before = proto.SerializeToString(deterministic=True)
    load_model(proto, dims={"N": 2})
    assert proto.SerializeToString(deterministic=True) == before


def test_initialiser_listed_as_input_is_a_constant() -> None:
    """Old files list weights among the inputs; they are no inputs of the model."""
    proto = residual(1)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    assert [tensor.name for tensor in load_model(proto).inputs] == ["x"]


def test_captured_values_count_as_inputs_of_the_node() -> None:
    """What a branch reads from outside crosses a cut like any input of its node, and the parts run."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("ReduceMax", ["a"], ["m"], keepdims=0, name="max"),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL, name="cast"),
    ]
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 2])
    then = helper.make_graph([helper.make_node("Tanh", ["a"], ["o"])], "then", [], [value])
    other = helper.make_graph([helper.make_node("Mul", ["a", "w"], ["o"])], "else", [], [value])
    nodes.append(helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other, name="if"))
    proto = model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]}, {"w": np.array([[2, 3]], np.float32)})
    model = load_model(proto)
    assert model.nodes[-1].inputs == ("c", "a", "w")
    assert model.nodes[-1].flops > 0
    (cut,) = [cut for cut in enumerate_cuts(model).cuts if set(cut.tensors) == {"a", "c"}]
    one, two = split(model, [cut])
    for x in (np.array([[1, -2]], np.float32), np.array([[-1, -2]], np.float32)):
        expected = run(proto, {"x": x})["y"]
        np.testing.assert_array_equal(run(two.proto, run(one.proto, {"x": x}))["y"], expected)


def test_local_functions_are_inlined() -> None:
    """A function's body can be cut and counted like any other nodes."""
    body = [helper.make_node("Tanh", ["a"], ["t"]), helper.make_node("Relu", ["t"], ["b"])]
    function = helper.make_function("local", "TanhRelu", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    nodes = [helper.make_node("TanhRelu", ["x"], ["h"], domain="local"), helper.make_node("Tanh", ["h"], ["y"])]
    proto = model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]})
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    model = load_model(proto)
    assert [node.op_type for node in model.nodes] == ["Tanh", "Relu", "Tanh"]
    arrays = random_inputs(proto, batch=2)
    np.testing.assert_allclose(run(model.proto, arrays)["y"], run(proto, arrays)["y"], rtol=1e-6)


def test_declared_types_serve_operators_that_onnx_does_not_know() -> None:
    """Behind a foreign operator the file's own types count; elsewhere stale ones are ignored."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    known = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 4])
    stale = helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 9])
    proto = model_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, value_info=[known, stale])
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model = load_model(proto)
    assert model.tensors["a"].shape == model.tensors["b"].shape == (1, 4)
    assert [cut.tensors for cut in enumerate_cuts(model).cuts] == [("a",), ("b",)]
