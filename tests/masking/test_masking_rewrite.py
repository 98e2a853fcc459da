"""A mask is a rewrite of the model: valid, complete, with a free batch, and only after the cut."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from siniantrust.errors import PlanError, SinianError
from siniantrust.graph import Cut, Model, Tensor, enumerate_cuts, load_model, split
from siniantrust.masking import MaskError, apply_mask, list_masks, read_records

KNOWN = list_masks()
NARROW = {"bottleneck", "channel_pruning", "pooling", "random_projection"}
ITEMS_FIRST = {"bottleneck", "channel_pruning", "patch_shuffle", "pooling"}
MASKS = sorted(KNOWN.keys() - {"token_shuffle"})  # which is for sequences, and has a test of its own
SHAPE = (3, 6, 6)


def _model(
    nodes: Sequence[onnx.NodeProto],
    *,
    outputs: Mapping[str, Sequence[int]] | None = None,
    batch: int | str = "n",
    kind: int = 1,
    opset: int = 17,
    shapes: Mapping[str, np.ndarray] | None = None,
) -> Model:
    """Return a model of inputs x (batch, 3, 6, 6) with weights w (4, 3, 3, 3) and v (4 * 36, 5).

    ``outputs`` are the shapes of one item of each output; if not given, y with (5,).
    """
    ends = {"y": (5,)} if outputs is None else outputs
    rng = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = {"w": rng.normal(0, 0.2, (4, 3, 3, 3)), "v": rng.normal(0, 0.1, (4 * 36, 5))}
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        list(nodes),
        "masked",
        [helper.make_tensor_value_info("x", kind, [batch, *SHAPE])],
        [helper.make_tensor_value_info(name, kind, [batch, *shape]) for name, shape in ends.items()],
        [
            *(numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items() if name in read),
            *(numpy_helper.from_array(value, name) for name, value in (shapes or {}).items()),
        ],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


def _node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


@cache
def _plain(batch: int | str = "n", opset: int = 17) -> Model:
    """Return convolution, activation with a residual sum, dense layer."""
    return _model(
        [
            _node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
            _node("Relu", "c", "r"),
            _node("Add", "r c", "s"),
            _node("Flatten", "s", "f"),
            _node("MatMul", "f v", "y"),
        ],
        batch=batch,
        opset=opset,
    )


@cache
def _turned() -> Model:
    """Return a network one of whose values, t, has its items along the second axis."""
    return _model(
        [
            _node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
            _node("Transpose", "c", "t", perm=[1, 0, 2, 3]),
            _node("Relu", "t", "u"),
            _node("Transpose", "u", "y", perm=[1, 0, 2, 3]),
        ],
        outputs={"y": (4, 6, 6)},
    )


def _cut(model: Model, *tensors: str) -> Cut:
    return next(cut for cut in enumerate_cuts(model).cuts if set(cut.tensors) == set(tensors))


def _inputs(model: Model, items: int = 8, seed: int = 0) -> np.ndarray:
    shape = (items if model.batch_symbol else model.inputs[0].shape[0], *SHAPE)
    return np.random.default_rng(seed).normal(size=shape).astype(model.inputs[0].dtype)


def _run(proto: onnx.ModelProto, inputs: np.ndarray, names: Sequence[str], *, times: int = 1) -> list[list[np.ndarray]]:
    """Run a model in one session, and return the named values of every run."""
    open_ended = onnx.ModelProto()
    open_ended.CopyFrom(proto)
    known = {value.name for value in proto.graph.output}
    kind = proto.graph.input[0].type.tensor_type.elem_type
    open_ended.graph.output.extend(
        helper.make_tensor_value_info(name, kind, None) for name in names if name not in known
    )
    session = onnxruntime.InferenceSession(open_ended.SerializeToString(), providers=["CPUExecutionProvider"])
    return [list(session.run(list(names), {"x": inputs})) for _ in range(times)]


def _sample(model: Model, *tensors: str) -> dict[str, np.ndarray]:
    (values,) = _run(model.proto, _inputs(model, 16, seed=9), tensors)
    return dict(zip(tensors, values, strict=True))


def _masked(model: Model, name: str, *tensors: str, seed: int = 0) -> onnx.ModelProto:
    """Return a model with a mask of its usual strength, learned in few steps where it is learned."""
    quickly = {"count": 2, "steps": 2} if name.startswith("shredder") else {}
    return apply_mask(
        model,
        _cut(model, *tensors),
        name,
        strength=KNOWN[name].usual,
        seed=seed,
        sample=_sample(model, *tensors),
        parameters=quickly,
    )


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_a_masked_model_is_a_model(name: str, batch: int | str) -> None:
    """It passes ONNX's checker, loads with the same inputs and outputs, runs, and can be cut at the masked value."""
    model = _plain(batch)
    proto = _masked(model, name, "s")
    onnx.checker.check_model(proto, full_check=True)
    masked = load_model(proto)
    assert masked.inputs == model.inputs
    assert masked.outputs == model.outputs
    assert masked.batch_symbol == model.batch_symbol
    before, after = masked.tensors["s"], masked.tensors["s_masked"]
    assert (after.dtype, after.batch_axis) == (before.dtype, before.batch_axis)
    whole = masked.tensors["s_restored"] if name in NARROW else after
    assert whole.shape == before.shape
    assert (after.elements < before.elements) == (name in NARROW)
    parts = split(masked, [_cut(masked, "s_masked")])
    assert [tensor.name for tensor in parts[1].inputs] == ["s_masked"]
    ((value, answer),) = _run(proto, _inputs(model), ["s_masked", "y"])
    assert value.shape[1:] == after.shape[1:]
    assert np.isfinite(value).all()
    assert answer.shape[1:] == (5,)


