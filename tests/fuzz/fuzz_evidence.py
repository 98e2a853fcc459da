"""Targets: evidence and its endorsements, results, reference values, and the files that evidence comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import attestation_intel as intel
import attestation_snp as snp
from attestation_pki import NOW
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fake_platforms import TsmPath, certificate_table
from fuzz_target import MakeTarget, Target
from remote_cases import sigstruct

from siniantrust.errors import AttestationError
from siniantrust.trust import Evidence, Provenance
from siniantrust.trust._evidence import ReferenceValues as ProcessReference
from siniantrust.trust._evidence import appraise, parse_evidence, report_data
from siniantrust.trust.attestation import (
    AttestationResult,
    EvidenceBundle,
    ReferenceValues,
    Tier,
    TrustClaim,
    evidence_from_json,
    evidence_to_json,
    load_reference,
    reference_from_table,
    sign_result,
    verifier,
    verify_result,
)
from siniantrust.trust.attestation.attesters._snp_certificates import read_certificates
from siniantrust.trust.attestation.attesters.configfs_tsm import ConfigfsTsmAttester
from siniantrust.trust.attestation.attesters.gramine import GramineAttester
from siniantrust.trust.gramine._sigstruct import parse_sigstruct

BINDING = bytes(range(64))
REFERENCE = b"""
kind = "sgx"
accept = ["hardware"]
accepted = { mrenclave = ["ab"] }
at_least = { isv-svn = 8 }
anchors = { }
"""


def appraising(
    evidence: EvidenceBundle,
    reference: ReferenceValues,
    name: str | None = None,
    *,
    binding: bytes = BINDING,
    now: datetime = NOW,
) -> Target:
    """Return a target that appraises the evidence with another body, or with another endorsement ``name``."""

    def read(raw: bytes) -> AttestationResult:
        if name is None:
            changed = replace(evidence, body=raw)
        else:
            changed = replace(evidence, endorsements={**evidence.endorsements, name: raw})
        return verifier(evidence.kind).appraise(changed, binding=binding, reference=reference, now=now)

    return Target(read, (evidence.body if name is None else evidence.endorsements[name],))


def _intel(_: Path, tee: str, name: str | None = None) -> Target:
    made = intel.make_intel()
    body = made.quote() if tee == "SGX" else made.td_quote(tdx_1_5=True)
    reference = made.reference() if tee == "SGX" else made.reference(kind="tdx", accepted={})
    target = appraising(made.evidence(body, tee=tee), reference, name)
    # Zeros may follow a quote, and between the names of JSON there may be blanks.
    return replace(target, form=json.loads if name else lambda raw: raw.rstrip(b"\0"))


def _sev_snp(_: Path, name: str | None = None) -> Target:
    chain = snp.make_chain()
    return appraising(chain.evidence(snp.make_report()), chain.reference(), name)


def _sev_snp_vlek(_: Path, name: str) -> Target:
    chain = snp.make_chain(
        snp.leaf_request("SEV-VLEK", chip_id=None), signer_name="SEV-VLEK-Milan", names=("vlek", "asvk", "ark")
    )
    return appraising(chain.evidence(snp.make_report(flags=1 << 2)), chain.reference(), name)


def _nvidia_gpu(_: Path, name: str | None = None) -> Target:
    chain = snp.make_gpu_chain()
    pem = b"".join(each.pem for each in chain)
    evidence = EvidenceBundle(kind="nvidia-gpu", body=snp.make_gpu_report(chain[0]), endorsements={"chain": pem})
    reference = ReferenceValues(kind="nvidia-gpu", anchors={"test-root": chain[-1].der})
    target = appraising(evidence, reference, name)
    return target if name is None else replace(target, form=x509.load_pem_x509_certificates)  # in lines of any length


_SIMULATED = Evidence(
    provider="process",
    provenance=Provenance.SIMULATED,
    nonce=b"n" * 32,
    enclave_public_key=b"e" * 32,
    report_data=BINDING,
    measurement="ab" * 32,
)


def _simulated(_: Path) -> Target:
    reference = ReferenceValues(kind="simulated", accepted={"measurement": frozenset({"ab" * 32})})
    # Nothing signs it: another evidence of the same measurement is as good as this one.
    return replace(appraising(EvidenceBundle(kind="simulated", body=_SIMULATED.to_json()), reference), form=None)


def _process(_: Path) -> Target:
    bound = replace(_SIMULATED, report_data=report_data(b"n" * 32, b"e" * 32, b"c" * 32))
    reference = ProcessReference("process", "ab" * 32)

    def read(raw: bytes) -> None:
        appraise(
            parse_evidence(raw),
            nonce=b"n" * 32,
            client_public_key=b"c" * 32,
            reference=reference,
            accept=(Provenance.SIMULATED,),
        )

    def form(raw: bytes) -> object:  # what it says of itself beside the measurement is not signed by anybody
        return replace(parse_evidence(raw), statement="", protections={})

    return Target(read, (bound.to_json(),), form=form)


def _token(_: Path) -> Target:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    result = AttestationResult(
        kind="sgx",
        provenance=Provenance.HARDWARE,
        vector={TrustClaim.HARDWARE: Tier.AFFIRMING},
        required=frozenset({TrustClaim.HARDWARE}),
        claims={},
        appraised_at=NOW,
    )
    token = sign_result(result, private, binding=BINDING, now=NOW).encode()
    return Target(lambda raw: verify_result(raw.decode("latin-1"), public, binding=BINDING, now=NOW), (token,))


def _envelope(_: Path) -> Target:
    chain = snp.make_chain()
    genuine = chain.evidence(snp.make_report())

    def read(raw: bytes) -> None:
        evidence = evidence_from_json(raw)
        reference = chain.reference()
        result = verifier(evidence.kind).appraise(evidence, binding=BINDING, reference=reference, now=NOW)
        if not result.affirmed:  # without a revocation list it is authentic, and no more
            raise AttestationError("not affirmed")

    return Target(read, (evidence_to_json(genuine),), form=evidence_from_json)


def _reference_file(folder: Path) -> Target:
    path = folder / "reference.toml"

    def read(raw: bytes) -> None:
        path.write_bytes(raw)
        load_reference(path)

    return Target(read, (REFERENCE,), form=None)


def _anchor_file(folder: Path) -> Target:
    root = snp.make_chain().root
    path = folder / "reference.toml"
    path.write_text('kind = "sev-snp"\nanchors = { root = "root" }\n')

    def read(raw: bytes) -> None:
        (folder / "root").write_bytes(raw)
        load_reference(path)

    return Target(read, (root.der, root.pem), form=None)


def _reference_table(_: Path) -> Target:
    table = {
        "kind": "sgx",
        "accepted": {"mrenclave": ["ab"]},
        "at_least": {"isv-svn": 8},
        "anchors": {"r": "AAAA"},
    }

    def read(raw: bytes) -> None:  # what is read is JSON already, in a plan or in the key broker's store
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict):
            reference_from_table(found, origin="of a plan")

    return Target(read, (json.dumps(table).encode(),), form=None)


def _certificate_table(_: Path) -> Target:
    tables = (certificate_table({"vcek": b"leaf" * 9, "ask": b"middle", "ark": b""}), b"")
    return Target(
        read_certificates, (*tables, certificate_table({"vlek": b"leaf", "ask": b"middle", "other": b"?"})), form=None
    )


class _OddTsm(TsmPath):
    """Files of a kernel that writes something else into one of them; what it counts, it then counts right."""

    def read_bytes(self) -> bytes:
        """Read an attribute."""
        name, raw = self.kernel["odd"]
        if self.name == name and not (name == "generation" and self.kernel["inblob"] is not None):
            return bytes(raw)
        return super().read_bytes()


def _configfs(folder: Path, name: str) -> Target:
    seeds = {
        "provider": (b"tdx_guest\n", b"sev_guest\n"),
        "generation": (b"0\n",),
        "auxblob": (certificate_table({"vcek": b"leaf", "ask": b"middle", "ark": b"root"}),),
    }

    def read(raw: bytes) -> None:
        _OddTsm.kernel = {"provider": b"sev_guest\n", "odd": (name, raw)}
        ConfigfsTsmAttester(_OddTsm(folder)).evidence(BINDING)

    return Target(read, seeds[name], form=None)


def _gramine(folder: Path, name: str) -> Target:
    quote = intel.make_intel().quote()
    files = {"attestation_type": b"dcap\n", "quote": quote, "user_report_data": b""}
    for each, data in files.items():
        (folder / each).write_bytes(data)

    def read(raw: bytes) -> None:
        (folder / name).write_bytes(raw)
        GramineAttester(folder).evidence(BINDING)

    forms: dict[str, Callable[[bytes], object]] = {
        "attestation_type": bytes.strip,
        "quote": lambda raw: raw[368:432],  # the report data; the Verifier looks at the rest
    }
    return Target(read, (files[name],), form=forms[name])


def _sigstruct(_: Path) -> Target:
    return Target(partial(parse_sigstruct, origin="enclave.sig"), (sigstruct(),), form=None)


EVIDENCE: dict[str, MakeTarget] = {
    "sgx quote": partial(_intel, tee="SGX"),
    "sgx collateral": partial(_intel, tee="SGX", name="collateral"),
    "tdx quote": partial(_intel, tee="TDX"),
    "tdx collateral": partial(_intel, tee="TDX", name="collateral"),
    "sev-snp report": _sev_snp,
    **{f"sev-snp {name}": partial(_sev_snp, name=name) for name in ("vcek", "ask", "ark", "crl")},
    **{f"sev-snp {name}": partial(_sev_snp_vlek, name=name) for name in ("vlek", "asvk")},
    "nvidia-gpu report": _nvidia_gpu,
    "nvidia-gpu chain": partial(_nvidia_gpu, name="chain"),
    "simulated evidence": _simulated,
    "process evidence": _process,
    "evidence bundle": _envelope,
    "result token": _token,
    "reference file": _reference_file,
    "reference anchor": _anchor_file,
    "reference table": _reference_table,
    "host's certificate table": _certificate_table,
    **{f"configfs-tsm {name}": partial(_configfs, name=name) for name in ("provider", "generation", "auxblob")},
    **{f"gramine {name}": partial(_gramine, name=name) for name in ("attestation_type", "quote")},
    "sigstruct": _sigstruct,
}
