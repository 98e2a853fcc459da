"""Intel's collateral: what a quote is checked with, as the JSON that provisioning services hand out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from siniantrust._extras import require
from siniantrust.errors import AttestationError
from siniantrust.trust.attestation._certificates import check_chain, check_not_revoked, load_crl, load_pem_chain
from siniantrust.trust.attestation._strict import read_object

if TYPE_CHECKING:
    import dcap_qvl

COLLATERAL = "collateral"
_WHAT = "Intel collateral"
_MAX_BYTES = 1 << 20
_CHAINS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain")
_HEX = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
_JSON = ("tcb_info", "qe_identity")
_LOWER_HEX = re.compile(r"(?:[0-9a-f]{2})+")


@dataclass(frozen=True, slots=True)
class Collateral:
    """Collateral whose form was checked; only Intel's verification library judges what it says.

    Attributes:
        fields: its nine fields as text.
        chains: its certificate chains, by name, the leaf first.
    """

    fields: Mapping[str, str]
    chains: Mapping[str, Sequence[x509.Certificate]]

    def for_library(self) -> dcap_qvl.QuoteCollateralV3:
        """Return it in the library's form."""
        binary = {name: bytes.fromhex(self.fields[name]) for name in _HEX}
        text = {name: self.fields[name] for name in (*_CHAINS, *_JSON)}
        collateral: dcap_qvl.QuoteCollateralV3 = require("dcap_qvl", extra="attest").QuoteCollateralV3(**text, **binary)
        return collateral

    def check_issuers(self, root: bytes, now: datetime) -> None:
        """Check what the library leaves alone: all of each chain, and who signed the revocation lists.

        ``dcap-qvl`` 0.7 trusts its own copy of Intel's root and never looks at ``pck_crl_issuer_chain`` or at the roots
        that come along, so that changes in them would pass unseen.

        Args:
            root: Intel's root key (uncompressed point), which every chain must end in.
            now: when.

        Raises:
            AttestationError: naming what is not in order.
        """
        for name, chain in self.chains.items():
            check_chain(chain, now, f"{_WHAT}, {name}")
            if root_key(chain) != root:
                raise AttestationError(f"{_WHAT}, {name}: it does not end in the root that was asked for")
        signer, *above = self.chains["pck_crl_issuer_chain"]
        lists = (("pck_crl", signer, ()), ("root_ca_crl", above[-1] if above else signer, (signer,)))
        for name, issuer, certificates in lists:
            crl = load_crl(bytes.fromhex(self.fields[name]), f"{_WHAT}, {name}")
            check_not_revoked(certificates, crl, issuer, now, f"{_WHAT}, {name}")


def read_collateral(raw: bytes) -> Collateral:
    """Read collateral: a JSON object with exactly the nine fields of ``QuoteCollateralV3``.

    Chains are PEM, lists and signatures lower-case hexadecimal, ``tcb_info`` and ``qe_identity`` the signed text.
    A second way to write the same thing is refused.

    Raises:
        AttestationError: if it has another form.
    """
    fields = read_object(raw, _WHAT, max_bytes=_MAX_BYTES)
    expected = {*_CHAINS, *_HEX, *_JSON}
    if fields.keys() != expected or not all(map(_is_text, fields.values())):
        raise AttestationError(f"{_WHAT}: expected texts, exactly {', '.join(sorted(expected))}")
    for name in _HEX:
        if not _LOWER_HEX.fullmatch(fields[name]):
            raise AttestationError(f"{_WHAT}: {name}: expected lower-case hexadecimal")
    chains = {name: load_pem_chain(fields[name].encode(), f"{_WHAT}, {name}") for name in _CHAINS}
    return Collateral(fields, chains)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isascii()


def root_key(chain: Sequence[x509.Certificate]) -> bytes:
    """Return the key of a chain's last certificate as an uncompressed point, or nothing if it is of another kind."""
    key = chain[-1].public_key()
    try:
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    except ValueError:
        return b""
