from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siniantrust.errors import AttestationError
from siniantrust.trust import Evidence, Provenance, ReferenceValues, appraise
from siniantrust.trust._evidence import parse_evidence, report_data

_NONCE, _ENCLAVE_KEY, _CLIENT_KEY = b"n" * 32, b"e" * 32, b"c" * 32
_EVIDENCE = Evidence(
    provider="process",
    provenance=Provenance.SIMULATED,
    nonce=_NONCE,
    enclave_public_key=_ENCLAVE_KEY,
    report_data=report_data(_NONCE, _ENCLAVE_KEY, _CLIENT_KEY),
    measurement="ab" * 32,
    protections={"seccomp": "active"},
)
_REFERENCE = ReferenceValues("process", "ab" * 32)


def _appraise(evidence: Evidence, *, nonce: bytes = _NONCE, accept: tuple[Provenance, ...] = tuple(Provenance)) -> None:
    appraise(evidence, nonce=nonce, client_public_key=_CLIENT_KEY, reference=_REFERENCE, accept=accept)


def test_consistent_evidence_passes() -> None:
    """Evidence with our nonce, our keys and the reference measurement passes."""
    _appraise(_EVIDENCE)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"provider": "other"}, "provider"),
        ({"nonce": b"m" * 32}, "nonce"),
        ({"enclave_public_key": b"f" * 32}, "keys"),
        ({"enclave_public_key": b"short"}, "32 bytes"),
        ({"report_data": b"r" * 32}, "keys"),
        ({"report_data": b""}, "keys"),
        ({"measurement": "cd" * 32}, "measurement"),
        ({"measurement": ""}, "measurement"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_evidence_with_one_field_changed_is_refused(change: dict[str, object], word: str) -> None:
    """Each field that the Verifier checks is really checked, and named."""
    with pytest.raises(AttestationError, match=word):
        _appraise(dataclasses.replace(_EVIDENCE, **change))  # type: ignore[arg-type]


def test_replayed_evidence_is_refused() -> None:
    """Evidence for an older nonce does not pass for a new one."""
    with pytest.raises(AttestationError, match="replay"):
        _appraise(_EVIDENCE, nonce=b"fresh".ljust(32))


def test_simulated_evidence_is_refused_unless_accepted() -> None:
    """A policy that accepts hardware only refuses simulated evidence and says what to write to accept it."""
    with pytest.raises(AttestationError, match=r'is simulated.*\[enclave\] accept = \["simulated"\]'):
        _appraise(_EVIDENCE, accept=(Provenance.HARDWARE, Provenance.EMULATED))


def test_evidence_says_in_words_that_it_proves_nothing() -> None:
    """The label is on the object, wherever it is shown."""
    assert "proves nothing against the host" in _EVIDENCE.statement


def test_evidence_survives_its_json_form() -> None:
    """Parsing is the inverse of writing."""
    assert parse_evidence(_EVIDENCE.to_json()) == _EVIDENCE


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_evidence(raw: bytes) -> None:
    """Bytes from anywhere raise AttestationError and nothing else."""
    with pytest.raises(AttestationError):
        parse_evidence(raw)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(field=st.sampled_from(sorted(json.loads(_EVIDENCE.to_json()))), value=_JSON)
def test_a_field_of_another_type_does_nothing_but_attestation_error(field: str, value: object) -> None:
    """Any JSON value in any field either parses or raises AttestationError."""
    fields = json.loads(_EVIDENCE.to_json())
    fields[field] = value
    try:
        parse_evidence(json.dumps(fields).encode())
    except AttestationError:
        return


def test_a_field_too_many_or_too_few_is_refused() -> None:
    """The form is exact."""
    fields = json.loads(_EVIDENCE.to_json())
    for damaged in ({**fields, "more": "x"}, {name: fields[name] for name in list(fields)[1:]}):
        with pytest.raises(AttestationError):
            parse_evidence(json.dumps(damaged).encode())
