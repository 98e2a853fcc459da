"""Results and files: EAR, evidence bundles, reference files, and claims held against reference values."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from attestation_pki import NOW
from attestation_snp import make_chain
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jws

from siniantrust.errors import AttestationError
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import (
    AttestationResult,
    EvidenceBundle,
    Reference,
    ReferenceValues,
    Tier,
    TrustClaim,
    Verifier,
    evidence_from_json,
    evidence_to_json,
    list_verifiers,
    load_reference,
    sign_result,
    verify_result,
)
from siniantrust.trust.attestation._compare import Comparison
from siniantrust.trust.attestation.verifiers import sgx

BINDING = bytes(range(64))
RESULT = AttestationResult(
    kind="sgx",
    provenance=Provenance.EMULATED,
    vector={TrustClaim.EXECUTABLES: Tier.AFFIRMING, TrustClaim.HARDWARE: Tier.WARNING},
    required=frozenset({TrustClaim.EXECUTABLES, TrustClaim.HARDWARE}),
    claims={"mrenclave": "ab" * 32},
    appraised_at=NOW,
    unchecked=("something",),
)


def _pair(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> tuple[bytes, bytes]:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


KEYS = {"ES256": _pair(ec.generate_private_key(ec.SECP256R1())), "Ed25519": _pair(ed25519.Ed25519PrivateKey.generate())}
ALGORITHMS = pytest.mark.parametrize("algorithm", KEYS)


def _parts(token: str) -> list[dict[str, object]]:
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


def _forge(changes: dict[str, object], *, header: dict[str, str] | None = None, algorithm: str = "ES256") -> str:
    """Return a token by the right key that says something else."""
    private, _ = KEYS[algorithm]
    _, claims = _parts(sign_result(RESULT, private, binding=BINDING, now=NOW))
    key = (jwk.ECKey if algorithm == "ES256" else jwk.OKPKey).import_key(private)
    payload = json.dumps({name: value for name, value in {**claims, **changes}.items() if value is not None})
    return jws.serialize_compact(header or {"alg": algorithm, "typ": "eat+jwt"}, payload, key, [algorithm])


def _submodule(**changes: object) -> dict[str, object]:
    _, claims = _parts(sign_result(RESULT, KEYS["ES256"][0], binding=BINDING, now=NOW))
    submodule = claims["submods"]["sgx"]  # type: ignore[index]
    return {"submods": {"sgx": {**submodule, **changes}}}


@ALGORITHMS
def test_a_result_survives_its_token(algorithm: str) -> None:
    """What was signed is what the Relying Party reads, its provenance and what was unchecked included."""
    private, public = KEYS[algorithm]
    token = sign_result(RESULT, private, binding=BINDING, now=NOW)
    assert verify_result(token, public, binding=BINDING, now=NOW) == RESULT


def test_a_token_is_an_ear() -> None:
    """Profile, status and trust vector have the names and values of EAR and AR4SI."""
    header, claims = _parts(sign_result(RESULT, KEYS["ES256"][0], binding=BINDING, now=NOW))
    assert header == {"alg": "ES256", "typ": "eat+jwt"}
    assert claims["eat_profile"] == "tag:github.com,2023:veraison/ear"
    submodule = claims["submods"]["sgx"]  # type: ignore[index]
    assert submodule["ear.status"] == "warning"
    assert submodule["ear.trustworthiness-vector"] == {"executables": 2, "hardware": 32}


@ALGORITHMS
def test_no_bit_of_a_token_can_be_changed(algorithm: str) -> None:
    """A token in which any bit of any character was flipped is refused, spelling included."""
    private, public = KEYS[algorithm]
    token = sign_result(RESULT, private, binding=BINDING, now=NOW)
    for place in range(len(token)):
        changed = token[:place] + chr(ord(token[place]) ^ 1 << place % 7) + token[place + 1 :]
        with pytest.raises(AttestationError):
            verify_result(changed, public, binding=BINDING, now=NOW)
    for bit in range(7):
        with pytest.raises(AttestationError):
            verify_result(token[:-1] + chr(ord(token[-1]) ^ 1 << bit), public, binding=BINDING, now=NOW)


@ALGORITHMS
def test_another_key_question_or_time_is_refused(algorithm: str) -> None:
    """A token of another Verifier, for another binding, from the future or out of date is refused."""
    private, public = KEYS[algorithm]
    token = sign_result(RESULT, private, binding=BINDING, now=NOW, lifetime_s=60)
    others = [_pair(ec.generate_private_key(ec.SECP256R1()))[1], _pair(ed25519.Ed25519PrivateKey.generate())[1]]
    for other in others:
        with pytest.raises(AttestationError):
            verify_result(token, other, binding=BINDING, now=NOW)
    with pytest.raises(AttestationError, match="not bound"):
        verify_result(token, public, binding=BINDING[::-1], now=NOW)
    for seconds in (-61, 60, 10**6):
        with pytest.raises(AttestationError, match="not valid at"):
            verify_result(token, public, binding=BINDING, now=NOW + timedelta(seconds=seconds))
    assert verify_result(token, public, binding=BINDING, now=NOW + timedelta(seconds=59)) == RESULT


def test_the_algorithm_is_the_keys_own() -> None:
    """``none``, and a MAC keyed with the public key, are refused before anything is computed."""
    private, public = KEYS["ES256"]
    head, payload, _ = sign_result(RESULT, private, binding=BINDING, now=NOW).split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "eat+jwt"}).encode()).rstrip(b"=").decode()
    mac = jws.serialize_compact(
        {"alg": "HS256", "typ": "eat+jwt"},
        base64.urlsafe_b64decode(payload + "=="),
        jwk.OctKey.import_key(base64.urlsafe_b64encode(public).rstrip(b"=").decode()),
        ["HS256"],
    )
    for token in (f"{none}.{payload}.", f"{head}.{payload}.", mac):
        with pytest.raises(AttestationError):
            verify_result(token, public, binding=BINDING, now=NOW)
    for header in ({"alg": "ES256"}, {"alg": "ES256", "typ": "JWT"}, {"alg": "ES256", "typ": "eat+jwt", "kid": "1"}):
        with pytest.raises(AttestationError, match="expected the header"):
            verify_result(_forge({}, header=header), public, binding=BINDING, now=NOW)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"eat_profile": "another"}, "eat_profile"),
        ({"iss": "somebody"}, "expected the issuer"),
        ({"eat_nonce": None}, "eat_nonce"),
        ({"exp": None}, "exp"),
        ({"exp": "9999999999"}, "exp"),
        ({"more": 1}, "more"),
        ({"submods": {}}, "submods"),
        (_submodule(**{"ear.status": "affirming"}), "its status is affirming"),
        (_submodule(**{"siniantrust.provenance": "certain"}), "provenance"),
        (_submodule(**{"ear.trustworthiness-vector": {"hardware": 3}}), "vector"),
        (_submodule(more=1), "more"),
    ],
)
def test_a_token_that_says_too_much_or_too_little_is_refused(changes: dict[str, object], word: str) -> None:
    """Even by the right key: unknown and missing claims, other types, and a status that its vector does not bear."""
    with pytest.raises(AttestationError, match=word):
        verify_result(_forge(changes), KEYS["ES256"][1], binding=BINDING, now=NOW)


def test_keys_of_other_kinds_are_refused() -> None:
    """Only P-256 and Ed25519 sign results, and what is no key is refused."""
    private, public = _pair(ec.generate_private_key(ec.SECP384R1()))
    for key in (private, b"no key", KEYS["ES256"][1]):
        with pytest.raises(AttestationError):
            sign_result(RESULT, key, binding=BINDING, now=NOW)
    token = sign_result(RESULT, KEYS["ES256"][0], binding=BINDING, now=NOW)
    for key in (public, b"no key", KEYS["ES256"][0]):
        with pytest.raises(AttestationError):
            verify_result(token, key, binding=BINDING, now=NOW)


# Evidence bundles

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)


@given(
    kind=NAMES, body=st.binary(max_size=200), endorsements=st.dictionaries(NAMES, st.binary(max_size=50), max_size=4)
)
def test_evidence_survives_its_json(kind: str, body: bytes, endorsements: dict[str, bytes]) -> None:
    """Reading is the inverse of writing."""
    evidence = EvidenceBundle(kind=kind, body=body, endorsements=endorsements)
    assert evidence_from_json(evidence_to_json(evidence)) == evidence


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "fault"),
        ("[]", "object"),
        ("{}", "exactly"),
        ('{"kind": "sgx", "body": "AA", "endorsements": {}, "more": 1}', "exactly"),
        ('{"kind": "sgx", "body": "AA", "body": "AB", "endorsements": {}}', "twice"),
        ('{"kind": "sgx", "body": "AA==", "endorsements": {}}', "base64url"),
        ('{"kind": "sgx", "body": "AB", "endorsements": {}}', "base64url"),
        ('{"kind": "sgx", "body": "A A", "endorsements": {}}', "base64url"),
        ('{"kind": "sgx", "body": "A+_", "endorsements": {}}', "base64url"),
        ('{"kind": "sgx", "body": 1, "endorsements": {}}', "base64url"),
        ('{"kind": "sgx", "body": "AA", "endorsements": {"x": null}}', "base64url"),
        ('{"kind": "sgx", "body": "AA", "endorsements": []}', "object"),
        ('{"kind": "../sgx", "body": "AA", "endorsements": {}}', "names"),
        ('{"kind": 1, "body": "AA", "endorsements": {}}', "names"),
        ('{"kind": "sgx", "body": "AA", "endorsements": {"A B": "AA"}}', "names"),
        ("[" * 100_000, "fault"),
        ('{"kind": "sgx", "body": "' + "A" * (4 << 20) + '", "endorsements": {}}', "at most"),
    ],
    ids=range(17),
)
def test_a_bundle_of_another_form_is_refused(text: str, word: str) -> None:
    """Another form, a second spelling, a name twice, and too much of it are refused."""
    with pytest.raises(AttestationError, match=word):
        evidence_from_json(text.encode())


# Reference files


def _write(folder: Path, text: str) -> Path:
    path = folder / "reference.toml"
    path.write_text(text)
    return path


def test_a_reference_file_gives_reference_values(tmp_path: Path) -> None:
    """All its fields arrive; an anchor may be PEM or DER, seen from the file's folder."""
    chain = make_chain()
    (tmp_path / "root.pem").write_bytes(chain.root.pem)
    (tmp_path / "root.der").write_bytes(chain.root.der)
    path = _write(
        tmp_path,
        """
        kind = "sev-snp"
        accept = ["hardware", "emulated"]
        accepted = { measurement = ["ab", "cd"] }
        at_least = { tcb-snp = 8 }
        anchors = { one = "root.pem", two = "root.der" }
        """,
    )
    assert load_reference(path) == Reference(
        values=ReferenceValues(
            kind="sev-snp",
            accepted={"measurement": frozenset({"ab", "cd"})},
            at_least={"tcb-snp": 8},
            anchors={"one": chain.root.der, "two": chain.root.der},
        ),
        accept=frozenset({Provenance.HARDWARE, Provenance.EMULATED}),
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "kind"),
        ("kind = 1", "kind"),
        ("kind = 'sgx'\nmore = 1", "more"),
        ("kind = 'sgx'\naccepted = { mrenclave = 'ab' }", "accepted.mrenclave"),
        ("kind = 'sgx'\nat_least = { isv-svn = '1' }", "at_least.isv-svn"),
        ("kind = 'sgx'\nat_least = { isv-svn = true }", "at_least.isv-svn"),
        ("kind = 'sgx'\nat_least = { isv-svn = -1 }", "at_least.isv-svn"),
        ("kind = 'sgx'\naccept = ['certain']", "accept"),
        ("kind = 'sgx'\nanchors = { root = 'nothing.pem' }", "nothing.pem"),
        ("kind = 'sgx'\nanchors = { root = 'reference.toml' }", "anchor root"),
        ("kind = ", "TOML"),
        ("kind = " + "[" * 100_000, "TOML"),
    ],
    ids=range(12),
)
def test_a_reference_file_of_another_form_is_refused(tmp_path: Path, text: str, word: str) -> None:
    """What is unknown, missing or of another type is an error that names the file and the place."""
    path = _write(tmp_path, text)
    with pytest.raises(AttestationError, match=word) as caught:
        load_reference(path)
    assert str(path) in str(caught.value)


