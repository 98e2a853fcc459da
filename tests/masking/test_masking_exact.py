"""Exact masks end to end: how a network is arranged, and that answers are the quantised network's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exact_models import (
    CPU,
    Arrays,
    attention_network,
    begun,
    corrected,
    encoder_network,
    items,
    loaded,
    normalised_network,
    program_of,
    trunk_network,
)
from onnx import TensorProto, helper, numpy_helper

from siniantrust.errors import DataError, PlanError
from siniantrust.graph import Model
from siniantrust.masking.exact import ExactSession, Exchange, Program, build_program, offerable
from siniantrust.masking.exact._affine import fold_affine
from siniantrust.masking.exact._finish import Finish
from siniantrust.masking.exact._layer import Layer
from siniantrust.masking.exact._offer import make_layer
from siniantrust.masking.exact._pool import Pool
from siniantrust.masking.exact._query import Query, _Made
from siniantrust.masking.exact._uses import uses
from siniantrust.odla import open_part


def _quantised(values: np.ndarray, scale: float | np.floating) -> np.ndarray:
    steps: np.ndarray = np.clip(np.rint(values * np.float32(1 / scale)), -127, 127)
    return steps.astype(np.int8)


def _in_integers(layer: Layer, entry: np.ndarray) -> np.ndarray:
    """Return the quantised layer's answer by PyTorch's 64-bit integers: nothing of the product computes it."""
    steps = entry if entry.dtype == np.int8 else _quantised(entry, layer.input_scale)
    x, weight = torch.tensor(steps).long(), torch.tensor(layer.weight).long()
    if layer.window is None:
        whole = (x.unsqueeze(-2) * weight).sum(dim=-1).numpy()
    else:
        top, left, bottom, right = layer.window.pads
        padded = torch.nn.functional.pad(x, (left, right, top, bottom)).double()
        strides, dilations = layer.window.strides, layer.window.dilations
        made = torch.nn.functional.conv2d(padded, weight.double(), stride=strides, dilation=dilations)
        whole = made.round().long().numpy()
    shape = (1, -1, 1, 1) if layer.window is not None else (-1,)
    scale = (layer.row_scales * np.float32(layer.input_scale)).astype(np.float32)
    made_float: np.ndarray = whole.astype(np.float32) * scale.reshape(shape) + layer.bias.reshape(shape)
    return made_float.astype(np.float32)


def _entered(exchange: Exchange, layer: Layer, steps: Arrays) -> np.ndarray:
    """Return the steps that a layer reads: of several values, what is sent of each."""
    parts = exchange.joins.get(layer.entry, ())
    sent = [steps[part.value][:, :, :: part.steps[0], :: part.steps[1]] for part in parts]
    return np.concatenate(sent, axis=1) if parts else steps[layer.entry]


def _in_the_clear(model: Model, program: Program, x: np.ndarray) -> np.ndarray:
    """Return the quantised model's answer, node by node, with no mask anywhere."""
    values = {"x": x}
    layers = {layer.name: (exchange, layer) for exchange in program.exchanges for layer in exchange.layers}
    joined = {part.node for each in program.exchanges for parts in each.joins.values() for part in parts}
    constants = {tensor.name for tensor in model.proto.graph.initializer}
    types = {value.name: value for value in model.proto.graph.value_info}
    types |= {value.name: value for value in (*model.proto.graph.input, *model.proto.graph.output)}
    folded: dict[int, np.ndarray] = {}
    for node, proto in zip(model.nodes, model.proto.graph.node, strict=True):
        if node.name in layers and layers[node.name][1].entry in layers[node.name][0].joins:
            exchange, layer = layers[node.name]
            scales = {part.value: part.scale for part in exchange.joins[layer.entry]}
            steps = {name: _quantised(values[name], scale) for name, scale in scales.items()}
            values[proto.output[0]] = _in_integers(layer, _entered(exchange, layer, steps))
            continue
        if node.name in joined or not (constants | values.keys()).issuperset(proto.input):
            continue  # a sum has it
        if node.name in layers:
            values[proto.output[0]] = _in_integers(layers[node.name][1], values[proto.input[0]])
            _, _, inside = fold_affine(model, make_layer(model, node, input_scale=1.0))
            folded |= dict.fromkeys(inside, values[proto.output[0]])
            continue
        if node.index in folded:
            values[proto.output[0]] = folded[node.index]
            continue
        fed = [name for name in proto.input if name not in constants]
        weights = [tensor for tensor in model.proto.graph.initializer if tensor.name in proto.input]
        graph = onnx.helper.make_graph([proto], "one", [types[name] for name in fed], [types[proto.output[0]]], weights)
        single = onnx.helper.make_model(graph, opset_imports=model.proto.opset_import, ir_version=8)
        session = onnxruntime.InferenceSession(single.SerializeToString(), providers=["CPUExecutionProvider"])
        used = {name: values[name] for name in fed}
        if proto.op_type == "Add":  # what devices read too is added as they read it
            quantised = uses(program).steps_added.intersection(used)
            worth = {name: np.float32(uses(program).scales[name]) for name in quantised}
            used |= {name: _quantised(used[name], scale) * scale for name, scale in worth.items()}
        values[proto.output[0]] = session.run(None, used)[0]
    return values["y"]


