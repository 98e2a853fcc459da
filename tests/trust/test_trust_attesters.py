from __future__ import annotations

import errno
from pathlib import Path, PosixPath

import pytest
from fake_platforms import CERTIFICATES, GraminePath, TsmPath, certificate_table
from hypothesis import given
from hypothesis import strategies as st

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation import Attester, EvidenceBundle
from siniantrust.trust.attestation.attesters import ATTESTERS, EndorsedAttester, open_attester
from siniantrust.trust.attestation.attesters._snp_certificates import read_certificates
from siniantrust.trust.attestation.attesters.configfs_tsm import ConfigfsTsmAttester
from siniantrust.trust.attestation.attesters.gramine import GramineAttester
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester, package_measurement

BINDING = bytes(range(64))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TsmPath:
    """Return the root of a fresh interface."""
    monkeypatch.setattr(TsmPath, "kernel", {})
    return TsmPath(tmp_path)


def test_a_tdx_report_is_fetched(root: TsmPath) -> None:
    """The binding goes in, the report comes out, and the entry is gone afterwards."""
    attester = ConfigfsTsmAttester(root)
    assert isinstance(attester, Attester)
    evidence = attester.evidence(BINDING)
    assert evidence == EvidenceBundle(kind="tdx", body=b"report of " + BINDING)
    assert list(root.iterdir()) == []
    assert root.kernel["made"] == root.kernel["removed"] == 2


def test_an_sev_snp_report_brings_its_certificates(root: TsmPath) -> None:
    """On SEV-SNP, what the host hands out becomes endorsements under the Verifier's names."""
    certificates = {"vcek": b"leaf", "ask": b"middle", "ark": b"root"}
    root.kernel.update(provider=b"sev_guest\n", auxblob=certificate_table(certificates))
    evidence = ConfigfsTsmAttester(root).evidence(BINDING)
    assert (evidence.kind, evidence.endorsements) == ("sev-snp", certificates)


def test_an_sev_snp_host_may_hand_out_nothing(root: TsmPath) -> None:
    """A report without certificates is a report all the same."""
    root.kernel.update(provider=b"sev_guest\n")
    assert ConfigfsTsmAttester(root).evidence(BINDING).endorsements == {}


def test_a_write_by_somebody_else_is_noticed_and_tried_again(root: TsmPath) -> None:
    """A report is taken only if the entry's generation rose by our own write; else it is asked for again."""
    races = iter([2, 1])

    def interfere() -> None:
        for _ in range(next(races, 0)):
            root.kernel.update(generation=root.kernel["generation"] + 1, inblob=b"another's")

    attester = ConfigfsTsmAttester(root)
    root.kernel["after_write"] = interfere
    assert attester.evidence(BINDING).body == b"report of " + BINDING
    assert next(races, None) is None


def test_a_race_that_does_not_end_is_an_error(root: TsmPath) -> None:
    """After some tries, the attester gives up; no report of another's bytes is ever returned."""

    def interfere() -> None:
        root.kernel.update(generation=root.kernel["generation"] + 1, inblob=b"another's")

    attester = ConfigfsTsmAttester(root)
    root.kernel["after_write"] = interfere
    with pytest.raises(AttestationError, match="no report in 5 tries"):
        attester.evidence(BINDING)
    assert list(root.iterdir()) == []


def test_a_busy_platform_is_tried_again(root: TsmPath) -> None:
    """``EBUSY`` is no refusal, but for ever it is one."""
    attester = ConfigfsTsmAttester(root)
    root.kernel["fault"] = errno.EBUSY
    with pytest.raises(AttestationError, match="busy"):
        attester.evidence(BINDING)


def test_what_the_kernel_refuses_is_said(root: TsmPath) -> None:
    """Another fault of the kernel is given at once, with its reason, and the entry is removed."""
    attester = ConfigfsTsmAttester(root)
    root.kernel["fault"] = errno.EIO
    with pytest.raises(AttestationError, match="gives no report \\(Input/output error\\)"):
        attester.evidence(BINDING)
    assert list(root.iterdir()) == []


def test_an_empty_report_is_refused(root: TsmPath) -> None:
    """A kernel that gives nothing has not attested."""
    attester = ConfigfsTsmAttester(root)
    root.kernel["empty"] = True
    with pytest.raises(AttestationError, match="empty report"):
        attester.evidence(BINDING)


