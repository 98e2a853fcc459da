"""Plans with layers under pads: which are chosen with which cut, what is refused, and what the validator finds."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_models import attention_network, downsampling_network, loaded, normalised_network, residual_network
from masked_deployments import masked_costs
from onnx import TensorProto, helper, numpy_helper
from planner_models import chain_model, make_audit, make_policy

from siniantrust.errors import NoPlanError, PlanError, PolicyError
from siniantrust.graph import Model, Part, enumerate_cuts, load_model
from siniantrust.masking.exact import offerable, unprovable
from siniantrust.odla import Device, DeviceSpec, open_device
from siniantrust.planner import (
    CostProfile,
    Mask,
    Plan,
    Policy,
    explain_nodes,
    find_violations,
    parse_plan,
    solve_masked,
)
from siniantrust.planner._costs import AffineCost, MaskingProfile
from siniantrust.planner._masked_costs import choose_padding, crossing_values
from siniantrust.planner._measure_masking import measure_masking
from siniantrust.planner._validate_padding import padding_violations
from siniantrust.trust import Label

ALL = {"stem", "body", "shortcut", "dense"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a residual network: four layers that can be padded."""
    return loaded(residual_network(), tmp_path_factory.mktemp("model"))


def _plan(
    model: Model,
    mask: Mask,
    *,
    safe: str | None = None,
    costs: CostProfile | None = None,
    devices: tuple[str, ...] = ("cloud",),
    **policy: object,
) -> Plan:
    """Plan with an audit in which what crosses at ``safe`` and later leaks nothing, all before everything."""
    cuts = enumerate_cuts(model)
    audit = None
    if safe is not None:
        order = [cut.id for cut in cuts.cuts]
        first = next(order.index(cut.id) for cut in cuts.cuts if cut.tensors == (safe,))
        audit = make_audit(model, cuts, {name: float(index < first) for index, name in enumerate(order)})
    wanted: Policy = make_policy(devices, **policy)
    plan = solve_masked(
        model, cuts, policy=wanted, audit=audit, costs=costs or masked_costs(model, *devices), mask=mask
    )
    assert find_violations(plan, model, audit) == []
    assert parse_plan(plan.model_dump_json().encode(), origin="test") == plan
    return plan


def _padded(plan: Plan) -> set[str]:
    return set() if plan.masking is None else {layer.node for layer in plan.masking.layers}


def test_none_is_what_it_was(model: Model) -> None:
    """Without masks nothing is padded, and no audit keeps everything in the enclave."""
    plan = _plan(model, "none")
    assert (plan.masking, plan.cut_ids) == (None, ())


@pytest.mark.parametrize("safe", [None, "p"])
def test_exact_pads_everything_and_cuts_nowhere(model: Model, safe: str | None) -> None:
    """With ``exact`` nothing private leaves but under pads, whatever an audit admits."""
    plan = _plan(model, "exact", safe=safe)
    assert _padded(plan) == ALL
    assert [part.trusted for part in plan.parts] == [True]
    assert plan.chosen is not None
    assert plan.chosen.padded_layers == len(ALL)
    assert {term.where for term in plan.prediction.terms} == {"enclave", "cloud"}
    assert all(value.label is Label.PADDED for value in plan.masking.values)  # type: ignore[union-attr]
    assert any("learns the weights of the 4 padded layers" in warning for warning in plan.warnings)


def test_auto_pads_before_the_safe_cut_and_runs_plain_behind_it(model: Model) -> None:
    """Where pads pay and a cut is safe, the layers before it are padded and the rest is in plain: one joint plan."""
    plan = _plan(model, "auto", safe="p")
    assert [part.trusted for part in plan.parts] == [True, False]
    assert _padded(plan) == {"stem", "body", "shortcut"}
    padded = {each.padded_layers for each in plan.alternatives if each.padded_layers}
    assert {3, 4} <= padded
    assert any(not each.padded_layers for each in plan.alternatives)
    assert any("quantisation" in warning for warning in plan.warnings)


