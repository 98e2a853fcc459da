"""A program as a file, and its trusted side behind calls that only take and give arrays."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from exact_models import (
    attention_network,
    downsampling_network,
    encoder_network,
    items,
    loaded,
    normalised_network,
    program_of,
    residual_network,
    trunk_network,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust.errors import DataError, EnclaveError, PlanError, TrustError
from siniantrust.graph import load_model
from siniantrust.masking.exact import (
    Pending,
    Program,
    QuantisedModel,
    Relay,
    Settings,
    build_program,
    dump_program,
    read_outline,
    resident,
)
from siniantrust.masking.exact._program_file import load_program
from siniantrust.masking.exact._uses import uses
from siniantrust.masking.exact._wire import DROP, EXCHANGE, PREPARE, PREPARED, QUERY, STOCK
from siniantrust.masking.exact.resident import ResidentProgram

SETTINGS = Settings(soundness_bits=40, wait_when_dry=True)
Arrays = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Return the residual network with all its layers on devices."""
    return program_of(loaded(residual_network(), tmp_path_factory.mktemp("model")))


def _open_model(model: bytes) -> Callable[[Arrays], dict[str, np.ndarray]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _resident(program: Program, settings_: Settings = SETTINGS) -> ResidentProgram:
    head, body = dump_program(program, settings_)
    return ResidentProgram(head, memoryview(bytearray(body)), _open_model)


def _device(program: Program, pending: Pending) -> dict[str, np.ndarray]:
    return _open_model(program.exchanges[pending.exchange].part.proto.SerializeToString())(pending.masked)


def _answered(program: Program, relay: Relay, inputs: Arrays) -> dict[str, np.ndarray]:
    state = relay.begin(inputs)
    while isinstance(state, Pending):
        state = relay.accept(state, _device(program, state))
    return state


@pytest.mark.parametrize(
    "network",
    [residual_network, attention_network, encoder_network, normalised_network, trunk_network, downsampling_network],
)
@pytest.mark.parametrize("prepared", [0, 2, 3])
def test_a_resident_program_answers_as_the_quantised_model(
    network: Callable[[], onnx.ModelProto], prepared: int, tmp_path: Path
) -> None:
    """Dumped, loaded and driven by a relay, a program gives the quantised model's answer to the bit."""
    model = loaded(network(), tmp_path)
    program = program_of(model)
    relay = Relay(_resident(program).run, read_outline(dump_program(program, SETTINGS)[0]))
    if prepared:
        relay.prepare(prepared)
    x = items(model, 3, seed=5)
    with QuantisedModel(program) as quantised:
        wanted = quantised.run({"x": x})["y"].copy()
    np.testing.assert_array_equal(_answered(program, relay, {"x": x})["y"], wanted)
    status = relay.status()
    assert (status.stock_level, status.meter.ran_dry) == (0, 3 - prepared)
    assert relay.kept_bytes == 0


@pytest.mark.parametrize("network", [residual_network, normalised_network, trunk_network, downsampling_network])
def test_a_program_comes_back_as_it_was(network: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    """What is loaded has the layers, finishes, steps and settings of what was dumped."""
    program = program_of(loaded(network(), tmp_path))
    settings_ = Settings(soundness_bits=60, wait_when_dry=False)
    head, body = dump_program(program, settings_)
    loaded_program, found = load_program(head, memoryview(bytearray(body)))
    assert found == settings_
    assert uses(loaded_program) == uses(program)
    for mine, theirs in zip(loaded_program.exchanges, program.exchanges, strict=True):
        for field in ("limbs", "entries", "steps", "joins", "finishes"):
            assert getattr(mine, field) == getattr(theirs, field)
        for left, right in zip(mine.layers, theirs.layers, strict=True):
            assert (left.name, left.window, left.input_scale) == (right.name, right.window, right.input_scale)
            np.testing.assert_array_equal(left.weight, right.weight)
            np.testing.assert_array_equal(left.scale, right.scale)
            np.testing.assert_array_equal(left.bias, right.bias)


def test_the_head_holds_no_number_that_was_learned(program: Program) -> None:
    """What lies outside in the clear tells structure and sizes; scales and weights are in the body."""
    head, _ = dump_program(program, SETTINGS)
    for layer in program.layers:
        assert str(layer.input_scale).encode() not in head
    raw = json.loads(head[8:])
    assert {"weight", "bias", "row_scales", "input_scale"} <= raw["exchanges"][0]["layers"][0].keys()
    assert raw["exchanges"][0]["layers"][0]["input_scale"].keys() == {"at", "dtype", "shape"}


def test_bounds_are_proven_again_when_a_program_is_loaded(program: Program) -> None:
    """A weight that no quantiser makes is found inside, whoever wrote the file."""
    head, body = dump_program(program, SETTINGS)
    raw = json.loads(head[8:])
    at = raw["exchanges"][0]["layers"][0]["weight"]["at"]
    spoiled = bytearray(body)
    spoiled[at] = 0x80  # -128
    with pytest.raises(PlanError, match="expected int8 weights from -127 on"):
        load_program(head, memoryview(spoiled))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("pool", "pads"), [1, 1, 1, 3], "value 'p1': expected windows that move on and hang over an edge by less"),
        (("pool", "kernel"), [0, 3], "value 'p1': expected windows that move on"),
        (("pool", "strides"), [2, 0], "value 'p1': expected windows that move on"),
        (("value",), "y", "value 'y' is pooled as steps, and not read by devices alone"),
    ],
)
def test_pooling_is_proven_again_when_a_program_is_loaded(
    place: tuple[str, ...], value: object, message: str, tmp_path: Path
) -> None:
    """Windows that lie beside the image, or a pooled value that the enclave reads too, are found inside."""
    head, body = dump_program(program_of(loaded(trunk_network(), tmp_path)), SETTINGS)
    raw = json.loads(head[8:])
    inner = raw["exchanges"][0]["finishes"][0]
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(PlanError, match=message):
        ResidentProgram(resident.MAGIC + json.dumps(raw).encode(), memoryview(bytearray(body)), _open_model)


