"""The enclave's program: import, measure, map, enter the sandbox, prove, serve."""

from __future__ import annotations

import base64
import fcntl
import mmap
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from siniantrust.errors import ChannelError
from siniantrust.masking.exact import resident
from siniantrust.trust import _handshake
from siniantrust.trust._channel import Channel, PeerClosedError
from siniantrust.trust._cipher import KEY_BYTES, TAG_BYTES, Kind
from siniantrust.trust._evidence import Evidence, report_data
from siniantrust.trust._labels import Provenance
from siniantrust.trust._protections import ACTIVE
from siniantrust.trust._sealing import DerivedSealing
from siniantrust.trust._secret import SecretMemory
from siniantrust.trust.process import _measure, _noise, _parts, _sandbox
from siniantrust.trust.process._common import EXIT_CHANNEL, EXIT_MEMORY, PROVIDER
from siniantrust.trust.process._serve import Server

# The ONNX model y = Relu(x) for one float: running it makes ONNX Runtime load everything that it loads late.
_WARM_UP_MODEL = base64.b64decode(
    "CAgSADozCgwKAXgSAXkiBFJlbHUSAWdaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAN"
)


def main(configuration: Mapping[str, Any], namespaces: str) -> None:
    """Run the enclave until its client goes away; never returns."""
    _close_all_but(configuration["files"].values())
    if (join := configuration["files"].get("cgroup")) is not None:
        os.write(join, b"0")
        os.close(join)
    connection = socket.socket(fileno=configuration["files"]["connection"])
    incoming = _map(configuration["files"]["incoming"], configuration["window_bytes"])
    outgoing = _map(configuration["files"]["outgoing"], configuration["window_bytes"])
    secret = SecretMemory()
    try:
        measured = {"memory_bytes": configuration["memory_bytes"], "threads": configuration["threads"]}
        _warm_up()
        measurement = _measure.measure_self(measured)
        confinement = _sandbox.Confinement(
            own_namespaces=namespaces == ACTIVE,
            cores=tuple(configuration["cores"]),
            threads=configuration["threads"],
            data_bytes=configuration["data_bytes"],
        )
        states = {
            "namespaces": namespaces,
            "memory_limit": ACTIVE,
            "secret_memory": ACTIVE if secret.reason is None else f"missing: {secret.reason}",
            **_sandbox.enter(confinement),
        }

        def prove(nonce: bytes, enclave_key: bytes, client_key: bytes) -> Evidence:
            return Evidence(
                provider=PROVIDER,
                provenance=Provenance.SIMULATED,
                nonce=nonce,
                enclave_public_key=enclave_key,
                report_data=report_data(nonce, enclave_key, client_key),
                measurement=measurement,
                protections=states,
            )

        hello = connection.recv(_handshake.HELLO_BYTES + 1)
        nonce, client_key = _handshake.parse_client_hello(hello)
        private = X25519PrivateKey.generate()
        public = _handshake.public_bytes(private)
        evidence = prove(nonce, public, client_key).to_json()
        connection.send(evidence)
        ciphers = _handshake.derive(private, client_key, hello=hello, evidence=evidence, secret=secret)
        del private
        channel = Channel(
            connection, outgoing=outgoing, incoming=incoming, sealer=ciphers.to_client, opener=ciphers.to_enclave
        )
        key = secret.allocate(KEY_BYTES)
        Server(
            channel,
            key=key,
            threads=configuration["threads"],
            prove=lambda fresh: prove(fresh, public, client_key).to_json(),
            # Who launched it plays the platform, and sends its secret along.
            sealing=lambda: DerivedSealing(key, measurement=measurement),
        ).serve()
    except PeerClosedError:
        pass
    except MemoryError:
        secret.close()
        os._exit(EXIT_MEMORY)
    except ChannelError:
        secret.close()
        os._exit(EXIT_CHANNEL)
    secret.close()
    os._exit(0)


def _close_all_but(files: Iterable[int]) -> None:
    """Close every inherited file but standard input, standard error and ``files``; standard output turns silent."""
    os.dup2(0, 1)
    lowest = 3
    for number in sorted(files):
        os.closerange(lowest, number)
        lowest = number + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def _map(file: int, size_bytes: int) -> mmap.mmap:
    """Map a window, and refuse one that its owner could still shrink under us."""
    seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
    needed = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    if seals & needed != needed or os.fstat(file).st_size != size_bytes:
        raise ChannelError("channel: a window of shared memory has another size, or one that can change")
    window = mmap.mmap(file, size_bytes)
    os.close(file)
    return window


def _warm_up() -> None:
    """Make every library load what it loads on first use, while files can still be opened."""
    noise = _noise.NoiseSource()
    noise.draw(_noise.Law("normal"), (1,), "float32")
    part = _parts.LoadedPart("warm-up", _WARM_UP_MODEL, threads=1, noise=noise)
    part.run({"x": np.zeros(1, np.float32)})
    np.random.default_rng(0)
    resident.best_passes()
    with SecretMemory() as scratch:
        key = X25519PrivateKey.generate()
        ciphers = _handshake.derive(key, _handshake.public_bytes(key), hello=b"", evidence=b"", secret=scratch)
        ciphers.to_client.seal(Kind.CONTROL, memoryview(b"warm"), memoryview(bytearray(4 + TAG_BYTES)))
