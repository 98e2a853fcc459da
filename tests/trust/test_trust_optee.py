"""Parts as trusted applications of OP-TEE under QEMU: what a part does there, and what does not get through."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from trust_parts import CONTEXT, LoadPart, MakePart

from siniantrust.errors import AttestationError, ChannelError, DataError, EnclaveError, EnclaveLostError, TrustError
from siniantrust.graph import Part, enumerate_cuts, load_model, split
from siniantrust.lowering import lower
from siniantrust.trust import Enclave, EnclaveSpec, Provenance, launch, measure_crossing, seal_part, set_up
from siniantrust.trust._sealed import OVERHEAD_BYTES, open_in_place, seal_bytes
from siniantrust.trust.optee import _guest, _host
from siniantrust.trust.optee._application import Session
from siniantrust.trust.optee._build import build
from siniantrust.trust.optee._cache import find_machine
from siniantrust.trust.optee._host import OpteeEnclave

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_FLOAT = TensorProto.FLOAT
_DEMO = Path(__file__).resolve().parents[2] / "src/siniantrust/demo/scenes.onnx"
_SPEC = EnclaveSpec(provider="optee", memory_bytes=10 << 20, accept=(Provenance.EMULATED,))


@pytest.fixture(scope="module", autouse=True)
def _is_set_up() -> None:
    try:
        find_machine()
    except EnclaveError as fault:
        pytest.skip(str(fault))


@pytest.fixture(scope="module")
def enclave() -> Iterator[OpteeEnclave]:
    """Return one enclave for all tests that do it no harm."""
    with contextlib.closing(launch(_SPEC)) as launched:
        assert isinstance(launched, OpteeEnclave)
        yield launched


@pytest.fixture
def victim() -> Iterator[OpteeEnclave]:
    """Return an enclave of the test's own."""
    with contextlib.closing(OpteeEnclave(_SPEC)) as launched:
        yield launched


@pytest.fixture(scope="module")
def demo_part() -> Part:
    """Return the demo network's first two layers: what it runs in the enclave in a split."""
    model = load_model(_DEMO)
    return split(model, [enumerate_cuts(model).cuts[3]])[0]


