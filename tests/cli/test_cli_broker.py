from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import START, Command, Workshop
from remote_cases import sigstruct
from runtime_deployments import deploy, vectors

from siniantrust.bundle import load_bundle
from siniantrust.trust.attestation.attesters.simulated import package_measurement
from siniantrust.trust.broker import Store

NONCE = "ab" * 32


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of reference values for this very package, simulated."""
    path = tmp_path_factory.mktemp("reference") / "ref.toml"
    path.write_text(
        'kind = "simulated"\naccept = ["simulated"]\n[accepted]\nprovider = ["service"]\n'
        f'measurement = ["{package_measurement()}"]\n'
    )
    return path


@contextlib.contextmanager
def _served(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run a server of the command line; yield it, its address and the line that it printed."""
    command = [sys.executable, *START, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"127\.0\.0\.1:\d+", line)
        assert address is not None, line
        try:
            yield process, address[0], line
        finally:
            process.kill()


def _key(line: str) -> str:
    found = re.search(r"its key is ([0-9a-f]{64})", line)
    assert found is not None
    return found[1]


def test_a_file_sealed_to_evidence_opens_where_the_evidence_matches(
    sinian: Command, reference: Path, tmp_path: Path
) -> None:
    """init, seal, serve, unseal, list, revoke and log work together, and a broker that was killed goes on."""
    store, plain, sealed, opened = (tmp_path / name for name in ("broker", "plain", "sealed", "opened"))
    plain.write_bytes(b"weights" * 1000)
    made = sinian("keys", "init", "--store", store)
    assert made.code == 0
    for version in (1, 2):
        arguments = ("--key-id", f"w{version}", "-r", reference, "--lineage", "w", "--version", version)
        done = sinian("seal", plain, *arguments, "--store", store, "-o", f"{sealed}{version}")
        assert done.code == 0, done
    assert b"weights" not in Path(f"{sealed}1").read_bytes()

    def unseal(version: int, address: str) -> int:
        where = ("--broker", address, "--broker-key", _key(made.out), "--attester", "simulated", "-o", opened)
        return sinian("unseal", f"{sealed}{version}", "--key-id", f"w{version}", *where).code

    with _served("keys", "serve", "--store", store, "--listen", "127.0.0.1:0") as (process, address, line):
        assert _key(line) == _key(made.out)
        assert unseal(1, address) == 0
        assert opened.read_bytes() == plain.read_bytes()
        assert opened.stat().st_mode & 0o777 == 0o600
        assert unseal(2, address) == 0
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    with _served("keys", "serve", "--store", store, "--listen", "127.0.0.1:0") as (_, address, _line):
        assert unseal(1, address) == 2
        assert unseal(2, address) == 0
        assert sinian("keys", "revoke", "w2", "--store", store, "--why", "leaked").code == 0
        assert unseal(2, address) == 2
    listed = json.loads(sinian("keys", "list", "--store", store, "--json").out)
    assert [(row["key_id"], row["version"], row["counter"], row["revoked"]) for row in listed] == [
        ("w1", 1, 2, False),
        ("w2", 2, 2, True),
    ]
    events = [entry["event"] for entry in json.loads(sinian("keys", "log", "--store", store, "--json").out)]
    assert events == [
        *("add", "add", "start", "release", "release"),
        *("start", "refuse", "release", "revoke-key", "refuse"),
    ]
    assert "10 entries, unbroken; last hash" in sinian("keys", "log", "--store", store).out
    assert "w2" in sinian("keys", "list", "--store", store).out
    path = store / "log.jsonl"
    path.write_bytes(path.read_bytes().replace(b"rollback", b"roll-on!"))
    broken = sinian("keys", "log", "--store", store)
    assert broken.code == 2
    assert "line 7: its hash is another" in broken.err


