from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from trust_parts import CONTEXT, Launch, LoadPart, MakePart

from siniantrust.errors import (
    AttestationError,
    ChannelError,
    DataError,
    EnclaveError,
    EnclaveLostError,
    TrustError,
)
from siniantrust.graph import Part
from siniantrust.trust import PROTECTIONS, Enclave, EnclaveSpec, Evidence, Provenance, launch, seal_part
from siniantrust.trust._evidence import parse_evidence
from siniantrust.trust.process import _cgroup, _host, _measure
from siniantrust.trust.process._host import ProcessEnclave

_FLOAT = TensorProto.FLOAT


def _bare(part: Part, **inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(part.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, inputs)
    return outputs


def _growing_part(make_part: MakePart) -> Part:
    """Return a part that fills as many floats as its input says."""
    return make_part(
        [helper.make_node("Expand", ["one", "n"], ["big"]), helper.make_node("ReduceSum", ["big"], ["y"], keepdims=0)],
        [("n", TensorProto.INT64, [1])],
        [("y", _FLOAT, [])],
        {"one": np.ones(1, np.float32)},
    )


def test_it_is_an_enclave(shared_enclave: Enclave) -> None:
    """The process enclave has what the protocol asks for, and says that it is simulated."""
    assert isinstance(shared_enclave, Enclave)
    assert shared_enclave.alive
    assert shared_enclave.provenance is Provenance.SIMULATED


def test_it_describes_itself(shared_enclave: Enclave, allow_missing: tuple[str, ...]) -> None:
    """Provider, limit, threads, process and the state of every protection are reported."""
    info = shared_enclave.info()
    assert (info.provider, info.memory_limit_bytes, info.threads) == ("process", 256 << 20, 1)
    assert info.pid is not None
    assert set(info.protections) == {protection.name for protection in PROTECTIONS}
    assert {name for name, state in info.protections.items() if state != "active"} == set(allow_missing)


@pytest.mark.parametrize("batch", [1, 5])
def test_outputs_equal_onnx_runtime(shared_enclave: Enclave, load_part: LoadPart, conv_part: Part, batch: int) -> None:
    """A part in the enclave gives the very bits that ONNX Runtime gives outside, for any batch size."""
    load_part(shared_enclave, "conv", conv_part)
    x = np.random.default_rng(batch).normal(size=(batch, 3, 16, 16)).astype(np.float32)
    outputs = shared_enclave.run("conv", {"x": x})
    assert list(outputs) == ["y"]
    assert np.array_equal(outputs["y"], _bare(conv_part, x=x)[0])


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"],
)
def test_every_dtype_passes_through(
    shared_enclave: Enclave, load_part: LoadPart, make_part: MakePart, dtype: str
) -> None:
    """Each dtype goes in and out unchanged, empty and scalar tensors too."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    part = make_part(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["s"], ["z"])],
        [("x", kind, ["n", 2]), ("s", kind, [])],
        [("y", kind, ["n", 2]), ("z", kind, [])],
    )
    load_part(shared_enclave, "identity", part)
    raw = np.random.default_rng(0).integers(0, 2, size=(3, 2)).astype(dtype)
    for x in (raw, raw[:0]):
        outputs = shared_enclave.run("identity", {"x": x, "s": np.array(1, dtype)})
        assert outputs["y"].dtype == np.dtype(dtype)
        assert np.array_equal(outputs["y"], x)
        assert outputs["z"].shape == ()


def test_nan_passes_bit_for_bit(shared_enclave: Enclave, load_part: LoadPart, make_part: MakePart) -> None:
    """NaN payloads, infinities and negative zero keep their bits through the enclave."""
    part = make_part([helper.make_node("Identity", ["x"], ["y"])], [("x", _FLOAT, ["n"])], [("y", _FLOAT, ["n"])])
    load_part(shared_enclave, "identity", part)
    bits = np.array([0x7F800001, 0xFFC00123, 0x7F800000, 0x80000000], np.uint32)
    assert np.array_equal(shared_enclave.run("identity", {"x": bits.view(np.float32)})["y"].view(np.uint32), bits)


def test_outputs_belong_to_the_caller(shared_enclave: Enclave, load_part: LoadPart, conv_part: Part) -> None:
    """A later call does not change the arrays that an earlier one returned."""
    load_part(shared_enclave, "conv", conv_part)
    x = np.ones((1, 3, 16, 16), np.float32)
    first = shared_enclave.run("conv", {"x": x})["y"]
    before = first.copy()
    shared_enclave.run("conv", {"x": x * 9})
    assert np.array_equal(first, before)


def test_threads_share_an_enclave(shared_enclave: Enclave, load_part: LoadPart, make_part: MakePart) -> None:
    """Calls from many threads at once each get their own answer."""
    part = make_part([helper.make_node("Neg", ["x"], ["y"])], [("x", _FLOAT, ["n"])], [("y", _FLOAT, ["n"])])
    load_part(shared_enclave, "neg", part)
    wrong: list[object] = []

    def work(number: int) -> None:
        for step in range(25):
            x = np.full(1 + (number * 997 + step * 131) % 5000, number * 100 + step, np.float32)
            if not np.array_equal(shared_enclave.run("neg", {"x": x})["y"], -x):
                wrong.append((number, step))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({}, "expected inputs"),
        ({"z": np.ones((1, 3, 16, 16), np.float32)}, "expected inputs"),
        ({"x": np.ones((1, 3, 16, 16), np.float64)}, "float64"),
        ({"x": np.ones((1, 3, 16, 17), np.float32)}, "17"),
        ({"x": np.ones((3, 16, 16), np.float32)}, "shape"),
        ({"x": np.ones((1, 3, 16, 16), np.complex64)}, "complex64"),
        ({"x": np.array(["text"])}, "does not travel"),
    ],
    ids=["none", "name", "dtype", "size", "rank", "complex", "text"],
)
def test_inputs_that_do_not_fit_are_refused(
    shared_enclave: Enclave, load_part: LoadPart, conv_part: Part, inputs: dict[str, np.ndarray], word: str
) -> None:
    """Wrong inputs give a DataError that names what was found, and the enclave goes on."""
    load_part(shared_enclave, "conv", conv_part)
    with pytest.raises(DataError, match=word):
        shared_enclave.run("conv", inputs)
    assert shared_enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})


def test_a_part_that_is_not_loaded_is_refused(shared_enclave: Enclave) -> None:
    """Running an unknown name gives an EnclaveError that says so."""
    with pytest.raises(EnclaveError, match="no part 'nothing' is loaded"):
        shared_enclave.run("nothing", {})


@pytest.mark.parametrize("wrong", ["key", "context", "sealed", "key length"])
def test_a_seal_that_does_not_open_is_refused(shared_enclave: Enclave, conv_part: Part, wrong: str) -> None:
    """A wrong key or context, or a changed byte, is refused inside the enclave; nothing is loaded."""
    key = secrets.token_bytes(32)
    sealed = seal_part(conv_part, key=key, context=CONTEXT)
    damaged = bytearray(sealed.sealed)
    damaged[-1] ^= 1
    keys = {"key": secrets.token_bytes(32), "key length": key[:16]}
    with pytest.raises(TrustError):
        shared_enclave.load(
            f"refused {wrong}",
            sealed.skeleton,
            bytes(damaged) if wrong == "sealed" else sealed.sealed,
            keys.get(wrong, key),
            context=b"other" if wrong == "context" else CONTEXT,
        )
    with pytest.raises(EnclaveError, match="no part"):
        shared_enclave.run(f"refused {wrong}", {})


def test_a_key_does_not_linger_for_the_next_load(shared_enclave: Enclave, conv_part: Part) -> None:
    """A load with a key of the wrong length is not opened with the key of the load before it."""
    key = secrets.token_bytes(32)
    sealed = seal_part(conv_part, key=key, context=CONTEXT)
    shared_enclave.load("first", sealed.skeleton, sealed.sealed, key, context=CONTEXT)
    with pytest.raises(TrustError):
        shared_enclave.load("second", sealed.skeleton, sealed.sealed, b"", context=CONTEXT)


def test_a_part_that_onnx_runtime_refuses_is_one_line(shared_enclave: Enclave, conv_part: Part) -> None:
    """A model that cannot be opened gives an EnclaveError of one line."""
    key = secrets.token_bytes(32)
    part = Part("bad", type(conv_part.proto)(), (), (), (), None)
    sealed = seal_part(part, key=key, context=CONTEXT)
    with pytest.raises(EnclaveError, match="loading part 'bad' failed") as caught:
        shared_enclave.load("bad", sealed.skeleton, sealed.sealed, key, context=CONTEXT)
    assert "\n" not in str(caught.value)


def test_fresh_evidence_is_bound_to_the_nonce(shared_enclave: Enclave) -> None:
    """Evidence of a running enclave carries the nonce, its label, and the session's key."""
    first, second = (shared_enclave.evidence(os.urandom(32)) for _ in range(2))
    assert first.nonce != second.nonce
    assert first.report_data != second.report_data
    assert first.enclave_public_key == second.enclave_public_key
    assert first.provenance is Provenance.SIMULATED
    with pytest.raises(EnclaveError, match="32 bytes"):
        shared_enclave.evidence(b"short")


