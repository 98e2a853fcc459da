"""Old bundles are refused: the counter in a TPM beside the key store's record."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm_world import NOW, Authority, MakersCommand, certified_attester

from siniantrust.bundle import KeyStore, admit, newest_version, set_up_tpm
from siniantrust.errors import AttestationError, TrustError
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import Reference, ReferenceValues
from siniantrust.trust.attestation.tpm2 import Swtpm, Tpm, Tpm2Attester, TpmError
from siniantrust.trust.attestation.tpm2._commands import PASSWORD, pcr_extend
from siniantrust.trust.attestation.tpm2._constants import Command, Handle
from siniantrust.trust.attestation.tpm2._counter import DEFAULT_INDEX


def _reference(
    authority: Authority, *, accept: tuple[Provenance, ...] = (Provenance.EMULATED,), kind: str = "tpm2"
) -> Reference:
    values = ReferenceValues(kind=kind, anchors={"emulated:maker": authority.issuer})
    return Reference(values=values, accept=frozenset(accept))


@pytest.fixture
def where(emulator: Swtpm, authority: Authority) -> str:
    """Return a TPM whose endorsement key was certified; nobody is connected to it."""
    with Tpm(emulator.where, timeout_s=30) as tpm:
        certified_attester(tpm, authority)
        pcr_extend(tpm, 14, bytes(32))  # what was measured before does not matter
    return emulator.where


@pytest.fixture
def keystore(tmp_path: Path) -> KeyStore:
    """Return a fresh key store."""
    return KeyStore(tmp_path / "keys")


def _set_up(keystore: KeyStore, where: str, authority: Authority, lineage: str = "net") -> Provenance:
    return set_up_tpm(keystore, lineage=lineage, where=where, reference=_reference(authority), now=NOW)


def test_an_old_bundle_is_refused_even_with_an_old_key_store(
    keystore: KeyStore, where: str, authority: Authority, tmp_path: Path
) -> None:
    """Whoever puts the whole key store back as it was cannot put the TPM back."""
    admit(keystore, lineage="net", version=2)
    assert _set_up(keystore, where, authority) is Provenance.EMULATED
    admit(keystore, lineage="net", version=3, tpm=where)
    shutil.copytree(keystore.path, tmp_path / "kept")
    admit(keystore, lineage="net", version=5, tpm=where)
    shutil.rmtree(keystore.path)
    shutil.move(tmp_path / "kept", keystore.path)
    assert newest_version(keystore, "net") == 3
    with pytest.raises(TrustError, match="lineage net: expected version 5 or newer, found 4; it was rolled back"):
        admit(keystore, lineage="net", version=4, tpm=where)
    admit(keystore, lineage="net", version=5, tpm=where)
    assert newest_version(keystore, "net") == 5


def test_the_counter_goes_on_from_the_record(keystore: KeyStore, where: str, authority: Authority) -> None:
    """What was opened before the TPM counted stays refused."""
    admit(keystore, lineage="net", version=7)
    _set_up(keystore, where, authority)
    (keystore.path / "versions" / "net.newest").unlink()
    with pytest.raises(TrustError, match="expected version 7 or newer, found 6"):
        admit(keystore, lineage="net", version=6, tpm=where)


def test_without_its_record_a_tpm_is_not_believed(keystore: KeyStore, where: str, authority: Authority) -> None:
    """A policy that asks for a TPM's counter refuses where it was never set up, or where its record is gone or odd."""
    with pytest.raises(TrustError, match="net has none; set it up with: sinian counter"):
        admit(keystore, lineage="net", version=1, tpm=where)
    _set_up(keystore, where, authority)
    path = keystore.path / "versions" / "net.tpm"
    genuine = path.read_text()
    for text in ("", "{}", genuine.replace('"ak":"', '"ak":"zz')):
        path.write_text(text)
        with pytest.raises(TrustError, match="found something else; put it back"):
            admit(keystore, lineage="net", version=1, tpm=where)
    path.unlink()
    with pytest.raises(TrustError, match="net has none"):
        admit(keystore, lineage="net", version=1, tpm=where)
    assert newest_version(keystore, "net") == 0