@pytest.mark.parametrize("batch", [1, 3])
def test_both_arithmetics_of_devices_give_the_same_bits(model: Model, batch: int) -> None:
    """For any masked values, limb by limb in 8 bits and in float64, every exchange gives the same."""
    generator = np.random.default_rng(0)
    programs = [program_of(model, arithmetic=each) for each in ("int8", "float64")]
    for one, other in zip(*(program.exchanges for program in programs), strict=True):
        seen = {name: generator.integers(0, 256, one.form(name, batch), dtype=np.uint8) for name in one.entries}
        found = []
        for part in (one.part, other.part):
            device, executable = open_part(CPU, part)
            found.append(executable.run(seen))
            device.close()
        assert found[0].keys() == found[1].keys() == {layer.exit for layer in one.layers}
        for name, array in found[0].items():
            np.testing.assert_array_equal(array, found[1][name])


@pytest.mark.parametrize("batch", [1, 3])
def test_answers_are_the_quantised_models(model: Model, program: Program, batch: int) -> None:
    """Under pads, checked and unmasked, a model gives what its quantised form gives in the clear."""
    x = items(model, batch, seed=7)
    with ExactSession(program, [CPU]) as session:
        found = session.run({"x": x})["y"]
    np.testing.assert_allclose(found, _in_the_clear(model, program, x), rtol=1e-6, atol=1e-6)


