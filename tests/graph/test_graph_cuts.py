"""Cuts: complete, legal, named and bounded."""

from __future__ import annotations

import itertools
import re

import numpy as np
import onnx
import pytest
from graph_models import chain, inception, model_of, random_models, residual
from hypothesis import given, settings
from onnx import helper

from siniantrust.errors import PlanError
from siniantrust.graph import Cut, Model, enumerate_cuts, load_model, prefix_nodes


def legal_by_definition(model: Model, tensors: frozenset[str]) -> bool:
    """Apply the definition of a legal cut literally."""
    inside: set[int] = set()
    pending = [model.producers[name] for name in tensors]
    while pending:
        index = pending.pop()
        if index not in inside:
            inside.add(index)
            pending += [model.producers[name] for name in model.nodes[index].inputs if name in model.producers]
    outside = [node for node in model.nodes if node.index not in inside]
    made = {name for index in inside for name in model.nodes[index].outputs}
    read_outside = {name for node in outside for name in node.inputs}
    ends = {tensor.name for tensor in model.outputs}
    secret = {tensor.name for tensor in model.inputs}
    crossing = made & (read_outside | ends)
    return bool(inside and outside) and crossing == tensors and not read_outside & secret


def all_legal(model: Model, size: int) -> set[frozenset[str]]:
    """Try every set of ``size`` values."""
    names = [name for name in model.tensors if name in model.producers]
    sets = (frozenset(each) for each in itertools.combinations(names, size))
    return {each for each in sets if legal_by_definition(model, each)}


def found(model: Model, size: int, **options: int) -> set[frozenset[str]]:
    """Return what ``enumerate_cuts`` finds of that size."""
    return {frozenset(cut.tensors) for cut in enumerate_cuts(model, **options).cuts if len(cut.tensors) == size}


@settings(max_examples=300, deadline=None)
@given(random_models(max_nodes=14))
def test_single_tensor_cuts_are_exactly_the_legal_ones(proto: onnx.ModelProto) -> None:
    """On random graphs, with free nodes and several inputs, the sweep agrees with trying every value."""
    model = load_model(proto)
    assert found(model, 1) == all_legal(model, 1)


@settings(max_examples=150, deadline=None)
@given(random_models(max_nodes=12))
def test_multi_tensor_cuts_are_legal(proto: onnx.ModelProto) -> None:
    """Every cut of several tensors satisfies the definition, and is found once."""
    model = load_model(proto)
    cuts = enumerate_cuts(model).cuts
    assert all(legal_by_definition(model, frozenset(cut.tensors)) for cut in cuts)
    assert len({frozenset(cut.tensors) for cut in cuts}) == len(cuts)


@settings(max_examples=150, deadline=None)
@given(random_models(max_nodes=9, free_nodes=False))
def test_two_tensor_cuts_are_complete_on_small_graphs(proto: onnx.ModelProto) -> None:
    """Where the cap does not bite, no cut of two tensors is missed on graphs of a few nodes."""
    model = load_model(proto)
    assert found(model, 2) == all_legal(model, 2)


@settings(max_examples=100, deadline=None)
@given(random_models())
def test_figures_of_a_cut_are_those_of_its_prefix(proto: onnx.ModelProto) -> None:
    """Nodes, FLOPs and bytes of each cut equal the sums over its ancestors and its tensors."""
    model = load_model(proto)
    for cut in enumerate_cuts(model).cuts:
        nodes = prefix_nodes(model, cut)
        assert cut.nodes_before == len(nodes)
        assert cut.flops_before == sum(model.nodes[index].flops for index in nodes)
        assert cut.size_bytes == sum(model.tensors[name].size_bytes for name in cut.tensors)


@settings(max_examples=100, deadline=None)
@given(random_models())
def test_ids_are_unique_and_safe_in_file_names(proto: onnx.ModelProto) -> None:
    """No two cuts share an id, and an id holds letters, digits and a few signs only."""
    cuts = enumerate_cuts(load_model(proto)).cuts
    assert len({cut.id for cut in cuts}) == len(cuts)
    assert all(re.fullmatch(r"c\d{3,}-[A-Za-z0-9_.+-]+", cut.id) for cut in cuts)


