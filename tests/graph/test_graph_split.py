"""Parts: each node once, convex, acyclic, and composing to the whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from graph_models import chain, inception, model_of, random_inputs, random_models, residual, run, run_parts
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from siniantrust.errors import PlanError
from siniantrust.graph import Cut, Model, Part, enumerate_cuts, load_model, prefix_nodes, split


def nested_pairs(model: Model) -> list[tuple[Cut, Cut]]:
    """Return all pairs of cuts of which one's prefix holds the other's and more."""
    cuts = [(cut, set(prefix_nodes(model, cut))) for cut in enumerate_cuts(model).cuts[:40]]
    return [(a, b) for a, inside in cuts for b, outside in cuts if inside < outside]


def assert_composes(model: Model, parts: tuple[Part, ...], cuts: list[Cut], *, batch: int) -> None:
    """Check the parts' structure, and their outputs against the whole model's."""
    placed = [name for part in parts for name in part.node_names]
    assert sorted(placed) == sorted(node.name for node in model.nodes)
    home = {name: number for number, part in enumerate(parts) for name in part.node_names}
    for node in model.nodes:
        for name in node.inputs:
            if name in model.producers:
                source = home[model.nodes[model.producers[name]].name]
                assert source <= home[node.name]
                assert all(name in cut.tensors for cut in cuts[source : home[node.name]])
    for part in parts:
        onnx.checker.check_model(part.proto, full_check=True)
        assert [value.name for value in part.proto.graph.input] == [tensor.name for tensor in part.inputs]
        assert [value.name for value in part.proto.graph.output] == [tensor.name for tensor in part.outputs]
    arrays = random_inputs(model.proto, batch=batch)
    expected, pool = run(model.proto, arrays), run_parts(parts, arrays)
    for part in parts:
        assert all(tensor.fits(pool[tensor.name].shape) for tensor in (*part.inputs, *part.outputs))
    for name, value in expected.items():
        np.testing.assert_allclose(pool[name], value, rtol=1e-5, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(random_models(), st.integers(1, 3), st.data())
def test_two_parts_of_a_random_graph_compose_to_it(proto: onnx.ModelProto, batch: int, data: st.DataObject) -> None:
    """Any cut of any graph gives parts with every node once, nothing else crossing, and the same outputs."""
    model = load_model(proto)
    cuts = enumerate_cuts(model).cuts
    chosen = [data.draw(st.sampled_from(cuts))] if cuts else []
    assert_composes(model, split(model, chosen), chosen, batch=batch)


@settings(max_examples=60, deadline=None)
@given(random_models(), st.data())
def test_three_parts_of_a_random_graph_compose_to_it(proto: onnx.ModelProto, data: st.DataObject) -> None:
    """Any two nested cuts give three such parts."""
    model = load_model(proto)
    pairs = nested_pairs(model)
    chosen = list(data.draw(st.sampled_from(pairs))) if pairs else []
    assert_composes(model, split(model, chosen), chosen, batch=2)


@pytest.mark.parametrize("proto", [residual(2), inception()], ids=["residual", "inception"])
def test_every_cut_of_a_block_net_composes(proto: onnx.ModelProto) -> None:
    """Residual and inception nets give the same outputs at each of their cuts, for a batch of three."""
    model = load_model(proto)
    for cut in enumerate_cuts(model).cuts:
        assert_composes(model, split(model, [cut]), [cut], batch=3)


def test_no_cut_gives_the_whole_model_as_one_part() -> None:
    """Without cuts there is one part with all nodes, inputs and outputs."""
    model = load_model(residual(1))
    (whole,) = split(model, [])
    assert whole.name == "part1"
    assert (whole.inputs, whole.outputs) == (model.inputs, model.outputs)
    assert len(whole.node_names) == len(model.nodes)


def test_value_that_skips_a_part_is_in_every_cut_between() -> None:
    """What part1 makes and part3 reads is a tensor of both cuts, and no input or output of part2."""
    model = load_model(residual(1))
    by_tensors = {frozenset(cut.tensors): cut for cut in enumerate_cuts(model).cuts}
    first, second = by_tensors[frozenset(["a0", "stem"])], by_tensors[frozenset(["b0", "stem"])]
    one, two, three = split(model, [first, second])
    assert {tensor.name for tensor in one.outputs} == {"a0", "stem"}
    assert [tensor.name for tensor in two.inputs + two.outputs] == ["a0", "b0"]
    assert {tensor.name for tensor in three.inputs} == {"b0", "stem"}


def test_value_that_skips_a_cut_unseen_is_refused() -> None:
    """A hand-made cut that leaves out a crossing tensor is no cut."""
    model = load_model(residual(1))
    with pytest.raises(PlanError, match="'stem' would cross too"):
        split(model, [Cut("c003-b0", ("b0",), 3, 0, 0, fusable=False)])


def test_cut_with_a_tensor_that_nothing_reads_behind_it_is_refused() -> None:
    """A superfluous tensor would leave the trusted side for nothing."""
    model = load_model(chain(4))
    cut = enumerate_cuts(model).cuts[2]
    with pytest.raises(PlanError, match="nothing behind it reads 't1'"):
        split(model, [dataclasses.replace(cut, tensors=("t1", *cut.tensors))])


def test_cut_before_a_late_input_is_refused() -> None:
    """A model input never crosses a cut, as it would be shown to the other side."""
    nodes = [helper.make_node("Relu", ["x0"], ["a"]), helper.make_node("Add", ["a", "x1"], ["y"])]
    model = load_model(model_of(nodes, {"x0": ["N", 2], "x1": ["N", 2]}, {"y": ["N", 2]}))
    with pytest.raises(PlanError, match="'x1' would cross too"):
        split(model, [Cut("c001-a", ("a",), 1, 0, 0, fusable=False)])


@pytest.mark.parametrize("order", [(1, 0), (1, 1)], ids=["reversed", "twice"])
def test_cuts_that_are_not_nested_are_refused(order: tuple[int, int]) -> None:
    """Cuts must be given from input to output, and differ."""
    model = load_model(chain(4))
    cuts = enumerate_cuts(model).cuts
    with pytest.raises(PlanError, match="not nested"):
        split(model, [cuts[index] for index in order])


def test_cuts_through_different_branches_are_refused() -> None:
    """Two legal cuts of which neither holds the other cannot follow one another."""
    nodes = [
        helper.make_node("Relu", ["x"], ["s"]),
        helper.make_node("Tanh", ["s"], ["a"]),
        helper.make_node("Sin", ["s"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = load_model(model_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]}))
    by_tensors = {frozenset(cut.tensors): cut for cut in enumerate_cuts(model).cuts}
    with pytest.raises(PlanError, match="not nested"):
        split(model, [by_tensors[frozenset(["a", "s"])], by_tensors[frozenset(["b", "s"])]])


def test_cut_behind_everything_is_refused() -> None:
    """The second part may not be empty."""
    model = load_model(chain(2))
    with pytest.raises(PlanError, match="no node behind"):
        split(model, [Cut("c002-y", ("y",), 2, 0, 0, fusable=False)])


def test_parts_keep_batch_opset_and_only_their_constants() -> None:
    """Each part's interface keeps the batch symbol, its opset is the model's, and it holds the weights it reads."""
    model = load_model(residual(2))
    cut = next(cut for cut in enumerate_cuts(model).cuts if cut.tensors == ("out0",))
    one, two = split(model, [cut])
    assert one.batch_symbol == two.batch_symbol == "N"
    assert one.proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert {tensor.name for tensor in one.proto.graph.initializer} == {"w0", "w1", "w2"}
    assert {tensor.name for tensor in two.proto.graph.initializer} == {"w3", "w4"}
    assert list(two.proto.opset_import) == list(model.proto.opset_import)


def test_unread_input_belongs_to_the_first_part() -> None:
    """An input that nothing reads stays an input, so that the interface is the model's."""
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Tanh", ["a"], ["y"])]
    model = load_model(model_of(nodes, {"x": ["N", 2], "unused": ["N", 3]}, {"y": ["N", 2]}))
    one, two = split(model, [enumerate_cuts(model).cuts[0]])
    assert [tensor.name for tensor in one.inputs] == ["x", "unused"]
    assert [tensor.name for tensor in two.inputs] == ["a"]


def test_batch_off_the_first_axis_runs_for_any_batch() -> None:
    """A tensor that carries the batch on an inner axis, or merged with another, can be cut at and says so."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("Tanh", ["t"], ["u"]),
        helper.make_node("Reshape", ["u", "flat"], ["m"]),
        helper.make_node("Tanh", ["m"], ["n"]),
        helper.make_node("Reshape", ["n", "back"], ["v"]),
        helper.make_node("Transpose", ["v"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {"flat": np.array([-1, 4], dtype=np.int64), "back": np.array([3, -1, 4], dtype=np.int64)}
    model = load_model(model_of(nodes, {"x": ["N", 3, 4]}, {"y": ["N", 3, 4]}, constants))
    assert model.tensors["u"].batch_axis == 1
    assert (model.tensors["m"].batch_axis, model.tensors["m"].shape) == (0, (3, 4))
    for cut in enumerate_cuts(model).cuts:
        assert_composes(model, split(model, [cut]), [cut], batch=5)
