from __future__ import annotations

import dataclasses
import hashlib
import sys
import tomllib
from pathlib import Path

import onnxruntime
import pytest
from remote_cases import sigstruct

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation import load_reference
from siniantrust.trust.gramine import EnclavePlan, manifest_template, parse_sigstruct, reference_toml
from siniantrust.trust.gramine._manifest import enclave_size_bytes

PLAN = EnclavePlan(
    bundle_id="ab" * 16,
    folder=Path("/deploy"),
    files=["part1/weights.sealed", "manifest.json"],
    enclave_bytes=100 << 20,
    threads=2,
    listen="0.0.0.0:7443",
    broker="keys.example:7444",
    broker_key="cd" * 32,
)


def test_a_manifest_is_for_its_bundle() -> None:
    """The bundle's files are trusted files, nothing may be debugged, and the arguments name the broker and its key."""
    text = manifest_template(PLAN)
    found = tomllib.loads(text)
    assert found["sgx"]["debug"] is False
    assert found["sgx"]["remote_attestation"] == "dcap"
    assert {"file:/deploy/manifest.json", "file:/deploy/part1/weights.sealed"} <= set(found["sgx"]["trusted_files"])
    assert "allowed_files" not in found["sgx"]
    arguments = found["loader"]["argv"]
    assert arguments[arguments.index("--broker") + 1] == PLAN.broker
    assert arguments[arguments.index("--broker-key") + 1] == PLAN.broker_key
    assert arguments[arguments.index("--attester") + 1] == "gramine"
    assert "insecure" not in text


def test_whatever_is_mounted_is_trusted_or_the_enclaves_own() -> None:
    """Nothing is mounted that the host could change unseen."""
    found = tomllib.loads(manifest_template(PLAN))
    trusted = found["sgx"]["trusted_files"]
    for mount in found["fs"]["mounts"]:
        if mount.get("type") != "tmpfs" and mount["path"] != "/bundle":
            assert trusted.count(mount["uri"]) + trusted.count(f"{mount['uri']}/") == 1
    assert f"file:{Path(sys.executable)}" in trusted
    assert any(str(Path(onnxruntime.__file__).parent).startswith(each.removeprefix("file:")) for each in trusted)


@pytest.mark.parametrize(("enclave_mib", "size"), [(0, "1024M"), (1, "2048M"), (341, "2048M"), (342, "4096M")])
def test_an_enclave_is_as_large_as_it_needs(enclave_mib: int, size: str) -> None:
    """The size is a power of two that holds the runtime and three copies of what the parts need."""
    plan = dataclasses.replace(PLAN, enclave_bytes=enclave_mib << 20)
    assert tomllib.loads(manifest_template(plan))["sgx"]["enclave_size"] == size
    assert enclave_size_bytes(plan) >= (1 << 30) + 3 * plan.enclave_bytes


def test_a_path_of_any_kind_stays_one_text() -> None:
    """Quotes and backslashes in a path do not end its text in the manifest."""
    plan = dataclasses.replace(PLAN, folder=Path('/a "b" \\c \N{GRINNING FACE}'))
    assert (
        'file:/a "b" \\c \N{GRINNING FACE}/manifest.json'
        in tomllib.loads(manifest_template(plan))["sgx"]["trusted_files"]
    )


def test_reference_values_come_from_the_signature(tmp_path: Path) -> None:
    """MRENCLAVE, product and version are read from what the signing tool writes, and the file made of them is read."""
    found = parse_sigstruct(sigstruct(), origin="sinian.sig")
    assert found.mrsigner == hashlib.sha256(b"m" * 384).hexdigest()
    (tmp_path / "ref.toml").write_text(reference_toml(found))
    reference = load_reference(tmp_path / "ref.toml")
    assert reference.values.kind == "sgx"
    assert reference.values.accepted["mrenclave"] == {(b"e" * 32).hex()}
    assert reference.values.accepted["isv-prod-id"] == {"7"}
    assert reference.values.at_least == {"isv-svn": 3}


@pytest.mark.parametrize("raw", [b"", sigstruct()[:-1], bytes(1808), sigstruct()[:24] + bytes(1784)])
def test_what_is_no_signature_is_refused(raw: bytes) -> None:
    """Another file is refused by its name."""
    with pytest.raises(AttestationError, match=r"sinian\.sig: expected 1808 bytes"):
        parse_sigstruct(raw, origin="sinian.sig")


def test_an_enclave_that_may_be_debugged_is_refused() -> None:
    """A debug enclave gets no reference values."""
    with pytest.raises(AttestationError, match=r"sgx\.debug = false"):
        parse_sigstruct(sigstruct(attributes=0x06), origin="sinian.sig")