def test_each_lineage_has_a_counter_of_its_own(keystore: KeyStore, where: str, authority: Authority) -> None:
    """Versions of one lineage do not count for another; a second counter for one is refused."""
    for lineage in ("net", "other"):
        _set_up(keystore, where, authority, lineage)
    admit(keystore, lineage="net", version=4, tpm=where)
    admit(keystore, lineage="other", version=1, tpm=where)
    with pytest.raises(TrustError, match="net has a counter in a TPM already"):
        _set_up(keystore, where, authority)


def test_a_deleted_counter_refuses_every_bundle(keystore: KeyStore, where: str, authority: Authority) -> None:
    """The owner of the TPM can delete the counter, which opens nothing."""
    _set_up(keystore, where, authority)
    admit(keystore, lineage="net", version=1, tpm=where)
    with Tpm(where) as tpm:
        tpm.call(MakersCommand.NV_UNDEFINE_SPACE, [Handle.OWNER, DEFAULT_INDEX], sessions=PASSWORD)
    with pytest.raises(TpmError, match="nothing lives under this handle"):
        admit(keystore, lineage="net", version=2, tpm=where)


def test_another_tpm_does_not_stand_in(keystore: KeyStore, where: str, authority: Authority) -> None:
    """A counter is believed of the TPM in which it was set up only, and one that is gone refuses."""
    _set_up(keystore, where, authority)
    with Swtpm() as other:
        with Tpm(other.where) as tpm:
            certified_attester(tpm, authority)
        _set_up(KeyStore(keystore.path / "second"), other.where, authority)
        with pytest.raises(AttestationError, match="signature is not the attestation key's"):
            admit(keystore, lineage="net", version=1, tpm=other.where)
    with pytest.raises(TpmError, match="it cannot be opened"):
        admit(keystore, lineage="net", version=1, tpm=other.where)


def test_a_tpm_that_nobody_vouches_for_gets_no_counter(keystore: KeyStore, where: str, authority: Authority) -> None:
    """The endorsement key must lead to an anchor, whose provenance the reference accepts; else nothing is defined."""
    for reference, words in (
        (_reference(Authority("somebody")), "no anchor vouches for it"),
        (_reference(authority, accept=(Provenance.HARDWARE,)), "it is emulated, the reference accepts: hardware"),
        (_reference(authority, accept=()), "it is emulated, the reference accepts: nothing"),
        (_reference(authority, kind="sgx"), "expected reference values of kind tpm2, found sgx"),
    ):
        with pytest.raises(AttestationError, match=words):
            set_up_tpm(keystore, lineage="net", where=where, reference=reference, now=NOW)
    _set_up(keystore, where, authority)
    assert f'"index":{DEFAULT_INDEX}' in (keystore.path / "versions" / "net.tpm").read_text()


def test_a_full_tpm_says_so(keystore: KeyStore, where: str, authority: Authority) -> None:
    """There are sixteen places; one more counter is an error, and so is a TPM without room."""
    for number in range(16):
        _set_up(keystore, where, authority, f"net-{number}")
    with pytest.raises(TpmError, match="all of its 16 places for counters are taken"):
        _set_up(keystore, where, authority)


def test_a_counter_that_stopped_half_way_locks_nobody_out(keystore: KeyStore, where: str, authority: Authority) -> None:
    """Killed between the steps from 1 to 4, the TPM stands in between: 4 opens, and 1 is refused."""
    _set_up(keystore, where, authority)
    admit(keystore, lineage="net", version=1, tpm=where)
    with Tpm(where) as tpm:
        tpm.call(Command.NV_INCREMENT, [DEFAULT_INDEX, DEFAULT_INDEX], sessions=PASSWORD)
    with pytest.raises(TrustError, match="expected version 2 or newer, found 1"):
        admit(keystore, lineage="net", version=1, tpm=where)
    admit(keystore, lineage="net", version=4, tpm=where)
    assert newest_version(keystore, "net") == 4


def test_a_key_can_be_its_own_anchor(keystore: KeyStore, emulator: Swtpm) -> None:
    """A TPM without a certificate is known by its endorsement key."""
    with Tpm(emulator.where) as tpm:
        key = Tpm2Attester(tpm).identity().ek.public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    reference = Reference(
        values=ReferenceValues(kind="tpm2", anchors={"emulated:desk": der}), accept=frozenset({Provenance.EMULATED})
    )
    set_up_tpm(keystore, lineage="net", where=emulator.where, reference=reference)
    admit(keystore, lineage="net", version=1, tpm=emulator.where)
