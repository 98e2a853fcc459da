from __future__ import annotations

from pathlib import Path

import pytest
from tpm_world import EVENTS, PCR, MakersCommand, World

from siniantrust.errors import AttestationError, TrustError
from siniantrust.trust.attestation.tpm2 import (
    Event,
    EventLog,
    FileCounter,
    RollbackCounter,
    Swtpm,
    Tpm,
    TpmCounter,
    TpmError,
    admit_version,
    seal,
    unseal,
)
from siniantrust.trust.attestation.tpm2._commands import PASSWORD, pcr_extend
from siniantrust.trust.attestation.tpm2._constants import Command, Handle, NvAttributes
from siniantrust.trust.attestation.tpm2._counter import DEFAULT_INDEX, _nv_public
from siniantrust.trust.attestation.tpm2._wire import sized

_EXPECTED = {PCR: EventLog(EVENTS).value()}


@pytest.mark.parametrize("secret", [b"k", b"k" * 32, bytes(range(128))])
@pytest.mark.usefixtures("world")
def test_a_sealed_key_comes_back(tpm: Tpm, secret: bytes) -> None:
    """While the registers hold what the key was sealed to, it is given back; it is not in what is stored."""
    sealed = seal(tpm, secret, _EXPECTED)
    assert unseal(tpm, sealed) == secret
    if len(secret) > 1:
        assert secret not in sealed


def test_a_key_is_sealed_to_reference_values_before_they_are_measured(tpm: Tpm) -> None:
    """The key comes back once what it is for was measured, and not before."""
    sealed = seal(tpm, b"key", _EXPECTED)
    for event in EVENTS:
        with pytest.raises(TpmError, match=r"policy not satisfied .* nothing else measured, and nothing more"):
            unseal(tpm, sealed)
        pcr_extend(tpm, PCR, event.digest)
    assert unseal(tpm, sealed) == b"key"


def test_one_more_extension_ends_unsealing(world: World, tpm: Tpm) -> None:
    """After anything more is measured the key is not given back until a reset."""
    sealed = seal(tpm, b"key", _EXPECTED)
    assert unseal(tpm, sealed) == b"key"
    world.attester.measure(Event("more", b"m" * 32))
    for _ in range(4):
        with pytest.raises(TpmError, match=r"PCRs \[14\] must hold the values"):
            unseal(tpm, sealed)


def test_all_registers_count(tpm: Tpm) -> None:
    """A key that is sealed to several registers needs each of them."""
    sealed = seal(tpm, b"key", {0: bytes(32), 7: bytes(32)})
    assert unseal(tpm, sealed) == b"key"
    pcr_extend(tpm, 7, bytes(32))
    with pytest.raises(TpmError, match=r"PCRs \[0, 7\]"):
        unseal(tpm, sealed)


def test_another_tpm_does_not_unseal(tpm: Tpm) -> None:
    """A key is sealed for one TPM."""
    sealed = seal(tpm, b"key", {0: bytes(32)})
    with Swtpm() as other, Tpm(other.where) as connection, pytest.raises(TpmError, match="refused LOAD: integrity"):
        unseal(connection, sealed)


def test_a_changed_seal_does_not_open(tpm: Tpm) -> None:
    """A bit changed anywhere in what is stored, and a form that is not ours, are refused."""
    sealed = seal(tpm, b"key", {0: bytes(32)})
    for place in range(len(sealed)):
        spoiled = bytearray(sealed)
        spoiled[place] ^= 1 << place % 8
        with pytest.raises(TpmError):
            unseal(tpm, bytes(spoiled))
    with pytest.raises(TpmError, match="expected nothing more"):
        unseal(tpm, sealed + b"\0")
    assert unseal(tpm, sealed) == b"key"


@pytest.mark.parametrize(
    ("secret", "registers", "words"),
    [
        (b"", _EXPECTED, "a secret of 1 to 128 bytes, found 0"),
        (bytes(129), _EXPECTED, "a secret of 1 to 128 bytes, found 129"),
        (b"key", {}, "found none"),
        (b"key", {16: bytes(32)}, "which only a reset sets back"),
    ],
)
def test_what_cannot_be_sealed_is_refused(tpm: Tpm, secret: bytes, registers: dict[int, bytes], words: str) -> None:
    """A secret too long, and registers that protect nothing, are refused before the TPM sees them."""
    with pytest.raises(TrustError, match=words):
        seal(tpm, secret, registers)


def _counter(world: World, tpm: Tpm, version: int) -> TpmCounter:
    return TpmCounter(tpm, ak=world.attester.identity().ak, base=TpmCounter.define(tpm, version=version))


