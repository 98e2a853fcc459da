"""SEV-SNP reports and GPU reports that tests make and sign themselves, under roots of their own."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from attestation_pki import Entity, Request, der, der_integer, issue, revoke, sign_pair
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from siniantrust.trust.attestation import EvidenceBundle, ReferenceValues

BINDING = bytes(range(64))
CHIP_ID = b"chip".ljust(64, b"\x11")
TCB = {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 209}
MEASUREMENT = b"m" * 48
_AMD = "1.3.6.1.4.1.3704.1"
_COMPONENTS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_PLACES = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_PLACES_TURIN = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}


@cache
def rsa_key(_: str) -> rsa.RSAPrivateKey:
    """Return a key for this name, the same every time: to make one takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def p384_key(_: str) -> ec.EllipticCurvePrivateKey:
    """Return a key for this name, the same every time."""
    return ec.generate_private_key(ec.SECP384R1())


def make_report(
    *,
    version: int = 2,
    policy: int = 0x30000,
    vmpl: int = 0,
    flags: int = 0,
    algorithm: int = 1,
    tcb: Mapping[str, int] = TCB,
    chip_id: bytes = CHIP_ID,
    turin: bool = False,
) -> bytearray:
    """Return a report without its signature."""
    report = bytearray(0x4A0)
    struct.pack_into("<IIQ", report, 0, version, 5, policy)
    struct.pack_into("<II", report, 0x30, vmpl, algorithm)
    struct.pack_into("<I", report, 0x48, flags)
    report[0x50:0x90] = BINDING
    report[0x90:0xC0] = MEASUREMENT
    places = _PLACES_TURIN if turin else _PLACES
    for component, value in tcb.items():
        report[0x180 + places[component]] = value
    if turin:
        report[0x188] = 0x1A
    report[0x1A0:0x1E0] = chip_id
    return report


def sign_report(report: bytearray, signer: Entity) -> bytes:
    """Return the report with its signature."""
    for place, number in zip((0x2A0, 0x2E8), sign_pair(signer.key, bytes(report[:0x2A0])), strict=True):
        report[place : place + 48] = number.to_bytes(48, "little")
    return bytes(report)


def leaf_request(
    name: str = "SEV-VCEK", *, tcb: Mapping[str, int] = TCB, chip_id: bytes | None = CHIP_ID, serial: int = 7
) -> Request:
    """Return what the certificate of a report's key says."""
    extensions = [(f"{_AMD}.{_COMPONENTS[component]}", der_integer(value)) for component, value in tcb.items()]
    if chip_id is not None:
        extensions.append((f"{_AMD}.4", chip_id))
    return Request(name=name, extensions=extensions, serial=serial)


@dataclass(frozen=True, slots=True)
class AmdChain:
    """A root like AMD's, what it signed, and a report's key."""

    root: Entity
    signer: Entity
    leaf: Entity
    names: tuple[str, str, str] = ("vcek", "ask", "ark")
    more: Mapping[str, bytes] = field(default_factory=dict)

    def evidence(self, report: bytearray) -> EvidenceBundle:
        """Return the report, signed, with this chain."""
        chain = dict(zip(self.names, (self.leaf.der, self.signer.der, self.root.der), strict=True))
        body = sign_report(report, self.leaf)
        return EvidenceBundle(kind="sev-snp", body=body, endorsements={**chain, **self.more})

    def reference(self, **changes: object) -> ReferenceValues:
        """Return reference values that trust this root and accept ``make_report()``, with changes."""
        values: dict[str, object] = {
            "kind": "sev-snp",
            "accepted": {"measurement": frozenset({MEASUREMENT.hex()})},
            "at_least": {f"tcb-{component}": value for component, value in TCB.items()},
            "anchors": {"test-root": self.root.der},
        }
        return ReferenceValues(**{**values, **changes})  # type: ignore[arg-type]


def make_chain(
    leaf: Request | None = None,
    *,
    signer_name: str = "SEV-Milan",
    root_name: str = "ARK-Milan",
    names: tuple[str, str, str] = ("vcek", "ask", "ark"),
    crl: bool = True,
) -> AmdChain:
    """Return a chain in order, with a revocation list on which nobody stands."""
    root = issue(Request(name=root_name, authority=True, serial=1), rsa_key("root"))
    signer = issue(Request(name=signer_name, authority=True, path_length=0, serial=2), rsa_key("signer"), root)
    end = issue(leaf or leaf_request(), p384_key("leaf"), signer)
    return AmdChain(root, signer, end, names, {"crl": revoke(root)} if crl else {})


FIRMWARE_ID = b"f" * 48
GPU_NONCE = bytes(range(32))


def make_gpu_report(signer: Entity, *, firmware_id: bytes = FIRMWARE_ID, blocks: int = 3) -> bytes:
    """Return a signed GPU report with ``blocks`` measurements, the first of them blank."""
    request = bytes([0x11, 0xE0, 1, 0xFF]) + GPU_NONCE + b"\0"
    digests = [bytes([index - 1]) * 48 for index in range(1, blocks + 1)]
    record = b"".join(
        struct.pack("<BBHBH", index, 1, 51, 1, 48) + digest for index, digest in enumerate(digests, start=1)
    )
    opaque = b"".join(
        struct.pack("<HH", kind, len(value)) + value
        for kind, value in ((3, b"550.90.07\0"), (6, bytes.fromhex("009f009601000000")), (20, firmware_id))
    )
    response = bytes([0x11, 0x60, 0, 0, blocks]) + len(record).to_bytes(3, "little") + record + b"R" * 32
    signed = request + response + struct.pack("<H", len(opaque)) + opaque
    return signed + b"".join(number.to_bytes(48, "big") for number in sign_pair(signer.key, signed))


def make_gpu_chain(*, firmware_id: bytes = FIRMWARE_ID) -> list[Entity]:
    """Return a GPU's chain, leaf first; the leaf names its firmware as DICE has it."""
    root = issue(Request(name="Device Identity CA", authority=True, serial=1), p384_key("gpu-root"))
    digest = der(0x30, bytes.fromhex("0609608648016503040202"), der(4, firmware_id))
    extension = ("2.23.133.5.4.1", der(0x30, der(0xA6, digest)))
    return [issue(Request(name="GPU", extensions=[extension]), p384_key("gpu"), root), root]