def test_an_anchor_is_one_certificate(tmp_path: Path) -> None:
    """A file with two certificates does not say which of them is trusted."""
    chain = make_chain()
    (tmp_path / "two.pem").write_bytes(chain.root.pem + chain.signer.pem)
    with pytest.raises(AttestationError, match="expected one certificate, found 2"):
        load_reference(_write(tmp_path, "kind = 'sev-snp'\nanchors = { root = 'two.pem' }"))


def test_a_reference_refuses_what_it_does_not_accept() -> None:
    """The refusal names the provenance, what is doubtful, what is not affirmed, and what was unchecked."""
    values = ReferenceValues(kind="sgx")
    hardware = Reference(values=values, accept=frozenset({Provenance.HARDWARE}))
    emulated = Reference(values=values, accept=frozenset({Provenance.EMULATED}))
    assert hardware.refusal(RESULT) == "the evidence is emulated, the reference accepts: hardware"
    assert emulated.refusal(RESULT) == "hardware is warning; unchecked: something"
    fine = AttestationResult(
        kind="sgx",
        provenance=Provenance.EMULATED,
        vector={TrustClaim.EXECUTABLES: Tier.AFFIRMING},
        required=frozenset({TrustClaim.EXECUTABLES}),
        claims={},
        appraised_at=NOW,
    )
    assert emulated.refusal(fine) is None
    assert hardware.refusal(fine) is not None


