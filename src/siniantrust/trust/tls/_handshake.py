"""The TLS 1.3 handshake, on both ends: nothing older, no resumption, no authority."""

from __future__ import annotations

import hmac
import socket
import ssl
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from siniantrust.errors import AttestationError, ChannelError, EnclaveLostError
from siniantrust.trust.tls._address import Address
from siniantrust.trust.tls._connection import Connection
from siniantrust.trust.tls._identity import Identity, fingerprint
from siniantrust.trust.tls._limits import Limits


def _only_tls_1_3(purpose: int) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    return context


def accept(raw: socket.socket, *, identity: Identity, limits: Limits) -> Connection:
    """Do the server's half of the handshake on a connected socket, which it closes if that fails.

    Raises:
        ChannelError: if the peer does not speak TLS 1.3, or not in time.
    """
    context = _only_tls_1_3(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # each session has a handshake of its own, and nothing to be taken up again
    identity.load_into(context)
    raw.settimeout(limits.handshake_s)
    try:
        return Connection(context.wrap_socket(raw, server_side=True), limits=limits)
    except OSError as fault:  # ssl.SSLError and timeouts are such
        raw.close()
        raise ChannelError(f"connection: the TLS 1.3 handshake failed ({_reason(fault)})") from None


def connect(address: Address, *, limits: Limits, pin: str | None = None) -> Connection:
    """Connect and do the client's half of the handshake.

    The certificate is accepted as it is: it is worth what the caller makes of ``peer_spki``, by evidence bound to it.

    Args:
        address: where the server listens.
        limits: what the server may do.
        pin: SHA-256 of the server's public key in hexadecimal, where the caller knows it beforehand.

    Raises:
        AttestationError: if the server's key is not the pinned one.
        ChannelError: if it does not speak TLS 1.3.
        EnclaveLostError: if nothing answers at the address.
    """
    context = _only_tls_1_3(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        raw = socket.create_connection(address, timeout=limits.handshake_s)
    except OSError as fault:
        raise EnclaveLostError(f"{address}: nothing answers there ({_reason(fault)})") from None
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        wrapped = context.wrap_socket(raw)
    except OSError as fault:
        raw.close()
        raise ChannelError(f"{address}: the TLS 1.3 handshake failed ({_reason(fault)})") from None
    certificate = x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b"")
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = fingerprint(spki)
    if pin is not None and not hmac.compare_digest(found, pin):
        with suppress(OSError):
            wrapped.close()
        raise AttestationError(
            f"{address}: expected the key {pin[:16]}…, found {found[:16]}…; somebody may stand between, or the server "
            "has a new key: ask its owner for it"
        )
    return Connection(wrapped, limits=limits, peer_spki=spki)


def _reason(fault: OSError) -> str:
    return str(getattr(fault, "reason", None) or fault.strerror or fault)