def test_an_unknown_provider_is_refused(root: TsmPath) -> None:
    """Evidence that no Verifier here reads is refused at the start."""
    root.kernel["provider"] = b"arm_cca_guest\n"
    with pytest.raises(AttestationError, match="'arm_cca_guest' is not known"):
        ConfigfsTsmAttester(root)
    assert list(root.iterdir()) == []


def test_a_generation_that_is_no_number_is_refused(root: TsmPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface that behaves in another way is refused."""
    attester = ConfigfsTsmAttester(root)
    before = TsmPath.read_bytes
    monkeypatch.setattr(TsmPath, "read_bytes", lambda path: b"new" if path.name == "generation" else before(path))
    with pytest.raises(AttestationError, match="expected a number as generation, found 'new'"):
        attester.evidence(BINDING)


def test_a_machine_without_the_interface_is_named(tmp_path: Path) -> None:
    """Where there is no configfs-tsm, the error says what it needs."""
    with pytest.raises(AttestationError, match=r"No such file.*Linux 6\.7"):
        ConfigfsTsmAttester(tmp_path / "tsm" / "report")


def test_files_that_are_only_files_are_no_kernel(tmp_path: Path) -> None:
    """A plain directory in the interface's place, in which nothing appears, is refused."""
    with pytest.raises(AttestationError, match="provider: cannot be read"):
        ConfigfsTsmAttester(tmp_path)


@pytest.mark.parametrize("binding", [b"", bytes(63), bytes(65)])
def test_a_binding_of_another_length_is_refused(root: TsmPath, binding: bytes, tmp_path: Path) -> None:
    """Attesters bind 64 bytes, not fewer filled up with something."""
    gramine = tmp_path / "gramine"
    gramine.mkdir()
    (gramine / "attestation_type").write_bytes(b"dcap")
    for attester in (ConfigfsTsmAttester(root), GramineAttester(gramine)):
        with pytest.raises(AttestationError, match="expected 64 bytes to bind"):
            attester.evidence(binding)


@given(
    st.lists(st.sampled_from(sorted(CERTIFICATES)), unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: st.binary(min_size=1, max_size=50) for name in names})
    )
)
def test_certificate_tables_are_read_as_written(certificates: dict[str, bytes]) -> None:
    """Every certificate of a known kind comes out of a table under its name."""
    expected = {name: data for name, data in certificates.items() if name != "other"}
    if "vlek" in expected and "ask" in expected:
        expected["asvk"] = expected.pop("ask")
    assert read_certificates(certificate_table(certificates)) == expected


@given(st.binary(max_size=400))
def test_any_table_is_read_or_refused(table: bytes) -> None:
    """A table from the host is read within its bounds, or refused."""
    try:
        found = read_certificates(table)
    except AttestationError as refusal:
        assert "sev-snp certificates" in str(refusal)  # noqa: PT017 - one of two allowed outcomes
    else:
        assert all(data in table for data in found.values())


def test_a_table_without_an_end_is_refused() -> None:
    """A table that ends before its closing entry was cut."""
    with pytest.raises(AttestationError, match="has no end"):
        read_certificates(certificate_table({"vcek": b""})[:24])


def test_an_entry_that_points_outside_is_refused() -> None:
    """An entry longer than the table was cut."""
    with pytest.raises(AttestationError, match="points out of the table"):
        read_certificates(certificate_table({"vcek": b"x" * 10})[:-1])


@pytest.fixture
def gramine(tmp_path: Path) -> GraminePath:
    """Return the pseudo-files of an enclave with DCAP."""
    root = GraminePath(tmp_path)
    (root / "attestation_type").write_bytes(b"dcap\n")
    (root / "keys").mkdir()
    return root


def test_an_sgx_quote_is_fetched(gramine: GraminePath) -> None:
    """The binding goes in, the quote comes out."""
    attester = GramineAttester(gramine)
    assert isinstance(attester, Attester)
    evidence = attester.evidence(BINDING)
    assert (evidence.kind, evidence.body[368:432]) == ("sgx", BINDING)