def test_an_unaccepted_provenance_is_refused_before_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default only hardware is accepted: nothing is started, and the message says what to write."""
    monkeypatch.setattr("siniantrust.trust.process._launcher.start", None)
    with pytest.raises(AttestationError, match=r'simulated.*\[enclave\] accept = \["simulated"\]'):
        launch(EnclaveSpec(memory_bytes=256 << 20))


def test_an_unknown_provider_is_refused() -> None:
    """The message lists the providers that there are."""
    with pytest.raises(EnclaveError, match="'sgx' is unknown; there are: cvm, gramine, optee, process, service"):
        launch(EnclaveSpec(provider="sgx", memory_bytes=256 << 20))


def test_an_unknown_protection_is_refused() -> None:
    """A misspelt name in allow_missing is refused rather than ignored."""
    spec = EnclaveSpec(memory_bytes=256 << 20, accept=(Provenance.SIMULATED,), allow_missing=("seccmop",))
    with pytest.raises(EnclaveError, match=r"'seccmop'.*seccomp"):
        launch(spec)


@pytest.mark.parametrize("numbers", [{"memory_bytes": 0}, {"memory_bytes": 1, "threads": 0}], ids=["memory", "threads"])
def test_impossible_numbers_are_refused(numbers: dict[str, int]) -> None:
    """A spec with a number out of range is refused when it is made."""
    with pytest.raises(EnclaveError, match="found 0"):
        EnclaveSpec(**numbers)  # type: ignore[arg-type]


def test_a_missing_protection_is_refused_unless_allowed(
    allow_missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence that lacks a protection refuses the launch, naming it and the policy line; allowed, it launches."""

    def without_seccomp(raw: bytes) -> Evidence:
        evidence = parse_evidence(raw)
        return dataclasses.replace(evidence, protections={**evidence.protections, "seccomp": "missing: for this test"})

    monkeypatch.setattr(_host, "parse_evidence", without_seccomp)
    spec = EnclaveSpec(memory_bytes=256 << 20, accept=(Provenance.SIMULATED,), allow_missing=allow_missing)
    with pytest.raises(EnclaveError, match=r'seccomp \(for this test.*allow_missing = \[.*"seccomp"'):
        launch(spec)
    allowed = EnclaveSpec(
        memory_bytes=256 << 20, accept=(Provenance.SIMULATED,), allow_missing=(*allow_missing, "seccomp")
    )
    launch(allowed).close()


