"""Old bundles are refused: the record in the key store."""

from __future__ import annotations

import json
import random
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from bundle_cases import make_case
from version_worker import admit_for_ever

from siniantrust.bundle import KeyStore, admit, build_bundle, default_lineage, load_bundle, newest_version
from siniantrust.errors import BundleError, TrustError


@pytest.fixture
def keystore(tmp_path: Path) -> KeyStore:
    """Return a fresh key store."""
    return KeyStore(tmp_path / "keys")


def _manifest_of(folder: Path, **choice: object) -> tuple[str, int]:
    case = make_case(folder)
    path = build_bundle(
        case.model,
        case.plan,
        folder / "deploy",
        keystore=case.keystore,
        audit_folder=case.audit_folder,
        **choice,  # type: ignore[arg-type]
    )
    manifest = load_bundle(path, keystore=case.keystore).manifest
    return manifest.lineage, manifest.version


def test_a_bundle_has_the_models_lineage_and_version_one(tmp_path: Path) -> None:
    """Where nothing was opened yet and nothing is said, a bundle is version 1 of its model's lineage."""
    assert _manifest_of(tmp_path) == ("toy", 1)


def test_lineage_and_version_are_the_builders_choice(tmp_path: Path) -> None:
    """Both stand in the signed manifest as they were given."""
    assert _manifest_of(tmp_path, lineage="clinic-7", version=4) == ("clinic-7", 4)


@pytest.mark.parametrize(
    ("name", "lineage"), [("main graph/1", "main-graph-1"), ("...", "model"), ("", "model"), ("-é" * 90, "model")]
)
def test_every_models_name_makes_a_lineage(name: str, lineage: str) -> None:
    """Whatever a model is called, its lineage is a name."""
    assert default_lineage(name) == lineage


def test_a_build_takes_the_newest_version_that_was_opened(tmp_path: Path) -> None:
    """A bundle that is built beside others stays usable; one that could not be opened is not even built."""
    case = make_case(tmp_path)
    admit(case.keystore, lineage="toy", version=3)
    manifest = load_bundle(case.build(tmp_path / "deploy"), keystore=case.keystore).manifest
    assert manifest.version == 3
    with pytest.raises(TrustError, match=r"lineage toy: expected a version from 3, .* found 2"):
        build_bundle(
            case.model, case.plan, tmp_path / "old", keystore=case.keystore, audit_folder=case.audit_folder, version=2
        )
    assert not (tmp_path / "old").exists()


def test_an_older_version_is_refused(keystore: KeyStore) -> None:
    """The newest version opens again and a newer one too; an older one of the same lineage does not."""
    for version in (2, 2, 5):
        admit(keystore, lineage="net", version=version)
    with pytest.raises(TrustError, match="bundle, lineage net: expected version 5 or newer, found 4; it was rolled"):
        admit(keystore, lineage="net", version=4)
    assert newest_version(keystore, "net") == 5
    admit(keystore, lineage="other", version=1)


@pytest.mark.parametrize("lineage", ["", "../net", "a/b", "net\n", "-net", "n" * 101])
def test_a_lineage_that_is_no_name_is_refused(keystore: KeyStore, lineage: str) -> None:
    """A lineage never becomes a path outside its folder."""
    with pytest.raises(TrustError, match="expected a name of letters"):
        admit(keystore, lineage=lineage, version=1)


def test_a_damaged_record_refuses_everything(keystore: KeyStore) -> None:
    """A record that is no number is no version 0."""
    admit(keystore, lineage="net", version=1)
    (keystore.path / "versions" / "net.newest").write_text("one")
    with pytest.raises(TrustError, match="expected the number of a version, found 'one'"):
        admit(keystore, lineage="net", version=9)


def test_records_that_others_may_read_are_refused(keystore: KeyStore) -> None:
    """The folder of records is as private as the key store; a file in its place is an error."""
    admit(keystore, lineage="net", version=1)
    (keystore.path / "versions").chmod(0o755)
    with pytest.raises(TrustError, match="others may look into it"):
        admit(keystore, lineage="net", version=2)
    (keystore.path / "versions").chmod(0o700)
    (keystore.path / "versions" / "lock").unlink()
    (keystore.path / "versions" / "lock").mkdir()
    with pytest.raises(TrustError, match="versions cannot be recorded"):
        admit(keystore, lineage="net", version=2)


def test_a_bundle_without_a_version_is_refused(tmp_path: Path) -> None:
    """What an earlier SinianTrust built, well signed, has no version: it has to be built again."""
    case = make_case(tmp_path)
    deploy = case.build(tmp_path / "deploy")
    fields = json.loads((deploy / "manifest.json").read_bytes())
    del fields["version"], fields["lineage"]
    for schema, words in ((1, "schema_version: Input should be 2; build it again"), (2, "lineage: Field required")):
        raw = json.dumps({**fields, "schema_version": schema}).encode()
        (deploy / "manifest.json").write_bytes(raw)
        (deploy / "manifest.sig").write_bytes(case.keystore.signing_key().sign(raw))
        with pytest.raises(BundleError, match=words):
            load_bundle(deploy, keystore=case.keystore)


@pytest.mark.timeout(600)
def test_a_killed_program_neither_forgets_nor_locks_out(keystore: KeyStore, forks: ForkServerContext) -> None:
    """Killed at random moments, a program that opens one version after the other leaves the last or the next one."""
    source = random.Random(0)
    opened = 0
    for _ in range(8):
        here, there = forks.Pipe(duplex=False)
        process = forks.Process(target=admit_for_ever, args=(keystore.path, there))
        process.start()
        there.close()
        for _ in range(source.randint(1, 4)):
            opened = here.recv()
        time.sleep(source.random() * 0.01)
        process.kill()
        process.join(10)
        try:
            while True:
                opened = here.recv()
        except EOFError:
            here.close()
        process.close()
        assert newest_version(keystore, "net") in {opened, opened + 1}
        admit(keystore, lineage="net", version=opened + 1)
        with pytest.raises(TrustError, match="it was rolled back"):
            admit(keystore, lineage="net", version=opened)
