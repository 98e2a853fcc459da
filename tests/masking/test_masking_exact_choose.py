"""Which layers are offered: the cheapest set by the costs given, with reasons, and no more of an image than is read."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from exact_models import attention_network, downsampling_network, items, loaded, residual_network
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Model
from siniantrust.masking.exact import Costs, ExactSession, build_program, choose_layers, measure_costs
from siniantrust.odla import DeviceSpec

CPU = DeviceSpec("cpu", options={"threads": 1})
FREE = Costs(
    mask_s=0.0,
    quantise_s=0.0,
    verify_s=0.0,
    unmask_s=0.0,
    layer_s=0.0,
    product_s=0.0,
    point_s=0.0,
    weight_s=0.0,
    pass_s=0.0,
    handover_s=0.0,
)
CHEAP = replace(FREE, mask_s=1e-9, verify_s=1e-10, unmask_s=2e-9, product_s=3e-11, point_s=3e-11)
COST = st.floats(0, 1e-6)


def _convolutions(folder: Path, *layers: tuple[str, int, int, int]) -> Model:
    """Return a model of convolutions (name, groups, kernel, stride) of 8 channels that all read the input."""
    generator = np.random.default_rng(0)
    nodes, weights = [], []
    for name, groups, kernel, stride in layers:
        weight = generator.normal(size=(8, 8 // groups, kernel, kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"{name}.w"))
        inputs, pads = ["x", f"{name}.w"], [kernel // 2 if stride == 1 else 0] * 4
        nodes.append(helper.make_node("Conv", inputs, [name], name=name, group=groups, strides=[stride] * 2, pads=pads))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 10, 11])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8, None, None]) for name, *_ in layers],
        weights,
    )
    return loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder)


def test_reasons_say_why(tmp_path: Path) -> None:
    """A depthwise layer cannot be offered, a kernel of one pixel over few channels does not pay, a larger one does."""
    model = _convolutions(tmp_path, ("depthwise", 8, 3, 1), ("small", 1, 1, 1), ("large", 1, 7, 1))
    found = choose_layers(model, CHEAP)
    assert found["depthwise"].reason == "Conv: it has several groups"
    assert not found["depthwise"].offered
    assert not found["small"].offered
    assert found["small"].reason.startswith("Conv: 4 products for each number that crosses; masked 0.00 ms, inside")
    assert found["large"].offered
    assert found["large"].masked_s < found["large"].inside_s


def test_an_input_that_is_shared_is_paid_for_once(tmp_path: Path) -> None:
    """Two layers that are not worth masking their input alone are offered together, and the reason says so."""
    costs = replace(FREE, mask_s=6e-9, unmask_s=1e-9, product_s=1e-10)
    alone = choose_layers(_convolutions(tmp_path, ("a", 1, 3, 1)), costs)
    assert alone["a"].offered
    dear = replace(FREE, mask_s=7e-9, unmask_s=1e-9, product_s=1e-10)
    assert not choose_layers(_convolutions(tmp_path, ("a", 1, 3, 1)), dear)["a"].offered
    both = choose_layers(_convolutions(tmp_path, ("a", 1, 3, 1), ("b", 1, 3, 1)), dear)
    assert both["a"].offered
    assert both["b"].offered
    assert "its input's pad shared by 2" in both["a"].reason


def _total_s(model: Model, offered: Collection[str], costs: Costs) -> float:
    """Return what the trusted side takes for all layers, counted anew from how the network is drawn."""
    taps = {"stem": 9, "body": 9, "shortcut": 1, "dense": 1}
    entries = {"stem": "x", "body": "r1", "shortcut": "r1", "dense": "f"}
    exits = {"stem": "c1", "body": "c2", "shortcut": "c3", "dense": "y"}
    terms = {"stem": 27, "body": 54, "shortcut": 6, "dense": 6}
    rows = {"stem": 6, "body": 6, "shortcut": 6, "dense": 4}
    sizes = {name: tensor.elements for name, tensor in model.tensors.items()}
    total = sum(sizes[entry] * costs.mask_s for entry in {entries[name] for name in offered})
    for name, weights in taps.items():
        made = sizes[exits[name]]
        if name in offered:
            total += sizes[entries[name]] * weights * costs.verify_s + made * costs.unmask_s + costs.layer_s
        else:
            each_s = costs.point_s if weights == 1 else costs.product_s
            total += made * terms[name] * each_s + rows[name] * terms[name] * costs.weight_s
    # What goes in under a pad from inside: the image, what the stem made there, and what was pooled.
    into = ["x"] * ("stem" in offered) + ["f"] * ("dense" in offered)
    into += ["r1"] * ("stem" not in offered and bool({"body", "shortcut"} & set(offered)))
    total += sum(sizes[value] * (costs.pass_s + costs.quantise_s) + costs.handover_s for value in into)
    # What comes out of pads and is read inside: the sum is made where the shortcut is, and pooled inside.
    out = ["c1"] * ("stem" in offered and not {"body", "shortcut"} <= set(offered))
    out += ["c2"] * ("body" in offered and "shortcut" not in offered) + ["c3"] * ("shortcut" in offered)
    return total + sum(sizes[value] * costs.pass_s + costs.handover_s for value in out)


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return the residual network."""
    return loaded(residual_network(), tmp_path_factory.mktemp("residual"))