JOINT = ("exchanges", 3, "joins", "s1.joined")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((*JOINT, 1, "shape"), [1, 5, 5, 5], r"'s1.joined': expected parts that make \[1, 11, 5, 5\]"),
        ((*JOINT, 1, "shape"), [1, 6, 5, 4], r"'s1.joined': expected parts that make \[1, 11, 5, 5\]"),
        ((*JOINT, 1, "steps"), [2, 0], "'s1.joined': expected of 'r1' steps that move on"),
        ((*JOINT, 1, "steps"), [2], "the program is malformed"),
        ((*JOINT, 0), None, "the program is malformed"),
        (JOINT, [], r"'s1.joined': expected parts that make \[1, 11, 5, 5\], found none"),
        (("exchanges", 3, "joins"), {"else": []}, r"'else': expected parts that make \[\], found none"),
        (("exchanges", 3, "joins"), None, "the program is malformed"),
        (("exchanges", 3, "entries", "s1.joined"), 1, "expected of every entry a number of its own"),
        (("exchanges", 3, "entries", "s1.joined"), "3", "expected of every entry a number of its own"),
    ],
)
def test_joint_entries_are_proven_again_when_a_program_is_loaded(
    place: tuple[str | int, ...], value: object, message: str
) -> None:
    """Parts that do not fill their entry, or an entry with the pad of another one, are found inside, by name."""
    raw, body = _small(downsampling_network)
    inner: Any = raw
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises((PlanError, TrustError), match=message):
        ResidentProgram(resident.MAGIC + json.dumps(raw).encode(), memoryview(bytearray(body)), _open_model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["exchanges"][0]["finishes"][0].update(value="z"), "reads 'r1', which nothing before it makes"),
        (lambda raw: raw["exchanges"][0]["finishes"][0].update(addend="s1"), "exchange 0 reads 's1', which nothing"),
        (lambda raw: raw["exchanges"].insert(0, raw["exchanges"].pop()), "exchange 0 reads"),
        (lambda raw: raw["outputs"][0].update(name="z"), "the model's end reads 'z', which nothing before it makes"),
        (lambda raw: raw["segments"].append(None), "expected a segment before and behind each of 6 exchanges, found 8"),
    ],
)
def test_values_are_made_before_they_are_read(change: Callable[[dict[str, Any]], object], message: str) -> None:
    """A program in which something is read that is not there yet is refused when it is loaded, not at a request."""
    raw, body = _small(downsampling_network)
    change(raw)
    with pytest.raises(PlanError, match=message):
        ResidentProgram(resident.MAGIC + json.dumps(raw).encode(), memoryview(bytearray(body)), _open_model)


@pytest.mark.parametrize(("scale", "message"), [(0.5, "reads 'r1' in other steps"), (np.nan, "worth nan")])
def test_a_part_has_the_steps_of_its_value(scale: float, message: str) -> None:
    """What is joined is worth what the same value is worth to other layers, and worth something."""
    raw, body = _small(downsampling_network)
    spoiled = bytearray(body)
    at = raw["exchanges"][3]["joins"]["s1.joined"][1]["scale"]["at"]
    spoiled[at : at + 8] = np.float64(scale).tobytes()
    with pytest.raises(PlanError, match=message):
        ResidentProgram(resident.MAGIC + json.dumps(raw).encode(), memoryview(spoiled), _open_model)


def test_the_outline_names_the_nodes_of_a_sum() -> None:
    """Who relays is told which nodes are computed of which values, and that a sum of two has one result."""
    program = program_of(load_model(downsampling_network()))
    outline = read_outline(dump_program(program, SETTINGS)[0])[3]
    assert [(each.node, each.entry, each.exit) for each in outline.nodes] == [
        ("c", "rb", "s1"),
        ("shortcut", "r1", "s1"),
    ]
    assert (outline.entries, [each.exit for each in outline.corrections]) == (("s1.joined",), ["s1"])


