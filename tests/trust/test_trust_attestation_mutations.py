"""Every Verifier against every kind of mutation of real evidence: a table, so that none is forgotten.

What is refused here may be refused for its signature alone. That each check stands by itself, under a signature that
holds, is tested on evidence that the tests sign themselves (``test_trust_attestation_checks.py``).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache

import pytest
from attestation_pki import sign_pair, sign_raw
from attestation_samples import (
    SAMPLES,
    Sample,
    appraise,
    flipped,
    refused,
    spread,
    tdx,
    tdx_outdated,
    with_body,
    with_endorsement,
)
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from siniantrust.errors import AttestationError
from siniantrust.trust.attestation import bind

Mutate = Callable[[Sample], Iterable[Sample]]
_P256, _P384 = (ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1()))
_QUOTED_BYTES = {"sgx": 48 + 384, "tdx": 48 + 584}


def _endorsements(sample: Sample, **changed: bytes) -> Sample:
    return replace(sample, evidence=replace(sample.evidence, endorsements={**sample.evidence.endorsements, **changed}))


def _patched(raw: bytes, place: int, data: bytes) -> bytes:
    return raw[:place] + data + raw[place + len(data) :]


def _bit_flips(sample: Sample) -> Iterator[Sample]:
    body = sample.evidence.body
    for bit in spread(220, 8 * len(body)):
        yield with_body(sample, flipped(body, bit))
    for name, raw in sample.evidence.endorsements.items():
        for bit in spread(30, 8 * len(raw)):
            yield with_endorsement(sample, name, flipped(raw, bit))


def _wrong_nonce(sample: Sample) -> Iterator[Sample]:
    for bit in range(0, 256, 8):
        yield replace(sample, binding=flipped(sample.binding, bit))


def _wrong_key(sample: Sample) -> Iterator[Sample]:
    """Vouch for another enclave's key, or sign with a key of software that nobody certified."""
    yield replace(sample, binding=bind(b"n" * 32, b"another enclave's public key"))
    body = sample.evidence.body
    if sample.evidence.kind in _QUOTED_BYTES:
        yield with_body(sample, _resigned_quote(sample, body))
    elif sample.evidence.kind == "sev-snp":
        yield with_body(sample, _resigned_report(body))
    else:
        signed = body[:-96]
        yield with_body(sample, signed + b"".join(n.to_bytes(48, "big") for n in sign_pair(_P384, signed)))


def _resigned_quote(sample: Sample, body: bytes) -> bytes:
    """Return a quote under an attestation key of our own, in the place of the one that the quoting enclave names."""
    size = _QUOTED_BYTES[sample.evidence.kind]
    point = _P256.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    return _patched(body, size + 4, sign_raw(_P256, body[:size]) + point)


def _resigned_report(body: bytes) -> bytes:
    pair = sign_pair(_P384, body[:0x2A0])
    for place, number in zip((0x2A0, 0x2E8), pair, strict=True):
        body = _patched(body, place, number.to_bytes(48, "little"))
    return body


def _swapped_collateral(sample: Sample) -> Iterator[Sample]:
    """Take another platform's collateral, and each of its fields, and chains in each other's place."""
    own = json.loads(sample.evidence.endorsements["collateral"])
    other = tdx_outdated() if sample.evidence.kind == "tdx" else tdx()
    foreign = json.loads(other.evidence.endorsements["collateral"])
    chains = [name for name in own if name.endswith("_chain")]
    mixes = [foreign, *({**own, name: foreign[name]} for name in own if own[name] != foreign[name])]
    mixes += [{**own, first: own[second]} for first in chains for second in chains if own[first] != own[second]]
    mixes += [{**own, name: "".join(reversed(own[name].partition("-----END CERTIFICATE-----\n")))} for name in chains]
    for mixed in mixes:
        yield with_endorsement(sample, "collateral", json.dumps(mixed).encode())


def _swapped_certificates(sample: Sample) -> Iterator[Sample]:
    chain = sample.evidence.endorsements
    for first in chain:
        for second in chain.keys() - {first}:
            yield _endorsements(sample, **{first: chain[second]})
            yield _endorsements(sample, **{first: chain[second], second: chain[first]})
        yield replace(
            sample,
            evidence=replace(sample.evidence, endorsements={name: chain[name] for name in chain.keys() - {first}}),
        )


def _swapped_chain(sample: Sample) -> Iterator[Sample]:
    end = b"-----END CERTIFICATE-----\n"
    blocks = [block + end for block in sample.evidence.endorsements["chain"].split(end)[:-1]]
    for place in range(len(blocks)):
        left = blocks[:place] + blocks[place + 1 :]
        turned = [*blocks[place:], *blocks[:place]] if place else blocks[::-1]
        for chain in (left, turned, [*blocks[: place + 1], *blocks[place:]]):
            yield with_endorsement(sample, "chain", b"".join(chain))


def _other_times(*days: int) -> Mutate:
    return lambda sample: [replace(sample, now=sample.now + timedelta(days=each)) for each in days]


