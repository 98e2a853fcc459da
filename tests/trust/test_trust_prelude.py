"""What a part makes of noise alone is made when the enclave draws: sealed with the part, fresh, and used once."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, shape_inference
from scipy import stats
from trust_parts import CONTEXT, Launch, LoadPart, build_part

from siniantrust.errors import DataError, EnclaveError
from siniantrust.graph import PREPARED_PREFIX, Part
from siniantrust.trust import Enclave, SealedPart, _sealed, seal_part, unseal_part
from siniantrust.trust.process._noise import NoiseSource
from siniantrust.trust.process._parts import LoadedPart, open_sealed

_FLOAT = TensorProto.FLOAT
WIDTH = 500
BANK = np.arange(4 * WIDTH, dtype=np.float32).reshape(4, WIDTH)
SCALE = np.linspace(1, 2, WIDTH, dtype=np.float32)


def _part() -> Part:
    """Return y = x + a row of the bank that is drawn for each item, and z = x + scale * a normal number."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["one"], name="one", axis=1),
        helper.make_node("RandomUniformLike", ["one"], ["u"], name="u", low=0.0, high=3.999),
        helper.make_node("Floor", ["u"], ["f"], name="f"),
        helper.make_node("Cast", ["f"], ["row"], name="row", to=TensorProto.INT64),
        helper.make_node("Gather", ["bank", "row"], ["added"], name="added", axis=0),
        helper.make_node("Add", ["x", "added"], ["y"], name="y"),
        helper.make_node("RandomNormalLike", ["x"], ["n"], name="n"),
        helper.make_node("Mul", ["n", "scale"], ["scaled"], name="scaled"),
        helper.make_node("Add", ["x", "scaled"], ["z"], name="z"),
    ]
    shape: list[int | str] = ["n", WIDTH]
    weights: dict[str, np.ndarray] = {"first": np.zeros((), np.int64), "bank": BANK, "scale": SCALE}
    part = build_part(nodes, [("x", _FLOAT, shape)], [("y", _FLOAT, shape), ("z", _FLOAT, shape)], weights)
    part.proto.CopyFrom(shape_inference.infer_shapes(part.proto))
    return part


def _open(sealed: SealedPart, key: bytes) -> LoadedPart:
    opened = open_sealed(
        "own",
        skeleton=memoryview(sealed.skeleton),
        sealed=memoryview(bytearray(sealed.sealed)),
        key=memoryview(key),
        context=memoryview(CONTEXT),
        threads=1,
        noise=NoiseSource(),
    )
    assert isinstance(opened, LoadedPart)
    return opened


def _resealed(change: Callable[[onnx.ModelProto], None]) -> tuple[SealedPart, bytes]:
    """Return the part as somebody with the key would seal it who changes its weights before."""
    key = secrets.token_bytes(32)
    sealed = seal_part(_part(), key=key, context=CONTEXT)
    raw = bytearray(sealed.sealed)
    weights = onnx.ModelProto.FromString(
        bytes(_sealed.open_in_place(memoryview(raw), skeleton=sealed.skeleton, key=key, context=CONTEXT))
    )
    change(weights)
    again = _sealed.seal_bytes(weights.SerializeToString(), skeleton=sealed.skeleton, key=key, context=CONTEXT)
    return SealedPart(sealed.skeleton, again), key


def _prelude(weights: onnx.ModelProto) -> onnx.ModelProto:
    prelude = onnx.ModelProto()
    prelude.ParseFromString(base64.b64decode(weights.metadata_props[0].value))
    return prelude


def _put(weights: onnx.ModelProto, prelude: onnx.ModelProto) -> None:
    weights.metadata_props[0].value = base64.b64encode(prelude.SerializeToString()).decode()


def test_only_what_touches_the_input_is_left() -> None:
    """The skeleton holds two additions; the bank, the scales and what reads them are in the sealed prelude alone."""
    key = secrets.token_bytes(32)
    sealed = seal_part(_part(), key=key, context=CONTEXT)
    skeleton = onnx.ModelProto.FromString(sealed.skeleton)
    assert [node.op_type for node in skeleton.graph.node] == ["Identity", "Add", "Identity", "Add"]
    assert not skeleton.metadata_props
    assert BANK.tobytes() not in sealed.skeleton
    whole = unseal_part(sealed.skeleton, sealed.sealed, key=key, context=CONTEXT)
    assert {"bank", "scale"}.isdisjoint(tensor.name for tensor in whole.graph.initializer)
    prelude = _prelude(whole)
    assert [node.op_type for node in prelude.graph.node] == ["Identity", "Floor", "Cast", "Gather", "Identity", "Mul"]
    assert {tensor.name for tensor in prelude.graph.initializer} == {"bank", "scale"}


