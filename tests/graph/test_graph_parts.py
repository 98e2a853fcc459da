"""Parts read back, identified, measured; placement in the model; description; tensors."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from graph_models import chain, inception, model_of, random_inputs, random_models, residual, run
from hypothesis import given, settings
from onnx import helper

from siniantrust.errors import ModelError, PlanError
from siniantrust.graph import (
    Part,
    Tensor,
    describe,
    enumerate_cuts,
    load_model,
    part_digest,
    part_from_proto,
    peak_bytes,
    read_device_configurations,
    split,
    with_device_configurations,
)


def parts_of(proto: onnx.ModelProto) -> tuple[Part, ...]:
    """Split a model at its middle cut."""
    model = load_model(proto)
    cuts = enumerate_cuts(model).cuts
    return split(model, cuts[len(cuts) // 2 :][:1])


@settings(max_examples=60, deadline=None)
@given(random_models())
def test_part_read_back_is_the_part_written(proto: onnx.ModelProto) -> None:
    """Serialising and reading gives an equal part with the same digest."""
    for part in parts_of(proto):
        again = part_from_proto(onnx.ModelProto.FromString(part.proto.SerializeToString()), name=part.name)
        assert again == part
        assert part_digest(again) == part_digest(part)


def test_digest_depends_on_every_weight() -> None:
    """A changed weight changes the digest."""
    one, _ = parts_of(residual(2))
    copy = onnx.ModelProto()
    copy.CopyFrom(one.proto)
    data = bytearray(copy.graph.initializer[0].raw_data)
    data[0] ^= 1
    copy.graph.initializer[0].raw_data = bytes(data)
    assert part_digest(part_from_proto(copy, name="part1")) != part_digest(one)


def test_open_output_survives_reading_back() -> None:
    """An output whose size only the run decides is described alike before and after."""
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=1)]
    (whole,) = split(load_model(model_of(nodes, {"x": [2, 3]}, {"y": [2, "k"]})), [])
    assert part_from_proto(whole.proto, name="part1") == whole


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda proto: proto.graph.ClearField("output"), "not an ONNX model"),
        (lambda proto: proto.graph.node[0].ClearField("name"), "every node needs a name"),
        (lambda proto: proto.graph.node[0].input.append("ghost"), "invalid graph"),
        (lambda proto: proto.graph.input[0].type.tensor_type.shape.dim[1].Clear(), "needs a known shape"),
        (lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[1], "dim_param", "M"), "several free"),
        (lambda proto: setattr(proto.graph.output[0].type.tensor_type.shape.dim[0], "dim_param", "M"), "one free"),
        (lambda proto: setattr(proto.graph.node[0], "op_type", "Bogus"), "'Bogus' is unknown"),
        (lambda proto: setattr(proto.graph.input[0].type.tensor_type, "elem_type", 999), "invalid graph|known type"),
        (lambda proto: proto.graph.input[0].type.Clear(), "invalid graph|no tensor"),
    ],
)
def test_bad_part_is_refused(damage: object, expected: str) -> None:
    """A part that was damaged is refused with the reason."""
    one, _ = parts_of(residual(1))
    assert callable(damage)
    damage(one.proto)
    with pytest.raises(ModelError, match=expected):
        part_from_proto(one.proto, name="part1")


def test_peak_of_a_chain_is_two_values() -> None:
    """On a chain one value is read while the next is made."""
    (whole,) = split(load_model(chain(10)), [])
    assert peak_bytes(whole) == 2 * 3 * 4 * 4 * 4


def test_peak_of_a_residual_block_holds_the_skip() -> None:
    """In a block the skipped value lives along with two others; the weights are always there."""
    (whole,) = split(load_model(residual(1, channels=2, size=4)), [])
    weights = 3 * 2 * 2 * 3 * 3 * 4
    assert peak_bytes(whole) == weights + 3 * 2 * 4 * 4 * 4


def test_peak_keeps_outputs_to_the_end() -> None:
    """An output made early is alive beside all that follows."""
    nodes = [helper.make_node("Relu", ["x"], ["early"])]
    nodes += [
        helper.make_node("Tanh", ["early" if i == 0 else f"t{i}"], ["y" if i == 3 else f"t{i + 1}"]) for i in range(4)
    ]
    (whole,) = split(load_model(model_of(nodes, {"x": ["N", 2]}, {"early": ["N", 2], "y": ["N", 2]})), [])
    assert peak_bytes(whole) == 3 * 8


def test_peak_is_at_least_what_each_node_touches() -> None:
    """No node's inputs and outputs exceed the peak."""
    model = load_model(inception())
    (whole,) = split(model, [])
    touched = [
        sum(model.tensors[name].size_bytes for name in {*node.inputs, *node.outputs} if name in model.tensors)
        for node in model.nodes
    ]
    assert peak_bytes(whole) >= max(touched)