def test_auto_pads_where_no_plain_cut_is_admitted(model: Model) -> None:
    """Without any safe cut, ``auto`` takes pads rather than keep all work in the enclave."""
    assert _padded(_plan(model, "auto")) == ALL


def test_auto_stays_in_plain_where_masking_loses(model: Model) -> None:
    """Where every layer costs the enclave more under a pad, ``auto`` plans as if there were no pads."""
    costs = masked_costs(model, "cloud", product_s=1e-15)
    plan = _plan(model, "auto", safe="p", costs=costs)
    assert plan.masking is None
    assert [part.trusted for part in plan.parts] == [True, False]


def test_exact_says_so_where_masking_loses(model: Model) -> None:
    """Where no layer is worth a pad, ``exact`` finds no plan and gives the figures of every layer."""
    costs = masked_costs(model, "cloud", product_s=1e-15)
    with pytest.raises(NoPlanError, match="no layer of 'model' is worth a pad") as caught:
        _plan(model, "exact", costs=costs)
    assert len(caught.value.refusals) == len(ALL)
    assert all("products for each number that crosses" in line for line in caught.value.refusals)


def test_some_layers_pay_and_the_others_say_why_not(model: Model) -> None:
    """Layers that are not worth it stay inside, with the figures that decided it."""
    costs = masked_costs(model, "cloud")
    assert costs.masking is not None
    dear = costs.masking.model_copy(update={"mask_s": 2e-5, "unmask_s": 2e-5})
    plan = _plan(model, "exact", costs=costs.model_copy(update={"masking": dear}))
    assert plan.masking is not None
    assert _padded(plan) == {"body"}
    assert set(plan.masking.kept) == ALL - {"body"}


def test_attention_gets_pads_where_no_plain_cut_may_be_offered(tmp_path: Path) -> None:
    """Of attention, the projections are padded; products of two secrets are named and stay inside."""
    plan = _plan(loaded(attention_network(), tmp_path), "auto")
    assert _padded(plan) == {"query", "key", "value", "out"}
    assert plan.masking is not None
    assert set(plan.masking.kept) == {"scores", "mix"}
    assert "its weights are not constant" in plan.masking.kept["scores"]


def test_what_cannot_be_padded_is_refused_where_the_policy_says_so(tmp_path: Path) -> None:
    """With ``not_offerable = "refuse"`` a product that cannot be padded leaves no plan, and is named."""
    with pytest.raises(NoPlanError, match=r"node 'scores': MatMul: its weights are not constant.*not_offerable"):
        _plan(loaded(attention_network(), tmp_path), "auto", masking={"not_offerable": "refuse"})


def _wide_layer() -> Model:
    """Return a product whose bound cannot be proven: 40,000 terms in one sum."""
    weight = np.random.default_rng(0).normal(size=(40_000, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="wide")],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40_000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_a_layer_without_a_proof_is_named_and_stays_inside() -> None:
    """A bound that cannot be proven is found before anything is calibrated, and leaves no layer to pad here."""
    model = _wide_layer()
    assert offerable(model) == {"wide": None}
    refused = unprovable(model, ["wide"])
    assert "40000 products in one sum" in refused["wide"]
    costs = masked_costs(model, "cloud")
    assert costs.masking is not None
    known = costs.model_copy(update={"masking": costs.masking.model_copy(update={"refused": refused})})
    with pytest.raises(NoPlanError, match="40000 products in one sum"):
        _plan(model, "exact", costs=known)


def test_what_is_folded_into_a_layer_counts_in_its_proof() -> None:
    """Batch normalisation that takes a layer's results beyond what is relied on is found before calibration too."""
    proto = normalised_network()
    (gain,) = [tensor for tensor in proto.graph.initializer if tensor.name == "n1.g"]
    gain.CopyFrom(numpy_helper.from_array(np.full(6, 1e35, np.float32), "n1.g"))
    refused = unprovable(load_model(proto), ["first", "second"])
    assert list(refused) == ["first"]
    assert "float32 is relied on up to" in refused["first"]