def _bare(part: Part, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(part.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, inputs)
    return outputs


def test_it_is_an_enclave(enclave: OpteeEnclave) -> None:
    """It has what the protocol asks for, says that it is emulated, and what it lacks."""
    assert isinstance(enclave, Enclave)
    info = enclave.info()
    assert (info.provider, info.provenance, info.threads) == ("optee", Provenance.EMULATED, 1)
    assert info.protections["hardware"].startswith("missing")
    assert enclave.alive


@pytest.mark.parametrize("batch", [1, 3])
def test_the_demos_part_1_equals_onnx_runtime(
    enclave: OpteeEnclave, load_part: LoadPart, demo_part: Part, batch: int
) -> None:
    """Part 1 of the demo gives in the secure world what ONNX Runtime gives outside, within 1e-4, for any batch size."""
    load_part(enclave, "demo", demo_part)
    x = np.random.default_rng(batch).random((batch, 3, 32, 32), np.float32)
    (output,) = enclave.run("demo", {"tile": x}).values()
    np.testing.assert_allclose(output, _bare(demo_part, tile=x)[0], rtol=1e-4, atol=1e-4)


def test_an_integer_part_equals_onnx_runtime_exactly(
    enclave: OpteeEnclave, load_part: LoadPart, make_part: MakePart
) -> None:
    """QuantizeLinear, QLinearConv and DequantizeLinear give the very numbers of ONNX Runtime."""
    random = np.random.default_rng(0)
    scale, zero = np.float32(0.02), np.uint8(128)
    weights = {
        "s": np.array(scale),
        "z": np.array(zero),
        "w": random.integers(-64, 64, size=(4, 3, 3, 3)).astype(np.int8),
        "ws": random.uniform(0.001, 0.01, 4).astype(np.float32),
        "wz": np.zeros(4, np.int8),
        "b": random.integers(-500, 500, 4).astype(np.int32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "s", "z", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    part = make_part(nodes, [("x", _FLOAT, ["n", 3, 8, 8])], [("y", _FLOAT, ["n", 4, 8, 8])], weights)
    load_part(enclave, "integers", part)
    x = random.normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(enclave.run("integers", {"x": x})["y"], _bare(part, x=x)[0])


def test_rows_are_picked_by_sealed_and_by_computed_indices(
    enclave: OpteeEnclave, load_part: LoadPart, make_part: MakePart
) -> None:
    """Floor, Cast and two Gathers, one by constants that are sealed, give the very rows of ONNX Runtime."""
    weights = {"bank": np.arange(21, dtype=np.float32).reshape(7, 3), "order": np.array([2, 0, -2])}
    nodes = [
        helper.make_node("Floor", ["x"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["bank", "row"], ["picked"]),
        helper.make_node("Gather", ["picked", "order"], ["y"], axis=1),
    ]
    part = make_part(nodes, [("x", _FLOAT, ["n"])], [("y", _FLOAT, ["n", 3])], weights)
    load_part(enclave, "rows", part)
    x = np.array([0.0, 6.99, -0.5, -7.0, 3.0], np.float32)
    np.testing.assert_array_equal(enclave.run("rows", {"x": x})["y"], _bare(part, x=x)[0])


def test_tensors_beyond_a_piece_of_shared_memory(
    enclave: OpteeEnclave, load_part: LoadPart, make_part: MakePart
) -> None:
    """Inputs, outputs and weights that go through shared memory in several pieces arrive whole."""
    size = 150_000
    weights = np.random.default_rng(1).normal(size=(1, size)).astype(np.float32)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    part = make_part([node], [("x", _FLOAT, [1, size])], [("y", _FLOAT, [1, size])], {"w": weights})
    load_part(enclave, "large", part)
    x = np.random.default_rng(2).normal(size=(1, size)).astype(np.float32)
    np.testing.assert_array_equal(enclave.run("large", {"x": x})["y"], x + weights)


def test_nothing_private_passes_the_normal_world(
    enclave: OpteeEnclave, demo_part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither weights nor keys, inputs or outputs are in clear in anything that goes to the guest or comes back."""
    seen = bytearray()
    request = enclave._guest._request

    def listen(*arguments: object, **named: object) -> bytearray:
        answer = request(*arguments, **named)  # type: ignore[arg-type]
        seen.extend(b"".join(bytes(each) for each in arguments[1:]))  # type: ignore[call-overload]
        seen.extend(answer)
        return answer

    monkeypatch.setattr(enclave._guest, "_request", listen)
    key = secrets.token_bytes(32)
    sealed = seal_part(demo_part, key=key, context=CONTEXT)
    enclave.load("watched", sealed.skeleton, sealed.sealed, key, context=CONTEXT)
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    (output,) = enclave.run("watched", {"tile": x}).values()
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in demo_part.proto.graph.initializer]
    assert sealed.sealed[20:1000] in seen
    for private in (key, *(array.tobytes() for array in (x, output, *weights))):
        pieces = [private[start : start + 16] for start in range(0, len(private) - 15, 16)]
        telling = [piece for piece in pieces if len(set(piece)) > 8]  # an activation has many zeros
        assert telling
        assert not any(piece in seen for piece in telling[::37])


@pytest.mark.parametrize("wrong", ["key", "context", "byte", "end", "most"])
def test_a_wrong_seal_is_refused_and_the_enclave_lives_on(enclave: OpteeEnclave, demo_part: Part, wrong: str) -> None:
    """Another key or context, or a changed or missing byte, is refused by the application itself."""
    key = secrets.token_bytes(32)
    sealed = seal_part(demo_part, key=key, context=CONTEXT)
    data = bytearray(sealed.sealed)
    if wrong == "byte":
        data[500] ^= 1
    del data[{"end": len(data) - 1, "most": 50}.get(wrong, len(data)) :]
    with pytest.raises(TrustError, match=r"do not open|cannot hold"):
        enclave.load(
            "wrong",
            sealed.skeleton,
            bytes(data),
            secrets.token_bytes(32) if wrong == "key" else key,
            context=b"another" if wrong == "context" else CONTEXT,
        )
    assert enclave.alive
    with pytest.raises(EnclaveError, match="no part 'wrong'"):
        enclave.run("wrong", {})


def test_inputs_that_do_not_fit_are_refused(enclave: OpteeEnclave, load_part: LoadPart, demo_part: Part) -> None:
    """Another name, dtype or shape, or an empty batch, is refused before anything is sent."""
    load_part(enclave, "demo", demo_part)
    fits = np.zeros((1, 3, 32, 32), np.float32)
    for inputs in ({"x": fits}, {"tile": fits[0]}, {"tile": fits.astype(np.float64)}, {"tile": fits[:0]}):
        with pytest.raises(DataError, match="part demo"):
            enclave.run("demo", inputs)


def test_a_part_beyond_the_memory_is_refused_with_the_figure(
    enclave: OpteeEnclave, load_part: LoadPart, make_part: MakePart
) -> None:
    """A part that needs more than the enclave's memory limit is refused; the message has both figures."""
    size = 2 << 20
    part = make_part([helper.make_node("Relu", ["x"], ["y"])], [("x", _FLOAT, [1, size])], [("y", _FLOAT, [1, size])])
    with pytest.raises(EnclaveError, match=r"needs 16,777,\d+ bytes.*the enclave has 10,485,760"):
        load_part(enclave, "big", part)


def test_memory_that_the_secure_world_has_not_is_refused(load_part: LoadPart, make_part: MakePart) -> None:
    """A part beyond what OP-TEE has, whatever limit was asked for, does not start, and the machine lives on."""
    size = 2 << 20
    part = make_part([helper.make_node("Relu", ["x"], ["y"])], [("x", _FLOAT, [1, size])], [("y", _FLOAT, [1, size])])
    with contextlib.closing(OpteeEnclave(dataclasses.replace(_SPEC, memory_bytes=64 << 20))) as roomy:
        with pytest.raises(EnclaveError, match=r"no memory for an application of 16,777,\d+ bytes"):
            load_part(roomy, "big", part)
        assert roomy.alive


def test_weights_of_another_form_are_refused(enclave: OpteeEnclave, demo_part: Part) -> None:
    """What opens, but is not the ONNX model that the part was made from, is refused by the application."""
    key = secrets.token_bytes(32)
    sealed = seal_part(demo_part, key=key, context=CONTEXT)
    plain = bytes(len(sealed.sealed) - OVERHEAD_BYTES)
    other = seal_bytes(plain, skeleton=sealed.skeleton, key=key, context=CONTEXT)
    with pytest.raises(EnclaveError, match="not those of the part's skeleton"):
        enclave.load("zeros", sealed.skeleton, other, key, context=CONTEXT)
    assert enclave.alive


def test_an_application_does_not_run_without_weights(enclave: OpteeEnclave, demo_part: Part) -> None:
    """The application itself refuses to compute before its weights were opened."""
    application = build(find_machine(), lower(demo_part.proto), skeleton=b"none", plain_bytes=30_000)
    session = Session(enclave._guest, find_machine(), application, accept=_SPEC.accept)
    with contextlib.closing(session), pytest.raises(EnclaveError, match="load its weights first"):
        session.run(bytes(12_288), answer_bytes=32_768)


def test_source_that_does_not_compile_is_an_error() -> None:
    """A fault of the compiler is told in its own words."""
    broken = dataclasses.replace(_host._NO_PART, source="this is no C")
    with pytest.raises(EnclaveError, match=r"does not build \(.*error"):
        build(find_machine(), broken, skeleton=b"", plain_bytes=0)


def test_a_machine_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Firmware that is missing, a guest that does not answer and QEMU that is not installed each say so."""
    without = dataclasses.replace(find_machine(), firmware=tmp_path / "nothing")
    with pytest.raises(EnclaveLostError, match=r"its machine is gone \(.*nothing"):
        _guest.Guest(without)
    monkeypatch.setattr(_guest, "_MEMORY_MIB", -1)
    with pytest.raises(EnclaveError, match=r"did not start \(."):
        _guest.Guest(find_machine())
    monkeypatch.undo()
    monkeypatch.setattr(_guest, "_BOOT_TIMEOUT_S", 0.1)
    with pytest.raises(EnclaveLostError, match="no answer within 0 s"):
        _guest.Guest(find_machine())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnclaveError, match="qemu-system-aarch64 is not installed; run: sinian doctor --setup optee"):
        _guest.Guest(find_machine())


def test_an_operator_that_cannot_be_lowered_is_named(
    enclave: OpteeEnclave, load_part: LoadPart, make_part: MakePart
) -> None:
    """A part with such an operator is refused by the node's name."""
    part = make_part([helper.make_node("Tanh", ["x"], ["y"], name="t")], [("x", _FLOAT, [1])], [("y", _FLOAT, [1])])
    with pytest.raises(EnclaveError, match=r"node 't': operator Tanh"):
        load_part(enclave, "tanh", part)


def test_evidence_is_fresh_and_bound(enclave: OpteeEnclave) -> None:
    """Evidence carries the nonce, the same measurement each time, and a statement of what it is not worth."""
    first, second = (enclave.evidence(nonce) for nonce in (b"1" * 32, b"2" * 32))
    assert (first.nonce, second.nonce) == (b"1" * 32, b"2" * 32)
    assert first.measurement == second.measurement
    assert first.report_data != second.report_data
    assert first.provenance is Provenance.EMULATED
    assert "nothing to a third party" in first.statement
    with pytest.raises(EnclaveError, match="32 bytes"):
        enclave.evidence(b"short")


def test_the_secure_world_refuses_a_changed_application(enclave: OpteeEnclave) -> None:
    """An application with one bit changed does not start: its signature is wrong."""
    whole = build(find_machine(), _host._NO_PART, skeleton=b"changed", plain_bytes=0)
    changed = bytearray(whole.signed)
    changed[-100] ^= 1
    with pytest.raises(EnclaveError, match="refuses the application"):
        Session(
            enclave._guest,
            find_machine(),
            dataclasses.replace(whole, signed=bytes(changed)),
            accept=(Provenance.EMULATED,),
        )


def test_an_application_that_nobody_expects_gets_no_key(victim: OpteeEnclave, demo_part: Part) -> None:
    """If the guest holds other bytes than were built, evidence fails, nothing more is sent, and the enclave ends."""
    install, invoke = victim._guest.install, victim._guest.invoke
    commands = []

    def lie(uuid: str, application: bytes) -> str:
        install(uuid, application)
        return "0" * 64

    def listen(handle: int, command: int, data: bytes | bytearray, *, most: int) -> bytearray:
        commands.append(command)
        return invoke(handle, command, data, most=most)

    victim._guest.install = lie  # type: ignore[method-assign]
    victim._guest.invoke = listen  # type: ignore[method-assign]
    sealed = seal_part(demo_part, key=bytes(32), context=CONTEXT)
    with pytest.raises(AttestationError, match="expected measurement"):
        victim.load("demo", sealed.skeleton, sealed.sealed, bytes(32), context=CONTEXT)
    assert commands == [0]  # the hello
    assert not victim.alive


def _secure_memory(enclave: OpteeEnclave) -> bytes:
    """Return the secure world's RAM (16 MiB), which whoever owns this machine can read out of QEMU."""
    pid, size_bytes = enclave._guest.pid, 16 << 20
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end = (int(address, 16) for address in line.split()[0].split("-"))
        if end - start == size_bytes and " rw-p " in line:
            with Path(f"/proc/{pid}/mem").open("rb") as memory:
                memory.seek(start)
                found = memory.read(size_bytes)
            if b"OP-TEE" in found:
                return found
    pytest.fail("QEMU has no secure memory")


def test_nothing_of_a_part_is_left_at_its_end(victim: OpteeEnclave, load_part: LoadPart, make_part: MakePart) -> None:
    """When a part's session ends, its weights, inputs, outputs and what lay between are gone from the secure memory."""
    random = np.random.default_rng(0)
    x, weights = (random.normal(size=(1, 64)).astype(np.float32) for _ in range(2))
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"]),
        helper.make_node("Concat", ["sum", "x"], ["both"], axis=1),
        helper.make_node("Relu", ["both"], ["y"]),
    ]
    part = make_part(nodes, [("x", _FLOAT, [1, 64])], [("y", _FLOAT, [1, 128])], {"w": weights})
    load_part(victim, "part", part)
    (y,) = victim.run("part", {"x": x}).values()
    private = {"weights": weights, "inputs": x, "between": x + weights, "outputs": y}
    held = _secure_memory(victim)
    assert {name for name, array in private.items() if array.tobytes() in held} == private.keys()
    victim._parts["part"].session.close()
    left = _secure_memory(victim)
    assert {name for name, array in private.items() if array.tobytes()[:64] in left} == set()


def test_an_emulated_seal_keeps_nothing_from_who_knows_op_tee(enclave: OpteeEnclave) -> None:
    """OP-TEE derives sealing keys from a constant where QEMU has no fuse, so that anybody can open what was sealed."""
    sealed = enclave.seal(b"the data", context=b"test")
    uuid = UUID(build(find_machine(), _host._NO_PART, skeleton=b"", plain_bytes=0).uuid)
    usage = (3).to_bytes(4, "little")  # HUK_SUBKEY_UNIQUE_TA
    key = hmac.digest(bytes(16), usage + uuid.bytes_le + b"siniantrust sealing 1", "sha256")
    opened = open_in_place(
        memoryview(bytearray(sealed.ciphertext)), skeleton=sealed.origin.to_json(), key=key, context=b"test"
    )
    assert bytes(opened) == b"the data"
    assert enclave.info().protections["sealing_key"].startswith("missing")


@pytest.mark.parametrize("attack", ["change", "replay"])
def test_a_false_record_ends_the_enclave(victim: OpteeEnclave, attack: str) -> None:
    """A request that is changed or sent again on the way does not authenticate; nothing works after it."""
    invoke = victim._guest.invoke
    earlier: list[bytes] = []

    def attacked(handle: int, command: int, data: bytes | bytearray, *, most: int) -> bytearray:
        earlier.append(bytes(data))
        sent = bytearray(earlier[0])
        if attack == "change":
            sent[5] ^= 1
        return invoke(handle, command, sent, most=most)

    victim.evidence(b"0" * 32)
    victim._guest.invoke = attacked  # type: ignore[method-assign]
    if attack == "replay":
        victim.evidence(b"1" * 32)
    with pytest.raises(ChannelError, match="does not authenticate"):
        victim.evidence(b"2" * 32)
    assert not victim.alive
    with pytest.raises(ChannelError):
        victim.evidence(b"3" * 32)


def test_a_changed_answer_ends_the_enclave(victim: OpteeEnclave) -> None:
    """An answer that is changed on the way is noticed here, and nothing works after it."""
    invoke = victim._guest.invoke

    def attacked(handle: int, command: int, data: bytes | bytearray, *, most: int) -> bytearray:
        answer = invoke(handle, command, data, most=most)
        answer[-1] ^= 1
        return answer

    victim._guest.invoke = attacked  # type: ignore[method-assign]
    with pytest.raises(ChannelError, match="does not authenticate"):
        victim.evidence(b"2" * 32)
    assert not victim.alive


def test_an_interrupted_call_ends_the_enclave(victim: OpteeEnclave) -> None:
    """After an interrupt nobody knows how much of a call went through: the enclave is closed, and says why."""

    def interrupted(_handle: int, _command: int, _data: bytes | bytearray, *, most: int) -> bytearray:
        raise KeyboardInterrupt(most)

    victim._guest.invoke = interrupted  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        victim.evidence(bytes(32))
    assert not victim.alive
    with pytest.raises(EnclaveError, match="a call was interrupted"):
        victim.evidence(bytes(32))


def test_a_killed_machine_is_lost(victim: OpteeEnclave) -> None:
    """When QEMU is killed, a call says that the enclave is lost, and so do later ones."""
    pid = victim.info().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(EnclaveLostError, match="launch another one"):
            victim.evidence(bytes(32))
    assert not victim.alive


def test_closing_powers_the_machine_off(victim: OpteeEnclave) -> None:
    """After ``close`` the machine is gone, by itself, and calls are refused; closing again does nothing."""
    process = victim._guest._process
    victim.close()
    victim.close()
    assert process.returncode == 0
    with pytest.raises(EnclaveError, match="closed"):
        victim.evidence(bytes(32))


def test_the_machine_ends_with_its_client() -> None:
    """A client that is killed leaves no machine behind: the guest notices, and powers itself off."""
    code = (
        "import os; from siniantrust.trust import *; "
        "e = launch(EnclaveSpec(provider='optee', memory_bytes=1 << 20, accept=(Provenance.EMULATED,))); "
        "print(e.info().pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    machine = Path("/proc", done.stdout.strip())
    deadline_s = time.monotonic() + 60
    while machine.exists() and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert done.stdout.strip().isdigit()
    assert not machine.exists()


def test_setting_up_again_does_nothing() -> None:
    """Every step of a finished setup is found done, and the machine stays as it was."""
    before = find_machine().initrd.stat()
    lines: list[str] = []
    set_up("optee", lines.append)
    assert [line.partition("]")[0] for line in lines] == [f"[{number}/5" for number in range(1, 6)]
    assert find_machine().initrd.stat() == before


def test_a_crossing_can_be_measured(enclave: OpteeEnclave) -> None:
    """What a call costs beyond the computation is found with the same parts as for other enclaves."""
    cost = measure_crossing(enclave)
    assert "4 KiB, 80 KiB, 320 KiB" in cost.basis
    assert cost.seconds_per_byte_in > 0
    assert cost.latency_s(1 << 20, 0) > cost.latency_s(1 << 10, 0)
