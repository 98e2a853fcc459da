"""Targets: frames of the enclaves' links, as each end reads them."""

from __future__ import annotations

import mmap
import socket
import struct
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fuzz_target import MakeTarget, Target
from onnx import helper
from trust_parts import CONTEXT, build_part

from siniantrust.errors import AttestationError, ChannelError, EnclaveLostError
from siniantrust.trust import Provenance, seal_part
from siniantrust.trust._channel import Channel, Payload, PeerClosedError, payload
from siniantrust.trust._cipher import Direction, Kind, RecordCipher
from siniantrust.trust._codec import Message, Operation, TensorSpec, decode, encode
from siniantrust.trust._evidence import ReferenceValues, report_data
from siniantrust.trust._handshake import client_hello, parse_client_hello
from siniantrust.trust._sealing import DerivedSealing
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.optee._application import _REPORT, _REPORT_MAGIC, Session
from siniantrust.trust.optee._application import _Operation as OpteeOperation
from siniantrust.trust.optee._evidence import PROVIDER, measure
from siniantrust.trust.optee._guest import Guest, TeeFault
from siniantrust.trust.optee._records import Records
from siniantrust.trust.process._serve import Server
from siniantrust.trust.service._channel import TlsChannel
from siniantrust.trust.service._limits import limits_from_json, limits_to_json
from siniantrust.trust.tls import Connection, Limits

_KEY = b"k" * 32
_LIMITS = Limits(frame_bytes=4000, payload_bytes=8000, idle_s=10.0, requests_per_s=inf)
_WINDOW_BYTES = 64 << 10
_GONE = (ChannelError, PeerClosedError)


def _message(operation: Operation, text: str, **arrays: np.ndarray) -> tuple[bytes, list[Payload]]:
    payloads = [payload(name, array) for name, array in arrays.items()]
    return encode(Message(operation, text, tuple(spec for spec, _ in payloads))), payloads


def _framed(operation: Operation, text: str, **arrays: np.ndarray) -> bytes:
    """Return a message as it travels over TLS."""
    message, payloads = _message(operation, text, **arrays)
    return struct.pack(">I", len(message)) + message + b"".join(bytes(data) for _, data in payloads)


def _as_array(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.uint8)


def _messages(_: Path) -> Target:
    tensors = (TensorSpec("x", "float32", (3, 5)), TensorSpec("y", "uint8", ()))
    seeds = (encode(Message(Operation.RUN, "part", tensors)), encode(Message(Operation.DONE)))

    def read(raw: bytes) -> None:
        assert encode(decode(raw)) == raw

    return Target(read, seeds, refusals=(ChannelError,), form=None)


def _frames(_: Path) -> Target:
    seed = _framed(Operation.RUN, "part", x=np.ones((3, 5), np.float32), y=np.array(1, np.uint8))

    def read(raw: bytes) -> None:
        here, there = socket.socketpair()
        with here, there:
            # The limits do not depend on TLS, which would only be in the way of so many tries.
            channel = TlsChannel(Connection(there, limits=_LIMITS))  # type: ignore[arg-type]
            _send(here, raw)
            for _ in range(len(raw) + 1):
                message, arrays = channel.receive()
                assert sum(array.nbytes for array in arrays.values()) <= _LIMITS.payload_bytes, message

    return Target(read, (seed, 2 * seed), refusals=_GONE, form=None)


def _send(end: socket.socket, raw: bytes) -> None:
    end.setblocking(False)
    with suppress(BlockingIOError):
        end.sendall(raw)
    end.shutdown(socket.SHUT_WR)


def _requests(_: Path) -> Target:
    part = build_part(
        [helper.make_node("Add", ["x", "w"], ["y"], name="n")],
        [("x", 1, [2])],
        [("y", 1, [2])],
        {"w": np.ones(2, np.float32)},
    )
    sealed = seal_part(part, key=_KEY, context=CONTEXT)
    pieces = {"skeleton": sealed.skeleton, "sealed": sealed.sealed, "context": CONTEXT, "key": _KEY}
    load = _framed(Operation.LOAD, "part", **{name: _as_array(data) for name, data in pieces.items()})
    brokered = {**pieces, "key_id": b"k1"}
    del brokered["key"]
    others = (
        _framed(Operation.RUN, "part", x=np.ones(2, np.float32)),
        _framed(Operation.EVIDENCE, "", nonce=np.zeros(32, np.uint8)),
        _framed(Operation.SEAL, "", **{name: _as_array(_KEY) for name in ("key", "origin", "context", "data")}),
        _framed(
            Operation.UNSEAL, "", **{name: _as_array(_KEY) for name in ("key", "origin", "context", "kept", "sealed")}
        ),
        _framed(Operation.LIMITS, ""),
        _framed(Operation.LOAD, "part", **{name: _as_array(data) for name, data in brokered.items()}),
    )

    def read(raw: bytes) -> None:
        here, there = socket.socketpair()
        with here, there:
            channel = TlsChannel(Connection(there, limits=_LIMITS))  # type: ignore[arg-type]
            secret = memoryview(bytearray(32))
            server = Server(
                channel,
                key=secret,
                threads=1,
                sealing=lambda: DerivedSealing(secret, measurement="m"),
                limits=b"{}",
                prove=lambda nonce: nonce,
                fetch_key=lambda key_id: _KEY if key_id == "k1" else b"",
            )
            _send(here, raw)
            server.serve()

    seeds = (load + others[0], load + others[1] + others[0], others[-1] + others[0], *others)
    return Target(read, seeds, refusals=_GONE, form=None)