@pytest.mark.parametrize("name", sorted(set(MASKS) - ITEMS_FIRST))
def test_items_along_another_axis_are_masked_too(name: str) -> None:
    """A value whose second axis is the batch keeps that axis, for any number of items."""
    model = _turned()
    assert model.tensors["t"].batch_axis == 1
    proto = _masked(model, name, "t")
    whole = "t_restored" if name in NARROW else "t_masked"
    assert load_model(proto).tensors[whole] == Tensor(whole, "float32", (4, 1, 6, 6), 1)
    ((value,),) = _run(proto, _inputs(model, 5), [whole])
    assert value.shape == (4, 5, 6, 6)


@pytest.mark.parametrize("name", sorted(ITEMS_FIRST | {"token_shuffle"}))
def test_masks_that_need_items_first_say_so(name: str) -> None:
    """Where a mask needs an axis that is not there, it names the tensor, its shape and what it needs."""
    with pytest.raises(MaskError, match=r"tensor 't', float32 of shape \[4, 1, 6, 6\]: .*items"):
        _masked(_turned(), name, "t")


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_widths_of_numbers_are_masked_too(name: str, kind: int) -> None:
    """Half and double precision stay what they are."""
    model = _model([_node("Relu", "x", "s"), _node("Neg", "s", "y")], outputs={"y": SHAPE}, kind=kind)
    ((value,),) = _run(_masked(model, name, "s"), _inputs(model), ["s_masked"])
    assert value.dtype == model.inputs[0].dtype
    assert np.isfinite(value).all()


@pytest.mark.parametrize("name", MASKS)
def test_old_opsets_can_be_masked(name: str) -> None:
    """The masks' operators are there from opset 8 on."""
    proto = _masked(_plain(opset=8), name, "s")
    onnx.checker.check_model(proto, full_check=True)
    assert len(_run(proto, _inputs(_plain()), ["s_masked"])) == 1


def test_everything_after_the_cut_reads_the_masked_value() -> None:
    """Both readers of a residual sum's operand read the masked value, and nothing reads the plain one."""
    masked = load_model(_masked(_plain(), "gaussian", "c"))
    readers = {masked.nodes[index].op_type for index in masked.consumers["c_masked"]}
    assert readers == {"Relu", "Add"}
    behind = [node for node in masked.nodes if "c" in node.inputs]
    assert {node.outputs[0] for node in behind} <= {"c_masked"} | {
        n.outputs[0] for n in masked.nodes if "_mask_" in n.name
    }