def test_optee_is_refused_by_name(model: Model) -> None:
    """An enclave that keeps nothing between calls cannot hold pads."""
    with pytest.raises(PolicyError, match=r"provider 'optee' is refused: .*keeps nothing between calls"):
        _plan(model, "exact", enclave={"provider": "optee", "accept": ["emulated"]})


def test_no_device_that_may_see_padded_values_is_an_error(model: Model) -> None:
    """A device that is cleared for public values only gets none under pads either."""
    with pytest.raises(PolicyError, match="no device of the policy may see padded values"):
        _plan(model, "exact", device=[{"name": "cloud", "clearance": "public"}])


def test_padded_clearance_suffices(model: Model) -> None:
    """A device that may see padded values, and nothing obscured, computes under pads."""
    plan = _plan(model, "exact", device=[{"name": "cloud", "clearance": "padded"}])
    assert plan.masking is not None
    assert plan.masking.devices == ("cloud",)


def test_the_faster_device_is_first_and_only_those_that_take_over_follow(model: Model) -> None:
    """The cheapest device computes under pads; others follow where the policy lets them take over."""
    costs = masked_costs(model, "slow", "fast", "third")
    assert costs.masking is not None
    quick = {**costs.masking.device_s, "fast": dict.fromkeys(costs.masking.device_s["fast"], 1e-7)}
    known = costs.model_copy(update={"masking": costs.masking.model_copy(update={"device_s": quick})})
    plan = _plan(model, "exact", costs=known, devices=("slow", "fast", "third"), serving={"takeover": ["third"]})
    assert plan.masking is not None
    assert plan.masking.devices == ("fast", "third")


def test_under_output_privacy_what_is_behind_the_device_has_no_pads(model: Model) -> None:
    """A part whose inputs a device saw in the clear is not padded: its weights would tell the outputs."""
    plan = _plan(model, "auto", safe="r2", threat_model="output-privacy")
    assert _padded(plan) <= set(plan.parts[0].nodes)
    assert plan.masking is not None


def test_a_device_that_refuses_the_arithmetic_computes_nothing_under_pads(model: Model) -> None:
    """It is passed over for the next one; where none is left, there is no plan, and each one's reason is said."""
    costs = masked_costs(model, "cloud", "spare")
    assert costs.masking is not None
    refuse = {"cloud": "no ConvInteger"}
    masking = costs.masking.model_copy(update={"refusing": refuse, "arithmetic": "int8"})
    plan = _plan(model, "exact", costs=costs.model_copy(update={"masking": masking}), devices=("cloud", "spare"))
    assert plan.masking is not None
    assert (plan.masking.devices[0], plan.masking.arithmetic) == ("spare", "int8")
    masking = masking.model_copy(update={"refusing": refuse | {"spare": "neither"}})
    with pytest.raises(PlanError, match="cloud: no ConvInteger; spare: neither"):
        _plan(model, "exact", costs=costs.model_copy(update={"masking": masking}), devices=("cloud", "spare"))


@pytest.fixture(scope="module")
def downsampling() -> Model:
    """Return a network with a residual sum of two layers."""
    return load_model(downsampling_network())


def test_of_a_sum_that_a_device_makes_its_inputs_and_itself_cross(downsampling: Model) -> None:
    """Both layers have the sum as their exit; neither addend crosses, and what others read too crosses twice."""
    plan = _plan(downsampling, "exact")
    assert plan.masking is not None
    ends = {layer.node: (layer.entry, layer.exit) for layer in plan.masking.layers}
    assert (ends["c"], ends["shortcut"], ends["d"]) == (("rb", "s1"), ("r1", "s1"), ("r2", "cd"))
    crossing = sorted((value.tensor, value.direction) for value in plan.masking.values)
    sent = [(name, "sent") for name in ("x", "r1", "r1", "ra", "rb", "r2", "f")]
    assert crossing == sorted([*sent, *((name, "received") for name in ("c1", "ca", "cb", "s1", "cd", "y"))])
    assert plan.chosen is not None
    assert plan.chosen.boundary_bytes == sum(value.size_bytes for value in plan.masking.values)
    (reason,) = [layer.reason for layer in plan.masking.layers if layer.node == "c"]
    assert reason.endswith("; devices add what 'shortcut' gives, and 's1' comes back")


