"""What a broker decides: who gets which key, and what its log says of it."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime

import pytest
from broker_asker import ATTESTER, NONCE, STRANGER, Asker, client_of, events_of, refusal
from remote_cases import REFERENCE, key_entry

from siniantrust.errors import (
    TrustError,
)
from siniantrust.trust import Provenance
from siniantrust.trust.attestation import ReferenceValues
from siniantrust.trust.broker import KeyBroker, RefusedError, Store
from siniantrust.trust.broker._request import (
    new_request,
)
from siniantrust.trust.tls import Address, fingerprint


def test_a_key_is_released_to_an_enclave_that_matches(broker: KeyBroker, broker_address: Address) -> None:
    """An enclave whose evidence matches gets its key over TLS, and the decision is in the log under its name."""
    client = client_of(broker_address, broker)
    assert client.fetch("net-1") == b"\x01" * 32
    entry = broker.store.log.entries[-1]
    assert (entry.event, entry.key_id, entry.lineage, entry.version) == ("release", "net-1", "net", 1)
    assert entry.enclave == fingerprint(client._identity.spki)


def test_every_decision_is_logged(broker: KeyBroker, broker_address: Address) -> None:
    """Additions, the start, releases, refusals and revocations are all there, in order."""
    client_of(broker_address, broker).fetch("other-1")
    with pytest.raises(TrustError, match="entry 7 of its log"):
        client_of(broker_address, broker, attester=STRANGER).fetch("net-1")
    broker.revoke_key("net-1", why="lost")
    broker.revoke_enclave("ab" * 32, why="stolen")
    adds = [("add", f"net-{version}") for version in (1, 2, 3)] + [("add", "other-1")]
    rest = [("release", "other-1"), ("refuse", "net-1"), ("revoke-key", "net-1"), ("revoke-enclave", "")]
    assert events_of(broker) == [*adds, ("start", ""), *rest]


def test_an_enclave_that_differs_gets_nothing(broker: KeyBroker) -> None:
    """Another measurement is refused; the answer does not say why, the log does."""
    assert "measurement" in refusal(broker, Asker(STRANGER), "net-1")


def test_simulated_evidence_gets_no_key_that_is_for_hardware(broker: KeyBroker) -> None:
    """A key whose entry accepts hardware only is not released to simulated evidence, whatever it states."""
    broker.add(key_entry("hard", lineage="hard", accept=(Provenance.HARDWARE,)))
    assert "is simulated, the policy accepts: hardware" in refusal(broker, Asker(), "hard")


@pytest.mark.parametrize("key_id", ["nothing", "", "../master", "net-1/", "x" * 300, "net-1\n"])
def test_a_key_that_is_not_there_is_refused(broker: KeyBroker, key_id: str) -> None:
    """Unknown names are refused and logged, those that are no names too; none reaches a file."""
    assert refusal(broker, Asker(), key_id) == "there is no such key"


def test_a_rollback_is_refused(broker: KeyBroker) -> None:
    """After a version was released, older ones are not; the same and newer ones are."""
    asker = Asker()
    assert asker.ask(broker, "net-2") == b"\x02" * 32
    assert refusal(broker, asker, "net-1") == "rollback: version 1 of net, of which 2 was released already"
    assert asker.ask(broker, "net-2")
    assert asker.ask(broker, "net-3")
    assert "of which 3 was released" in refusal(broker, Asker(), "net-2")
    assert asker.ask(broker, "other-1")


def test_a_rollback_is_refused_after_a_restart(broker: KeyBroker) -> None:
    """The counter is on the disk before the key leaves, so that no restart brings an older version back."""
    Asker().ask(broker, "net-3")
    again = KeyBroker(Store(broker.store.path))
    assert again.state().counter("net") == 3
    assert "rollback" in refusal(again, Asker(), "net-1")
    with pytest.raises(TrustError, match="expected a version of net from 3"):
        again.add(key_entry("net-2b", version=2))


def test_the_counter_is_written_before_the_key_leaves(broker: KeyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log cannot be written, the key is not released."""

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broker.store.log, "append", full)
    with pytest.raises(OSError, match="No space"):
        Asker().ask(broker, "net-1")


def test_a_revoked_key_is_released_to_nobody(broker: KeyBroker) -> None:
    """A revocation holds for those that had the key before, and after a restart; its name is never used again."""
    asker = Asker()
    asker.ask(broker, "net-1")
    broker.revoke_key("net-1", why="leaked")
    assert refusal(broker, asker, "net-1") == "the key was revoked"
    again = KeyBroker(Store(broker.store.path))
    assert refusal(again, Asker(), "net-1") == "the key was revoked"
    with pytest.raises(TrustError, match="it was revoked; give another name"):
        again.add(key_entry("net-1", version=9))
    with pytest.raises(TrustError, match="there is none; there are: net-1, net-2"):
        again.revoke_key("net-9", why="")