def test_a_bundle_runs_in_a_service_that_fetches_its_key(sinian: Command, reference: Path, tmp_path: Path) -> None:
    """Keys add, keys serve, enclave serve and run: the host's key store has no weight key, and the answers come."""
    store = tmp_path / "broker"
    made = sinian("keys", "init", "--store", store)
    with (
        _served("keys", "serve", "--store", store, "--listen", "127.0.0.1:0") as (_, broker, _line),
        _served(
            *("enclave", "serve", "--attester", "simulated", "--listen", "127.0.0.1:0"),
            *("--broker", broker, "--broker-key", _key(made.out)),
        ) as (_, address, line),
    ):
        assert "with simulated evidence" in line
        table = {
            "kind": "simulated",
            "accepted": {"provider": ["service"], "measurement": [package_measurement()]},
        }
        enclave = {
            "provider": "service",
            "accept": ["simulated"],
            "address": address,
            "keys": "broker",
            "reference": table,
        }
        deployment = deploy(vectors(), tmp_path / "host", cut="t3", enclave=enclave)
        keys = ("--keys", deployment.keystore.path)
        added = sinian("keys", "add", deployment.path, "-r", reference, "--store", store, *keys)
        assert added.code == 0, added
        deployment.keystore.remove_weight_key(load_bundle(deployment.path, keystore=deployment.keystore).id)
        inputs = deployment.inputs(4)
        np.save(tmp_path / "data.npy", next(iter(inputs.values())))
        found = sinian("run", deployment.path, tmp_path / "data.npy", *keys, "-o", tmp_path / "out.npz")
        assert found.code == 0, found
        assert "4 items through the service enclave (simulated)" in found.out
        assert sinian("keys", "revoke", "ab" * 32, "--enclave", "--store", store).code == 0
    with np.load(tmp_path / "out.npz") as outputs:
        for name, expected in deployment.expected(inputs).items():
            np.testing.assert_allclose(outputs[name], expected, rtol=1e-5)


def test_evidence_is_made_and_verified(sinian: Command, reference: Path, tmp_path: Path) -> None:
    """What ``attest`` writes, ``verify`` reads: bound to the nonce and to what is vouched for."""
    (tmp_path / "key.der").write_bytes(b"key")
    bound = ("--nonce", NONCE, "--runtime-data", tmp_path / "key.der")
    done = sinian("attest", "--attester", "simulated", *bound, "-o", tmp_path / "evidence.json")
    assert (done.code, done.err) == (0, "")
    assert sinian("verify", tmp_path / "evidence.json", "-r", reference, *bound).code == 0
    (tmp_path / "key.der").write_bytes(b"another")
    assert sinian("verify", tmp_path / "evidence.json", "-r", reference, *bound).code == 2


def test_endorsements_go_with_the_evidence(sinian: Command, tmp_path: Path) -> None:
    """A file given as an endorsement is in the evidence under its name."""
    (tmp_path / "collateral.json").write_text("{}")
    out = tmp_path / "evidence.json"
    more = ("--endorsement", f"collateral={tmp_path / 'collateral.json'}", "-o", out)
    assert sinian("attest", "--attester", "simulated", "--nonce", NONCE, *more).code == 0
    assert json.loads(out.read_text())["endorsements"].keys() == {"collateral"}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("attest", "--attester", "tpm", "--nonce", NONCE, "-o", "x"), "attester 'tpm' is unknown"),
        (("attest", "--attester", "simulated", "--nonce", "xy", "-o", "x"), "--nonce xy: expected hexadecimal"),
        (("attest", "--attester", "simulated", "--nonce", "ab", "-o", "x"), "expected a nonce of 32 bytes"),
        (
            ("attest", "--attester", "simulated", "--nonce", NONCE, "--endorsement", "x", "-o", "x"),
            "x: expected --endorsement NAME=FILE",
        ),
        (("enclave", "serve", "--attester", "simulated", "--listen", "nowhere"), "expected HOST:PORT"),
        (
            ("enclave", "serve", "--attester", "simulated", "--listen", "[::1]:0", "--broker", "[::1]:1"),
            "--broker and --broker-key go together",
        ),
        (
            ("enclave", "serve", "--attester", "simulated", "--listen", "[::1]:0", "--provision", "a=b"),
            "--provision takes keys from a broker",
        ),
        (
            (
                *("enclave", "serve", "--attester", "simulated", "--listen", "[::1]:0", "--provision", "a=b"),
                *("--broker", "[::1]:1", "--broker-key", "ab"),
            ),
            "needs an enclave of Gramine",
        ),
        (("keys", "serve", "--store", "nowhere"), "sinian keys init"),
        (("keys", "log", "--store", "nowhere"), "sinian keys init"),
        (("keys", "list", "--store", "nowhere"), "sinian keys init"),
        (("keys", "revoke", "k", "--store", "nowhere"), "sinian keys init"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    refused: Callable[..., object], arguments: tuple[str, ...], names: str
) -> None:
    """Each refusal is one line that names the thing, and leaves no file behind."""
    refused(*arguments, names=names)