def test_every_layers_answer_is_exact(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masked, computed in float64, unmasked and finished, each layer gives what 64-bit arithmetic gives."""
    values: dict[str, np.ndarray] = {}
    steps: dict[str, np.ndarray] = {}
    go_on = Query._go_on

    def keep(query: Query, made: _Made) -> None:
        values.update({name: value.copy() for name, value in made.values.items()})
        steps.update({name: step.copy() for name, step in (query._steps | made.steps).items()})
        go_on(query, made)

    monkeypatch.setattr(Query, "_go_on", keep)
    model_input = np.random.default_rng(3).normal(size=(2, *program.inputs[0].shape[1:])).astype(np.float32)
    values["x"] = model_input
    wants, checked = uses(program), 0
    with ExactSession(program, [CPU]) as session:
        query = begun(session, model_input)
        while query.request is not None:
            exchange = program.exchanges[query.exchange]
            query.accept(corrected(session, query))
            for layer, finish in zip(exchange.layers, exchange.finishes, strict=True):
                wanted = _in_integers(layer, _entered(exchange, layer, steps))
                if finish.addend in wants.steps_added:
                    wanted += steps[finish.addend] * np.float32(wants.scales[finish.addend])
                elif finish.addend is not None:
                    wanted += values[finish.addend]
                wanted = np.maximum(wanted, 0) if finish.relu else wanted
                if finish.value in values:
                    np.testing.assert_array_equal(values[finish.value], wanted)
                if finish.value in steps:
                    found = _quantised(wanted, wants.scales[finish.value])
                    np.testing.assert_array_equal(steps[finish.value], _pooled(found, finish.pool))
                assert finish.value in values or finish.value in steps
                checked += 1
    assert checked == len(program.layers)


def _pooled(steps: np.ndarray, pool: Pool | None) -> np.ndarray:
    if pool is None:
        return steps
    assert pool.pads[0] == pool.pads[2]
    assert pool.pads[1] == pool.pads[3]
    whole = torch.tensor(steps).double()
    made: np.ndarray = torch.nn.functional.max_pool2d(whole, pool.kernel, pool.strides, pool.pads[:2]).numpy()
    return made.astype(np.int8)


def test_quantisation_costs_little(model: Model, program: Program) -> None:
    """The quantised model stays near the float one."""
    x = items(model, 32, seed=9)
    exact = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = exact.run(["y"], {"x": x})[0]
    with ExactSession(program, [CPU]) as session:
        found = session.run({"x": x})["y"]
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999


def test_what_follows_a_layer_goes_into_its_pass(residual: Program) -> None:
    """Activations, and a sum whose other operand is there, are no longer in the segments."""
    finishes = {finish.value: finish for exchange in residual.exchanges for finish in exchange.finishes}
    assert finishes["r1"] == Finish("r1", relu=True)
    assert finishes["c2"] == Finish("c2")
    assert finishes["r2"] == Finish("r2", addend="c2", relu=True)
    kept = [[node.op_type for node in part.proto.graph.node] for part in residual.segments if part is not None]
    assert kept == [["GlobalAveragePool", "Flatten"]]


@pytest.mark.parametrize("batch", [1, 5])
def test_what_scales_and_shifts_rows_is_folded_into_the_layer(tmp_path: Path, batch: int) -> None:
    """Batch normalisation after a convolution leaves the integers alone and gives what ONNX Runtime makes of them."""
    model = loaded(normalised_network(), tmp_path)
    (first,) = [node for node in model.nodes if node.name == "first"]
    plain = make_layer(model, first, input_scale=0.02)
    layer, value, nodes = fold_affine(model, plain)
    assert (value, {model.nodes[index].name for index in nodes}) == ("m1", {"norm1"})
    np.testing.assert_array_equal(layer.weight, plain.weight)
    x = items(model, batch)
    names = ["n1.g", "n1.s", "n1.m", "n1.v"]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer}
    gain, shift, mean, variance = (torch.tensor(constants[name]) for name in names)
    convolved = torch.tensor(_in_integers(plain, x))
    wanted = torch.nn.functional.batch_norm(convolved, mean, variance, gain, shift).numpy()
    np.testing.assert_allclose(_in_integers(layer, x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["rows", "one", "columns", "several", "not constant"])
def test_only_constants_by_row_are_folded(tmp_path: Path, kind: str) -> None:
    """A bias, or one number, is folded; what differs along another axis, or may change, stays where it is."""
    shapes = {"rows": (3,), "one": (1,), "columns": (4, 1), "several": (4, 3), "not constant": (3,)}
    constant = np.random.default_rng(0).normal(size=shapes[kind]).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Mul" if kind == "one" else "Add", ["c", "m"], ["y"], name="after"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 5])]
    weights = [numpy_helper.from_array(np.ones((5, 3), np.float32), "w")]
    if kind == "not constant":
        nodes.insert(0, helper.make_node("ReduceMean", ["x"], ["c"], name="mean", axes=[1, 2]))
    else:
        weights.append(numpy_helper.from_array(constant, "c"))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 3])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    model = loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    layer, value, _ = fold_affine(model, make_layer(model, model.nodes[-2], input_scale=1.0))
    assert value == ("y" if kind in ("rows", "one") else "m")
    if kind == "rows":
        np.testing.assert_array_equal(layer.bias, constant)
    if kind == "one":
        np.testing.assert_allclose(layer.row_scales, constant[0] / 127, rtol=1e-6)


@pytest.mark.parametrize(("shape", "folded"), [((2, 1, 1), True), ((1, 2, 1, 1), True), ((2,), False), ((1, 2), False)])
def test_constants_by_channel_are_folded_into_convolutions(
    tmp_path: Path, shape: tuple[int, ...], *, folded: bool
) -> None:
    """A number for each channel is folded, one for each column is not, though there are as many."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("Add", ["c", "b"], ["y"], name="after"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 2, 2])],
        [
            numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w"),
            numpy_helper.from_array(np.arange(2, dtype=np.float32).reshape(shape), "b"),
        ],
    )
    model = loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    layer, value, _ = fold_affine(model, make_layer(model, model.nodes[0], input_scale=1.0))
    assert (value, layer.bias.tolist()) == (("y", [0, 1]) if folded else ("c", [0, 0]))