def test_the_model_before_the_cut_reads_the_plain_value() -> None:
    """Where one tensor of a cut makes another of it, only what comes after the cut sees the masks."""
    model = _plain()
    proto = _masked(model, "constant", "c", "r")
    (plain,) = _run(model.proto, _inputs(model), ["c", "r"])
    (found,) = _run(proto, _inputs(model), ["c", "r", "c_masked", "r_masked", "y"])
    np.testing.assert_array_equal(found[0], plain[0])
    np.testing.assert_array_equal(found[1], plain[1])
    assert not any(value.any() for value in found[2:])


def test_graphs_inside_nodes_read_the_masked_value() -> None:
    """The branches of an If that look at a value outside are masked as well."""
    branches = {
        f"{name}_branch": helper.make_graph(
            [_node(op, "c", f"{name}_out")], name, [], [helper.make_tensor_value_info(f"{name}_out", 1, None)]
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    model = _model(
        [
            _node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
            _node("ReduceMax", "c", "m", keepdims=0),
            _node("Cast", "m", "b", to=TensorProto.BOOL),
            _node("If", "b", "i", **branches),
            _node("Flatten", "i", "y"),
        ],
        outputs={"y": (4 * 36,)},
    )
    cut = Cut("c", ("c",), 1, 0, 0, fusable=False)
    proto = apply_mask(model, cut, "constant", strength=1.0, seed=0, sample=_sample(model, "c"))
    ((found,),) = _run(proto, _inputs(model), ["y"])
    assert not found.any()


def test_the_model_that_is_masked_stays_as_it_was() -> None:
    """A mask is put on a copy."""
    model = _plain()
    before = model.proto.SerializeToString(deterministic=True)
    _masked(model, "bank", "s")
    assert model.proto.SerializeToString(deterministic=True) == before


def test_a_masked_value_can_be_masked_again() -> None:
    """Two masks in a row: quantised first, then noise over it."""
    once = load_model(_masked(_plain(), "quantise", "s"))
    twice = load_model(_masked(once, "gaussian", "s_masked"))
    assert [cut.tensors for cut in enumerate_cuts(twice).cuts].count(("s_masked_masked",)) == 1
    assert [(record.tensor, record.mask) for record in read_records(twice.proto)] == [
        ("s", "quantise"),
        ("s_masked", "gaussian"),
    ]


def test_tokens_are_shuffled() -> None:
    """The tokens of a sequence cross whole, in another order that is the same for every item."""
    model = _model(
        [_node("Reshape", "x q", "s"), _node("Neg", "s", "y")],
        outputs={"y": (9, 12)},
        shapes={"q": np.array([-1, 9, 12])},
    )
    plain, shuffled = (_run(_masked(model, "token_shuffle", "s"), _inputs(model), ["s", "s_masked"]))[0]
    order = [int(np.flatnonzero((plain[0] == row).all(axis=1))[0]) for row in shuffled[0]]
    assert sorted(order) == list(range(9)) != order
    np.testing.assert_array_equal(shuffled, plain[:, order])


def _refused(match: str, model: Model, name: str = "gaussian", cut: Cut | None = None, **changes: Any) -> None:
    arguments: dict[str, Any] = {"strength": 1.0, "seed": 0, "sample": {"s": np.arange(5.0)}} | changes
    with pytest.raises(MaskError, match=match) as caught:
        apply_mask(model, cut or _cut(model, "s"), name, **arguments)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SinianError)


def test_an_unknown_mask_is_named() -> None:
    """The error names what was asked for and what there is."""
    _refused(r"'gausian' is unknown; there are bank, .*constant, .*gaussian", _plain(), "gausian")


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_senseless_strength_is_refused(strength: float) -> None:
    """A strength is a finite number, and not negative."""
    _refused("strength must be a finite number", _plain(), strength=strength)


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("channel_pruning", {"strength": 1.0}, "'s', float32 .*: the strength is the share of channels .* below 1"),
        ("bottleneck", {"strength": 1.5}, "below 1; found 1.5"),
        ("dropout", {"strength": 1.0}, "probability that a number is dropped"),
        ("random_projection", {"strength": 1.0}, "the share of numbers that is dropped"),
        ("randomised_response", {"strength": 1.1}, "0 to 1; found 1.1"),
        ("randomised_response", {"strength": 0.5, "parameters": {"bits": 0.5}}, "bits must be a whole number"),
        ("pooling", {"strength": 1.5}, "must be a whole number of at least 1"),
        ("pooling", {"strength": 4.0}, "windows of 4 x 4 need an image .* sides that 4 divides"),
        ("patch_shuffle", {"strength": 5.0}, "patches of 5 x 5"),
        ("budgeted_gaussian", {"strength": 0.0}, "needs strength and clip above 0"),
        ("budgeted_gaussian", {"parameters": {"delta": 1.0}}, "delta between 0 and 1"),
        ("shredder_bank", {"parameters": {"count": 0}}, "count must be a whole number of at least 1"),
        ("gaussian", {"parameters": {"clip": 1.0}}, "'gaussian' has no parameter 'clip'; it has strength"),
        ("randomised_response", {"parameters": {"bits": np.inf}}, "bits must be a finite number"),
    ],
)
def test_senseless_settings_are_refused(name: str, changes: dict[str, Any], match: str) -> None:
    """Each mask says what its strength and parameters may be."""
    _refused(match, _plain(), name, **{"sample": _sample(_plain(), "s"), **changes})