def test_less_crosses_for_a_sum_than_for_its_addends(downsampling: Model) -> None:
    """Predicted bytes are those of one result for both layers, and of what the earlier one reads, thinned."""
    costs = masked_costs(downsampling, "cloud")
    byte_s = AffineCost(base_s=0.0, seconds_per_byte_in=1e-9, seconds_per_byte_out=1e-6, basis="made up")
    costs = costs.model_copy(update={"crossing": byte_s})
    padding = choose_padding(downsampling, make_policy(("cloud",)), costs, count_fixed=False)
    made, pixels = {name: node.cross_s for name, node in padding.nodes.items()}, 5 * 5
    into = 2 * 4 * 8 * pixels / 2 * 1e-9  # half of a result, and of its correction
    assert made["shortcut"] == pytest.approx(4 * 6 * pixels * 1e-6 + into)
    assert made["c"] == pytest.approx(4 * 5 * pixels * 1e-6 + into)
    # Nobody shares what is sent of this value for the layer that reads all of it.
    assert made["a"] == pytest.approx(4 * 6 * 81 * 1e-6 + 2 * 4 * 4 * 81 * 1e-9)


def test_addends_come_back_where_their_sum_is_in_another_part(downsampling: Model) -> None:
    """A part that ends before the sum has both layers with results of their own, and their input crosses once."""
    costs = masked_costs(downsampling, "cloud")
    padding = choose_padding(downsampling, make_policy(("cloud",)), costs, count_fixed=False)
    until = next(node.index for node in downsampling.nodes if node.name == "join")
    for inside, exits in ((range(until), {"cc", "cs"}), (range(until + 1), {"s1"})):
        nodes = padding.within(inside)
        assert {node.exit for node in nodes if node.node.name in ("c", "shortcut")} == exits
        assert crossing_values(nodes).count(("r1", "sent")) == 3 - len(exits)


def test_layers_of_a_sum_are_measured_each(downsampling: Model) -> None:
    """Of the seconds of a joint layer each of its nodes has its share, by its products."""
    with closing(open_device(DeviceSpec("cloud", options={"threads": 1}))) as device:
        found = measure_masking(downsampling, make_policy(("cloud",)), {"cloud": device})
    names = {"stem", "a", "b", "c", "shortcut", "d", "dense"}
    for seconds in (found.device_s["cloud"], found.prepare_s):
        assert set(seconds) == names
        assert seconds["shortcut"] / seconds["c"] == pytest.approx(6 / 5)


class _Wrong:
    """A device that is one too high in the first value of what it computes in some arithmetic, and slow in float64."""

    def __init__(self, inner: Device, *arithmetics: str) -> None:
        self._inner = inner
        self._arithmetics = arithmetics
        self.spec = inner.spec

    def compile(self, part: Part) -> Any:
        executable = self._inner.compile(part)
        run = executable.run
        in_bytes = any(node.op_type.endswith("Integer") for node in part.proto.graph.node)
        is_wrong = ("int8" if in_bytes else "float64") in self._arithmetics

        def computed(inputs: Any) -> dict[str, np.ndarray]:
            time.sleep(0 if in_bytes else 0.05)
            found = {name: array.copy() for name, array in run(inputs).items()}
            found[min(found)].reshape(-1)[0] += is_wrong
            return found

        executable.run = computed  # type: ignore[method-assign]
        return executable


