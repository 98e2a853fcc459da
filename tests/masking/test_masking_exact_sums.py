"""Sums of two layers that devices make: which ones, that they are exact, and that what is sent twice has two pads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exact_models import downsampling_network, items, program_of
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from siniantrust.errors import IntegrityError, PlanError
from siniantrust.graph import Model, load_model
from siniantrust.masking.exact import (
    ExactSession,
    PadSource,
    Program,
    QuantisedModel,
    _program,
    build_program,
    joint_sums,
    offerable,
)
from siniantrust.masking.exact._joined import Joined, check_parts
from siniantrust.masking.exact._uses import uses
from siniantrust.odla import DeviceSpec

CPU = DeviceSpec("cpu", options={"threads": 1})
SIDE = 6


def _network(
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    *,
    shape: tuple[int, ...] = (3, SIDE, SIDE),
    outputs: Mapping[str, tuple[int | None, ...]],
) -> Model:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *form]) for name, form in outputs.items()],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def _block(
    *,
    kernel: int = 1,
    stride: int = 1,
    channels: tuple[int, int] = (4, 3),
    rows: int = 5,
    sizes: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> Model:
    """Return ``relu(norm(c(h)) + d(v))``, where ``v`` is read for ``h`` too; ``sizes`` are those of the two values."""
    rng = np.random.default_rng(seed)
    inner, wide = channels
    weights: dict[str, np.ndarray] = {
        "wv": rng.normal(0, 0.3 * sizes[1], (wide, 3, 3, 3)),
        "wh": rng.normal(0, 0.3 * sizes[0] / sizes[1], (inner, wide, 3, 3)),
        "wc": rng.normal(0, 0.4 / sizes[0], (rows, inner, kernel, kernel)),
        "wd": rng.normal(0, 0.4 / sizes[1], (rows, wide, kernel, kernel)),
        "bd": rng.normal(0, 0.3, rows),
        "n.g": rng.normal(0, 1, rows),
        "n.s": rng.normal(0, 1, rows),
        "n.m": rng.normal(0, 1, rows),
        "n.v": rng.uniform(0.5, 2, rows),
    }
    # Before a kernel of one pixel only the other value is halved; before larger ones both are halved alike.
    before, own = (stride, 1) if kernel == 1 else (1, stride)
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "wv"], ["cv"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["cv"], ["v"], name="first.relu"),
        helper.make_node("Conv", ["v", "wh"], ["ch"], name="second", pads=[1] * 4, strides=[before] * 2),
        helper.make_node("Relu", ["ch"], ["h"], name="second.relu"),
        helper.make_node("Conv", ["h", "wc"], ["c"], name="c", pads=pads, strides=[own] * 2),
        helper.make_node("BatchNormalization", ["c", "n.g", "n.s", "n.m", "n.v"], ["nc"], name="norm"),
        helper.make_node("Conv", ["v", "wd", "bd"], ["d"], name="d", pads=pads, strides=[stride] * 2),
        helper.make_node("Add", ["d", "nc"], ["s"], name="sum"),
        helper.make_node("Relu", ["s"], ["y"], name="sum.relu"),
    ]
    return _network(nodes, weights, outputs={"y": (rows, None, None)})


def _offered(model: Model) -> list[str]:
    return [name for name, reason in offerable(model).items() if reason is None]


def _joint_nodes(program: Program) -> list[set[str]]:
    """Return the nodes of every joint layer."""
    return [{part.node for part in parts} for exchange in program.exchanges for parts in exchange.joins.values()]


def _values(model: Model, x: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Return the float network's values."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    types = {value.name: value for value in proto.graph.value_info}
    proto.graph.output.extend(types[name] for name in names)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


def _in_integers(steps: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """Return a convolution of the whole image, by 64-bit integers: nothing of the product computes it."""
    whole, pad = torch.tensor(steps).long().double(), weight.shape[2] // 2
    made: np.ndarray = torch.nn.functional.conv2d(
        whole, torch.tensor(weight).double(), stride=stride, padding=pad
    ).numpy()
    return made.astype(np.int64)


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 6)),
    more=st.integers(1, 5),
    sizes=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    seed=st.integers(0, 1000),
)
def test_a_joint_layer_is_the_sum_of_two_in_integers(
    kernel: int, stride: int, channels: tuple[int, int], more: int, sizes: tuple[float, float], seed: int
) -> None:
    """The sum is that of two convolutions of the values' own steps, to the bit, and near that of the float ones."""
    # So many that one result less is more than what is sent again.
    rows = channels[1] * (1 if kernel == 1 else SIDE**2 // math.ceil(SIDE / stride) ** 2) + more
    model = _block(kernel=kernel, stride=stride, channels=channels, rows=rows, sizes=sizes, seed=seed)
    x = items(model, 2, seed=seed)
    known = _values(model, x, ["v", "h"]) | {"x": x}
    program = build_program(
        model, _offered(model), {name: float(np.abs(each).max()) / 127 for name, each in known.items()}
    )
    assert _joint_nodes(program) == [{"c", "d"}]
    exchange = program.exchanges[-1]
    (layer,), (parts,) = exchange.layers, exchange.joins.values()
    steps: dict[str, np.ndarray] = {}
    with QuantisedModel(program) as quantised, pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantised._trusted, "entered", _keeping(quantised._trusted.entered, steps))
        found = quantised.run({"x": x})["y"].copy()
    at, whole = 0, np.zeros(1, np.int64)
    for part in parts:
        own = stride if part.node == "d" or kernel > 1 else 1
        width = steps[part.value].shape[1]
        whole = whole + _in_integers(steps[part.value], layer.weight[:, at : at + width], own)
        at += width
    assert np.abs(whole).max() <= layer.most
    wanted = whole.astype(np.float32) * layer.scale.reshape(1, -1, 1, 1) + layer.bias.reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(found, np.maximum(wanted, 0))
    # Of the same steps the float layers make the same sum but for half a step of each weight.
    real = {part.value: torch.tensor(steps[part.value] * np.float32(part.scale)) for part in parts}
    constants = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in model.proto.graph.initializer}
    own = stride if kernel > 1 else 1
    c = torch.nn.functional.conv2d(real["h"], constants["wc"], stride=own, padding=kernel // 2)
    mean, variance, gain, shift = (constants[f"n.{name}"] for name in "mvgs")
    c = torch.nn.functional.batch_norm(c, mean, variance, gain, shift)
    d = torch.nn.functional.conv2d(real["v"], constants["wd"], constants["bd"], stride=stride, padding=kernel // 2)
    bound = 127 * layer.terms * layer.scale.max() / 2
    assert np.abs(wanted - (c + d).numpy()).max() <= bound * (1 + 1e-4) + 1e-4


def test_joining_costs_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several networks, answers are as near to the float ones as where both results come back to be added."""
    found: dict[str, list[float]] = {"joined": [], "apart": []}
    for seed in range(6):
        model = load_model(downsampling_network(seed))
        x = items(model, 32, seed=seed)
        exact = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
        wanted = exact.run(["y"], {"x": x})[0]
        for how, errors in found.items():
            with monkeypatch.context() as patch:
                if how == "apart":
                    patch.setattr(_program, "joint_sums", lambda _: ())
                program = program_of(model)
            assert len(_joint_nodes(program)) == (how == "joined")
            with QuantisedModel(program) as quantised:
                errors.append(float(np.std(quantised.run({"x": x})["y"] - wanted) / np.std(wanted)))
    assert np.mean(found["joined"]) < 1.1 * np.mean(found["apart"])


def _keeping(entered: Any, kept: dict[str, np.ndarray]) -> Any:
    def keep(exchange: Any, steps: Mapping[str, np.ndarray]) -> Any:
        kept.update({name: array.copy() for name, array in steps.items()})
        return entered(exchange, steps)

    return keep


def test_one_result_comes_back_of_two_layers() -> None:
    """The earlier layer waits for the later one, the value that it reads is sent thinned, and what is added is gone."""
    program = program_of(load_model(downsampling_network()))
    layers = [[(layer.name, layer.exit) for layer in exchange.layers] for exchange in program.exchanges]
    assert layers == [[("stem", "c1")], [("a", "ca")], [("b", "cb")], [("join", "s1")], [("d", "cd")], [("dense", "y")]]
    joint = program.exchanges[3]
    (entry,) = joint.entries
    assert [(part.node, part.value, part.steps) for part in joint.joins[entry]] == [
        ("c", "rb", (1, 1)),
        ("shortcut", "r1", (2, 2)),
    ]
    assert joint.shapes[entry] == (1, 5 + 6, 5, 5)
    assert [(finish.value, finish.addend, finish.relu) for finish in joint.finishes] == [("r2", None, True)]
    assert uses(program).last_steps["r1"] == 2 * joint.number + 1
    inside = [node.name for part in program.segments if part is not None for node in part.proto.graph.node]
    assert inside == ["pool", "flat"]


def _changed(what: str) -> Model:
    """Return a small residual block in which one thing is as ``what`` says."""
    rng = np.random.default_rng(0)
    shapes = {"v": (3, 3, 3, 3), "h": (4, 3, 3, 3), "c": (5, 4, 1, 1), "d": (5, 3, 1, 1)}
    c: dict[str, Any] = {}
    d: dict[str, Any] = {}
    outputs: dict[str, tuple[int | None, ...]] = {"y": (5, None, None)}
    reads, added, more = "v", "dd", []
    if what == "kernels differ":
        shapes["c"], c = (5, 4, 3, 3), {"pads": [1] * 4}
    elif what == "dilations differ":
        shapes |= {"c": (5, 4, 3, 3), "d": (5, 3, 3, 3)}
        c, d = {"pads": [1] * 4}, {"pads": [2] * 4, "dilations": [2, 2]}
    elif what == "padding differs":
        c, d = {"pads": [1, 1, 0, 0]}, {"pads": [0, 0, 1, 1]}
    elif what == "a result is broadcast":
        shapes["d"] = (1, 3, 1, 1)
    elif what == "both read one value":
        shapes |= {"c": (9, 4, 1, 1), "d": (9, 4, 1, 1)}
        reads, outputs["y"] = "h", (9, None, None)
    elif what == "more would be sent":
        shapes |= {"v": (6, 3, 3, 3), "h": (4, 6, 3, 3), "d": (5, 6, 1, 1)}
    elif what == "an addend is an output":
        outputs["dd"] = (5, None, None)
    elif what in ("an addend is read twice", "the sum is read twice"):
        again = "dd" if what == "an addend is read twice" else "s"
        more, outputs["z"] = [helper.make_node("Sigmoid", [again], ["z"], name="again")], (5, None, None)
    elif what == "an addend is not linear":
        added, more = "rd", [helper.make_node("Relu", ["dd"], ["rd"], name="d.relu")]
    nodes = [
        helper.make_node("Conv", ["x", "wv"], ["cv"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["cv"], ["v"], name="first.relu"),
        helper.make_node("Conv", ["v", "wh"], ["ch"], name="second", pads=[1] * 4),
        helper.make_node("Relu", ["ch"], ["h"], name="second.relu"),
        helper.make_node("Conv", ["h", "wc"], ["cc"], name="c", **c),
        helper.make_node("Conv", [reads, "wd"], ["dd"], name="d", **d),
        helper.make_node("Sub" if what == "a difference" else "Add", ["cc", added], ["s"], name="sum"),
        helper.make_node("Relu", ["s"], ["y"], name="sum.relu"),
    ]
    nodes[-2:-2] = more if added == "rd" else []
    nodes += [] if added == "rd" else more
    return _network(nodes, {f"w{name}": rng.normal(0, 0.3, shape) for name, shape in shapes.items()}, outputs=outputs)


@pytest.mark.parametrize(
    ("what", "joined"),
    [
        ("nothing", True),
        ("the sum is read twice", True),
        ("both read one value", True),
        ("an addend is read twice", False),
        ("an addend is an output", False),
        ("an addend is not linear", False),
        ("a difference", False),
        ("kernels differ", False),
        ("dilations differ", False),
        ("padding differs", False),
        ("a result is broadcast", False),
        ("more would be sent", False),
    ],
)
def test_only_sums_that_are_one_layer_are_joined(what: str, *, joined: bool) -> None:
    """A sum is made outside where both addends are nothing else's and slide alike, and where less crosses then.

    Joined or not, the answers are those of the float network but for rounding.
    """
    model = _changed(what)
    assert bool(joint_sums(model)) == joined
    program = program_of(model)
    assert _joint_nodes(program) == ([{"c", "d"}] if joined else [])
    x = items(model, 4, seed=2)
    wanted = _values(model, x, ["s"])["s"]
    with ExactSession(program, [CPU]) as session:
        found = session.run({"x": x})["y"]
    assert np.corrcoef(found.ravel(), np.maximum(wanted, 0).ravel())[0, 1] > 0.995


@pytest.mark.parametrize("kept", ["c", "d"])
def test_a_sum_with_a_layer_that_stays_inside_is_made_inside(kept: str) -> None:
    """Where one of the two is not offered, the other one is a layer of its own."""
    model = _changed("nothing")
    offered = [name for name in _offered(model) if name != kept]
    program = build_program(model, offered, dict.fromkeys(("x", "v", "h"), 0.03))
    assert _joint_nodes(program) == []
    assert {"c", "d"} & {layer.name for layer in program.layers} == {"c", "d"} - {kept}


def test_a_value_that_nothing_else_reads_is_joined_however_wide_it_is() -> None:
    """Sent for the sum instead of by itself, it costs no more there; an exchange that was its own is gone."""
    rng = np.random.default_rng(0)
    weights = {"wh": rng.normal(0, 0.3, (4, 3, 1, 1)), "wc": rng.normal(0, 0.3, (5, 4, 1, 1))}
    weights["wd"] = rng.normal(0, 0.3, (5, 9, 1, 1))
    nodes = [
        helper.make_node("Concat", ["x", "x", "x"], ["v"], name="wide", axis=1),
        helper.make_node("Conv", ["v", "wd"], ["dd"], name="d"),
        helper.make_node("Sigmoid", ["x"], ["sx"], name="sigmoid"),
        helper.make_node("Conv", ["sx", "wh"], ["ch"], name="second"),
        helper.make_node("Relu", ["ch"], ["h"], name="second.relu"),
        helper.make_node("Conv", ["h", "wc"], ["cc"], name="c"),
        helper.make_node("Add", ["cc", "dd"], ["y"], name="sum"),
    ]
    model = _network(nodes, weights, outputs={"y": (5, SIDE, SIDE)})
    program = program_of(model)
    assert [[layer.name for layer in exchange.layers] for exchange in program.exchanges] == [["second"], ["sum"]]
    x = items(model, 3)
    with ExactSession(program, [CPU]) as session, QuantisedModel(program) as quantised:
        # What the enclave makes is kept as steps until then.
        np.testing.assert_array_equal(session.run({"x": x})["y"], quantised.run({"x": x})["y"])
        assert session.trusted.meter.sent_bytes == 3 * SIDE * SIDE * 3 * (3 + 4 + 9)


def test_the_models_input_can_be_an_addends() -> None:
    """What a request brings is kept as steps for a sum, too, and may be all that a first exchange lacks."""
    rng = np.random.default_rng(0)
    weights = {"wh": rng.normal(0, 0.3, (4, 3, 3, 3)), "wc": rng.normal(0, 0.3, (5, 4, 1, 1))}
    weights |= {"wd": rng.normal(0, 0.3, (5, 3, 1, 1)), "we": rng.normal(0, 0.3, (5, 5, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "wh"], ["ch"], name="second", pads=[1] * 4),
        helper.make_node("Relu", ["ch"], ["h"], name="second.relu"),
        helper.make_node("Conv", ["h", "wc"], ["cc"], name="c"),
        helper.make_node("Conv", ["x", "wd"], ["dd"], name="d"),
        helper.make_node("Add", ["cc", "dd"], ["s"], name="sum"),
        helper.make_node("Conv", ["s", "we"], ["y"], name="last"),
    ]
    model = _network(nodes, weights, outputs={"y": (5, SIDE, SIDE)})
    program = program_of(model)
    assert _joint_nodes(program) == [{"c", "d"}]
    x = items(model, 32)
    exact = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with ExactSession(program, [CPU]) as session:
        found = session.run({"x": x})["y"]
    assert np.corrcoef(found.ravel(), exact.run(["y"], {"x": x})[0].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("rank", [2, 3])
def test_matrix_products_are_joined_where_their_inputs_are_rows(rank: int) -> None:
    """Products of two matrices with constants are one product; over more axes they stay apart."""
    rng = np.random.default_rng(0)
    weights = {"wh": rng.normal(0, 0.3, (6, 6)), "wc": rng.normal(0, 0.3, (6, 9)), "wd": rng.normal(0, 0.3, (6, 9))}
    weights["b"] = rng.normal(0, 0.3, 9)
    nodes = [
        helper.make_node("MatMul", ["x", "wh"], ["ch"], name="second"),
        helper.make_node("Tanh", ["ch"], ["h"], name="tanh"),
        helper.make_node("MatMul", ["h", "wc"], ["cc"], name="c"),
        helper.make_node("Add", ["b", "cc"], ["cb"], name="c.bias"),
        helper.make_node("MatMul", ["x", "wd"], ["dd"], name="d"),
        helper.make_node("Add", ["dd", "cb"], ["y"], name="sum"),
    ]
    shape = (6,) if rank == 2 else (5, 6)
    model = _network(nodes, weights, shape=shape, outputs={"y": (*shape[:-1], 9)})
    program = program_of(model)
    assert _joint_nodes(program) == ([{"c", "d"}] if rank == 2 else [])
    x = items(model, 32)
    exact = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with ExactSession(program, [CPU]) as session:
        found = session.run({"x": x})["y"]
    assert np.corrcoef(found.ravel(), exact.run(["y"], {"x": x})[0].ravel())[0, 1] > 0.999


def test_what_follows_a_sum_is_folded_into_it() -> None:
    """Batch normalisation after the sum becomes scales and biases of the joint layer, as of any other."""
    proto = _block().proto
    names = ["s", "n.g", "n.s", "n.m", "n.v"]
    (relu,) = [node for node in proto.graph.node if node.name == "sum.relu"]
    relu.input[0] = "ns"
    proto.graph.node.insert(len(proto.graph.node) - 1, helper.make_node("BatchNormalization", names, ["ns"], name="n2"))
    del proto.graph.value_info[:]
    model = load_model(proto)
    program = program_of(model)
    assert _joint_nodes(program) == [{"c", "d"}]
    assert [part for part in program.segments if part is not None] == []
    x = items(model, 32)
    exact = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with QuantisedModel(program) as quantised:
        found = quantised.run({"x": x})["y"]
    assert np.corrcoef(found.ravel(), exact.run(["y"], {"x": x})[0].ravel())[0, 1] > 0.999


def test_a_joint_entrys_name_is_its_own() -> None:
    """A model that has a value of the name that would be given to a joint entry keeps it for itself."""
    proto = _block().proto
    for node in proto.graph.node:
        node.input[:] = ["s.joined" if name == "h" else name for name in node.input]
        node.output[:] = ["s.joined" if name == "h" else name for name in node.output]
    del proto.graph.value_info[:]
    program = program_of(load_model(proto))
    assert [list(exchange.entries) for exchange in program.exchanges] == [["x"], ["v"], ["s.joined'"]]
    assert [part.value for part in program.exchanges[2].joins["s.joined'"]] == ["v", "s.joined"]


def test_what_is_sent_twice_is_masked_with_two_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that two exchanges send has two numbers: no pad is drawn twice to mask with, and none to prepare."""
    program = program_of(load_model(downsampling_network()))
    numbers = [number for exchange in program.exchanges for number in exchange.entries.values()]
    assert len(set(numbers)) == len(numbers) == len(program.exchanges)
    drawn: list[tuple[int, int, int]] = []
    shares = PadSource.shares

    def record(pads: PadSource, query: int, value: int, count: int, **more: Any) -> Iterator[tuple[int, np.ndarray]]:
        drawn.append((id(pads), query, value))
        return shares(pads, query, value, count, **more)

    x = np.zeros((2, *program.inputs[0].shape[1:]), np.float32)
    with ExactSession(program, [CPU]) as session:
        session.prepare(4)
        monkeypatch.setattr(PadSource, "shares", record)
        seen: list[dict[str, np.ndarray]] = []
        for opened in session._devices["cpu"]:
            monkeypatch.setattr(opened, "run", _seeing(opened.run, seen))
        session.run({"x": x})
        session.run({"x": x})
    masked = [each for each in drawn if each[0] == id(session.trusted._pads)]
    assert len(masked) == len(set(masked)) == 4 * len(numbers)
    # The same value, at the same places, for the same items: what crosses has nothing in common.
    first, second = seen[1]["r1"][:, :, :, ::2, ::2], seen[3]["s1.joined"][:, :, 5:]
    assert first.shape == second.shape
    assert np.mean(first == second) < 0.05


def _seeing(run: Any, seen: list[dict[str, np.ndarray]]) -> Any:
    def watch(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append({name: array.copy() for name, array in inputs.items()})
        found: dict[str, np.ndarray] = run(inputs)
        return found

    return watch


def test_arrays_that_were_put_together_are_used_again() -> None:
    """A joint entry's steps go back to the arena with the answer, and not before: another device may be asked."""
    program = program_of(load_model(downsampling_network()))
    with ExactSession(program, [CPU]) as session:
        query = session.trusted.begin({"x": np.zeros((1, *program.inputs[0].shape[1:]), np.float32)})
        while query.exchange < 3:
            query.compute_here()
        buffer = query._entered["s1.joined"].base

        def is_free() -> bool:
            return any(each is buffer for arrays in session.trusted.arena._free.values() for each in arrays)

        with pytest.raises(IntegrityError, match="'s1' is not what layer 'join' gives"):
            query.accept({"s1": np.zeros(program.exchanges[3].form("s1", 1), np.uint8)})
        assert not is_free()
        query.compute_here()
        assert is_free()


def _part(**changes: Any) -> Joined:
    return replace(Joined("d", "v", (1, 3, 5, 5), (2, 2), 0.1), **changes)


@pytest.mark.parametrize(
    ("shape", "parts", "message"),
    [
        ((1, 6, 5, 5), [_part()], r"expected parts that make \[1, 6, 5, 5\], found 'v' \[1, 3, 5, 5\]"),
        ((1, 6, 5, 5), [_part(), _part(shape=(1, 3, 5, 4))], "expected parts that make"),
        ((1, 3, 5, 5), [_part(shape=(1, 4, 5, 5)), _part(shape=(1, -1, 5, 5))], "expected parts that make"),
        ((), [_part()], "expected parts that make"),
        ((), [], r"expected parts that make \[\], found none"),
        ((), [_part(shape=())], "expected parts that make"),
        ((1, 3, 5, 5), [_part(steps=(0, 1))], "steps that move on and are worth more than nothing"),
        ((1, 3), [_part(shape=(1, 3))], "steps that move on"),
        ((1, 3, 5, 5), [_part(scale=0.0)], "worth 0"),
        ((1, 3, 5, 5), [_part(scale=math.inf)], "worth inf"),
        ((1, 3, 5, 5), [_part(scale=math.nan)], "worth nan"),
    ],
)
def test_parts_that_make_no_entry_are_refused(shape: tuple[int, ...], parts: list[Joined], message: str) -> None:
    """A joint entry is exactly its parts, each of some channels, in steps that mean something."""
    check_parts("entry", (1, 3, 5, 5), [_part()])
    check_parts("entry", (1, 7), [_part(shape=(1, 3), steps=(1, 1)), _part(shape=(1, 4), steps=(1, 1))])
    with pytest.raises(PlanError, match=f"joint entry .entry.: .*{message}"):
        check_parts("entry", shape, parts)
