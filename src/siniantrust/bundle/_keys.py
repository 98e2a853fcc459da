"""Keys at rest: the builder's signing key, the keys that it trusts, and one weight key per bundle."""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from siniantrust._files import sha256_bytes, write_atomic
from siniantrust.errors import BundleError, TrustError

WEIGHT_KEY_BYTES = 32
_MAX_KEY_FILE_BYTES = 4096
_BUNDLE_ID = re.compile(r"[0-9a-f]{32}")


class KeyStore:
    """A folder of keys, readable by its owner only (mode 0700; private files 0600).

    ``signing.pem`` is the Ed25519 key (RFC 8032) that signs bundles, made on first use; ``trusted/`` holds the public
    keys of other builders whose bundles may be loaded; ``weights/`` holds a 256-bit key for each bundle, by its id;
    ``versions/`` says which versions were opened.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Use ``path``, or ``$SINIAN_KEYS``, or ``~/.config/siniantrust/keys``; nothing is created yet."""
        given = os.environ.get("SINIAN_KEYS")
        self.path = path or (Path(given) if given else Path.home() / ".config" / "siniantrust" / "keys")

    def signing_key(self) -> Ed25519PrivateKey:
        """Return the signing key; two processes that make it at the same time end up with the same one.

        Raises:
            TrustError: if the file is no such key, or others may read it.
        """
        path = self.path / "signing.pem"
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            with suppress(FileExistsError):
                self._create(path, pem)
        pem = self._read_private(path)
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except Exception:  # noqa: BLE001 - cryptography raises several classes, all of which mean the same here
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise TrustError(f"key {path}: expected an Ed25519 private key in PEM form without a password")
        return key

    def public_key_pem(self) -> bytes:
        """Return the public half of the signing key, to be given to those who load this builder's bundles."""
        return _public_pem(self.signing_key().public_key())

    def trust(self, pem: bytes) -> str:
        """Add a builder's public key to those whose bundles may be loaded; return its fingerprint.

        Raises:
            TrustError: if ``pem`` is no Ed25519 public key.
        """
        key = _parse_public(pem, origin="the key given")
        name = fingerprint(key)
        self._make_folder(self.path / "trusted")
        write_atomic(self.path / "trusted" / f"{name}.pem", _public_pem(key), mode=0o600)
        return name

    def trusted_keys(self) -> dict[str, Ed25519PublicKey]:
        """Return the keys whose signatures count, by fingerprint: the own one (if made) and those in ``trusted/``.

        Raises:
            TrustError: if a file there is no such key, or others may write it.
        """
        folder = self.path / "trusted"
        keys = [self.signing_key().public_key()] if (self.path / "signing.pem").exists() else []
        for path in sorted(folder.glob("*.pem")) if folder.is_dir() else ():
            pem = self._read(path, forbidden=0o022, why="others may change it")
            keys.append(_parse_public(pem, origin=str(path)))
        return {fingerprint(key): key for key in keys}

    def new_weight_key(self, bundle_id: str) -> bytes:
        """Make and store the weight key of a new bundle.

        Raises:
            TrustError: if the bundle already has one, or it cannot be written.
        """
        key = secrets.token_bytes(WEIGHT_KEY_BYTES)
        path = self._weight_path(bundle_id)
        try:
            self._create(path, key)
        except FileExistsError:
            raise TrustError(f"key {path}: the bundle already has a weight key") from None
        return key

    def weight_key(self, bundle_id: str) -> bytes:
        """Return the weight key of a bundle.

        Raises:
            BundleError: if this keystore does not have it.
            TrustError: if the file is malformed or others may read it.
        """
        path = self._weight_path(bundle_id)
        if not path.exists():
            raise BundleError(f"bundle {bundle_id}: its weight key is not in this keystore; expected {path}")
        key = self._read_private(path)
        if len(key) != WEIGHT_KEY_BYTES:
            raise TrustError(f"key {path}: expected {WEIGHT_KEY_BYTES} bytes, found {len(key)}")
        return key

    def remove_weight_key(self, bundle_id: str) -> None:
        """Forget the weight key of a bundle, so that nobody can open its sealed weights any more."""
        self._weight_path(bundle_id).unlink(missing_ok=True)

    def _weight_path(self, bundle_id: str) -> Path:
        if not _BUNDLE_ID.fullmatch(bundle_id):
            raise BundleError(f"bundle id {bundle_id[:40]!r}: expected 32 hexadecimal digits")
        return self.path / "weights" / f"{bundle_id}.key"

    def private_folder(self, name: str) -> Path:
        """Return a folder of the key store, made where it is not there.

        Raises:
            TrustError: if others may look into it, or it cannot be made.
        """
        folder = self.path / name
        try:
            self._make_folder(folder)
        except OSError as error:
            raise TrustError(f"keystore {folder}: cannot be made ({error.strerror})") from None
        return folder

    def _make_folder(self, folder: Path) -> None:
        for each in (self.path, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = stat.S_IMODE(each.stat().st_mode)
            if mode & 0o077:
                raise TrustError(f"keystore {each}: others may look into it (mode {mode:04o}); run: chmod 700 {each}")

    def _create(self, path: Path, data: bytes) -> None:
        """Write a new private file at once and whole; FileExistsError if it is there already."""
        try:
            self._make_folder(path.parent)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            try:
                write_atomic(temporary, data, mode=0o600)
                os.link(temporary, path)  # fails where a rename would replace
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            raise
        except OSError as error:
            raise TrustError(f"key {path}: cannot be written ({error.strerror})") from None

    def _read_private(self, path: Path) -> bytes:
        return self._read(path, forbidden=0o077, why="others may read it")

    def _read(self, path: Path, *, forbidden: int, why: str) -> bytes:
        """Read a small file through one handle, on which its mode is checked as well."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise TrustError(f"key {path}: cannot be read ({error.strerror})") from None
        with os.fdopen(handle, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if not stat.S_ISREG(mode) or mode & forbidden:
                raise TrustError(f"key {path}: {why} (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}")
            return stream.read(_MAX_KEY_FILE_BYTES + 1)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the first 16 bytes of the SHA-256 of a raw public key, in hexadecimal."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return sha256_bytes(raw)[:32]


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _parse_public(pem: bytes, *, origin: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except Exception:  # noqa: BLE001 - as above
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise TrustError(f"key {origin}: expected an Ed25519 public key in PEM form")
    return key
