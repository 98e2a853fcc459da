"""AMD's keys: from a report's VCEK or VLEK to AMD's root, and what the certificate says of chip and TCB.

Source: AMD, Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification (57230).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cryptography import x509
from cryptography.hazmat import asn1

from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._certificates import (
    check_chain,
    check_not_revoked,
    common_name,
    load_certificate,
    load_crl,
    trust_root,
)
from siniantrust.trust.attestation._roles import EvidenceBundle, ReferenceValues
from siniantrust.trust.attestation.verifiers._snp_report import SigningKey, SnpReport

_WHAT = "sev-snp keys"
CRL = "crl"
# SHA-256 of the public keys of AMD's roots, as AMD's key distribution service hands them out in `cert_chain`. Genoa's
# and Turin's from the copies in google/go-sev-guest (verify/trust), Milan's from the chain in the package omne-attest
# 0.1.0; each was compared with a second public copy.
AMD_ROOTS = {
    "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "Milan",
    "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "Genoa",
    "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "Turin",
}
# Endorsements that come with a report, leaf first, and the common names that their certificates bear.
_CHAINS = {
    SigningKey.VCEK: (("vcek", "SEV-VCEK"), ("ask", "SEV-"), ("ark", "ARK-")),
    SigningKey.VLEK: (("vlek", "SEV-VLEK"), ("asvk", "SEV-VLEK-"), ("ark", "ARK-")),
}
_AMD = "1.3.6.1.4.1.3704.1"
_COMPONENTS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_HARDWARE_ID = "4"


def check_keys(
    evidence: EvidenceBundle, report: SnpReport, *, reference: ReferenceValues, now: datetime
) -> tuple[Provenance, bool]:
    """Check a report's signature, the chain of its key, and that the key is this chip's at the reported TCB.

    Args:
        evidence: its endorsements are ``vcek``, ``ask`` and ``ark`` (or ``vlek``, ``asvk`` and ``ark``) in DER, and
            perhaps ``crl``, the root's revocation list in DER.
        report: the report in it.
        reference: its anchors are roots that are trusted beside AMD's own, in DER.
        now: when.

    Returns:
        ``hardware`` under AMD's roots, ``emulated`` under another; and whether a revocation list was checked.

    Raises:
        AttestationError: if any of it does not hold.
    """
    expected = _CHAINS[report.signing_key]
    if evidence.endorsements.keys() - {CRL} != {name for name, _ in expected}:
        raise AttestationError(
            f"{_WHAT}: expected the endorsements {', '.join(name for name, _ in expected)} and perhaps {CRL}, found "
            f"{', '.join(sorted(evidence.endorsements)) or 'none'}"
        )
    chain = [load_certificate(evidence.endorsements[name], f"{_WHAT}, {name}") for name, _ in expected]
    provenance = trust_root(chain[-1], AMD_ROOTS.keys(), reference, _WHAT)
    check_chain(chain, now, _WHAT)
    _check_names(chain, [name for _, name in expected])
    crl = evidence.endorsements.get(CRL)
    if crl is not None:
        check_not_revoked(chain[:-1], load_crl(crl, f"{_WHAT}, {CRL}"), chain[-1], now, _WHAT)
    report.check_signature(chain[0])
    _check_leaf(chain[0], report)
    return provenance, crl is not None


def _check_names(chain: list[x509.Certificate], expected: list[str]) -> None:
    """Refuse a certificate in another one's place: the signer of VLEKs must not vouch for a VCEK."""
    product = common_name(chain[-1]).removeprefix("ARK-")
    names = [expected[0], *(start + product for start in expected[1:])]
    if (found := [common_name(certificate) for certificate in chain]) != names:
        raise AttestationError(f"{_WHAT}: expected certificates for {', '.join(names)}, found {found!r}")


def _check_leaf(leaf: x509.Certificate, report: SnpReport) -> None:
    extensions = {each.oid.dotted_string: each.value for each in leaf.extensions}
    certified = {component: _decode(extensions, _COMPONENTS[component], int) for component in report.tcb["reported"]}
    if certified != report.tcb["reported"]:
        raise AttestationError(
            f"{_WHAT}: the key is certified for TCB {_show(certified)}, the report says {_show(report.tcb['reported'])}"
        )
    if report.signing_key is SigningKey.VLEK:
        return
    if report.chip_id_masked:
        raise AttestationError(
            f"{_WHAT}: the host masks the chip's identity, so that the VCEK cannot be held against it"
        )
    hardware_id = _raw(extensions, _HARDWARE_ID)
    # Turin's is 8 bytes, and the report fills it up with zeros.
    if len(hardware_id) not in {8, 64} or hardware_id.ljust(64, b"\0") != report.chip_id:
        raise AttestationError(f"{_WHAT}: the VCEK is another chip's than the report's")


def _decode(extensions: Mapping[str, x509.ExtensionType], name: str, kind: type[int]) -> int:
    try:
        return asn1.decode_der(kind, _raw(extensions, name))
    except ValueError:
        raise AttestationError(f"{_WHAT}: extension {_AMD}.{name}: expected a number, found something else") from None


def _raw(extensions: Mapping[str, x509.ExtensionType], name: str) -> bytes:
    value = extensions.get(f"{_AMD}.{name}")
    if not isinstance(value, x509.UnrecognizedExtension):
        raise AttestationError(f"{_WHAT}: the certificate lacks AMD's extension {_AMD}.{name}")
    return value.value


def _show(tcb: Mapping[str, int]) -> str:
    return " ".join(f"{component}={version}" for component, version in sorted(tcb.items()))