def _stated_limits(_: Path) -> Target:
    stated = limits_to_json(_LIMITS, SimulatedAttester("ab" * 32))
    return Target(limits_from_json, (stated,), refusals=(ChannelError,), form=None)


def _cipher(direction: Direction) -> RecordCipher:
    return RecordCipher(memoryview(_KEY), bytes(16), direction)


def _channel(end: socket.socket, mine: mmap.mmap, theirs: mmap.mmap, *, to: Direction) -> Channel:
    back = Direction.TO_CLIENT if to is Direction.TO_ENCLAVE else Direction.TO_ENCLAVE
    return Channel(end, outgoing=mine, incoming=theirs, sealer=_cipher(to), opener=_cipher(back))


def _sealed_request(_: Path, what: str) -> Target:
    """Return a target that gives the process enclave's channel another frame, or other bytes in shared memory."""
    windows = [mmap.mmap(-1, _WINDOW_BYTES) for _ in range(2)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    array = np.arange(40, dtype=np.float32)
    payloads = [payload("x", array)]
    with ours, theirs:
        client = _channel(ours, windows[0], windows[1], to=Direction.TO_ENCLAVE)
        client.send(client.prepare(Operation.RUN, "part", payloads), payloads)
        frame = theirs.recv(_WINDOW_BYTES)
    record = windows[0][: array.nbytes + 16]

    def read(raw: bytes) -> None:
        windows[0][: len(record)] = record if what == "frame" else raw.ljust(len(record), b"\0")[: len(record)]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.send((raw if what == "frame" else frame)[: 100 << 10])
            ours.close()
            enclave = _channel(theirs, windows[1], windows[0], to=Direction.TO_CLIENT)
            enclave.receive()

    if what == "frame":
        return Target(read, (frame,), refusals=_GONE)
    return Target(read, (record,), refusals=_GONE, form=lambda raw: raw.ljust(len(record), b"\0")[: len(record)])


def _hello(_: Path) -> Target:
    return Target(parse_client_hello, (client_hello(b"n" * 32, b"c" * 32),), refusals=(ChannelError,), form=None)


def _guest_answer(folder: Path) -> Target:
    guest: Any = object.__new__(Guest)
    guest._process = SimpleNamespace(pid=1)
    guest._errors = guest._console = folder / "console"

    def read(raw: bytes) -> None:
        here, there = socket.socketpair()
        with here, there:
            _send(here, raw)
            guest._link = there
            guest.invoke(1, 1, b"", most=64)

    seeds = (struct.pack("<2I", 0, 8) + b"answered", struct.pack("<2I", 0xFFFF0000, 0))
    return Target(read, seeds[:1], refusals=(ChannelError, EnclaveLostError, TeeFault), form=None)


def _application(answer: bytes) -> Any:
    """Return a session with an application that answers so, at the first record of its keys."""
    machine = SimpleNamespace(firmware_sha256="f" * 64, optee_version="1")
    session: Any = object.__new__(Session)
    session.__dict__.update(
        _guest=SimpleNamespace(invoke=lambda *_, **__: bytearray(answer)),
        _handle=1,
        _machine=machine,
        _application=SimpleNamespace(uuid="u"),
        _installed_sha256="a" * 64,
        _client_key=b"c" * 32,
        _reference=ReferenceValues(PROVIDER, measure(machine, "u", "a" * 64)),  # type: ignore[arg-type]
        _accept=(Provenance.EMULATED,),
        _records=Records(_cipher(Direction.TO_ENCLAVE), _cipher(Direction.TO_CLIENT)),
    )
    return session


def _application_report(_: Path) -> Target:
    genuine = _REPORT.pack(_REPORT_MAGIC, b"e" * 32, report_data(b"n" * 32, b"e" * 32, b"c" * 32))

    def read(raw: bytes) -> None:
        _application(b"")._evidence(raw, b"n" * 32)

    return Target(read, (genuine,), refusals=(ChannelError, AttestationError))


def _application_answer(_: Path) -> Target:
    sealer = _cipher(Direction.TO_CLIENT)
    genuine = bytearray()
    for kind, plain in ((Kind.CONTROL, bytes(8)), (Kind.PAYLOAD, b"outputs!" * 4)):
        record = bytearray(len(plain) + 16)
        sealer.seal(kind, memoryview(plain), memoryview(record))
        genuine += record

    def read(raw: bytes) -> None:
        _application(raw)._call(OpteeOperation.RUN, answer_bytes=32)

    return Target(read, (bytes(genuine),), refusals=(ChannelError,))


LINKS: dict[str, MakeTarget] = {
    "messages": _messages,
    "frames over TLS": _frames,
    "requests to an enclave": _requests,
    "limits that a service states": _stated_limits,
    "process enclave's frame": partial(_sealed_request, what="frame"),
    "process enclave's shared memory": partial(_sealed_request, what="memory"),
    "process enclave's hello": _hello,
    "guest's answer": _guest_answer,
    "trusted application's report": _application_report,
    "trusted application's answer": _application_answer,
}
