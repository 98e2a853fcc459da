"""TLS 1.3 whose certificates stand on evidence (RA-TLS) or on a pin, never on an authority.

A server makes a key and a self-signed certificate of its own. After the handshake its evidence is bound to the client's
nonce and to that key, and the client compares with the certificate that it saw: whoever stands between has another key.
Python's ``ssl`` offers no exporter for TLS 1.3, so that a session is bound by the server's key (as
``tls-server-end-point`` of RFC 5929 does), which the enclave service makes afresh for each connection.
"""

from siniantrust.trust.tls._address import Address, parse_address
from siniantrust.trust.tls._connection import Connection
from siniantrust.trust.tls._handshake import accept, connect
from siniantrust.trust.tls._identity import Identity, fingerprint, public_key_der
from siniantrust.trust.tls._limits import Limits, TokenBucket
from siniantrust.trust.tls._server import Server

__all__ = [
    "Address",
    "Connection",
    "Identity",
    "Limits",
    "Server",
    "TokenBucket",
    "accept",
    "connect",
    "fingerprint",
    "parse_address",
    "public_key_der",
]