def test_a_dense_projection_that_is_too_large_is_refused() -> None:
    """Beyond 64 million weights, the structured one is offered."""
    model = _model(
        [_node("Concat", " ".join(["x"] * 128), "s", axis=1), _node("Neg", "s", "y")], outputs={"y": (384, 6, 6)}
    )
    _refused(
        "has 95,551,488 weights; take structured=1",
        model,
        "random_projection",
        strength=0.5,
        parameters={"structured": 0},
        sample=_sample(model, "s"),
    )


def test_a_step_of_nothing_is_refused() -> None:
    """Quantisation needs a step."""
    _refused("needs a step", _plain(), "quantise", strength=0.0)


@pytest.mark.parametrize(
    ("sample", "match"),
    [
        ({}, "'s': no values to calibrate .* given: none"),
        ({"r": np.ones(3)}, "given: 'r'"),
        ({"s": np.array([1.0, np.nan])}, "must be finite"),
        ({"s": np.zeros(0)}, "at least one"),
    ],
)
def test_calibration_needs_values(sample: Mapping[str, np.ndarray], match: str) -> None:
    """Every tensor of the cut needs finite values."""
    _refused(match, _plain(), sample=sample)


def test_an_output_of_the_model_cannot_be_masked() -> None:
    """Its plain value would leave as well, so that the mask would hide nothing."""
    model = _model([_node("Relu", "x", "s"), _node("Neg", "s", "y")], outputs={"s": SHAPE, "y": SHAPE})
    _refused("'s': it is an output of the model", model, cut=Cut("s", ("s",), 1, 0, 0, fusable=False))


def test_whole_numbers_cannot_be_masked() -> None:
    """Masks are arithmetic on floating-point numbers."""
    nodes = [_node("Cast", "x", "s", to=TensorProto.INT32), _node("Cast", "s", "y", to=TensorProto.FLOAT)]
    model = _model(nodes, outputs={"y": SHAPE})
    _refused("'s': only floating-point numbers can be masked, found int32", model)


def test_a_name_that_is_taken_is_refused() -> None:
    """A value of the model that is called like a masked one would be overwritten."""
    nodes = [_node("Relu", "x", "s"), _node("Neg", "s", "s_masked"), _node("Abs", "s_masked", "y")]
    model = _model(nodes, outputs={"y": SHAPE})
    _refused("already has a value 's_masked'", model)


def test_a_cut_of_another_model_is_refused() -> None:
    """The error comes from the graph and names the value."""
    with pytest.raises(PlanError, match="makes no value 't'"):
        apply_mask(_plain(), _cut(_turned(), "t"), "constant", strength=1.0, seed=0, sample={})


def test_an_old_opset_is_refused() -> None:
    """Before opset 8 minima do not broadcast."""
    _refused("needs opset 8 or newer, found 7", _plain(opset=7))


def test_the_room_is_light() -> None:
    """Importing the room, and listing its masks, brings in no runtime."""
    code = (
        "import sys; from siniantrust.masking import list_masks; list_masks();"
        "print(*{'torch', 'onnxruntime', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not found.stdout.strip()