def test_ids_do_not_depend_on_what_else_is_found() -> None:
    """The id of a cut is the same with other limits."""
    model = load_model(inception())
    wide = {cut.tensors: cut.id for cut in enumerate_cuts(model).cuts}
    narrow = {cut.tensors: cut.id for cut in enumerate_cuts(model, max_tensors=2, cap=3).cuts}
    assert narrow.items() <= wide.items()
    assert enumerate_cuts(model).by_id("c001-p0") is not None


def test_residual_block_is_cut_at_its_joints_and_through_both_branches() -> None:
    """A skip connection leaves single-tensor cuts at the block's ends only; inside it takes two tensors."""
    model = load_model(residual(2))
    assert found(model, 1) == {frozenset([name]) for name in ("stem", "s0", "out0", "s1")}
    assert {frozenset(("r0", "stem")), frozenset(("b0", "stem")), frozenset(("b1", "out0"))} <= found(model, 2)


def test_inception_block_is_cut_through_its_branches() -> None:
    """Three branches need three tensors, in every combination of places along them."""
    model = load_model(inception())
    assert {frozenset(("q0_1", "q0_2", "q0_3")), frozenset(("q0_1", "q0_2b", "q0_3"))} <= found(model, 3)
    assert found(model, 3) == all_legal(model, 3)


def test_cut_behind_shape_arithmetic_takes_the_shape_along() -> None:
    """A shape computed from a secret input is brought into the prefix, so that the input need not cross."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
        helper.make_node("Concat", ["s", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["b", "target"], ["y"]),
    ]
    proto = model_of(nodes, {"x": ["N", 2, 4]}, {"y": ["N", 8]}, {"minus": np.array([-1], dtype=np.int64)})
    assert {frozenset(("a", "target")), frozenset(("b", "target"))} <= found(load_model(proto), 2)


def test_input_read_late_forbids_cuts_before_it() -> None:
    """A cut may not leave a model input to be read behind it."""
    nodes = [
        helper.make_node("Relu", ["x0"], ["a"]),
        helper.make_node("Add", ["a", "x1"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    model = load_model(model_of(nodes, {"x0": ["N", 2], "x1": ["N", 2]}, {"y": ["N", 2]}))
    assert [cut.tensors for cut in enumerate_cuts(model).cuts] == [("b",)]


def test_early_output_crosses_with_the_cut() -> None:
    """An output made inside the prefix is one of the cut's tensors, else there is no cut."""
    nodes = [
        helper.make_node("Relu", ["x"], ["early"]),
        helper.make_node("Tanh", ["early"], ["b"]),
        helper.make_node("Tanh", ["b"], ["y"]),
    ]
    model = load_model(model_of(nodes, {"x": ["N", 2]}, {"early": ["N", 2], "y": ["N", 2]}))
    assert [set(cut.tensors) for cut in enumerate_cuts(model).cuts] == [{"early"}, {"early", "b"}]