def test_a_device_that_computes_wrongly_gets_another_arithmetic_or_nothing(model: Model) -> None:
    """What devices give for random masked values is held against the trusted side's before they are chosen."""
    with closing(open_device(DeviceSpec("cloud", options={"threads": 1}))) as honest:
        policy = make_policy(("cloud",))
        right = measure_masking(model, policy, {"cloud": honest})
        assert (right.refusing, set(right.device_s["cloud"])) == ({}, ALL)

        def measured(*arithmetics: str) -> MaskingProfile:
            wrong: Any = _Wrong(honest, *arithmetics)
            return measure_masking(model, policy, {"cloud": wrong})

        assert measured().arithmetic == "int8"
        found = measured("int8")
        assert (found.arithmetic, found.refusing, set(found.device_s["cloud"])) == ("float64", {}, ALL)
        found = measured("int8", "float64")
        assert found.device_s == {}
        assert "it computes 'c1' wrongly" in found.refusing["cloud"]


def test_a_fixed_batch_of_several_is_refused() -> None:
    """A batch that is fixed to several items cannot be taken apart into queries."""
    model = chain_model(5)
    fixed = load_model(_with_batch(model, 4))
    with pytest.raises(PlanError, match="its batch is fixed to several items"):
        _plan(fixed, "exact", costs=masked_costs(fixed, "cloud"))


def _with_batch(model: Model, size: int) -> Any:
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return proto


def test_the_explanation_names_padded_nodes_and_the_reasons(model: Model) -> None:
    """Every padded node is on the device, labelled padded; every other layer says why it is not."""
    costs = masked_costs(model, "cloud")
    plan = _plan(model, "exact", costs=costs)
    explained = {each.node: each for each in explain_nodes(model, enumerate_cuts(model), plan, costs).nodes}
    for name in ALL:
        assert (explained[name].device, explained[name].label) == ("cloud", Label.PADDED)
        assert explained[name].reason.startswith("under a one-time pad")
        assert "products for each number" in explained[name].detail
        assert explained[name].elsewhere_s.keys() == {"enclave"}
    assert explained["pool"].label is Label.SECRET


def _changed(**changes: object) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        assert plan.masking is not None
        return plan.model_copy(update={"masking": plan.masking.model_copy(update=changes)})

    return change


def _layer(**changes: object) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        assert plan.masking is not None
        first, *rest = plan.masking.layers
        return _changed(layers=(first.model_copy(update=changes), *rest))(plan)

    return change


def _value(**changes: object) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        assert plan.masking is not None
        first, *rest = plan.masking.values
        return _changed(values=(first.model_copy(update=changes), *rest))(plan)

    return change


