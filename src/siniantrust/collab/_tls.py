"""TLS 1.3 for gRPC, in which each side knows the other's certificate beforehand: exactly that one, and no authority.

Nobody reads a certificate's dates: a clock that jumps locks nobody out. They span the century, since TLS libraries
look.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from siniantrust._extras import require
from siniantrust._files import write_atomic
from siniantrust.collab._errors import CollabError
from siniantrust.trust.tls import Identity, fingerprint

# gRPC takes no lowest version. It takes TLS 1.2's ciphers: with one that needs a shared secret that nobody has, only a
# handshake of TLS 1.3, whose ciphers are not in this list, can succeed. It is read when gRPC first opens a channel.
_NO_TLS_1_2 = "ECDHE-PSK-AES128-CBC-SHA"
_FIRST_DAY, _LAST_DAY = datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 12, 31, tzinfo=UTC)


def load_grpc() -> Any:
    """Import gRPC with nothing older than TLS 1.3."""
    os.environ["GRPC_SSL_CIPHER_SUITES"] = _NO_TLS_1_2
    require("google.protobuf", extra="collab")
    return require("grpc", extra="collab")


def write_identity(name: str, folder: Path) -> tuple[Path, Path, str]:
    """Write a fresh key and its certificate as NAME.key and NAME.crt; return both and the key's fingerprint.

    Raises:
        CollabError: if one of the files is already there.
    """
    key_path, certificate_path = folder / f"{name}.key", folder / f"{name}.crt"
    for path in (key_path, certificate_path):
        if path.exists():
            raise CollabError(f"{path} is already there; a key is not written over, move it away first")
    identity = Identity.fresh()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder(subject, subject, identity.key.public_key(), x509.random_serial_number())
        .not_valid_before(_FIRST_DAY)
        .not_valid_after(_LAST_DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        # Trusted as itself, it must not be able to vouch for others.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    write_atomic(key_path, identity.key_pem(), mode=0o600)
    write_atomic(certificate_path, builder.sign(identity.key, SHA256()).public_bytes(Encoding.PEM))
    return key_path, certificate_path, fingerprint(identity.spki)


def read_certificate(path: Path) -> tuple[bytes, str, bytes]:
    """Return a certificate's PEM, the name that it is for, and its public key (DER, SubjectPublicKeyInfo).

    Raises:
        CollabError: if it is none that ``write_identity`` could have written.
    """
    try:
        pem = path.read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (name,) = names.get_values_for_type(x509.DNSName)
    except OSError as fault:
        raise CollabError(f"certificate {path}: cannot be read ({fault.strerror})") from None
    except (ValueError, x509.ExtensionNotFound):
        raise CollabError(f"certificate {path}: expected one that `sinian train keys` wrote, found another") from None
    return pem, name, _spki(certificate)


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read_key(path: Path, spki: bytes) -> bytes:
    try:
        pem = path.read_bytes()
    except OSError as fault:
        raise CollabError(f"key {path}: cannot be read ({fault.strerror})") from None
    if Identity.from_pem(pem, origin=f"key {path}").spki != spki:
        raise CollabError(f"key {path}: it is not the key of the certificate beside it")
    return pem


def server_credentials(key: Path, certificate: Path, peers: Mapping[str, Path]) -> Any:
    """Return credentials of a server that admits only peers whose certificates are among ``peers``."""
    pem, _, spki = read_certificate(certificate)
    key_pem = _read_key(key, spki)
    roots = b"".join(read_certificate(path)[0] for path in peers.values())
    return load_grpc().ssl_server_credentials([(key_pem, pem)], root_certificates=roots, require_client_auth=True)


def open_channel(address: str, *, key: Path, certificate: Path, peer: Path, message_bytes: int) -> Any:
    """Return a channel to the server whose certificate is ``peer``."""
    grpc = load_grpc()
    pem, _, spki = read_certificate(certificate)
    root, name, _ = read_certificate(peer)
    credentials = grpc.ssl_channel_credentials(root, _read_key(key, spki), pem)
    options = [
        ("grpc.ssl_target_name_override", name),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    return grpc.secure_channel(address, credentials, options)


def peer_name(context: Any, spkis: Mapping[str, bytes]) -> str | None:
    """Return which of ``spkis`` a call's peer has, by the certificate of its TLS 1.3 connection; None for no other."""
    found = context.auth_context()
    (pem,) = found.get("x509_pem_cert") or (b"",)
    if found.get("ssl_tls_version") != [b"TLSv1.3"]:
        return None
    spki = _spki(x509.load_pem_x509_certificate(pem))
    return next((name for name, known in spkis.items() if hmac.compare_digest(known, spki)), None)