def test_an_encoders_projections_are_padded_and_its_attention_stays_inside(tmp_path: Path) -> None:
    """Query, key and value share a pad, biases are in their layers, and scores, softmax and mixing are inside."""
    model = loaded(encoder_network(), tmp_path)
    program = program_of(model)
    assert [[layer.name for layer in exchange.layers] for exchange in program.exchanges] == [
        ["query", "key", "value"],
        ["out"],
        ["wide"],
        ["narrow"],
        ["class"],
    ]
    assert len(program.exchanges[0].entries) == 1
    inside = [node.name for part in program.segments if part is not None for node in part.proto.graph.node]
    assert {"scores", "softmax", "mix", "norm1", "erf"} <= set(inside)
    assert not [name for name in inside if name.endswith(".bias") or name in ("attended", "block")]


def test_pooling_and_sums_are_in_steps_where_devices_read_them(tmp_path: Path) -> None:
    """What is pooled for a device, and a trunk that is sent and added, are never made in floats."""
    program = program_of(loaded(trunk_network(), tmp_path))
    finishes = {finish.value: finish for exchange in program.exchanges for finish in exchange.finishes}
    assert finishes["p1"] == Finish("p1", relu=True, pool=Pool((3, 3), (2, 2), (1, 1, 1, 1)))
    assert finishes["r3"] == Finish("r3", addend="t1", relu=True)
    assert uses(program).steps_added == {"t1"}
    assert uses(program).floats == {"c4", "y"}


@pytest.mark.parametrize("why", ["read twice", "an output", "another shape"])
def test_what_others_need_stays_in_a_segment(tmp_path: Path, why: str) -> None:
    """A value that more than one node or the caller reads is made, and a sum over another shape is left as it is."""
    weight = np.ones((2, 3, 1, 1))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Add", ["r", "m" if why == "another shape" else "c"], ["y"], name="add"),
    ]
    if why == "an output":
        nodes, outputs = nodes[:2], ["c", "r"]
    else:
        outputs = ["y"]
    if why == "another shape":
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["m"], name="mean", axes=[1, 2, 3]),
            nodes[0],
            helper.make_node("Add", ["c", "m"], ["y"], name="add"),
        ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, 4, 4]) for name in outputs],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    model = loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    (exchange,) = build_program(model, ["conv"], {"x": 0.1}).exchanges
    assert exchange.finishes == (Finish("c"),)


def test_answers_outlive_later_requests(residual: Program) -> None:
    """What a caller got is not among the arrays that are used again."""
    x = np.random.default_rng(8).normal(size=(2, 1, *residual.inputs[0].shape[1:])).astype(np.float32)
    with ExactSession(residual, [CPU]) as session:
        first = session.run({"x": x[0]})["y"]
        kept = first.copy()
        other = session.run({"x": x[1]})["y"]
        np.testing.assert_array_equal(first, kept)
        assert not np.array_equal(first, other)