def test_a_value_has_steps_of_one_size(tmp_path: Path) -> None:
    """Layers that read the same value, and say that its steps are worth something else, are refused inside."""
    head, body = dump_program(program_of(loaded(attention_network(), tmp_path)), SETTINGS)
    spoiled = bytearray(body)
    at = json.loads(head[8:])["exchanges"][0]["layers"][1]["input_scale"]["at"]
    spoiled[at : at + 8] = np.float64(0.5).tobytes()
    with pytest.raises(PlanError, match="layer 'key' reads 'x' in other steps than one before it"):
        ResidentProgram(head, memoryview(spoiled), _open_model)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_malformed_program_is_refused_and_nothing_else(data: st.DataObject) -> None:
    """Any change of the head's JSON either loads or is refused by name, never another error."""
    raw, body = _small(data.draw(st.sampled_from([trunk_network, downsampling_network]), label="network"))
    paths = list(_paths(raw))
    path = data.draw(st.sampled_from(paths))
    value: Any = data.draw(st.sampled_from([None, -1, 1 << 40, "x", [], {}, True, 0.5]))
    place: Any = raw
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    head = resident.MAGIC + json.dumps(raw).encode()
    with contextlib.suppress(TrustError, PlanError):
        load_program(head, memoryview(bytearray(body)))
    with contextlib.suppress(TrustError):
        read_outline(head)


@functools.cache
def _dumped(network: Callable[[], onnx.ModelProto]) -> tuple[bytes, bytes]:
    return dump_program(program_of(load_model(network())), SETTINGS)


def _small(network: Callable[[], onnx.ModelProto]) -> tuple[dict[str, Any], bytes]:
    head, body = _dumped(network)
    return json.loads(head[8:]), body


def _paths(raw: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    found = [] if not path else [path]
    for name, inner in entries:
        found += _paths(inner, (*path, name))
    return found


def test_only_so_many_requests_wait(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that nobody finishes are limited in number and in age, and can be dropped."""
    inside = _resident(program)
    x = {"x": np.zeros((1, *program.inputs[0].shape[1:]), np.float32)}
    first = inside.run(x)
    for _ in range(63):
        last = inside.run(x)
    with pytest.raises(EnclaveError, match="64 requests wait for devices, the limit"):
        inside.run(x)
    assert inside.run({QUERY: last[QUERY], DROP: np.ones(1, np.uint8)}) == {}
    inside.run(x)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 601.0)
    inside.run(x)
    with pytest.raises(EnclaveError, match="no request 1 waits here"):
        inside.run({QUERY: first[QUERY]})


def test_what_was_made_on_the_spot_goes_to_the_host(program: Program) -> None:
    """A request that finds the stock dry brings its corrections along, and leaves none of them inside."""
    inside = _resident(program)
    x = {"x": np.zeros((2, *program.inputs[0].shape[1:]), np.float32)}
    pending = inside.run(x)
    assert pending[STOCK].shape[0] == len(pending[PREPARED]) == 2
    inside.run({QUERY: pending[QUERY], DROP: np.ones(1, np.uint8)})
    assert not inside._requests


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({QUERY: np.zeros(1, np.int64)}, "expected uint64"),
        ({PREPARE: np.zeros(1, np.uint64)}, "expected 1 to 64 items"),
        ({PREPARE: np.array([65], np.uint64)}, "expected 1 to 64 items"),
        ({"y": np.zeros(3, np.float32)}, "expected inputs"),
        ({"exact.else": np.zeros(3, np.float32)}, "expected inputs"),
    ],
)
def test_requests_of_no_known_form_are_refused(program: Program, arrays: Arrays, message: str) -> None:
    """What is no request is refused with what was expected."""
    with pytest.raises(DataError, match=message):
        _resident(program).run(arrays)


def test_corrections_of_other_items_are_refused(program: Program) -> None:
    """A host cannot bring corrections for items that are not the request's."""
    inside = _resident(program)
    kept = inside.run({PREPARE: np.array([2], np.uint64)})
    pending = inside.run({"x": np.zeros((1, *program.inputs[0].shape[1:]), np.float32)})
    outline = read_outline(dump_program(program, SETTINGS)[0])[int(pending[EXCHANGE][0])]
    size = sum(each.size_bytes for each in outline.corrections)
    with pytest.raises(DataError, match="of this request's items"):
        inside.run({QUERY: pending[QUERY], PREPARED: kept[PREPARED], STOCK: kept[STOCK][:, :size]})


def test_a_reserved_name_is_refused_at_build(tmp_path: Path) -> None:
    """A model whose values are named as the exchange's own is refused, with what to do."""
    proto = attention_network()
    for node in proto.graph.node:
        node.input[:] = ["exact.query" if name == "x" else name for name in node.input]
    proto.graph.input[0].name = "exact.query"
    model = loaded(proto, tmp_path)
    program = build_program(model, ["out"], {"o": 0.1})
    with pytest.raises(PlanError, match=r"value 'exact.query' has a reserved name"):
        dump_program(program, SETTINGS)


def test_other_soundness_is_kept_inside(program: Program) -> None:
    """What the owner decided of the check's soundness holds inside, whatever the host says."""
    with pytest.raises(PlanError, match="expected a soundness of 1 to 160 bits"):
        _resident(program, Settings(soundness_bits=161, wait_when_dry=True))
