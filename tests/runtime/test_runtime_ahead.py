"""Bundles with parts that were compiled ahead of time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from masked_deployments import deploy_masked
from runtime_deployments import Deployment

import siniantrust as st
from siniantrust.bundle import build_bundle, load_bundle
from siniantrust.errors import BundleError, DeviceError
from siniantrust.graph import Part
from siniantrust.odla import Artifact, DeviceSpec
from siniantrust.odla.onnxruntime import OnnxRuntimeDevice
from siniantrust.runtime import exporter


@pytest.fixture(scope="module")
def compiled(vector_deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return the deployment with its untrusted part compiled too."""
    out = tmp_path_factory.mktemp("ahead") / "deploy"
    given = vector_deployment
    st.build(given.model, given.plan, out, audit=given.audit_folder, keystore=given.keystore, ahead_of_time=True)
    return replace(given, path=out)


def test_artefacts_are_in_the_manifest(compiled: Deployment) -> None:
    """The untrusted part has its artefact beside it, listed in the manifest; the trusted one has none."""
    bundle = load_bundle(compiled.path, keystore=compiled.keystore)
    (artifact,) = bundle.artifacts["part2"]
    assert (artifact.backend, artifact.part) == ("onnxruntime", "part2")
    assert {path for path in bundle.manifest.files if "/ahead/" in path} == {
        "part2/ahead/0.json",
        "part2/ahead/0.bin",
    }


def test_pads_alone_have_nothing_to_compile_ahead(tmp_path: Path) -> None:
    """Where devices compute under pads only, there would be no artefact: asking for one is refused, with the reason."""
    given = deploy_masked(tmp_path)
    with pytest.raises(BundleError, match="what devices compute under pads is compiled when a session opens"):
        st.build(
            *(given.model, given.plan, tmp_path / "ahead"), keystore=given.keystore, data=given.data, ahead_of_time=True
        )
    assert not (tmp_path / "ahead").exists()


def test_a_session_loads_the_artefact(compiled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session compiles nothing, and its answers are those of the whole model."""

    def no_compiling(*_: object) -> None:
        raise AssertionError("the part was compiled again")

    monkeypatch.setattr(OnnxRuntimeDevice, "compile", no_compiling)
    inputs = compiled.inputs(3)
    with compiled.open() as session:
        answer = session.run(inputs)
    for name, expected in compiled.expected(inputs).items():
        np.testing.assert_allclose(answer[name], expected, rtol=1e-4, atol=1e-5)


def test_a_changed_artefact_is_refused(compiled: Deployment) -> None:
    """A byte of the artefact that changed is found by its hash."""
    blob = compiled.path / "part2" / "ahead" / "0.bin"
    before = blob.read_bytes()
    blob.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"part2/ahead/0\.bin"):
        compiled.open()
    blob.write_bytes(before)


def build(given: Deployment, out: Path, change: dict[str, object]) -> Deployment:
    """Build a bundle whose artefact says something else of itself."""
    made = exporter(given.plan.policy)

    def export(part: Part, device: str) -> list[Artifact]:
        return [replace(each, **change) for each in made(part, device)]  # type: ignore[arg-type]

    build_bundle(given.model, given.plan, out, keystore=given.keystore, audit_folder=given.audit_folder, export=export)
    return replace(given, path=out)


def test_an_artefact_of_another_version_is_refused_at_load(vector_deployment: Deployment, tmp_path: Path) -> None:
    """After an update of the runtime the bundle does not load, and the message names device and part."""
    stale = build(vector_deployment, tmp_path / "deploy", {"version": "0.1"})
    with pytest.raises(DeviceError, match=r"device 'cloud', part 'part2': the artefact was made by version '0\.1'"):
        stale.open()


def test_an_artefact_of_another_part_is_refused_at_build(vector_deployment: Deployment, tmp_path: Path) -> None:
    """No bundle is written with an artefact that was made from something else."""
    with pytest.raises(BundleError, match="part2: artefact of onnxruntime: it was made from"):
        build(vector_deployment, tmp_path / "deploy", {"part_sha256": "0" * 64})
    assert not (tmp_path / "deploy").exists()


def test_exporting_for_an_unknown_device_is_an_error(vector_deployment: Deployment) -> None:
    """A device that the policy does not have is refused before anything is compiled."""
    with pytest.raises(DeviceError, match="device 'board': the policy has no such device; it has cloud"):
        exporter(vector_deployment.plan.policy, [DeviceSpec("board")])
