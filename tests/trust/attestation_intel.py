"""SGX and TDX quotes that tests make and sign themselves, with a whole provisioning service of their own."""

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
MRTD = b"t" * 48
# Who signs Intel's quoting enclaves, and as which product: one for SGX and one for TDX.
_QE = {
    "SGX": (bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff"), 1),
    "TDX": (bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"), 2),
}
_TDX_SVNS = [5, 0, 2, *[0] * 13]
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

    def evidence(self, body: bytes, collateral: dict[str, str] | None = None, *, tee: str = "SGX") -> EvidenceBundle:
        """Return a quote with collateral."""
        raw = json.dumps(collateral or self.collateral(tee=tee)).encode()
        return EvidenceBundle(kind=tee.lower(), body=body, endorsements={"collateral": raw})

    def collateral(self, *, tee: str = "SGX", status: str = "UpToDate", **changes: str) -> dict[str, str]:
        """Return collateral that says that this platform is ``status``, with changes."""
        common: dict[str, Any] = {
            "issueDate": f"{NOW - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
            "nextUpdate": f"{NOW + timedelta(days=29):%Y-%m-%dT%H:%M:%SZ}",
            "tcbEvaluationDataNumber": 17,
        }
        components: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in _SVNS], "pcesvn": _PCE_SVN}
        module = {"mrsigner": "0" * 96, "attributes": "0" * 16, "attributesMask": "F" * 16}
        if tee == "TDX":
            components["tdxtcbcomponents"] = [{"svn": svn} for svn in _TDX_SVNS]
        qe_signer, qe_product = _QE[tee]
        level = {"tcb": components, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status}
        tcb_info = json.dumps(
            {
                "id": tee,
                "version": 3,
                **common,
                "fmspc": _FMSPC.hex().upper(),
                "pceId": "0000",
                "tcbType": 0,
                "tcbLevels": [level],
                **({"tdxModule": module, "tdxModuleIdentities": []} if tee == "TDX" else {}),
            }
        )
        qe_identity = json.dumps(
            {
                "id": "QE" if tee == "SGX" else "TD_QE",
                "version": 2,
                **common,
                "miscselect": "00000000",
                "miscselectMask": "FFFFFFFF",
                "attributes": "11000000000000000000000000000000",
                "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
                "mrsigner": qe_signer.hex().upper(),
                "isvprodid": qe_product,
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

    def quote(self, *, attributes: int = 0x05, tail: bytes = b"", binding: bytes = BINDING) -> bytes:
        """Return a signed quote of an enclave with these attributes."""
        report = _enclave_report(attributes, MRENCLAVE, MRSIGNER, (ISV_PROD_ID, ISV_SVN), binding)
        return self._sign(_header(3, 0) + report, "SGX", tail)

    def td_quote(self, *, attributes: int = 0x10000000, tdx_1_5: bool = False) -> bytes:
        """Return a signed quote of a virtual machine with these attributes, in the form of TDX 1.0 or 1.5."""
        report = (
            bytes(_TDX_SVNS)
            + b"S" * 48  # the TDX module
            + bytes(48 + 8)  # its signer, Intel, and its attributes
            + struct.pack("<QQ", attributes, 0xE7)
            + MRTD
            + bytes(3 * 48)
            + b"".join(bytes([index]) * 48 for index in range(4))
            + BINDING
        )
        if not tdx_1_5:
            return self._sign(_header(4, 0x81) + report, "TDX")
        report += bytes(_TDX_SVNS) + bytes(48)
        return self._sign(_header(5, 0x81) + struct.pack("<HI", 3, len(report)) + report, "TDX")

    def _sign(self, quoted: bytes, tee: str, tail: bytes = b"") -> bytes:
        key = p256_key("attestation")
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        qe_data = bytes(32)
        qe_signer, qe_product = _QE[tee]
        qe_binding = hashlib.sha256(point + qe_data).digest().ljust(64, b"\0")
        qe_report = _enclave_report(0x15, b"q" * 32, qe_signer, (qe_product, 8), qe_binding)
        chain = self.platform.pem + self.authority.pem + self.root.pem + b"\0"
        certified = qe_report + sign_raw(self.platform.key, qe_report)
        certified += struct.pack("<H", len(qe_data)) + qe_data + struct.pack("<HI", 5, len(chain)) + chain
        if tee == "TDX":
            certified = struct.pack("<HI", 6, len(certified)) + certified
        signed = sign_raw(key, quoted) + point + certified
        return quoted + struct.pack("<I", len(signed)) + signed + tail


def _header(version: int, tee_type: int) -> bytes:
    return struct.pack("<HHIHH", version, 2, tee_type, 8, _PCE_SVN) + _VENDOR + bytes(20)


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
