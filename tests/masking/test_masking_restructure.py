"""Restructuring passes: what they promise of FLOPs and bytes, and that each is exact where it gives nothing up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from retrain_models import cut_at, items, network

from siniantrust.graph import Model, load_model
from siniantrust.masking.restructure import (
    PartFigures,
    RestructureError,
    list_passes,
    observe,
    parse_step,
    restructure,
)
from siniantrust.masking.restructure._channels import spaces
from siniantrust.masking.restructure._pass import Rewritten, Subject
from siniantrust.masking.restructure._remove import remove_channels
from siniantrust.masking.retrain import Recipe, retrain

make = helper.make_node


def _run(model: Model, at: str, step: str, *, count: int = 64) -> Rewritten:
    parsed = parse_step(step)
    inputs = {tensor.name: _images(model, count) for tensor in model.inputs}
    return list_passes()[parsed.name].run(Subject(model, cut_at(model, at), inputs, parsed.amount))


def _images(model: Model, count: int = 8) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, *model.inputs[0].shape[1:])).astype(np.float32)


def _answer(proto: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: values})[0]
    return found


def _figures(proto: onnx.ModelProto, at: str) -> PartFigures:
    model = load_model(proto)
    return PartFigures.of(model, cut_at(model, at))


def _block(reshape: str = "Flatten") -> Model:
    """Return a residual block with a depthwise convolution, normalisation, and a dense layer behind a flattening."""
    nodes = [
        make("Conv", ["x", "w1", "b1"], ["c1"], "stem", pads=[1, 1, 1, 1]),
        make("Relu", ["c1"], ["r1"], "relu1"),
        make("Conv", ["r1", "w2"], ["c2"], "inside", pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["c2", "gain", "shift", "mean", "var"], ["n2"], "norm"),
        make("Conv", ["n2", "wd"], ["d2"], "depthwise", pads=[1, 1, 1, 1], group=10),
        make("Relu", ["d2"], ["r2"], "relu2"),
        make("Conv", ["r2", "w3", "b3"], ["c3"], "back", pads=[1, 1, 1, 1]),
        make("Add", ["c3", "r1"], ["s"], "join"),
        make("Mul", ["s", "scale"], ["m"], "scaled"),
        make("MaxPool", ["m"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["p"], ["f"], "flat") if reshape == "Flatten" else make("Reshape", ["p", "to"], ["f"], "flat"),
        make("Gemm", ["f", "w4", "b4"], ["g"], "dense", transB=1),
        make("Relu", ["g"], ["r4"], "relu4"),
        make("MatMul", ["r4", "w5"], ["y"], "end"),
    ]
    shapes: dict[str, tuple[int, ...]] = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (10, 6, 3, 3), "wd": (10, 1, 3, 3)}
    shapes |= dict.fromkeys(("gain", "shift", "mean"), (10,)) | {"w3": (6, 10, 3, 3), "b3": (6,), "scale": (6, 1, 1)}
    shapes |= {"w4": (20, 96), "b4": (20,), "w5": (20, 5)}
    proto = _built_proto(nodes, shapes, {"var": np.ones(10, np.float32), "to": np.array([-1, 96], np.int64)})
    return load_model(proto)


def _built_proto(
    nodes: Sequence[onnx.NodeProto], shapes: dict[str, tuple[int, ...]], more: dict[str, np.ndarray]
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    values = {
        name: (rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32) for name, shape in shapes.items()
    }
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        list(nodes),
        "built",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(each, name) for name, each in (values | more).items() if name in read],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@given(data=st.data(), reshape=st.sampled_from(["Flatten", "Reshape"]))
@settings(max_examples=10, deadline=None)
def test_removing_channels_is_the_same_as_setting_them_to_zero(data: st.DataObject, reshape: str) -> None:
    """Channels that nothing makes and nothing reads can go: answers equal those of the model in which they are zero."""
    model = _block(reshape)
    found = spaces(model)
    assert [space.width for space in found] == [6, 10, 20]
    zeroed = onnx.ModelProto()
    zeroed.CopyFrom(model.proto)
    stored = {tensor.name: tensor for tensor in zeroed.graph.initializer}
    kept = []
    for space in found:
        gone = data.draw(st.sets(st.integers(0, space.width - 1), max_size=space.width - 2))
        kept.append((space, np.array(sorted(set(range(space.width)) - gone))))
        for each in space.read:
            values = np.moveaxis(numpy_helper.to_array(stored[each.stored]).copy(), each.axis, 0)
            for channel in gone:
                values[channel * each.run : (channel + 1) * each.run] = 0
            back = np.ascontiguousarray(np.moveaxis(values, 0, each.axis))
            stored[each.stored].CopyFrom(numpy_helper.from_array(back, each.stored))
    smaller = remove_channels(model, cut_at(model, "p"), kept)
    values = _images(model)
    np.testing.assert_allclose(_answer(smaller, values), _answer(zeroed, values), rtol=1e-4, atol=1e-5)
    assert [space.width for space in spaces(load_model(smaller))] == [len(channels) for _, channels in kept]


def test_what_is_not_understood_stays() -> None:
    """Channels that an unknown operator touches, that leave the model or whose weights are shared are not offered."""
    shapes: dict[str, tuple[int, ...]] = {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (5, 4)}
    nodes = [
        make("Conv", ["x", "w1"], ["a"], "one"),
        make("Conv", ["a", "w2"], ["b"], "two"),
        make("Conv", ["b", "w2"], ["c"], "three"),
        make("LRN", ["c"], ["d"], "odd", size=3),
        make("GlobalAveragePool", ["d"], ["e"], "mean"),
        make("Flatten", ["e"], ["f"], "flat"),
        make("Gemm", ["f", "w3"], ["y"], "end", transB=1),
    ]
    model = load_model(_built_proto(nodes, shapes, {}))
    assert spaces(model) == []
    with pytest.raises(RestructureError, match="no channels that could be removed"):
        _run(model, "d", "prune=0.5")


def test_pruning_keeps_what_matters() -> None:
    """Of channels half of which nothing reads, pruning keeps the others: answers stay, what crosses is halved."""
    model = _block()
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w3":
            values[:, 1::2] = 0
        if tensor.name in ("w1", "b1", "b3", "w3"):
            values[::2] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model = load_model(proto)
    made = _run(model, "p", "prune=0.5")
    assert len(made.changes) == 2
    np.testing.assert_allclose(
        _answer(made.proto, _images(model)), _answer(model.proto, _images(model)), rtol=1e-4, atol=1e-5
    )
    before, after = _figures(model.proto, "p"), _figures(made.proto, "p")
    assert after.size_bytes == before.size_bytes / 2
    assert after.flops < 0.5 * before.flops


def test_the_width_search_stops_at_its_goal() -> None:
    """Part 1 costs at most the share that was asked for, and no more than a step below it."""
    model = _block()
    made = _run(model, "p", "widths=0.6")
    share = _figures(made.proto, "p").flops / _figures(model.proto, "p").flops
    assert 0.4 < share <= 0.6
    assert made.changes
    with pytest.raises(RestructureError, match="with all groups narrowed Part 1 still costs"):
        _run(model, "p", "widths=0.01")


def test_separable_windows_are_exact_where_the_weights_are_separable() -> None:
    """A convolution whose weights are a window for each channel times a mixing is replaced without loss."""
    model = _block()
    rng = np.random.default_rng(0)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            windows, mixing = rng.normal(size=(1, 6, 3, 3)), rng.normal(size=(10, 6, 1, 1))
            tensor.CopyFrom(numpy_helper.from_array((windows * mixing).astype(np.float32), "w2"))
    exact = load_model(proto)
    made = _run(exact, "p", "separable")
    assert [change.split(":")[0] for change in made.changes] == ["node 'stem'", "node 'inside'", "node 'back'"]
    assert _figures(made.proto, "p").flops < 0.5 * _figures(exact.proto, "p").flops
    whole = _observed(exact.proto, "c2", "r1")
    np.testing.assert_allclose(_observed(made.proto, "c2", "r1"), whole, rtol=1e-3, atol=1e-4)


def _observed(proto: onnx.ModelProto, wanted: str, given_tensor: str) -> np.ndarray:
    """Return an inner tensor computed from another inner tensor."""
    import torch

    from siniantrust.odla.torch_graph import TorchGraph

    values = torch.tensor(np.random.default_rng(1).normal(size=(2, 6, 8, 8)).astype(np.float32))
    found: np.ndarray = TorchGraph(proto).run({given_tensor: values}, [wanted])[wanted].numpy()
    return found


def test_low_rank_is_exact_at_the_weights_own_rank() -> None:
    """A convolution of weights of rank 2 is replaced by two of 2 channels between them, without loss."""
    model = _block()
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    rng = np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            values = (rng.normal(size=(10, 2)) @ rng.normal(size=(2, 54))).reshape(10, 6, 3, 3)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "w2"))
    exact = load_model(proto)
    made = _run(exact, "p", "low_rank=0.2")
    np.testing.assert_allclose(
        _observed(made.proto, "c2", "r1"), _observed(exact.proto, "c2", "r1"), rtol=1e-3, atol=1e-4
    )
    assert any("rank 10 is 2" in change for change in made.changes)


def test_a_bottleneck_loses_least() -> None:
    """Features that lie in as many dimensions as the bottleneck has pass it unchanged; fewer bytes cross."""
    model = _block()
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in ("w1", "b1", "w3", "b3", "scale"):
            values = numpy_helper.to_array(tensor).copy()
            values[3:] = values[:3]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model = load_model(proto)
    made = _run(model, "p", "bottleneck=3")
    np.testing.assert_allclose(
        _answer(made.proto, _images(model)), _answer(model.proto, _images(model)), rtol=1e-3, atol=1e-3
    )
    assert made.tensor == "p_narrow"
    assert _figures(made.proto, made.tensor).size_bytes == _figures(model.proto, "p").size_bytes / 2
    flat = _run(model, "g", "bottleneck=7")
    assert _figures(flat.proto, flat.tensor).size_bytes == 7 * 4
    with pytest.raises(RestructureError, match="6 channels cross; a bottleneck of 6"):
        _run(model, "p", "bottleneck=6")


def test_what_crosses_a_bottleneck_has_one_variance() -> None:
    """Every channel has mean 0 and variance 1 on the given items; where nothing varies, nothing is blown up."""
    model = _block()
    made = load_model(_run(model, "p", "bottleneck=4").proto)
    inputs = {tensor.name: _images(model, 64) for tensor in model.inputs}
    rows = np.moveaxis(observe(made, inputs, "p_narrow"), 1, -1).reshape(-1, 4)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(rows.var(axis=0), 1, rtol=1e-3)
    still = onnx.ModelProto()
    still.CopyFrom(model.proto)
    for tensor in still.graph.initializer:
        if tensor.name.startswith("w"):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    kept = _run(load_model(still), "p", "bottleneck=4").proto
    assert np.isfinite(_answer(kept, _images(model))).all()


def test_names_that_are_taken_are_left_alone() -> None:
    """A model that already has tensors of the names that a pass would give keeps them as they are."""
    proto = _block().proto
    taken = {"scale": "p_squeeze", "b4": "p_wide", "relu4": "p_narrow_node"}
    for node in proto.graph.node:
        node.name = taken.get(node.name, node.name)
        node.input[:] = [taken.get(name, name) for name in node.input]
    for tensor in proto.graph.initializer:
        tensor.name = taken.get(tensor.name, tensor.name)
    model = load_model(proto)
    made = _run(model, "p", "bottleneck=5")
    before = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    after = {tensor.name: tensor for tensor in made.proto.graph.initializer}
    assert all(after[name] == tensor for name, tensor in before.items())
    assert len({node.name for node in made.proto.graph.node}) == len(made.proto.graph.node)
    assert _answer(made.proto, _images(model)).shape == (8, 5)


def test_pooling_becomes_a_stride() -> None:
    """The pooling behind the cut is the convolution's stride: a quarter of its FLOPs and of what crosses."""
    model = load_model(network())
    made = _run(model, "r1", "early_stride=1")
    assert made.tensor == "r1"
    before, after = _figures(model.proto, "r1"), _figures(made.proto, "r1")
    assert after.size_bytes == before.size_bytes / 4
    assert after.flops == before.flops / 4
    assert _answer(made.proto, _images(model)).shape == (8, 4)
    both = _run(model, "n2", "early_stride")
    assert len(both.changes) == 2