def test_layers_that_read_the_same_value_share_its_pad(residual: Program) -> None:
    """The body and the shortcut of the residual block go out in one exchange, with one masked value."""
    (block,) = [exchange for exchange in residual.exchanges if len(exchange.layers) > 1]
    assert {layer.name for layer in block.layers} == {"body", "shortcut"}
    assert list(block.entries) == ["r1"]


def test_inputs_that_do_not_fit_are_named(residual: Program) -> None:
    """A wrong name, shape or dtype, or NaN, is refused before a pad is spent."""
    shape = residual.inputs[0].shape
    good = np.zeros(shape, np.float32)
    with ExactSession(residual, [CPU]) as session:
        session.prepare(1)
        for bad in ({"z": good}, {"x": good[:, :1]}, {"x": good.astype(np.float64)}, {"x": good + np.nan}):
            with pytest.raises(DataError, match="exact masks"):
                session.run(bad)
        assert session.trusted.stock_level == 1


def test_what_cannot_be_offered_is_named(tmp_path: Path) -> None:
    """A node that is not linear, or whose weights are no constant, is kept inside, and asking for it is refused."""
    model = loaded(attention_network(), tmp_path)
    reasons = offerable(model)
    assert reasons["softmax"] == "Softmax is not linear with constant weights"
    assert reasons["scores"] == "MatMul: its weights are not constant"
    assert reasons["query"] is None
    with pytest.raises(PlanError, match="node 'scores' cannot be offered to a device: MatMul: its weights"):
        build_program(model, ["scores"], {})


def test_a_bound_that_cannot_be_proven_is_refused() -> None:
    """A layer whose sums might wrap when they are read back is no layer."""
    layer = Layer(
        name="wide",
        entry="x",
        exit="y",
        weight=np.full((1, 1 << 17), 127, np.int8)[:, : 1 << 15],
        bias=np.zeros(1, np.float32),
        input_scale=1.0,
        row_scales=np.ones(1, np.float32),
        window=None,
    )
    layer.check()
    assert layer.limbs == 4
    worse = np.full((1, (1 << 30) // (127 * 127) + 1), 127, np.int8)
    for checked in (Layer.check, lambda worse: worse.limbs):
        with pytest.raises(PlanError, match="layer 'wide'"):
            checked(replace(layer, weight=worse))


@pytest.mark.parametrize(("terms", "limbs"), [(520, 3), (521, 4)])
def test_three_bytes_cross_where_they_are_enough(terms: int, limbs: int) -> None:
    """A layer takes three bytes a number as long as 127 times its largest sum of weights stays below 2^23."""
    weight = np.full((2, terms), 127, np.int8)
    weight[0] = 1
    layer = Layer("layer", "x", "y", weight, np.zeros(2, np.float32), 1.0, np.ones(2, np.float32), None)
    assert (layer.most, layer.limbs) == (127 * 127 * terms, limbs)
    assert (layer.most < 1 << 23) == (limbs == 3)


@pytest.mark.parametrize(("terms", "coarser"), [(500, False), (521, True), (1000, True), (1100, False)])
def test_steps_grow_where_that_saves_a_byte(tmp_path: Path, terms: int, *, coarser: bool) -> None:
    """A row that just needs a fourth byte gets steps up to twice as large, and stays that near to its weights."""
    weight = np.random.default_rng(0).choice([-1.0, 1.0], (terms, 2)).astype(np.float32)
    weight[:, 1] *= np.linspace(0.1, 1, terms, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", terms])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    layer = make_layer(model, model.nodes[0], input_scale=1.0)
    assert layer.limbs == (3 if terms <= 1000 else 4)
    assert (int(np.abs(layer.weight[0].astype(int)).max()) < 127) == coarser
    np.testing.assert_allclose(layer.weight * layer.row_scales[:, None], weight.T, atol=float(layer.row_scales.max()))
