from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from siniantrust.bundle import KeyStore, fingerprint
from siniantrust.errors import BundleError, TrustError

_ID = "0123456789abcdef" * 2


def _modes(folder: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (folder, *folder.rglob("*"))}


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask."""
    store = KeyStore(tmp_path / "keys")
    store.signing_key()
    store.new_weight_key(_ID)
    store.trust(store.public_key_pem())
    assert _modes(tmp_path / "keys") == {(True, 0o700), (False, 0o600)}


def test_the_environment_names_the_default_keystore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``$SINIAN_KEYS`` comes before the home folder."""
    monkeypatch.setenv("SINIAN_KEYS", str(tmp_path / "there"))
    assert KeyStore().path == tmp_path / "there"
    monkeypatch.delenv("SINIAN_KEYS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert KeyStore().path == tmp_path / ".config" / "siniantrust" / "keys"


def test_the_signing_key_stays_the_same(tmp_path: Path) -> None:
    """It is made once."""
    first = KeyStore(tmp_path / "keys").signing_key()
    assert KeyStore(tmp_path / "keys").signing_key().private_bytes_raw() == first.private_bytes_raw()


def test_makers_at_the_same_time_agree_on_one_key(tmp_path: Path) -> None:
    """Eight threads that all find no key end up with the same one, and leave no other file."""
    found: list[bytes] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        found.append(KeyStore(tmp_path / "keys").signing_key().private_bytes_raw())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["signing.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """A leaked key is no key."""
    store = KeyStore(tmp_path / "keys")
    store.signing_key()
    store.new_weight_key(_ID)
    (tmp_path / "keys" / "signing.pem").chmod(mode)
    (tmp_path / "keys" / "weights" / f"{_ID}.key").chmod(mode)
    with pytest.raises(TrustError, match=r"signing\.pem: others may read it"):
        store.signing_key()
    with pytest.raises(TrustError, match=r"\.key: others may read it"):
        store.weight_key(_ID)


def test_a_trusted_key_that_others_may_change_is_refused(tmp_path: Path) -> None:
    """Whoever may write there may sign for others."""
    store = KeyStore(tmp_path / "keys")
    name = store.trust(KeyStore(tmp_path / "other").public_key_pem())
    (tmp_path / "keys" / "trusted" / f"{name}.pem").chmod(0o622)
    with pytest.raises(TrustError, match="others may change it"):
        store.trusted_keys()


def test_an_open_folder_is_refused(tmp_path: Path) -> None:
    """A keystore that others may look into is not written to."""
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(TrustError, match="others may look into it"):
        KeyStore(tmp_path / "keys").signing_key()


def test_a_key_behind_a_link_is_refused(tmp_path: Path) -> None:
    """A link could lead to a file that others own."""
    KeyStore(tmp_path / "other").signing_key()
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "signing.pem").symlink_to(tmp_path / "other" / "signing.pem")
    with pytest.raises(TrustError, match="cannot be read"):
        KeyStore(tmp_path / "keys").signing_key()


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Only Ed25519 keys sign and verify."""
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "keys").mkdir(mode=0o700)
    path = tmp_path / "keys" / "signing.pem"
    for wrong in (pem, b"nonsense"):
        path.write_bytes(wrong)
        path.chmod(0o600)
        with pytest.raises(TrustError, match="expected an Ed25519 private key"):
            KeyStore(tmp_path / "keys").signing_key()
    public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for wrong in (public, b"nonsense"):
        with pytest.raises(TrustError, match="expected an Ed25519 public key"):
            KeyStore(tmp_path / "keys").trust(wrong)


def test_a_truncated_weight_key_is_refused(tmp_path: Path) -> None:
    """A weight key has 32 bytes."""
    store = KeyStore(tmp_path / "keys")
    store.new_weight_key(_ID)
    (tmp_path / "keys" / "weights" / f"{_ID}.key").write_bytes(b"short")
    with pytest.raises(TrustError, match="expected 32 bytes, found 5"):
        store.weight_key(_ID)


def test_a_weight_key_is_never_overwritten(tmp_path: Path) -> None:
    """Sealed weights would be lost with it."""
    store = KeyStore(tmp_path / "keys")
    key = store.new_weight_key(_ID)
    with pytest.raises(TrustError, match="already has a weight key"):
        store.new_weight_key(_ID)
    assert store.weight_key(_ID) == key


@pytest.mark.parametrize("bundle_id", ["../signing", "", "A" * 32, "0" * 31])
def test_a_bundle_id_that_is_none_reaches_no_file(tmp_path: Path, bundle_id: str) -> None:
    """Ids become file names, so they are checked first."""
    with pytest.raises(BundleError, match="expected 32 hexadecimal digits"):
        KeyStore(tmp_path / "keys").weight_key(bundle_id)


def test_fingerprints_tell_keys_apart() -> None:
    """Two keys, two fingerprints of 32 digits."""
    names = {fingerprint(Ed25519PrivateKey.generate().public_key()) for _ in range(2)}
    assert len(names) == 2
    assert all(len(name) == 32 for name in names)