def test_a_stride_behind_the_cut_becomes_a_pooling_before_it() -> None:
    """Where all readers skip positions, they are left out before they cross."""
    shapes: dict[str, tuple[int, ...]] = {"w1": (4, 3, 3, 3), "w2": (6, 4, 3, 3), "w3": (6, 4, 1, 1), "w4": (5, 6)}
    nodes = [
        make("Conv", ["x", "w1"], ["a"], "stem", pads=[1, 1, 1, 1]),
        make("Conv", ["a", "w2"], ["b"], "main", pads=[1, 1, 1, 1], strides=[2, 2]),
        make("Conv", ["a", "w3"], ["c"], "short", strides=[2, 2]),
        make("Add", ["b", "c"], ["s"], "join"),
        make("GlobalAveragePool", ["s"], ["e"], "mean"),
        make("Flatten", ["e"], ["f"], "flat"),
        make("Gemm", ["f", "w4"], ["y"], "end", transB=1),
    ]
    model = load_model(_built_proto(nodes, shapes, {}))
    made = _run(model, "a", "early_stride")
    assert made.tensor == "a_pooled"
    assert _figures(made.proto, made.tensor).size_bytes == _figures(model.proto, "a").size_bytes / 4
    assert _answer(made.proto, _images(model)).shape == (8, 5)
    with pytest.raises(RestructureError, match="no stride to move"):
        _run(model, "s", "early_stride")


