from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runtime_deployments import Deployment, deploy, simulated_policy, vectors
from tpm_world import NOW, Authority, certified_attester, need

from siniantrust.bundle import KeyStore, build_bundle, load_bundle, newest_version, set_up_tpm
from siniantrust.errors import TrustError
from siniantrust.runtime import open_session
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import Reference, ReferenceValues
from siniantrust.trust.attestation.tpm2 import Swtpm, Tpm


def _build(deployment: Deployment, folder: Path, version: int) -> Path:
    return build_bundle(
        deployment.model,
        deployment.plan,
        folder / f"deploy-{version}",
        keystore=deployment.keystore,
        audit_folder=deployment.audit_folder,
        version=version,
    )


def _opens(path: Path, keystore: KeyStore, deployment: Deployment) -> None:
    inputs = deployment.inputs()
    with open_session(path, keystore=keystore) as session:
        found = session.run(inputs)
    for name, expected in deployment.expected(inputs).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_an_older_bundle_does_not_open_once_a_newer_one_did(tmp_path: Path) -> None:
    """Both open in order, as often as one likes; then the older one gets no key, and the newer one opens still."""
    deployment = deploy(vectors(), tmp_path, cut="t3")
    newer = _build(deployment, tmp_path, 2)
    for path in (deployment.path, newer):
        _opens(path, deployment.keystore, deployment)
    with pytest.raises(TrustError, match="expected version 2 or newer, found 1; it was rolled back"):
        deployment.open()
    _opens(newer, deployment.keystore, deployment)


def test_a_bundle_whose_enclave_is_not_accepted_retires_nothing(tmp_path: Path) -> None:
    """A newer bundle counts when its enclave has attested, and not before."""
    deployment = deploy(vectors(), tmp_path, cut="t3")
    enclave = {**simulated_policy().enclave.model_dump(), "accept": ("hardware",)}
    refused = deploy(vectors(), tmp_path / "refused", cut="t3", enclave=enclave)
    path = build_bundle(
        refused.model,
        refused.plan,
        tmp_path / "deploy-2",
        keystore=deployment.keystore,
        audit_folder=refused.audit_folder,
        version=2,
    )
    with pytest.raises(TrustError, match="is simulated, the policy accepts: hardware"):
        open_session(path, keystore=deployment.keystore)
    assert newest_version(deployment.keystore, deployment.model.name) == 0
    deployment.open().close()


def test_a_bundle_is_counted_before_its_key_leaves(tmp_path: Path) -> None:
    """Whatever goes wrong once a key may have left: older bundles are refused from then on, and this one opens."""
    deployment = deploy(vectors(), tmp_path, cut="t3")
    newer = _build(deployment, tmp_path, 2)
    path = deployment.keystore.path / "weights" / f"{load_bundle(newer, keystore=deployment.keystore).id}.key"
    key = path.read_bytes()
    path.write_bytes(bytes(32))
    with pytest.raises(TrustError, match="they do not open"):
        open_session(newer, keystore=deployment.keystore)
    with pytest.raises(TrustError, match="expected version 2 or newer, found 1"):
        deployment.open()
    path.write_bytes(key)
    _opens(newer, deployment.keystore, deployment)


def test_a_session_counts_in_the_tpm_that_the_policy_names(tmp_path: Path) -> None:
    """With ``rollback_tpm``, nothing opens before the counter is set up, and the TPM refuses the older bundle."""
    need("swtpm")
    authority = Authority("maker")
    with Swtpm() as emulator:
        with Tpm(emulator.where) as tpm:
            certified_attester(tpm, authority)
        enclave = {**simulated_policy().enclave.model_dump(), "rollback_tpm": emulator.where}
        deployment = deploy(vectors(), tmp_path, cut="t3", enclave=enclave)
        with pytest.raises(TrustError, match="set it up with: sinian counter"):
            deployment.open()
        lineage = deployment.model.name
        set_up_tpm(
            deployment.keystore,
            lineage=lineage,
            where=emulator.where,
            reference=Reference(
                values=ReferenceValues(kind="tpm2", anchors={"emulated:maker": authority.issuer}),
                accept=frozenset({Provenance.EMULATED}),
            ),
            now=NOW,
        )
        deployment.open().close()
        _opens(_build(deployment, tmp_path, 2), deployment.keystore, deployment)
        (deployment.keystore.path / "versions" / f"{lineage}.newest").write_text("1\n")
        with pytest.raises(TrustError, match="expected version 2 or newer, found 1"):
            deployment.open()