def test_a_revoked_enclave_gets_no_key(broker: KeyBroker) -> None:
    """An enclave is revoked by its key's name in the log; others go on."""
    bad, good = Asker(), Asker()
    bad.ask(broker, "net-1")
    broker.revoke_enclave(broker.store.log.entries[-1].enclave, why="stolen")
    assert refusal(broker, bad, "net-1") == "the enclave was revoked"
    assert good.ask(broker, "net-1")
    with pytest.raises(TrustError, match="'net-1': expected the SHA-256 of its key"):
        broker.revoke_enclave("net-1", why="")


def test_an_enclave_that_holds_keys_and_fails_is_revoked(broker: KeyBroker) -> None:
    """An enclave that was given a key and later shows other evidence gets none any more, even with the first again."""
    asker = Asker()
    asker.ask(broker, "net-1")
    asker.attester = STRANGER
    assert "measurement" in refusal(broker, asker, "net-1")
    assert events_of(broker)[-2:] == [("refuse", "net-1"), ("revoke-enclave", "")]
    asker.attester = ATTESTER
    assert refusal(broker, asker, "net-1") == "the enclave was revoked"


def test_an_enclave_that_asks_for_a_key_of_others_is_not_revoked(broker: KeyBroker) -> None:
    """A refusal for a key that an enclave never had says nothing about its integrity: it keeps what it may have."""
    asker = Asker()
    asker.ask(broker, "net-1")
    broker.add(key_entry("tdx", lineage="tdx", reference=ReferenceValues(kind="tdx", accepted=REFERENCE.accepted)))
    assert "expected evidence of kind tdx" in refusal(broker, asker, "tdx")
    assert asker.ask(broker, "net-1")


def test_nobody_is_revoked_by_another_ones_request(broker: KeyBroker) -> None:
    """A request in another enclave's name, which is not signed by it, changes nothing for that enclave."""
    victim = Asker()
    victim.ask(broker, "net-1")
    attacker = Asker(STRANGER)
    forged = dataclasses.replace(attacker.request(broker, "net-1"), enclave_key=victim.identity.spki)
    with pytest.raises(RefusedError):
        broker.release(forged, nonce=NONCE)
    assert broker.store.log.entries[-1].detail == "it is not signed by the key that it names"
    assert broker.store.log.entries[-1].enclave == ""
    assert victim.ask(broker, "net-1")


def test_a_replayed_request_is_refused(broker: KeyBroker) -> None:
    """A request is for one nonce: sent again for another one, it is refused."""
    asker = Asker()
    request = asker.request(broker, "net-1")
    assert broker.release(request, nonce=NONCE)
    with pytest.raises(RefusedError):
        broker.release(request, nonce=os.urandom(32))
    assert broker.store.log.entries[-1].detail == "it is not signed by the key that it names"


@pytest.mark.parametrize("changed", ["key_id", "recipient_key", "evidence"])
def test_a_request_is_of_one_piece(broker: KeyBroker, changed: str) -> None:
    """The key id, the recipient and the evidence of one request cannot be put into another one."""
    asker, other = Asker(), Asker()
    request, foreign = asker.request(broker, "net-1"), other.request(broker, "net-2")
    mixed = dataclasses.replace(request, **{changed: getattr(foreign, changed)})
    with pytest.raises(RefusedError):
        broker.release(mixed, nonce=NONCE)
    assert not any(entry.event == "release" for entry in broker.store.log.entries)


def test_evidence_for_another_request_is_refused(broker: KeyBroker) -> None:
    """Evidence bound to another nonce is refused though the request around it is signed."""
    asker = Asker()
    old = asker.request(broker, "net-1", nonce=bytes(32)).evidence
    binding = asker.request(broker, "net-1").binding(NONCE, broker.store.identity.spki)
    with pytest.raises(RefusedError):
        broker.release(new_request(asker.identity, asker.recipient, old, key_id="net-1", binding=binding), nonce=NONCE)
    assert "not bound" in broker.store.log.entries[-1].detail


def test_the_time_of_appraisal_is_the_callers(broker: KeyBroker) -> None:
    """A broker can decide as of a time."""
    asker = Asker()
    assert broker.release(asker.request(broker, "net-1"), nonce=NONCE, now=datetime(2030, 1, 1, tzinfo=UTC))


def test_reference_values_say_who_may_have_a_key(broker: KeyBroker) -> None:
    """A key is for one kind of evidence; another kind is refused before it is read."""
    broker.add(key_entry("tdx", lineage="tdx", reference=ReferenceValues(kind="tdx", accepted=REFERENCE.accepted)))
    assert "expected evidence of kind tdx" in refusal(broker, Asker(), "tdx")