# Claims and reference values

CLAIMS = {"digest": "ab", "svn": "7", "advisory-ids": "A,B"}


def _compare(**values: object) -> Comparison:
    return Comparison("sgx", CLAIMS, ReferenceValues(**{"kind": "sgx", **values}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"kind": "tdx"}, "are for 'tdx'"),
        ({"accepted": {"digset": frozenset({"ab"})}}, "name 'digset', which this evidence does not carry"),
        ({"at_least": {"snv": 1}}, "name 'snv'"),
        ({"accepted": {"digest": frozenset({"cd"})}}, "expected cd, found 'ab'"),
        ({"accepted": {"digest": frozenset()}}, "expected nothing"),
        ({"accepted": {"digest": frozenset({"AB"})}}, "expected AB"),
        ({"at_least": {"svn": 8}}, "expected at least 8, found 7"),
        ({"at_least": {"digest": 1}}, "is no number"),
        ({"accepted": {"advisory-ids": frozenset({"A"})}}, "advisory-ids"),
    ],
)
def test_a_claim_that_contradicts_is_an_error(values: dict[str, object], word: str) -> None:
    """Contradictions, claims that are not there (a name misspelt), and values for another kind are errors."""
    with pytest.raises(AttestationError, match=word):
        _compare(**values)


def test_only_what_is_matched_is_affirmed() -> None:
    """Without a reference value nothing is affirmed; one alternative that is matched as a whole suffices."""
    assert _compare().tier(("digest",)) is Tier.NONE
    matched = _compare(accepted={"digest": frozenset({"ab", "cd"})}, at_least={"svn": 7})
    assert matched.tier(("digest", "svn")) is Tier.AFFIRMING
    assert matched.tier(("digest", "advisory-ids")) is Tier.NONE
    assert matched.tier(("advisory-ids",), ("svn",)) is Tier.AFFIRMING
    assert _compare(accepted={"advisory-ids": frozenset({"A", "B", "C"})}).matched("advisory-ids")


