"""What only some providers have: a bound on memory, a setup, a lowering. What all do is in the conformance suite."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from trust_parts import MakePart

from siniantrust.errors import EnclaveError
from siniantrust.graph import enumerate_cuts, load_model, split
from siniantrust.lowering import OPERATORS, lower
from siniantrust.trust import EnclaveSpec, Provenance, launch, seal_part, set_up, unsupported_nodes
from siniantrust.trust.optee import _apt
from siniantrust.trust.optee._build import _c_text, _uuid

_FLOAT = TensorProto.FLOAT


def test_more_memory_than_a_provider_has_is_refused_before_the_start() -> None:
    """The refusal has both figures and the policy line to write."""
    spec = EnclaveSpec(provider="optee", memory_bytes=512 << 20, accept=(Provenance.EMULATED,))
    with pytest.raises(EnclaveError, match=r"536,870,912 bytes.*has 10,485,760.*memory_bytes = 10485760"):
        launch(spec)


def test_an_enclave_that_is_not_set_up_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its machine in the cache, the provider names the folder and the command."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = EnclaveSpec(provider="optee", memory_bytes=1 << 20, accept=(Provenance.EMULATED,))
    with pytest.raises(EnclaveError, match=rf"not set up in {tmp_path}.*sinian doctor --setup optee"):
        launch(spec)


def test_a_machine_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that was built from other sources is not started."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "siniantrust/optee"
    folder.mkdir(parents=True)
    (folder / "machine.json").write_text('{"guest": "0", "firmware_sha256": "0", "optee_version": "0"}')
    spec = EnclaveSpec(provider="optee", memory_bytes=1 << 20, accept=(Provenance.EMULATED,))
    with pytest.raises(EnclaveError, match=r"another version.*sinian doctor --setup optee"):
        launch(spec)


def test_a_trusted_application_has_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for two threads is an error, not a quiet one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EnclaveError, match="one thread, asked for 2"):
        launch(EnclaveSpec(provider="optee", memory_bytes=1 << 20, threads=2, accept=(Provenance.EMULATED,)))


def test_what_a_provider_cannot_run_is_named(make_part: MakePart) -> None:
    """A provider that lowers parts to C names the nodes that it lacks; one that runs ONNX Runtime lacks none."""
    nodes = [helper.make_node("Relu", ["x"], ["r"], name="fine"), helper.make_node("Erf", ["r"], ["y"], name="odd")]
    part = make_part(nodes, [("x", _FLOAT, ["n", 2])], [("y", _FLOAT, ["n", 2])])
    assert "Erf" not in OPERATORS
    assert unsupported_nodes("optee", part) == {"odd": "operator Erf cannot be lowered"}
    assert unsupported_nodes("process", part) == {}
    with pytest.raises(EnclaveError, match=r"'nobody' is unknown; there are: .*optee"):
        unsupported_nodes("nobody", part)


def test_a_sealed_part_is_lowered_as_the_whole_one_is() -> None:
    """The skeleton alone gives the same C, and the same places for the weights, as the part with its weights."""
    model = load_model(Path(__file__).resolve().parents[2] / "src/siniantrust/demo/scenes.onnx")
    for part in split(model, [enumerate_cuts(model).cuts[7]]):
        skeleton = seal_part(part, key=bytes(32), context=b"").skeleton
        assert lower(onnx.ModelProto.FromString(skeleton)) == lower(part.proto)


def test_only_what_needs_a_setup_is_set_up() -> None:
    """Asking to set up another provider says which ones there are."""
    with pytest.raises(EnclaveError, match="'process' needs no setup; those that do: optee"):
        set_up("process", print)


def test_only_root_can_install_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user is told the line to run as root."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(EnclaveError, match=r"only root.*sudo apt-get install --no-install-recommends cpio dtc;"):
        _apt.install(["cpio", "dtc"])


def test_a_step_that_fails_says_how() -> None:
    """A program that fails or is missing is named, with its last words."""
    with pytest.raises(EnclaveError, match=r"setup of 'optee': a try: sh failed \(second\)"):
        _apt.run(["sh", "-c", "echo first; echo second >&2; exit 3"], what="a try")
    with pytest.raises(EnclaveError, match="a try: no-such-program does not start"):
        _apt.run(["no-such-program"], what="a try")


def test_names_of_weights_are_safe_in_c() -> None:
    """A weight's name that would end a C string, or go on as code, is written in octal."""
    assert _c_text('a"\\?%\u00e9') == '"a\\042\\134\\077\\045\\303\\251"'
    assert _c_text("onnx::Conv_7/w.0-b") == '"onnx::Conv_7/w.0-b"'


def test_uuids_are_of_version_8() -> None:
    """An application's name is a UUID of the version that is free for hashes, whatever the hash."""
    assert _uuid(bytes(32)) == "00000000-0000-8000-8000-000000000000"
    assert _uuid(b"\xff" * 32) == "ffffffff-ffff-8fff-bfff-ffffffffffff"