@cache
def _trained() -> Model:
    model = load_model(network())
    recipe = Recipe(mode="joint", epochs=8, learning_rate=5e-3)
    return load_model(retrain(model, items(800), cut=cut_at(model, "p1"), recipe=recipe).proto)


@pytest.mark.slow
def test_each_pass_is_followed_by_distillation() -> None:
    """Two passes make Part 1 and what crosses smaller, and accuracy comes back each time."""
    model = _trained()
    recipe = Recipe(mode="joint", epochs=12, learning_rate=1e-2)
    said: list[str] = []
    found = restructure(
        model,
        items(800),
        cut=cut_at(model, "p2"),
        steps=[parse_step("separable"), parse_step("bottleneck=3")],
        recipe=recipe,
        say=said.append,
    )
    assert [step.step for step in found.steps] == ["separable=1", "bottleneck=3"]
    assert len(said) == 2
    assert found.after.flops < 0.6 * found.before.flops
    assert found.after.size_bytes == 3 / 8 * found.before.size_bytes
    for step in found.steps:
        assert step.training.agreement is not None
        assert step.training.agreement > 0.8
    assert found.accuracy_after == found.steps[-1].training.accuracy_after
    after = load_model(found.proto)
    assert PartFigures.of(after, cut_at(after, found.tensor)) == found.after


