"""What the tests of the trust room share: keys, launched enclaves, and a broker."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from broker_asker import FREE
from onnx import TensorProto, helper
from remote_cases import LOOPBACK, key_entry, running
from trust_parts import CONTEXT, Launch, LoadPart, MakePart, build_part

from siniantrust.graph import Part
from siniantrust.trust import Enclave, EnclaveSpec, Provenance, launch, seal_part
from siniantrust.trust._checks import host_checks
from siniantrust.trust.broker import BrokerServer, KeyBroker, Store
from siniantrust.trust.tls import Address


@pytest.fixture(scope="session")
def make_part() -> MakePart:
    """Return the function that builds a part from nodes, inputs, outputs and weights."""
    return build_part


@pytest.fixture(scope="session")
def conv_part() -> Part:
    """Return a convolution with weights: (n, 3, 16, 16) to (n, 8, 16, 16)."""
    weights = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    return build_part(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        [("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [("y", TensorProto.FLOAT, ["n", 8, 16, 16])],
        {"w": weights},
    )


@pytest.fixture(scope="session")
def allow_missing() -> tuple[str, ...]:
    """Return the protections that this host lacks, so that the other tests can run on it."""
    checks = {check.name: check for check in host_checks()}
    if not checks["process"].ok:
        pytest.skip(f"no process enclave on this host: {checks['process'].detail}")
    from siniantrust.trust import PROTECTIONS

    return tuple(protection.name for protection in PROTECTIONS if not checks[protection.name].ok)


@pytest.fixture
def launched(allow_missing: tuple[str, ...]) -> Iterator[Launch]:
    """Return a function that launches process enclaves, which are closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def start(*, memory_bytes: int = 256 << 20, threads: int = 1) -> Enclave:
            spec = EnclaveSpec(
                memory_bytes=memory_bytes,
                threads=threads,
                accept=(Provenance.SIMULATED,),
                allow_missing=allow_missing,
            )
            return stack.enter_context(contextlib.closing(launch(spec)))

        yield start


@pytest.fixture(scope="module")
def shared_enclave(allow_missing: tuple[str, ...]) -> Iterator[Enclave]:
    """Return one process enclave for all tests of a module that do it no harm."""
    spec = EnclaveSpec(memory_bytes=256 << 20, accept=(Provenance.SIMULATED,), allow_missing=allow_missing)
    with contextlib.closing(launch(spec)) as enclave:
        yield enclave


@pytest.fixture(scope="session")
def load_part() -> LoadPart:
    """Return a function that seals a part, loads it under a name and returns the key it was sealed with."""

    def load(enclave: Enclave, name: str, part: Part) -> bytes:
        key = secrets.token_bytes(32)
        sealed = seal_part(part, key=key, context=CONTEXT)
        enclave.load(name, sealed.skeleton, sealed.sealed, key, context=CONTEXT)
        return key

    return load


@pytest.fixture
def broker(tmp_path: Path) -> KeyBroker:
    """Return a broker with three versions of one key and one of another."""
    made = KeyBroker(Store.create(tmp_path / "broker"))
    for version in (1, 2, 3):
        made.add(key_entry(f"net-{version}", version=version, key=bytes([version]) * 32))
    made.add(key_entry("other-1", lineage="other", key=b"o" * 32))
    return made


@pytest.fixture
def broker_address(broker: KeyBroker) -> Iterator[Address]:
    """Return the address at which the broker is served."""
    with running(BrokerServer(broker, LOOPBACK, limits=FREE)) as found:
        yield found