def test_device_configurations_survive_and_run() -> None:
    """A model with devices in it passes the checker, runs as before, and says where each node is."""
    model = load_model(residual(1))
    assignment = {node.name: ("enclave" if node.index < 3 else "gpu") for node in model.nodes}
    placed = with_device_configurations(model.proto, devices=["enclave", "gpu"], assignment=assignment)
    again = onnx.ModelProto.FromString(placed.SerializeToString())
    onnx.checker.check_model(again, full_check=True)
    assert again.ir_version >= 11
    assert read_device_configurations(again) == assignment
    assert not read_device_configurations(model.proto)
    arrays = random_inputs(model.proto, batch=2)
    np.testing.assert_array_equal(run(again, arrays)["y"], run(model.proto, arrays)["y"])


def test_device_configurations_are_replaced_not_added() -> None:
    """Writing a second placement leaves one, and leaves configurations of others alone."""
    proto = load_model(chain(2)).proto
    proto.configuration.add(name="other", num_devices=1, device=["z"])
    names = [node.name for node in proto.graph.node]
    first = with_device_configurations(proto, devices=["a"], assignment=dict.fromkeys(names, "a"))
    second = with_device_configurations(first, devices=["b"], assignment={names[0]: "b"})
    assert read_device_configurations(second) == {names[0]: "b"}
    assert [each.name for each in second.configuration] == ["other", "siniantrust"]


@pytest.mark.parametrize(
    ("devices", "assignment", "expected"),
    [
        (["a", "a"], {}, "must differ"),
        ([], {}, "not be empty"),
        (["a"], {"Tanh_y": "b"}, "is on 'b'"),
        (["a"], {"ghost": "a"}, "no node 'ghost'"),
    ],
)
def test_bad_placement_is_refused(devices: list[str], assignment: dict[str, str], expected: str) -> None:
    """Doubled devices, unknown devices and unknown nodes are named."""
    with pytest.raises(PlanError, match=expected):
        with_device_configurations(load_model(chain(2)).proto, devices=devices, assignment=assignment)


def test_placement_outside_the_device_list_is_refused() -> None:
    """A node on a device number that the model does not list is an error, not a guess."""
    proto = load_model(chain(2)).proto
    placed = with_device_configurations(proto, devices=["a"], assignment={"Tanh_y": "a"})
    placed.graph.node[1].device_configurations[0].sharding_spec[0].device[0] = 7
    with pytest.raises(PlanError, match="one of the 1 devices"):
        read_device_configurations(placed)


def test_description_is_plain_data_with_every_cut() -> None:
    """The description survives JSON, and its totals are the model's."""
    model = load_model(residual(2))
    cuts = enumerate_cuts(model)
    described = json.loads(json.dumps(describe(model, cuts)))
    assert described["flops"] == model.flops
    assert described["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 2, 4, 4], "size_bytes": 128}]
    assert [cut["id"] for cut in described["cuts"]] == [cut.id for cut in cuts.cuts]
    assert described["operators"] == {"Conv": 5, "Relu": 4, "Add": 2}
    assert described["parameters"] == 5 * 36
    shares = [cut["flops_share_before"] for cut in described["cuts"] if len(cut["tensors"]) == 1]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1


@pytest.mark.parametrize(
    ("tensor", "shape", "fits"),
    [
        (Tensor("t", "float32", (1, 3), 0), (5, 3), True),
        (Tensor("t", "float32", (1, 3), 0), (0, 3), False),
        (Tensor("t", "float32", (1, 3), 0), (5, 4), False),
        (Tensor("t", "float32", (1, 3)), (5, 3), False),
        (Tensor("t", "float32", (4, 1), 1), (4, 9), True),
        (Tensor("t", "float32", (6, 2), 0), (18, 2), True),
        (Tensor("t", "float32", (6, 2), 0), (7, 2), False),
        (Tensor("t", "float32", (1, 3), 0), (1, 3, 1), False),
        (Tensor("t", "float32", ()), (), True),
        (Tensor("t", "float32", (0, 2)), (9, 2), True),
    ],
)
def test_tensor_says_which_arrays_fit(tensor: Tensor, shape: tuple[int, ...], *, fits: bool) -> None:
    """The batch axis takes any multiple of one item, an open dimension anything, the others their size."""
    assert tensor.fits(shape) is fits