def test_an_older_bundle_is_refused_by_the_tpm(world: World, tpm: Tpm) -> None:
    """The newest version and newer ones are admitted; once a newer one was, an older one never is again."""
    counter = _counter(world, tpm, 3)
    admit_version(counter, 3)
    admit_version(counter, 5)
    admit_version(counter, 5)
    assert counter.value() == 5
    with pytest.raises(TrustError, match="expected version 5 or newer, found 4; it was rolled back"):
        admit_version(counter, 4)


def test_the_counter_outlives_a_reset(world: World, tpm: Tpm, emulator: Swtpm) -> None:
    """NV memory keeps it."""
    counter = _counter(world, tpm, 1)
    admit_version(counter, 2)
    emulator.reset(tpm)
    assert counter.value() == 2


def test_a_counter_defined_again_admits_nothing_older(world: World, tpm: Tpm) -> None:
    """The host can delete the index; the new one starts above the old one, so that old bundles stay refused."""
    counter = _counter(world, tpm, 1)
    admit_version(counter, 4)
    tpm.call(MakersCommand.NV_UNDEFINE_SPACE, [Handle.OWNER, DEFAULT_INDEX], sessions=PASSWORD)
    with pytest.raises(TpmError, match="nothing lives under this handle"):
        counter.value()
    TpmCounter.define(tpm, version=1)
    assert counter.value() == 5
    with pytest.raises(TrustError, match="rolled back"):
        admit_version(counter, 4)


def test_an_index_that_is_no_counter_is_refused(world: World, tpm: Tpm) -> None:
    """A host that puts an ordinary index in the counter's place, with an old version in it, is found out."""
    counter = _counter(world, tpm, 1)
    tpm.call(MakersCommand.NV_UNDEFINE_SPACE, [Handle.OWNER, DEFAULT_INDEX], sessions=PASSWORD)
    attributes = NvAttributes.OWNER_WRITE | NvAttributes.OWNER_READ | NvAttributes.AUTH_READ | NvAttributes.AUTH_WRITE
    public = sized(b"") + sized(_nv_public(DEFAULT_INDEX, attributes))
    tpm.call(Command.NV_DEFINE_SPACE, [Handle.OWNER], public, sessions=PASSWORD)
    content = sized((1).to_bytes(8, "big")) + bytes(2)
    tpm.call(MakersCommand.NV_WRITE, [Handle.OWNER, DEFAULT_INDEX], content, sessions=PASSWORD)
    with pytest.raises(TrustError, match="expected a fresh statement about it, found another"):
        counter.value()


def test_a_counter_of_another_tpm_is_refused(world: World, tpm: Tpm) -> None:
    """The statement is signed by the attestation key that was enrolled, and by no other TPM's."""
    _counter(world, tpm, 1)
    with Swtpm() as other, Tpm(other.where) as connection:
        base = TpmCounter.define(connection, version=1)
        counter = TpmCounter(connection, ak=world.attester.identity().ak, base=base)
        with pytest.raises(AttestationError, match="signature is not the attestation key's"):
            counter.value()


def test_a_leap_is_refused(world: World, tpm: Tpm) -> None:
    """NV memory wears out: a version far ahead is refused, and nothing is counted."""
    counter = _counter(world, tpm, 1)
    with pytest.raises(TrustError, match="at most 100 ahead, found 101"):
        admit_version(counter, 102)
    assert counter.value() == 1


def test_a_file_refuses_an_older_bundle_too(tmp_path: Path) -> None:
    """The same rule holds for a counter in a file, from version 0 on."""
    counter = FileCounter(tmp_path / "version")
    assert counter.value() == 0
    admit_version(counter, 7)
    assert FileCounter(tmp_path / "version").value() == 7
    with pytest.raises(TrustError, match="expected version 7 or newer, found 6"):
        admit_version(counter, 6)


@pytest.mark.parametrize("text", ["", "-1", "7.5", "\N{SUPERSCRIPT TWO}", "seven"])
def test_a_file_that_is_no_counter_is_refused(tmp_path: Path, text: str) -> None:
    """A damaged file is an error and no version 0."""
    (tmp_path / "version").write_text(text, encoding="utf-8")
    with pytest.raises(TrustError, match="expected the number of a version"):
        FileCounter(tmp_path / "version").value()


def test_counters_say_whom_they_protect_against(world: World, tpm: Tpm, tmp_path: Path) -> None:
    """The counter in a TPM protects against the machine's owner, the one in a file does not."""
    counters: list[RollbackCounter] = [_counter(world, tpm, 1), FileCounter(tmp_path / "version")]
    assert [counter.protects_against_host for counter in counters] == [True, False]
