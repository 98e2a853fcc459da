from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from remote_cases import LOOPBACK, MEASUREMENT, REFERENCE, running
from runtime_deployments import Deployment, deploy, missing_protections, vectors

from siniantrust.bundle import load_bundle
from siniantrust.errors import BundleError, EnclaveError, EnclaveLostError, PolicyError, TrustError
from siniantrust.planner import load_policy
from siniantrust.runtime import enclave_spec
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import reference_to_table
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.broker import BrokerClient, BrokerServer, KeyBroker, KeyEntry, Store
from siniantrust.trust.service import EnclaveService
from siniantrust.trust.tls import Address, fingerprint

ATTESTER = SimulatedAttester(MEASUREMENT)


def _deploy(folder: Path, address: Address, **enclave: object) -> Deployment:
    wanted = {
        "provider": "service",
        "accept": ["simulated"],
        "address": str(address),
        "reference": reference_to_table(REFERENCE),
        **enclave,
    }
    return deploy(vectors(), folder, cut="t3", enclave=wanted)


def _check(deployment: Deployment) -> None:
    inputs = deployment.inputs(3)
    with deployment.open() as session:
        found = session.run(inputs)
        assert session.enclave_info().provenance is Provenance.SIMULATED
        assert session.enclave_info().provider == "service"
    for name, expected in deployment.expected(inputs).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_a_bundle_runs_with_its_private_part_in_a_service(tmp_path: Path) -> None:
    """A session over a bundle attests the service, gives it the key and gets the uncut model's answers."""
    with running(EnclaveService(ATTESTER, LOOPBACK)) as address:
        _check(_deploy(tmp_path, address))


def test_a_bundle_runs_again_when_its_service_came_back(tmp_path: Path) -> None:
    """When the service ends, the call says that the enclave is lost; the next call attests the new one."""
    with running(EnclaveService(ATTESTER, LOOPBACK)) as address:
        deployment = _deploy(tmp_path, address)
        session = deployment.open()
        session.run(deployment.inputs())
    with pytest.raises(EnclaveLostError, match="launch it again"):
        session.run(deployment.inputs())
    with pytest.raises(EnclaveLostError, match="nothing answers"):
        session.run(deployment.inputs())
    with running(EnclaveService(ATTESTER, address)):
        assert session.run(deployment.inputs())
        session.close()


@pytest.fixture
def broker(tmp_path: Path) -> KeyBroker:
    """Return an empty broker."""
    return KeyBroker(Store.create(tmp_path / "broker"))


@pytest.fixture
def service(broker: KeyBroker) -> Iterator[Address]:
    """Return the address of a service that fetches its keys from the broker."""
    with running(BrokerServer(broker, LOOPBACK)) as at:
        client = BrokerClient(ATTESTER, at, pin=fingerprint(broker.store.identity.spki))
        with running(EnclaveService(ATTESTER, LOOPBACK, keys=lambda: client)) as address:
            yield address


def _hand_over(deployment: Deployment, broker: KeyBroker, *, version: int) -> None:
    """Give the bundle's weight key to the broker, and forget it here."""
    bundle = load_bundle(deployment.path, keystore=deployment.keystore)
    broker.add(
        KeyEntry(
            key_id=bundle.id,
            lineage="vectors",
            version=version,
            reference=REFERENCE,
            accept=(Provenance.SIMULATED,),
            key=deployment.keystore.weight_key(bundle.id),
        )
    )
    deployment.keystore.remove_weight_key(bundle.id)


def test_a_host_runs_a_bundle_whose_key_it_never_has(tmp_path: Path, broker: KeyBroker, service: Address) -> None:
    """With ``keys = "broker"``, the enclave fetches the weight key itself; the host's key store does not have it."""
    deployment = _deploy(tmp_path / "host", service, keys="broker")
    with pytest.raises(TrustError, match="its log says why"):
        deployment.open()
    _hand_over(deployment, broker, version=1)
    _check(deployment)
    assert broker.store.log.entries[-1].event == "release"