def test_what_cannot_be_restructured_is_refused() -> None:
    """Nothing to do, a mode that leaves Part 1 alone, an output that crosses, a part without convolutions."""
    model = _trained()
    recipe = Recipe(mode="joint", epochs=1)
    cut = cut_at(model, "p2")
    with pytest.raises(RestructureError, match="at least one pass"):
        restructure(model, items(), cut=cut, steps=[], recipe=recipe)
    with pytest.raises(RestructureError, match="mode 'joint'"):
        restructure(model, items(), cut=cut, steps=[parse_step("prune")], recipe=replace(recipe, mode="part2"))
    with pytest.raises(RestructureError, match="no convolution before it"):
        restructure(model, items(), cut=cut_at(model, "p1"), steps=[parse_step("separable")], recipe=recipe)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("magic", "pass 'magic' is unknown; there are bottleneck, early_stride, low_rank, prune, separable, widths"),
        ("bottleneck", "expected bottleneck=AMOUNT, 1 to 4096, channels that cross"),
        ("prune=1", "expected prune=AMOUNT"),
        ("prune=half", "expected prune=AMOUNT"),
        ("prune=nan", "expected prune=AMOUNT"),
        ("widths=", "expected widths=AMOUNT"),
    ],
)
def test_a_pass_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    """Unknown passes and amounts out of range are answered with what would make sense."""
    with pytest.raises(RestructureError) as caught:
        parse_step(text)
    assert said in str(caught.value)


def test_every_pass_says_where_it_comes_from() -> None:
    """A pass has a source, and its default lies in its range."""
    for name, found in list_passes().items():
        assert found.source, name
        default: Any = found.default
        assert default is None or found.lowest <= default <= found.highest