def test_a_quote_of_other_data_is_refused(gramine: GraminePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote that carries what somebody else wrote meanwhile is not passed on."""
    monkeypatch.setattr(GraminePath, "write_bytes", lambda path, _data: PosixPath.write_bytes(path, b"x" * 64))
    with pytest.raises(AttestationError, match="other report data"):
        GramineAttester(gramine).evidence(BINDING)


@pytest.mark.parametrize("kind", [b"none", b"epid", b""])
def test_an_enclave_without_dcap_is_refused(gramine: GraminePath, kind: bytes) -> None:
    """Attestation of another kind is refused at the start, with the manifest's line to write."""
    (gramine / "attestation_type").write_bytes(kind)
    with pytest.raises(AttestationError, match=r"sgx\.remote_attestation = \"dcap\""):
        GramineAttester(gramine)


def test_outside_of_gramine_it_says_so(tmp_path: Path) -> None:
    """Where there are no pseudo-files, the error says what it needs."""
    with pytest.raises(AttestationError, match="needs an enclave of Gramine"):
        GramineAttester(tmp_path / "attestation")


def test_the_processors_sealing_key_is_taken(gramine: GraminePath) -> None:
    """Keys come back with the processor's key for this MRENCLAVE, and with no other; without it there is no sealing."""
    file = gramine / "keys" / "_sgx_mrenclave"
    with pytest.raises(AttestationError, match="_sgx_mrenclave: cannot be read"):
        GramineAttester(gramine).sealing()
    file.write_bytes(b"k" * 15)
    with pytest.raises(AttestationError, match="expected a key of 16 bytes, found 15"):
        GramineAttester(gramine).sealing()
    file.write_bytes(b"k" * 16)
    key, kept = GramineAttester(gramine).sealing().new_key()
    assert GramineAttester(gramine).sealing().key_again(kept) == key
    file.write_bytes(b"o" * 16)
    assert GramineAttester(gramine).sealing().key_again(kept) != key


def test_a_key_is_provisioned(gramine: GraminePath) -> None:
    """A key of 16 bytes goes under its name, for the encrypted files that name it."""
    GramineAttester(gramine).provision("bundle", b"k" * 16)
    assert (gramine / "keys" / "bundle").read_bytes() == b"k" * 16


@pytest.mark.parametrize(("name", "key"), [("bundle", b"short"), ("../up", bytes(16)), ("_sgx_mrenclave", bytes(16))])
def test_a_key_that_is_none_of_gramines_is_refused(gramine: GraminePath, name: str, key: bytes) -> None:
    """Keys of another length, paths and Gramine's own keys are refused."""
    with pytest.raises(AttestationError, match="expected a key of 16 bytes"):
        GramineAttester(gramine).provision(name, key)


def test_a_file_that_cannot_be_written_is_named(gramine: GraminePath) -> None:
    """A pseudo-file that refuses is named with its reason."""
    (gramine / "keys").rmdir()
    with pytest.raises(AttestationError, match="bundle: cannot be written"):
        GramineAttester(gramine).provision("bundle", bytes(16))


def test_endorsements_are_added() -> None:
    """Endorsements from files go with the evidence; they do not replace the platform's own."""

    class Own:
        kind = "tdx"

        def evidence(self, binding: bytes) -> EvidenceBundle:
            """Return evidence with an endorsement of its own."""
            return EvidenceBundle(kind="tdx", body=binding, endorsements={"own": b"1"})

    attester = EndorsedAttester(Own(), {"collateral": b"2", "own": b"3"})
    assert attester.kind == "tdx"
    assert attester.evidence(BINDING) == EvidenceBundle(
        kind="tdx", body=BINDING, endorsements={"collateral": b"2", "own": b"1"}
    )


def test_attesters_are_opened_by_name() -> None:
    """The simulated attester works on every machine and states the package's measurement; unknown names are refused."""
    evidence = open_attester("simulated").evidence(BINDING)
    assert evidence == SimulatedAttester(package_measurement()).evidence(BINDING)
    with pytest.raises(AttestationError, match=f"'tpm' is unknown; there are: {', '.join(sorted(ATTESTERS))}"):
        open_attester("tpm")


@pytest.mark.parametrize("name", sorted(set(ATTESTERS) - {"simulated"}))
def test_an_attester_without_its_hardware_is_refused(name: str) -> None:
    """On a machine that is no TEE, opening the attester of one is an error that says what it needs."""
    places = {"configfs-tsm": "/sys/kernel/config/tsm/report", "gramine": "/dev/attestation", "tpm2": "/dev/tpmrm0"}
    if Path(places[name]).exists():
        pytest.skip(f"this machine has {places[name]}")
    with pytest.raises(AttestationError, match=r"needs|check that it is there"):
        open_attester(name)