def test_other_code_in_the_enclave_is_refused(launched: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """An enclave whose program differs from the Verifier's reference by one module is refused, and its process ends."""
    monkeypatch.setattr(_measure, "PROGRAM", _measure.PROGRAM[:-1])
    with pytest.raises(AttestationError, match="measurement"):
        launched()


def test_other_compiled_passes_in_the_enclave_are_refused(launched: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled passes of exact masks are measured too: an enclave with others than the Verifier's is refused."""
    if not _measure._compiled():
        pytest.skip("this installation was made without a C compiler, so that nothing compiled runs in the enclave")
    monkeypatch.setattr(_measure, "_compiled", dict)
    with pytest.raises(AttestationError, match="measurement"):
        launched()


def test_an_enclave_process_that_cannot_start_says_why(launched: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process said last on standard error is in the message."""
    without_path = SimpleNamespace(platform=sys.platform, executable=sys.executable, path=["/nowhere"])
    monkeypatch.setattr("siniantrust.trust.process._launcher.sys", without_path)
    with pytest.raises(EnclaveError, match="No module named"):
        launched()


def _gone(pid: int, *, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not Path("/proc", str(pid)).exists():
            return True
        time.sleep(0.01)
    return False


def test_close_leaves_nothing_behind(launched: Launch) -> None:
    """After close, no process, no zombie and no control group is left; closing again does nothing."""
    enclave = launched()
    assert isinstance(enclave, ProcessEnclave)
    pid, supervisor = enclave.info().pid, enclave._process.supervisor.pid
    group = enclave._process.group
    enclave.close()
    enclave.close()
    assert pid is not None
    assert _gone(pid)
    assert _gone(supervisor)
    assert group is None or not group.path.exists()
    assert not enclave.alive


def test_calls_after_close_are_refused(launched: Launch) -> None:
    """A closed enclave refuses every call and says that it is closed."""
    enclave = launched()
    enclave.close()
    for call in (lambda: enclave.run("x", {}), lambda: enclave.evidence(bytes(32))):
        with pytest.raises(EnclaveError, match="closed"):
            call()


def test_a_killed_enclave_is_named(launched: Launch) -> None:
    """After SIGKILL, all calls raise EnclaveLostError with provider, process id and signal."""
    enclave = launched()
    pid = enclave.info().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(EnclaveLostError, match=rf"process enclave \(pid {pid}\): ended by SIGKILL"):
            enclave.run("x", {})
    assert not enclave.alive
    enclave.close()


def test_an_enclave_killed_during_a_call_is_named(launched: Launch, load_part: LoadPart, make_part: MakePart) -> None:
    """Calls that wait for an answer when the enclave dies all end with EnclaveLostError; none hangs."""
    enclave = launched(memory_bytes=1 << 30)
    load_part(enclave, "grow", _growing_part(make_part))
    pid = enclave.info().pid
    assert pid is not None
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                enclave.run("grow", {"n": np.array([30 << 20])})
        except EnclaveError as fault:
            errors.append(fault)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert [type(error) for error in errors] == [EnclaveLostError] * 4


def test_closing_during_a_call_ends_the_call(launched: Launch, load_part: LoadPart, make_part: MakePart) -> None:
    """A call in another thread either gets its answer or an EnclaveError when the enclave is closed under it."""
    enclave = launched(memory_bytes=1 << 30)
    load_part(enclave, "grow", _growing_part(make_part))
    ends: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                enclave.run("grow", {"n": np.array([1 << 20])})
        except EnclaveError as fault:
            ends.append(fault)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.1)
    enclave.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "closed" in str(ends[0])


def test_a_killed_launcher_takes_the_enclave_along(launched: Launch) -> None:
    """When the supervisor is killed, the kernel kills the enclave."""
    enclave = launched()
    assert isinstance(enclave, ProcessEnclave)
    pid = enclave.info().pid
    assert pid is not None
    enclave._process.supervisor.kill()
    assert _gone(pid) or "Z" in Path("/proc", str(pid), "stat").read_text(encoding="ascii")
    with pytest.raises(EnclaveLostError):
        enclave.run("x", {})


@pytest.mark.parametrize("by", ["control group", "resource limit"])
def test_exceeding_the_memory_limit_is_named(
    launched: Launch, load_part: LoadPart, make_part: MakePart, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A part that needs more memory than the limit gives an error with the limit in it."""
    if by == "resource limit":
        monkeypatch.setattr(_cgroup, "create", lambda _limit_bytes: None)
    enclave = launched(memory_bytes=192 << 20)
    assert isinstance(enclave, ProcessEnclave)
    if by == "control group" and enclave._process.group is None:
        pytest.skip("this user may not make a control group here")
    load_part(enclave, "grow", _growing_part(make_part))
    assert enclave.run("grow", {"n": np.array([1000])})["y"] == 1000
    with pytest.raises(EnclaveError, match=r"memory limit of 201326592 bytes \(192 MiB\); raise"):
        enclave.run("grow", {"n": np.array([100 << 20])})


def test_inputs_larger_than_the_enclave_are_refused_and_it_goes_on(
    launched: Launch, load_part: LoadPart, make_part: MakePart
) -> None:
    """Inputs that could never fit are refused before they are sent, naming the setting."""
    enclave = launched(memory_bytes=192 << 20)
    part = make_part([helper.make_node("Size", ["x"], ["y"])], [("x", _FLOAT, ["n"])], [("y", TensorProto.INT64, [])])
    load_part(enclave, "size", part)
    with pytest.raises(DataError, match="memory_bytes"):
        enclave.run("size", {"x": np.zeros(50 << 20, np.float32)})
    assert enclave.run("size", {"x": np.zeros(3, np.float32)})["y"] == 3


def test_a_tampered_request_ends_the_session(
    launched: Launch, load_part: LoadPart, conv_part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that changes a request in shared memory is noticed by the enclave, which ends the session."""
    enclave = launched()
    assert isinstance(enclave, ProcessEnclave)
    load_part(enclave, "conv", conv_part)
    channel = enclave._channel
    send = type(channel).send
    seal = type(channel._sealer).seal

    def tampering_send(self: object, plain: bytes, payloads: object = ()) -> None:
        def tampering_seal(cipher: object, kind: object, source: memoryview, target: memoryview) -> None:
            seal(cipher, kind, source, target)  # type: ignore[arg-type]
            if len(source) > 1000:
                target[500] ^= 4

        monkeypatch.setattr(type(channel._sealer), "seal", tampering_seal)
        send(self, plain, payloads)  # type: ignore[arg-type]

    monkeypatch.setattr(type(channel), "send", tampering_send)
    with pytest.raises(ChannelError, match="does not authenticate"):
        enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})
    with pytest.raises(ChannelError):
        enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})
    assert not enclave.alive


def test_two_threads_may_be_asked_for(launched: Launch, load_part: LoadPart, conv_part: Part) -> None:
    """With two threads, the enclave computes the same and still may not fork."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one core")
    enclave = launched(threads=2)
    load_part(enclave, "conv", conv_part)
    x = np.random.default_rng(3).normal(size=(4, 3, 16, 16)).astype(np.float32)
    assert np.allclose(enclave.run("conv", {"x": x})["y"], _bare(conv_part, x=x)[0], rtol=1e-6, atol=1e-6)


def test_more_threads_than_cores_are_refused() -> None:
    """Asking for more threads than there are cores is an error, because they could not each have one."""
    spec = EnclaveSpec(memory_bytes=256 << 20, threads=10_000, accept=(Provenance.SIMULATED,))
    with pytest.raises(EnclaveError, match="10000 threads"):
        launch(spec)


def test_the_environment_of_the_launcher_stays_outside(launched: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and proxies in the launcher's environment do not reach the enclave process."""
    monkeypatch.setenv("A_SECRET_TOKEN", "do-not-inherit")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    enclave = launched()
    assert isinstance(enclave, ProcessEnclave)
    seen = []
    for pid in (enclave.info().pid, enclave._process.supervisor.pid):
        with contextlib.suppress(PermissionError):
            seen.append(Path("/proc", str(pid), "environ").read_bytes())
    assert seen
    assert not any(b"do-not-inherit" in environment or b"proxy" in environment for environment in seen)


def test_an_output_that_is_no_tensor_is_refused(
    shared_enclave: Enclave, load_part: LoadPart, make_part: MakePart
) -> None:
    """A part that returns a sequence is refused with a message, and the enclave goes on."""
    part = make_part([helper.make_node("Neg", ["x"], ["y"])], [("x", _FLOAT, ["n"])], [("y", _FLOAT, ["n"])])
    part.proto.graph.node[0].CopyFrom(helper.make_node("SequenceConstruct", ["x", "x"], ["y"]))
    part.proto.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", _FLOAT, None))
    load_part(shared_enclave, "sequence", part)
    with pytest.raises(EnclaveError, match="output y is a list"):
        shared_enclave.run("sequence", {"x": np.ones(2, np.float32)})
    assert shared_enclave.alive
