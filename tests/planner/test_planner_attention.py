from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper
from planner_models import WIDTH, build, make_audit, make_costs, make_policy

from siniantrust.graph import Model, enumerate_cuts
from siniantrust.planner import ENCLAVE, solve
from siniantrust.planner._attention import find_attention
from siniantrust.planner._validate_labels import _has_attention


def _attention_model() -> Model:
    """Make a model with one attention head between two products with weights."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="embed"),
        helper.make_node("Transpose", ["h"], ["k"], name="keys"),
        helper.make_node("MatMul", ["h", "k"], ["scores"], name="scores"),
        helper.make_node("Mul", ["scores", "scores"], ["scaled"], name="scale"),
        helper.make_node("Softmax", ["scaled"], ["soft"], name="softmax"),
        helper.make_node("MatMul", ["soft", "h"], ["mixed"], name="mix"),
        helper.make_node("MatMul", ["mixed", "w2"], ["y"], name="head"),
    ]
    return build(nodes, inputs=["x"], outputs=["y"], batch=WIDTH)


def test_attention_is_found_through_scaling() -> None:
    """A Softmax between two products is attention, with scaling in between."""
    assert find_attention(_attention_model()) == "softmax"


def test_a_classifiers_softmax_is_no_attention() -> None:
    """A Softmax that feeds no product is a classifier's last layer."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="fc"),
        helper.make_node("Softmax", ["h"], ["y"], name="softmax"),
    ]
    assert find_attention(build(nodes, inputs=["x"], outputs=["y"])) is None


@pytest.mark.parametrize(("attack", "allowed"), [("inverter", False), ("token_inversion", True)])
def test_a_cut_of_a_transformer_needs_an_attack_on_tokens(attack: str, allowed: bool) -> None:  # noqa: FBT001 - a case
    """However little an inverter gets, a transformer is cut only where tokens were attacked too."""
    model = _attention_model()
    cuts = enumerate_cuts(model)
    audit = make_audit(model, cuts, dict.fromkeys((cut.id for cut in cuts.cuts), 0.0), attack=attack)
    plan = solve(model, cuts, policy=make_policy(), audit=audit, costs=make_costs(model))
    assert ([part.device for part in plan.parts] != [ENCLAVE]) is allowed
    if not allowed:
        assert all("contains attention ('softmax')" in (each.refusal or "") for each in plan.alternatives[1:])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_solver_and_validator_agree_on_what_attention_is(seed: int) -> None:
    """The two independent rules give the same answer on random graphs."""
    source = random.Random(seed)
    made = ["x"]
    nodes: list[NodeProto] = []
    for index in range(10):
        kind = source.choice(["MatMul", "Softmax", "Softmax", "Mul", "Relu", "Transpose"])
        operands = [source.choice(made[-2:])] + ([source.choice(made)] if kind in {"MatMul", "Mul"} else [])
        nodes.append(helper.make_node(kind, operands, [f"t{index}"], name=f"n{index}"))
        made.append(f"t{index}")
    model = build(nodes, inputs=["x"], outputs=["t9"], batch=WIDTH)
    assert (find_attention(model) is not None) == _has_attention(model)