def test_every_verifier_is_found_by_its_kind() -> None:
    """The registry holds one Verifier for each file, by the kind that the file is named for."""
    found = list_verifiers()
    assert found.keys() == {"nvidia-gpu", "sev-snp", "sgx", "simulated", "tdx", "tpm2"}
    assert all(isinstance(each, Verifier) and each.kind == kind for kind, each in found.items())


@pytest.mark.parametrize("plug_in", [None, sgx.SgxVerifier(kind="other")])
def test_a_file_without_its_verifier_is_a_programmers_error(monkeypatch: pytest.MonkeyPatch, plug_in: object) -> None:
    """A plug-in that defines no Verifier, or one of another kind than its name, is not passed over in silence."""
    assert isinstance(sgx, ModuleType)
    monkeypatch.setattr(sgx, "VERIFIER", plug_in)
    with pytest.raises(TypeError, match="must define VERIFIER"):
        list_verifiers()


def test_a_token_is_issued_when_it_is_signed() -> None:
    """An old appraisal does not make an old token: both times are in it."""
    private, public = KEYS["ES256"]
    later = datetime(2026, 1, 1, tzinfo=UTC)
    token = sign_result(RESULT, private, binding=BINDING, now=later)
    assert verify_result(token, public, binding=BINDING, now=later).appraised_at == NOW