def test_an_enclave_prepares_by_the_parts_law(shared_enclave: Enclave, load_part: LoadPart) -> None:
    """Rows of the bank come evenly and whole, scales hold for their own numbers, and rows of noise do not correlate."""
    load_part(shared_enclave, "prepared", _part())
    found = shared_enclave.run("prepared", {"x": np.ones((800, WIDTH), np.float32)})
    rows = (found["y"][:, 0] - 1) / WIDTH
    np.testing.assert_array_equal(found["y"] - 1, BANK[rows.astype(int)])
    assert stats.chisquare(np.bincount(rows.astype(int), minlength=4)).pvalue > 1e-6
    assert stats.kstest(((found["z"] - 1) / SCALE).ravel(), stats.norm.cdf).statistic < 0.01


@pytest.mark.parametrize("batches", [(2, 2, 2), (2, 3, 2)])
def test_what_is_prepared_is_used_once(launched: Launch, load_part: LoadPart, batches: tuple[int, ...]) -> None:
    """Every item of every run and session, of one batch or of several, has numbers of its own."""
    every = []
    for enclave in (launched(), launched()):
        load_part(enclave, "prepared", _part())
        every += [enclave.run("prepared", {"x": np.zeros((items, WIDTH), np.float32)})["z"] for items in batches]
    rows = np.concatenate(every)
    assert len(np.unique(rows)) > 0.99 * rows.size
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.25


def test_preparing_ahead_gives_the_next_run_its_numbers_and_no_other() -> None:
    """After preparing ahead twice, a run takes one set, and the next one has another."""
    key = secrets.token_bytes(32)
    sealed = seal_part(_part(), key=key, context=CONTEXT)
    part, zeros = _open(sealed, key), np.zeros((1, WIDTH), np.float32)
    found = [part.run({"x": zeros})["z"]]
    part.draw_ahead()
    part.draw_ahead()
    found += [part.run({"x": zeros})["z"] for _ in range(2)]
    assert len(np.unique(np.concatenate(found))) > 0.99 * 3 * WIDTH


def test_the_host_cannot_give_what_is_prepared(shared_enclave: Enclave, load_part: LoadPart) -> None:
    """A caller that sends a prepared input is refused."""
    load_part(shared_enclave, "prepared", _part())
    zeros = np.zeros((1, WIDTH), np.float32)
    with pytest.raises(DataError, match=r"expected inputs \['x'\]"):
        shared_enclave.run("prepared", {"x": zeros, f"{PREPARED_PREFIX}scaled": zeros})


def _without(weights: onnx.ModelProto) -> None:
    del weights.metadata_props[:]


def _makes_less(weights: onnx.ModelProto) -> None:
    prelude = _prelude(weights)
    del prelude.graph.output[1:]
    _put(weights, prelude)


def _reads_anything(weights: onnx.ModelProto) -> None:
    prelude = _prelude(weights)
    was, prelude.graph.input[0].name = prelude.graph.input[0].name, "given"
    for node in prelude.graph.node:
        node.input[:] = ["given" if name == was else name for name in node.input]
    _put(weights, prelude)


def _draws_itself(weights: onnx.ModelProto) -> None:
    prelude = _prelude(weights)
    scaled = next(node for node in prelude.graph.node if node.op_type == "Mul")
    scaled.CopyFrom(helper.make_node("RandomNormalLike", [scaled.input[0]], list(scaled.output)))
    _put(weights, prelude)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_without, "expected a prelude that makes .*added.*scaled.*, found \\[\\]"),
        (_makes_less, "expected a prelude that makes .*added.*scaled.*, found .*added'\\]"),
        (_reads_anything, "'given' has a reserved name that says no law"),
        (_draws_itself, "it holds the operator RandomNormalLike"),
    ],
)
def test_a_prelude_that_does_not_fit_is_refused(change: Callable[[onnx.ModelProto], None], match: str) -> None:
    """One that is missing, makes other values, reads what is not drawn, or draws by itself, is refused when loaded."""
    sealed, key = _resealed(change)
    with pytest.raises(EnclaveError, match=match):
        _open(sealed, key)


def test_a_prelude_that_fails_refuses_the_run(shared_enclave: Enclave) -> None:
    """The run whose noise cannot be prepared is refused, and so is the next one: nothing goes out without its noise."""

    def out_of_the_bank(weights: onnx.ModelProto) -> None:
        prelude = _prelude(weights)
        bank = next(tensor for tensor in prelude.graph.initializer if tensor.name == "bank")
        bank.CopyFrom(onnx.numpy_helper.from_array(np.zeros((0, WIDTH), np.float32), "bank"))
        _put(weights, prelude)

    sealed, key = _resealed(out_of_the_bank)
    shared_enclave.load("empty", sealed.skeleton, sealed.sealed, key, context=CONTEXT)
    for _ in range(2):
        with pytest.raises(EnclaveError, match="running part 'empty' failed"):
            shared_enclave.run("empty", {"x": np.zeros((2, WIDTH), np.float32)})