@given(
    costs=st.builds(
        Costs,
        mask_s=COST,
        quantise_s=COST,
        verify_s=COST,
        unmask_s=COST,
        layer_s=st.floats(0, 1e-3),
        product_s=st.floats(0, 1e-7),
        point_s=st.floats(0, 1e-7),
        weight_s=st.floats(0, 1e-7),
        pass_s=COST,
        handover_s=st.floats(0, 1e-3),
    )
)
def test_no_other_set_of_layers_is_cheaper(residual: Model, costs: Costs) -> None:
    """Whatever the costs, the chosen set takes the least of all sets."""
    chosen = [name for name, choice in choose_layers(residual, costs).items() if choice.offered]
    names = ("stem", "body", "shortcut", "dense")
    sets = itertools.chain.from_iterable(itertools.combinations(names, size) for size in range(len(names) + 1))
    least_s = min(_total_s(residual, offered, costs) for offered in sets)
    assert _total_s(residual, chosen, costs) == pytest.approx(least_s, rel=1e-6, abs=1e-12)


# Of each layer: what it reads, how many numbers of it, how many it makes, products for each, and a kernel of one pixel.
DOWNSAMPLING = {
    "stem": ("x", 3 * 81, 6 * 81, 27, False),
    "a": ("r1", 6 * 81, 4 * 81, 6, True),
    "b": ("ra", 4 * 81, 5 * 25, 36, False),
    "c": ("rb", 5 * 25, 8 * 25, 5, True),
    "shortcut": ("r1", 6 * 25, 8 * 25, 6, True),
    "d": ("r2", 8 * 25, 8 * 25, 72, False),
    "dense": ("f", 8, 4, 8, True),
}


def _with_sum_s(offered: Collection[str], costs: Costs) -> float:
    """Return what the layers take, where devices add what ``c`` and ``shortcut`` give and half of ``r1`` goes again."""
    sent: dict[str, int] = {}
    total = 0.0
    for name, (entry, reads, made, terms, is_point) in DOWNSAMPLING.items():
        if name in offered:
            sent[entry] = max(sent.get(entry, 0), reads)
            total += made * costs.unmask_s + costs.layer_s
        else:
            total += made * terms * (costs.point_s if is_point else costs.product_s)
    if {"c", "shortcut"} <= set(offered):
        total -= max(8 * 25 * costs.unmask_s + costs.layer_s - 6 * 25 * costs.mask_s, 0.0)
    return total + sum(sent.values()) * costs.mask_s


