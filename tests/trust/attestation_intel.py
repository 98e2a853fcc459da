"""SGX quotes that tests make and sign themselves, with a whole provisioning service of their own."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from attestation_pki import NOW, Entity, Request, der, der_integer, der_oid, issue, revoke, sign_raw
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from siniantrust.trust.attestation import EvidenceBundle, ReferenceValues

BINDING = bytes(range(64))
MRENCLAVE, MRSIGNER = b"e" * 32, b"s" * 32
ISV_PROD_ID, ISV_SVN = 3, 7
_QE_SIGNER = bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff")
_FMSPC = bytes.fromhex("00a067110000")
_SGX = "1.2.840.113741.1.13.1"
_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_SVNS = [2] * 16
_PCE_SVN = 13


@cache
def p256_key(_: str) -> ec.EllipticCurvePrivateKey:
    """Return a key for this name, the same every time."""
    return ec.generate_private_key(ec.SECP256R1())


def _sgx_extension() -> bytes:
    def entry(suffix: str, value: bytes) -> bytes:
        return der(0x30, der_oid(f"{_SGX}.{suffix}"), value)

    components = [entry(f"2.{place + 1}", der_integer(svn)) for place, svn in enumerate(_SVNS)]
    tcb = [*components, entry("2.17", der_integer(_PCE_SVN)), entry("2.18", der(4, bytes(_SVNS)))]
    return der(
        0x30,
        entry("1", der(4, b"P" * 16)),
        entry("2", der(0x30, *tcb)),
        entry("3", der(4, bytes(2))),
        entry("4", der(4, _FMSPC)),
        entry("5", der(0x0A, b"\0")),
    )


@dataclass(frozen=True, slots=True)
class IntelChain:
    """A root like Intel's and whom it certified."""

    root: Entity
    authority: Entity
    platform: Entity
    tcb_signer: Entity

    def evidence(self, body: bytes, collateral: dict[str, str] | None = None) -> EvidenceBundle:
        """Return a quote with collateral."""
        raw = json.dumps(collateral or self.collateral()).encode()
        return EvidenceBundle(kind="sgx", body=body, endorsements={"collateral": raw})

    def collateral(self, *, status: str = "UpToDate", **changes: str) -> dict[str, str]:
        """Return collateral that says that this platform is ``status``, with changes."""
        common: dict[str, Any] = {
            "issueDate": f"{NOW - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
            "nextUpdate": f"{NOW + timedelta(days=29):%Y-%m-%dT%H:%M:%SZ}",
            "tcbEvaluationDataNumber": 17,
        }
        components = {"sgxtcbcomponents": [{"svn": svn} for svn in _SVNS], "pcesvn": _PCE_SVN}
        level = {"tcb": components, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status}
        tcb_info = json.dumps(
            {
                "id": "SGX",
                "version": 3,
                **common,
                "fmspc": _FMSPC.hex().upper(),
                "pceId": "0000",
                "tcbType": 0,
                "tcbLevels": [level],
            }
        )
        qe_identity = json.dumps(
            {
                "id": "QE",
                "version": 2,
                **common,
                "miscselect": "00000000",
                "miscselectMask": "FFFFFFFF",
                "attributes": "11000000000000000000000000000000",
                "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
                "mrsigner": _QE_SIGNER.hex().upper(),
                "isvprodid": 1,
                "tcbLevels": [
                    {"tcb": {"isvsvn": 8}, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": "UpToDate"},
                ],
            }
        )
        return {
            "pck_crl_issuer_chain": (self.authority.pem + self.root.pem).decode(),
            "root_ca_crl": revoke(self.root).hex(),
            "pck_crl": revoke(self.authority).hex(),
            "tcb_info_issuer_chain": (self.tcb_signer.pem + self.root.pem).decode(),
            "tcb_info": tcb_info,
            "tcb_info_signature": sign_raw(self.tcb_signer.key, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": (self.tcb_signer.pem + self.root.pem).decode(),
            "qe_identity": qe_identity,
            "qe_identity_signature": sign_raw(self.tcb_signer.key, qe_identity.encode()).hex(),
            **changes,
        }

    def reference(self, **changes: object) -> ReferenceValues:
        """Return reference values that trust this root and accept ``quote()``, with changes."""
        values: dict[str, object] = {
            "kind": "sgx",
            "accepted": {"mrenclave": frozenset({MRENCLAVE.hex()})},
            "anchors": {"intel-root": self.root.der},
        }
        return ReferenceValues(**{**values, **changes})  # type: ignore[arg-type]

    def quote(self, *, attributes: int = 0x05, tail: bytes = b"") -> bytes:
        """Return a signed quote of an enclave with these attributes."""
        header = struct.pack("<HHIHH", 3, 2, 0, 8, _PCE_SVN) + _VENDOR + bytes(20)
        report = _enclave_report(attributes, MRENCLAVE, MRSIGNER, (ISV_PROD_ID, ISV_SVN), BINDING)
        key = p256_key("attestation")
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        qe_data = bytes(32)
        qe_binding = hashlib.sha256(point + qe_data).digest().ljust(64, b"\0")
        qe_report = _enclave_report(0x15, b"q" * 32, _QE_SIGNER, (1, 8), qe_binding)
        chain = self.platform.pem + self.authority.pem + self.root.pem + b"\0"
        signed = (
            sign_raw(key, header + report)
            + point
            + qe_report
            + sign_raw(self.platform.key, qe_report)
            + struct.pack("<H", len(qe_data))
            + qe_data
            + struct.pack("<HI", 5, len(chain))
            + chain
        )
        return header + report + struct.pack("<I", len(signed)) + signed + tail


def _enclave_report(
    attributes: int, mrenclave: bytes, mrsigner: bytes, isv: tuple[int, int], report_data: bytes
) -> bytes:
    report = bytearray(384)
    report[0:16] = bytes(_SVNS)
    struct.pack_into("<QQ", report, 48, attributes, 0xE7)
    report[64:96] = mrenclave
    report[128:160] = mrsigner
    struct.pack_into("<HH", report, 256, *isv)
    report[320:384] = report_data
    return bytes(report)


@cache
def make_intel() -> IntelChain:
    """Return a chain in order."""
    root = issue(Request(name="Intel SGX Root CA", authority=True, serial=1), p256_key("root"))
    authority = issue(
        Request(name="Intel SGX PCK Processor CA", authority=True, path_length=0, serial=2), p256_key("authority"), root
    )
    platform = issue(
        Request(name="Intel SGX PCK Certificate", extensions=[(_SGX, _sgx_extension())], serial=3),
        p256_key("platform"),
        authority,
    )
    tcb_signer = issue(Request(name="Intel SGX TCB Signing", serial=4), p256_key("tcb"), root)
    return IntelChain(root, authority, platform, tcb_signer)
