from __future__ import annotations

import json
from pathlib import Path

from command_line import Command, Workshop
from tpm_world import need

from siniantrust.bundle import KeyStore, admit
from siniantrust.trust.attestation.tpm2 import Swtpm


def test_a_build_says_its_version(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """Lineage and version are options, and both stand in the answer."""
    given = ("build", workshop.model, workshop.plan, "--audit", workshop.audit, "--keys", workshop.keys)
    chosen = ("--lineage", "clinic", "--version", 3)
    said = sinian(*given, "-o", tmp_path / "third", *chosen)
    assert "version 3 of clinic: once opened, older ones are refused" in said.out
    found = json.loads(sinian(*given, "-o", tmp_path / "fourth", "--lineage", "clinic", "--version", 4, "--json").out)
    assert (found["lineage"], found["version"]) == ("clinic", 4)
    admit(KeyStore(workshop.keys), lineage="clinic", version=4)
    refused = sinian(*given, "-o", tmp_path / "again", *chosen)
    assert refused.code == 2
    assert "expected a version from 4" in refused.err


def test_the_counter_is_shown_and_moved_into_a_tpm(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """``counter`` says what opens; with a TPM that its maker certified, that one counts on."""
    need("swtpm", "swtpm_setup", "swtpm_localca")
    keys = ("--keys", workshop.keys)
    given = ("build", workshop.model, workshop.plan, "--audit", workshop.audit, *keys)
    assert sinian(*given, "-o", tmp_path / "deploy", "--lineage", "ward", "--version", 2).code == 0
    ask = ("counter", tmp_path / "deploy", *keys)
    assert sinian(*ask).out == "version 2 of ward; the newest that was opened is 0\n"
    with Swtpm(authority=tmp_path / "maker") as emulator:
        reference = tmp_path / "reference.toml"
        reference.write_text('kind = "tpm2"\n[anchors]\n"emulated:maker" = "maker/issuercert.pem"\n')
        assert "who vouches for the TPM is not said" in sinian(*ask, "--tpm", emulator.where).err
        set_up = (*ask, "--tpm", emulator.where, "--reference", reference)
        assert "it is emulated, the reference accepts: hardware" in sinian(*set_up).err
        reference.write_text('accept = ["emulated"]\n' + reference.read_text())
        said = sinian(*set_up)
        assert said.code == 0, said.err
        assert f'(emulated) counts from there; in the policy: [enclave] rollback_tpm = "{emulator.where}"' in said.out
        admit(KeyStore(workshop.keys), lineage="ward", version=2, tpm=emulator.where)
    found = json.loads(sinian(*ask, "--json").out)
    assert found == {"lineage": "ward", "version": 2, "newest": 2}