def _set(place: int, *values: bytes) -> Mutate:
    """Write other values over a field; under the old signature, and for quotes under a key of our own as well."""

    def mutate(sample: Sample) -> Iterator[Sample]:
        for value in values:
            body = _patched(sample.evidence.body, place, value)
            assert body != sample.evidence.body
            yield with_body(sample, body)
            if sample.evidence.kind in _QUOTED_BYTES:
                yield with_body(sample, _resigned_quote(sample, body))
            elif sample.evidence.kind == "sev-snp":
                yield with_body(sample, _resigned_report(body))

    return mutate


def _older_driver(sample: Sample) -> Iterator[Sample]:
    body = sample.evidence.body
    for newer, older in ((b"550.90.07", b"535.90.07"), (bytes.fromhex("009f0096"), bytes.fromhex("009e0096"))):
        assert newer in body
        yield with_body(sample, body.replace(newer, older))


def _outdated_tdx(sample: Sample) -> Iterator[Sample]:
    yield tdx_outdated()
    yield from _set(48, bytes(16))(sample)  # the TDX module's TCB


KINDS = ("bit flips", "swapped chains", "expired collateral", "wrong nonce", "wrong key", "debug bit", "older TCB")
EVERYWHERE: dict[str, Mutate] = {"bit flips": _bit_flips, "wrong nonce": _wrong_nonce, "wrong key": _wrong_key}
# Places are those of Intel's and AMD's formats: 48 bytes of a quote's header, then the report.
TABLE: dict[str, dict[str, Mutate]] = {
    "sgx": {
        "swapped chains": _swapped_collateral,
        "expired collateral": _other_times(-400, -2, 35, 365),
        "debug bit": _set(48 + 48, b"\x07"),
        "older TCB": _set(48, bytes(16), b"\1" * 16),  # CPUSVN
    },
    "tdx": {
        "swapped chains": _swapped_collateral,
        "expired collateral": _other_times(-400, -2, 35, 365),
        "debug bit": _set(48 + 120, b"\x01"),
        "older TCB": _outdated_tdx,
    },
    "sev-snp": {
        "swapped chains": _swapped_certificates,
        "expired collateral": _other_times(-8 * 365, 30 * 365),
        "older TCB": _set(0x180, bytes(8), struct.pack("<Q", 1)),
    },
    "nvidia-gpu": {
        "swapped chains": _swapped_chain,
        "expired collateral": _other_times(-8 * 365, -30 * 365),  # NVIDIA's chain ends with the year 9999
        "older TCB": _older_driver,
    },
}
ABSENT = {
    ("sev-snp", "debug bit"): "it is set in the sample, which is refused for it: see the last test",
    ("nvidia-gpu", "debug bit"): "a GPU's report has none",
}
CELLS = [(verifier, kind) for verifier in TABLE for kind in (*EVERYWHERE, *TABLE[verifier])]


def test_the_table_is_complete() -> None:
    """Every kind of mutation is made for every Verifier of hardware, or it is said why not."""
    assert TABLE.keys() == SAMPLES.keys()
    assert {*CELLS, *ABSENT} == {(verifier, kind) for verifier in SAMPLES for kind in KINDS}
    assert not ABSENT.keys() & set(CELLS)


@cache
def _mutants(verifier: str, kind: str) -> tuple[Sample, ...]:
    return tuple({**TABLE[verifier], **EVERYWHERE}[kind](SAMPLES[verifier]()))


@pytest.mark.parametrize(("verifier", "kind"), CELLS)
def test_no_mutation_of_real_evidence_is_accepted(verifier: str, kind: str) -> None:
    """Real evidence that was changed in this way is refused, every time."""
    mutants = _mutants(verifier, kind)
    assert mutants
    assert [number for number, mutant in enumerate(mutants) if not refused(mutant)] == []


@pytest.mark.parametrize("verifier", SAMPLES)
def test_there_are_more_than_two_hundred_mutations(verifier: str) -> None:
    """Each Verifier refuses over 200 of them, and all differ from the sample, which is authentic."""
    kinds = {kind: _mutants(verifier, kind) for kind in (*EVERYWHERE, *TABLE[verifier])}
    assert sum(map(len, kinds.values())) > 200
    assert not any(mutant == SAMPLES[verifier]() for mutants in kinds.values() for mutant in mutants)
    assert not refused(SAMPLES[verifier]())


def test_the_debug_bit_of_a_real_machine_is_refused() -> None:
    """The SEV-SNP sample allows debugging and is refused for that; with the bit cleared, for its signature."""
    sample = SAMPLES["sev-snp"]()
    with pytest.raises(AttestationError, match="policy allows debugging"):
        appraise(sample)
    policy = int.from_bytes(sample.evidence.body[8:16], "little")
    hidden = _patched(sample.evidence.body, 8, (policy & ~(1 << 19)).to_bytes(8, "little"))
    for body in (hidden, _resigned_report(hidden)):
        with pytest.raises(AttestationError, match="signature"):
            appraise(with_body(sample, body))