def test_value_of_unknown_shape_is_no_cut() -> None:
    """A tensor whose size only the run decides is skipped; the cuts around it stay."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=1),
        helper.make_node("ReduceSum", ["f"], ["r"], keepdims=0),
        helper.make_node("Tanh", ["r"], ["y"]),
    ]
    model = load_model(model_of(nodes, {"x": [1, 4]}, {"y": []}))
    assert [cut.tensors for cut in enumerate_cuts(model).cuts] == [("a",), ("r",)]


@pytest.mark.parametrize("cap", [0, 1, 5])
def test_cap_bounds_multi_tensor_cuts_and_is_reported(cap: int) -> None:
    """The cap drops cuts of several tensors only, spread over the net, and says that it did."""
    model = load_model(residual(6))
    cuts = enumerate_cuts(model, cap=cap)
    assert sum(len(cut.tensors) > 1 for cut in cuts.cuts) == cap
    assert sum(len(cut.tensors) == 1 for cut in cuts.cuts) == len(found(model, 1, cap=512)) == 12
    assert cuts.capped
    assert cuts.cap == cap
    assert not enumerate_cuts(model).capped


def test_one_tensor_at_most_gives_single_cuts_only() -> None:
    """With ``max_tensors=1`` nothing is searched, and nothing is called capped."""
    cuts = enumerate_cuts(load_model(residual(3)), max_tensors=1)
    assert all(len(cut.tensors) == 1 for cut in cuts.cuts)
    assert not cuts.capped


def test_fusable_marks_cuts_before_an_activation_or_normalisation() -> None:
    """Between a convolution and what is fused into it the cut is marked; behind the activation it is not."""
    ones = np.ones(2, np.float32)
    constants = {"w": np.ones((2, 2, 1, 1), np.float32), "g": ones, "b": np.ones((2, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("BatchNormalization", ["conv", "g", "g", "g", "g"], ["norm"]),
        helper.make_node("Relu", ["norm"], ["relu"]),
        helper.make_node("Conv", ["relu", "w"], ["second"]),
        helper.make_node("Add", ["second", "b"], ["biased"]),
        helper.make_node("MaxPool", ["biased"], ["y"], kernel_shape=[1, 1]),
    ]
    model = load_model(model_of(nodes, {"x": ["N", 2, 3, 3]}, {"y": ["N", 2, 3, 3]}, constants))
    marks = {cut.tensors[0]: cut.fusable for cut in enumerate_cuts(model).cuts}
    assert marks == {"conv": True, "norm": True, "relu": False, "second": True, "biased": False}


def test_capped_search_prefers_cuts_that_are_not_fusable() -> None:
    """Where the cap bites, cuts that only separate a fusable pair go first."""
    model = load_model(residual(4))
    complete = [cut for cut in enumerate_cuts(model).cuts if len(cut.tensors) > 1]
    worthy = sum(not cut.fusable for cut in complete)
    assert 0 < worthy < len(complete)
    few = [cut for cut in enumerate_cuts(model, cap=worthy).cuts if len(cut.tensors) > 1]
    assert not any(cut.fusable for cut in few)


def test_chain_has_a_cut_behind_every_node_but_the_last() -> None:
    """On a chain the cuts are all inner values, in order."""
    model = load_model(chain(50))
    cuts = enumerate_cuts(model).cuts
    assert [cut.nodes_before for cut in cuts] == list(range(1, 50))


def test_prefix_of_a_foreign_cut_is_refused() -> None:
    """A cut of another model names the tensor that this one lacks."""
    stranger = Cut("c001-z", ("z",), 1, 4, 0, fusable=False)
    with pytest.raises(PlanError, match="no value 'z'"):
        prefix_nodes(load_model(chain(3)), stranger)


def test_value_with_several_readers_is_not_fusable() -> None:
    """Where something else reads the value too, a runtime cannot fuse it away."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Add", ["a", "r"], ["y"]),
    ]
    weights = {"w": np.ones((2, 2, 1, 1), np.float32)}
    model = load_model(model_of(nodes, {"x": ["N", 2, 3, 3]}, {"y": ["N", 2, 3, 3]}, weights))
    assert not next(cut for cut in enumerate_cuts(model).cuts if cut.tensors == ("a",)).fusable


def test_value_that_follows_the_batch_irregularly_is_no_cut() -> None:
    """A first dimension of N + 1 has no size for one item, so it is skipped."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Concat", ["a", "extra"], ["b"], axis=0),
        helper.make_node("Slice", ["b", "start", "end"], ["c"]),
        helper.make_node("Tanh", ["c"], ["y"]),
    ]
    constants: dict[str, np.ndarray] = {
        "extra": np.ones((1, 2), np.float32),
        "start": np.array([0]),
        "end": np.array([-1]),
    }
    model = load_model(model_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]}, constants))
    assert [cut.tensors for cut in enumerate_cuts(model).cuts] == [("a",), ("c",)]
