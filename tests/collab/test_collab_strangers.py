"""Who is not who it says to be, by certificate or by evidence, is refused by name."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from collab_links import FEATURES, LABELS, link, upload, upload_setup
from collab_runs import Here, address_of, process

from siniantrust.collab import (
    CloudConfig,
    CloudLostError,
    JoinAgainError,
    RefusedError,
    _methods,
    load_config,
    write_identity,
)
from siniantrust.collab._attest import Attestation
from siniantrust.errors import AttestationError
from siniantrust.trust.attestation.attesters.simulated import package_measurement


def test_certificates_are_pinned_on_both_sides(tmp_path: Path) -> None:
    """An edge with a key that the cloud does not know gets no answer, and it refuses a cloud that it does not know."""
    setup = upload_setup(tmp_path)
    here = Here(setup)
    here.start_cloud()
    write_identity("a", tmp_path / "impostor")
    write_identity("cloud", tmp_path / "impostor")
    keys = {"key": "impostor/a.key", "certificate": "impostor/a.crt"}
    with link(here, "a", give_up_s=0.5, **keys) as impostor, pytest.raises(CloudLostError, match="does not answer"):
        impostor.join([])
    with (
        link(here, "a", cloud_certificate="impostor/cloud.crt") as edge,
        pytest.raises(RefusedError, match="its certificate is not"),
    ):
        edge.join([])


def test_nothing_older_than_tls_1_3_is_spoken(tmp_path: Path) -> None:
    """A client that offers TLS 1.2 at most fails its handshake; one of TLS 1.3 gets through it."""
    upload_setup(tmp_path)

    def version(highest: ssl.TLSVersion) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = highest
        context.load_cert_chain(tmp_path / "a.crt", tmp_path / "a.key")
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw) as wrapped:
            return wrapped.version()

    # A process of its own, as `sinian train cloud` is: in this one, other tests may have opened gRPC before.
    with process(tmp_path, "cloud", "cloud") as cloud:
        host, port = address_of(cloud).split(":")
        assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.raises(ssl.SSLError):
            version(ssl.TLSVersion.TLSv1_2)


def reference(folder: Path, measurement: str, *, accept: str = "simulated") -> str:
    """Write a reference file for simulated evidence."""
    (folder / "reference.toml").write_text(
        f'kind = "simulated"\naccept = ["{accept}"]\n'
        f'[accepted]\nprovider = ["service"]\nmeasurement = ["{measurement}"]\n'
    )
    return "reference.toml"


def test_attested_sides_train_and_the_record_says_that_it_was_simulated(tmp_path: Path) -> None:
    """Where both sides ask for evidence and show it, they train; provenance stands in both records."""
    tmp_path.mkdir(exist_ok=True)
    asked = {"attester": "simulated", "reference": reference(tmp_path, package_measurement())}
    setup = upload_setup(tmp_path, sections={"attestation": asked})
    Here(setup).run()
    assert '"cloud_provenance": "simulated"' in (tmp_path / "at-a/training.json").read_text()
    assert setup.record("cloud")["provenance"] == {"a": "simulated", "b": "simulated"}
    # It is known after a restart too, though no edge has anything to say any more.
    (tmp_path / "at-cloud/training.json").unlink()
    again = Here(setup)
    again.start_cloud()
    again.wait("cloud")
    assert setup.record("cloud")["provenance"] == {"a": "simulated", "b": "simulated"}


@pytest.mark.parametrize(
    ("shown", "measurement", "accept", "named"),
    [
        ({}, package_measurement(), "simulated", "evidence is required, and it showed none"),
        ({"attester": "simulated"}, "00" * 32, "simulated", "measurement"),
        (
            {"attester": "simulated"},
            package_measurement(),
            "hardware",
            "the evidence is simulated, the reference accepts",
        ),
    ],
)
def test_a_peer_that_is_not_attested_is_refused(
    tmp_path: Path, shown: dict[str, str], measurement: str, accept: str, named: str
) -> None:
    """An edge without evidence, with another measurement or of a provenance not accepted is refused by name."""
    tmp_path.mkdir(exist_ok=True)
    asked = {"reference": reference(tmp_path, measurement, accept=accept)}
    setup = upload_setup(tmp_path, cloud_sections={"attestation": asked}, edge_sections={"attestation": shown})
    here = Here(setup)
    here.start_cloud()
    with link(here, "a") as edge, pytest.raises(RefusedError, match=r"edge 'a' is not attested") as refused:
        edge.join([])
    assert named in str(refused.value)
    with link(here, "a") as edge, pytest.raises(JoinAgainError, match=r"edge 'a' has not joined"):
        edge.call(_methods.UPLOAD, upload(FEATURES, LABELS))


def test_an_edge_refuses_a_cloud_that_is_not_attested(tmp_path: Path) -> None:
    """Before anything is sent, the edge asks the cloud for evidence."""
    tmp_path.mkdir(exist_ok=True)
    asked = {"reference": reference(tmp_path, package_measurement())}
    here = Here(upload_setup(tmp_path, edge_sections={"attestation": asked}))
    here.start_cloud()
    with link(here, "a") as edge:
        with pytest.raises(RefusedError, match="the cloud is not attested"):
            edge.join([])
        assert set(edge.calls) == {"Hello"}


def test_evidence_of_one_connection_is_not_good_for_another_key_role_or_nonce(tmp_path: Path) -> None:
    """Evidence is bound to nonce, role and TLS key: with any other it is refused."""
    section = load_config(upload_setup(tmp_path).folder / "cloud.toml", CloudConfig).attestation
    section = section.model_copy(
        update={"attester": "simulated", "reference": tmp_path / reference(tmp_path, package_measurement())}
    )
    side = Attestation(section, b"key")
    raw = side.show(b"n" * 32, role="cloud")
    good: dict[str, Any] = {"name": "x", "nonce": b"n" * 32, "role": "cloud", "spki": b"key"}
    assert side.appraise(raw, **good) == "simulated"
    for change in ({"nonce": b"m" * 32}, {"role": "edge"}, {"spki": b"other"}):
        with pytest.raises(RefusedError, match="x is not attested"):
            side.appraise(raw, **good | change)
    with pytest.raises(AttestationError, match="expected a nonce of 32 bytes"):
        side.show(b"short", role="cloud")