@pytest.mark.parametrize(
    "command",
    [
        *("attest", "seal", "unseal", "enclave serve", "gramine manifest", "gramine reference"),
        *(f"keys {name}" for name in ("init", "serve", "add", "put", "list", "revoke", "log")),
    ],
)
def test_every_command_explains_itself(sinian: Command, command: str) -> None:
    """``--help`` says what a command does and explains each of its options."""
    found = sinian(*command.split(), "--help")
    assert (found.code, found.err) == (0, "")
    assert f"Usage: sinian {command}" in found.out
    options = re.findall(r"^  (?:-\w, )?--(\S+)(.*(?:\n {6,}.*)*)", found.out, flags=re.MULTILINE)
    assert options
    for name, explained in options:
        assert re.search(r"[a-z]{3}", explained), name


def test_a_key_from_a_file_is_kept(sinian: Command, reference: Path, tmp_path: Path) -> None:
    """A key of another program goes into the broker as it is; the same name again is refused."""
    (tmp_path / "wrap.key").write_bytes(b"w" * 16)
    store = ("--store", tmp_path / "broker")
    sinian("keys", "init", *store)
    arguments = ("keys", "put", "wrap", tmp_path / "wrap.key", "-r", reference, "--lineage", "data", *store)
    assert sinian(*arguments).code == 0
    entry = Store(tmp_path / "broker").get("wrap")
    assert entry is not None
    assert entry.key == b"w" * 16
    assert sinian(*arguments).code == 2


def test_the_store_is_beside_the_keys_by_default(
    sinian: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``--store``, the broker lives in the owner's key store."""
    monkeypatch.setenv("SINIAN_KEYS", str(tmp_path / "keys"))
    assert str(tmp_path / "keys" / "broker") in sinian("keys", "init").out
    assert sinian("keys", "list").code == 0


def test_a_manifest_is_written_for_a_bundle(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """The template is for this bundle: its trusted part's files are in it, those of the untrusted part are not."""
    where = ("--broker", "127.0.0.1:1", "--broker-key", "ab" * 32, "--keys", workshop.keys)
    found = sinian("gramine", "manifest", workshop.bundle, *where, "-o", tmp_path / "enclave")
    assert found.code == 0, found
    text = (tmp_path / "enclave" / "sinian.manifest.template").read_text()
    assert "part1/weights.sealed" in text
    assert "part2" not in text


def test_reference_values_are_written_for_a_signature(
    sinian: Command, refused: Callable[..., object], tmp_path: Path
) -> None:
    """A signature gives a reference file; another file gives one line and none."""
    (tmp_path / "sinian.sig").write_bytes(sigstruct())
    assert sinian("gramine", "reference", tmp_path / "sinian.sig", "-o", tmp_path / "ref.toml").code == 0
    assert (b"e" * 32).hex() in (tmp_path / "ref.toml").read_text()
    (tmp_path / "sinian.sig").write_bytes(b"")
    refused("gramine", "reference", tmp_path / "sinian.sig", "-o", tmp_path / "other.toml", names="sinian.sig")