TAMPERED: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "another part": (_changed(part="part2"), "padded layers of 'part1' alone"),
    "no layers": (_changed(layers=()), "lists no layer"),
    "no devices": (_changed(devices=()), "expected devices, each once"),
    "a device twice": (_changed(devices=("cloud", "cloud")), "expected devices, each once"),
    "an unknown device": (_changed(devices=("nowhere",)), "no device 'nowhere'"),
    "a device that may not see it": (_changed(devices=("open",)), "'open' is cleared for public"),
    "another node": (_layer(node="join"), "'join' is a Add"),
    "an unknown node": (_layer(node="nobody"), "'nobody' is no node of part1"),
    "a node twice": (_layer(node="body"), "'body' is listed 2 times"),
    "another entry": (_layer(entry="r1"), "'stem' does not make 'c1' from 'r1'"),
    "another exit": (_layer(exit="r1"), "'stem' does not make 'r1' from 'x'"),
    "a value in the clear": (_value(label=Label.OBSCURED), "'x' crosses padded, the plan says obscured"),
    "a value of another size": (_value(size_bytes=1), "'x' has 972 bytes as residues"),
    "a value that is not listed": (lambda plan: _changed(values=plan.masking.values[1:])(plan), "'x' should be listed"),  # type: ignore[union-attr]
    "no masking at all": (lambda plan: plan.model_copy(update={"masking": None}), "the parts run on"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_the_validator_finds_what_was_tampered_with(model: Model, name: str) -> None:
    """Whatever a plan claims wrongly about layers under pads is found, by code that shares nothing with the solver."""
    tamper, message = TAMPERED[name]
    devices = [{"name": "cloud"}, {"name": "open", "clearance": "public"}]
    costs = masked_costs(model, "cloud", "open")
    plan = _plan(model, "exact", costs=costs, device=devices)
    found = find_violations(tamper(plan), model, None)
    assert any(message in line for line in found), found


def _joined(node: str, **changes: object) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        assert plan.masking is not None
        layers = [each.model_copy(update=changes if each.node == node else {}) for each in plan.masking.layers]
        return _changed(layers=tuple(layers))(plan)

    return change


def _without(tensor: str) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        assert plan.masking is not None
        values = list(plan.masking.values)
        values.remove(next(value for value in values if value.tensor == tensor))
        return _changed(values=tuple(values))(plan)

    return change


UNSUMMED: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "a sum that no sum makes": (lambda plan: _joined("c", exit="r2")(_joined("shortcut", exit="r2")(plan)), "no sum"),
    "a sum that nothing makes": (lambda plan: _joined("c", exit="?")(_joined("shortcut", exit="?")(plan)), "no sum"),
    "another sum": (
        lambda plan: _joined("c", exit="s2")(_joined("shortcut", exit="s2")(plan)),
        "'s2' is not the sum of what ['c', 'shortcut'] alone give",
    ),
    "another addend": (_joined("d", exit="s1"), "'s1' is not the sum of what ['c', 'd', 'shortcut'] alone give"),
    "one addend": (_joined("c", exit="cc"), "'shortcut' does not make 's1' from 'r1'"),
    "another entry": (_joined("shortcut", entry="rb"), "'shortcut' does not make 'cs' from 'rb'"),
    "a value that is sent once": (_without("r1"), "'r1' should be listed as sent 2 times, found 1"),
    "no sum received": (_without("s1"), "'s1' should be listed as received 1 times, found 0"),
}


@pytest.mark.parametrize("name", UNSUMMED)
def test_the_validator_holds_sums_to_the_graph(downsampling: Model, name: str) -> None:
    """Layers that share an exit are the two addends of one sum, and what crosses for them is listed as it crosses."""
    tamper, message = UNSUMMED[name]
    found = find_violations(tamper(_plan(downsampling, "exact")), downsampling, None)
    assert any(message in line for line in found), found


@pytest.mark.parametrize("why", ["read twice", "an output", "not by row", "broadcast"])
def test_the_validator_admits_no_sum_whose_addends_are_needed(downsampling: Model, why: str) -> None:
    """A plan for one network is refused for another, in which an addend of the sum is more than that."""
    plan = _plan(downsampling, "exact")
    proto = downsampling_network()
    nodes = {node.name: node for node in proto.graph.node}
    if why == "read twice":
        proto.graph.node.append(helper.make_node("Sigmoid", ["nc"], ["z"], name="sigmoid"))
        proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 8, 5, 5]))
    elif why == "an output":
        proto.graph.output.append(helper.make_tensor_value_info("ss", TensorProto.FLOAT, ["n", 8, 5, 5]))
    elif why == "not by row":
        nodes["shortcut.bias"].op_type = "PRelu"
    else:
        nodes["shortcut"].attribute.append(helper.make_attribute("dilations", [1, 1]))
        (strides,) = [each for each in nodes["shortcut"].attribute if each.name == "strides"]
        strides.ints[:] = [9, 9]
    found = list(padding_violations(plan, load_model(proto)))
    assert any("'s1' is not the sum of what ['c', 'shortcut'] alone give" in line for line in found), found


def test_a_product_of_two_secrets_is_never_a_padded_layer(tmp_path: Path) -> None:
    """A layer whose second operand is no constant would send a secret without a pad: the validator refuses it."""
    model = loaded(attention_network(), tmp_path)
    plan = _plan(model, "exact")
    found = find_violations(_layer(node="scores", entry="q", exit="a")(plan), model, None)
    assert any("also reads 'kt', which is no constant" in line for line in found), found