@pytest.fixture(scope="module")
def downsampling(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a network with a sum that devices make."""
    return loaded(downsampling_network(), tmp_path_factory.mktemp("downsampling"))


@given(mask_s=COST, unmask_s=COST, layer_s=st.floats(0, 1e-4), product_s=st.floats(0, 1e-7), point_s=st.floats(0, 1e-6))
def test_what_a_sum_saves_counts_for_both_layers(
    downsampling: Model, mask_s: float, unmask_s: float, layer_s: float, product_s: float, point_s: float
) -> None:
    """With a result that does not come back, too, the chosen set takes the least of all sets."""
    costs = replace(FREE, mask_s=mask_s, unmask_s=unmask_s, layer_s=layer_s, product_s=product_s, point_s=point_s)
    found = choose_layers(downsampling, costs)
    chosen = {name for name, choice in found.items() if choice.offered}
    sets = itertools.chain.from_iterable(itertools.combinations(DOWNSAMPLING, size) for size in range(8))
    least_s = min(_with_sum_s(offered, costs) for offered in sets)
    assert _with_sum_s(chosen, costs) == pytest.approx(least_s, rel=1e-6, abs=1e-12)


def test_each_layer_of_a_sum_has_half_of_its_result(downsampling: Model) -> None:
    """What a device adds is unmasked once for both layers, and costs each of them half of that, less the pad again."""
    found = choose_layers(
        downsampling, replace(FREE, mask_s=1e-9, unmask_s=1e-6, layer_s=1e-3, product_s=1.0, point_s=1.0)
    )
    half_s = (200 * 1e-6 + 1e-3) / 2
    assert found["c"].masked_s == pytest.approx(half_s + (125 + 75) * 1e-9)
    assert found["shortcut"].masked_s == pytest.approx(half_s + (75 + 75) * 1e-9)
    assert found["d"].masked_s == pytest.approx(2 * half_s + 200 * 1e-9)


def test_layers_that_would_save_little_are_not_offered(residual: Model) -> None:
    """Of what is done inside, the chosen layers save some share: where more is asked for, none is offered."""
    costs, names = replace(CHEAP, product_s=1e-9, point_s=1e-9), ("stem", "body", "shortcut", "dense")

    def chosen(least_saved: float, inside_s: dict[str, float] | None = None) -> list[str]:
        found = choose_layers(residual, costs, inside_s, least_saved=least_saved)
        is_none = not any(choice.offered for choice in found.values())
        assert is_none == all("too little" in found[name].reason for name in names)
        return [name for name, choice in found.items() if choice.offered]

    offered, inside_s = chosen(0.0), _total_s(residual, (), costs)
    saved_s = inside_s - _total_s(residual, offered, costs)
    assert offered
    assert chosen(0.999 * saved_s / inside_s) == offered
    assert chosen(1.001 * saved_s / inside_s) == []
    # Other nodes take as long again.
    assert chosen(0.499 * saved_s / inside_s, {"other": 2 * inside_s}) == offered
    assert chosen(0.501 * saved_s / inside_s, {"other": 2 * inside_s}) == []


def test_a_measured_layer_counts_as_it_was_measured(residual: Model) -> None:
    """Seconds of a profile stand in place of fitted ones, but where the profiler says nothing of a node."""
    dear, costs = {"stem": 1.0, "body": 0.0}, replace(FREE, mask_s=1e-6)
    found = choose_layers(residual, costs, dear)
    assert found["stem"].inside_s >= 1.0
    assert [name for name, choice in found.items() if choice.offered] == ["stem"]


@given(mask_s=COST, unmask_s=COST, product_s=st.floats(0, 1e-7), point_s=st.floats(0, 1e-7))
def test_what_one_reader_skips_is_paid_for_by_another(
    strided: Model, mask_s: float, unmask_s: float, product_s: float, point_s: float
) -> None:
    """Where a layer reads every second pixel and another one all of them, the pad is as large as what is sent."""
    costs = replace(FREE, mask_s=mask_s, unmask_s=unmask_s, product_s=product_s, point_s=point_s)
    chosen = [name for name, choice in choose_layers(strided, costs).items() if choice.offered]

    def total(offered: Collection[str]) -> float:
        pixels = 110 if "full" in offered else 30 if offered else 0
        inside = {"strided": 8 * 30 * 8 * point_s, "full": 8 * 110 * 72 * product_s}
        made = {"strided": 8 * 30 * unmask_s, "full": 8 * 110 * unmask_s}
        return 8 * pixels * mask_s + sum(made[name] if name in offered else inside[name] for name in inside)

    sets: tuple[tuple[str, ...], ...] = ((), ("strided",), ("full",), ("strided", "full"))
    assert total(chosen) == pytest.approx(min(map(total, sets)), rel=1e-6, abs=1e-12)


@pytest.fixture(scope="module")
def strided(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return two layers that read the input, one of them every second pixel."""
    return _convolutions(tmp_path_factory.mktemp("strided"), ("strided", 1, 1, 2), ("full", 1, 3, 1))


def test_every_node_has_a_choice(tmp_path: Path) -> None:
    """Also nodes that are not linear are listed, with the reason that they stay."""
    model = loaded(attention_network(), tmp_path)
    found = choose_layers(model, CHEAP)
    assert list(found) == [node.name for node in model.nodes]
    assert found["softmax"].reason == "Softmax is not linear with constant weights"


def test_costs_are_measured() -> None:
    """Each kind of work takes some time here; which of its terms gets how much of it, one measurement does not say."""
    costs = measure_costs(repeats=1)
    assert min(asdict(costs).values()) >= 0
    inside = costs.product_s + costs.point_s + costs.weight_s
    assert min(costs.mask_s + costs.quantise_s, costs.unmask_s + costs.verify_s + costs.layer_s, inside) > 0


def _sent_bytes(model: Model, offered: list[str]) -> tuple[int, dict[str, np.ndarray]]:
    with ExactSession(build_program(model, offered, {"x": 0.03}), [CPU]) as session:
        found = session.run({"x": items(model, 2)})
        return session.trusted.meter.sent_bytes, found


def test_pixels_that_no_layer_reads_are_not_sent(tmp_path: Path) -> None:
    """Before a kernel of one pixel with a stride, the image is thinned, and the answers stay the same."""
    model = _convolutions(tmp_path, ("strided", 1, 1, 2), ("other", 1, 1, 2), ("full", 1, 1, 1))
    thinned, found = _sent_bytes(model, ["strided", "other"])
    whole, also = _sent_bytes(model, ["strided", "other", "full"])
    assert (thinned, whole) == (2 * 8 * 5 * 6 * 3, 2 * 8 * 10 * 11 * 3)
    for name in ("strided", "other"):
        np.testing.assert_array_equal(found[name], also[name])


@pytest.mark.parametrize(
    "layers", [(("a", 1, 1, 2), ("b", 1, 1, 3)), (("a", 1, 3, 2),), (("a", 1, 1, 2), ("b", 1, 3, 2))]
)
def test_pixels_that_some_layer_reads_are_sent(tmp_path: Path, layers: tuple[tuple[str, int, int, int], ...]) -> None:
    """Where strides differ, or a kernel is larger, the whole image goes."""
    model = _convolutions(tmp_path, *layers)
    assert _sent_bytes(model, [name for name, *_ in layers])[0] == 2 * 8 * 10 * 11 * 3


def test_a_network_that_no_layer_of_is_worth_it_stays_inside(residual: Model) -> None:
    """With nothing offered, a session sends nothing and answers as the model does."""
    import onnxruntime

    dear = replace(CHEAP, mask_s=1.0, verify_s=1.0, unmask_s=1.0, layer_s=1.0)
    offered = [name for name, choice in choose_layers(residual, dear).items() if choice.offered]
    x = items(residual, 2)
    with ExactSession(build_program(residual, offered, {}), []) as session:
        found = session.run({"x": x})["y"]
        assert session.trusted.meter.sent_bytes == 0
    exact = onnxruntime.InferenceSession(onnx.ModelProto.SerializeToString(residual.proto))
    np.testing.assert_allclose(found, exact.run(["y"], {"x": x})[0], rtol=1e-5)