def test_an_older_bundle_is_refused_once_a_newer_one_ran(tmp_path: Path, broker: KeyBroker, service: Address) -> None:
    """A host that puts an older bundle back gets no key for it."""
    old, new = (_deploy(tmp_path / name, service, keys="broker") for name in ("old", "new"))
    _hand_over(old, broker, version=1)
    _hand_over(new, broker, version=2)
    _check(old)
    _check(new)
    with pytest.raises(TrustError, match="its log says why"):
        old.open()
    assert "rollback: version 1 of vectors" in broker.store.log.entries[-1].detail
    _check(new)


def test_a_key_that_was_revoked_ends_a_bundle(tmp_path: Path, broker: KeyBroker, service: Address) -> None:
    """After a revocation a bundle does not open any more."""
    deployment = _deploy(tmp_path / "host", service, keys="broker")
    _hand_over(deployment, broker, version=1)
    _check(deployment)
    broker.revoke_key(broker.store.key_ids()[0], why="leaked")
    with pytest.raises(TrustError, match="its log says why"):
        deployment.open()


def test_an_enclave_without_a_broker_says_so(tmp_path: Path) -> None:
    """A provider that cannot fetch keys refuses ``keys = "broker"``, with the line to write instead."""
    enclave = {"accept": ["simulated"], "allow_missing": list(missing_protections()), "keys": "broker"}
    deployment = deploy(vectors(), tmp_path, cut="t3", enclave=enclave)
    with pytest.raises(EnclaveError, match=r'process enclave: it has no key broker.*keys = "keystore"'):
        deployment.open()


def test_a_key_store_without_the_key_is_noticed_before_anything_runs(tmp_path: Path) -> None:
    """With ``keys = "keystore"``, the default, a missing key is an error before an enclave is asked for."""
    deployment = _deploy(tmp_path, Address("127.0.0.1", 1))
    deployment.keystore.remove_weight_key(load_bundle(deployment.path, keystore=deployment.keystore).id)
    with pytest.raises(BundleError, match="weight key is not in this keystore"):
        deployment.open()


_POLICY = """
[enclave]
provider = "service"
accept = ["simulated"]
address = "[::1]:7443"
reference = "ref.toml"

[[device]]
name = "cloud"
"""


def test_a_policy_names_reference_values_by_their_file(tmp_path: Path) -> None:
    """Reference values in a file beside the policy become part of it, and of the spec that the enclave is held to."""
    (tmp_path / "ref.toml").write_text(
        f'kind = "simulated"\n[accepted]\nprovider = ["service"]\nmeasurement = ["{MEASUREMENT}"]\n'
    )
    (tmp_path / "policy.toml").write_text(_POLICY)
    spec = enclave_spec(load_policy(tmp_path / "policy.toml"))
    assert (spec.address, spec.reference) == ("[::1]:7443", REFERENCE)


@pytest.mark.parametrize(
    ("reference", "match"),
    [(None, "cannot be read"), ("kind = 1", "kind"), ("kind = 'simulated'\n[accept]\n", "accept"), ("[", "TOML")],
)
def test_a_policy_with_bad_reference_values_is_refused(tmp_path: Path, reference: str | None, match: str) -> None:
    """A reference file that is missing or malformed is an error of the policy that names the file."""
    if reference is not None:
        (tmp_path / "ref.toml").write_text(reference)
    (tmp_path / "policy.toml").write_text(_POLICY)
    with pytest.raises(PolicyError, match=rf"enclave\.reference: .*ref\.toml.*{match}"):
        load_policy(tmp_path / "policy.toml")


def test_a_policy_without_reference_values_accepts_nothing(tmp_path: Path) -> None:
    """No reference values are made up."""
    (tmp_path / "policy.toml").write_text(_POLICY.replace('reference = "ref.toml"\n', ""))
    assert enclave_spec(load_policy(tmp_path / "policy.toml")).reference is None
