"""An enclave service that fetches its keys from a broker, and gives them up."""

from __future__ import annotations

import dataclasses

import pytest
from broker_asker import ATTESTER, FREE, NONCE, Asker, client_of, refusal
from remote_cases import LOOPBACK, key_entry, running, spec_for
from trust_parts import CONTEXT

from siniantrust.errors import (
    EnclaveLostError,
    TrustError,
)
from siniantrust.graph import Part
from siniantrust.trust import BrokeredEnclave, launch, seal_part
from siniantrust.trust.broker import BrokerServer, KeyBroker, RefusedError
from siniantrust.trust.broker._request import (
    GivingUp,
    parse_giving_up,
)
from siniantrust.trust.service import EnclaveService, ServiceEnclave
from siniantrust.trust.tls import Address


def test_an_enclave_service_fetches_its_keys(broker: KeyBroker, broker_address: Address, conv_part: Part) -> None:
    """A part sealed under a broker's key runs in a service whose client never holds that key."""
    import numpy as np

    sealed = seal_part(conv_part, key=b"\x02" * 32, context=CONTEXT)
    service = EnclaveService(ATTESTER, LOOPBACK, keys=lambda: client_of(broker_address, broker))
    with running(service) as where:
        enclave = launch(spec_for(where))
        assert isinstance(enclave, BrokeredEnclave)
        enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
        assert enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})["y"].shape == (1, 8, 16, 16)
        with pytest.raises(TrustError, match="its log says why"):
            enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-1", context=CONTEXT)
        broker.add(key_entry("short", lineage="short", key=b"k" * 16))
        with pytest.raises(TrustError, match="the broker's key has 16 bytes, expected 32"):
            enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "short", context=CONTEXT)
        assert enclave.alive
        enclave.close()


def test_an_enclave_that_finds_tampered_weights_ends_and_gives_up_its_keys(
    broker: KeyBroker, broker_address: Address, conv_part: Part
) -> None:
    """The session is over, the broker has revoked it and knows why; another session attests anew and gets the key."""
    sealed = seal_part(conv_part, key=b"\x02" * 32, context=CONTEXT)
    service = EnclaveService(ATTESTER, LOOPBACK, keys=lambda: client_of(broker_address, broker))
    with running(service) as where:
        enclave, neighbour = launch(spec_for(where)), launch(spec_for(where))
        assert isinstance(enclave, BrokeredEnclave)
        assert isinstance(neighbour, BrokeredEnclave)
        neighbour.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
        changed = sealed.sealed[:-1] + bytes([sealed.sealed[-1] ^ 1])
        with pytest.raises(EnclaveLostError, match=r"it ended the session .*'conv': sealed weights: they do not open"):
            enclave.load_brokered("conv", sealed.skeleton, changed, "net-2", context=CONTEXT)
        assert not enclave.alive
        *_, released, revoked = broker.store.log.entries
        assert (released.event, revoked.event) == ("release", "revoke-enclave")
        assert released.enclave == revoked.enclave
        assert "it says itself: part 'conv': sealed weights: they do not open" in revoked.detail
        assert broker.state().is_enclave_revoked(released.enclave)
        neighbour.load_brokered("again", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
        neighbour.close()


def test_a_session_with_keys_that_breaks_its_protocol_gives_them_up(
    broker: KeyBroker, broker_address: Address, conv_part: Part
) -> None:
    """A frame that is none ends a session; it is revoked if it was given a key, and else there is nothing to revoke."""
    sealed = seal_part(conv_part, key=b"\x02" * 32, context=CONTEXT)
    service = EnclaveService(ATTESTER, LOOPBACK, keys=lambda: client_of(broker_address, broker))
    with running(service) as where:
        for has_key in (False, True):
            enclave = launch(spec_for(where))
            assert isinstance(enclave, ServiceEnclave)
            if has_key:
                enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
            before = len(broker.store.log.entries)
            enclave._connection.send(b"no message")
            with pytest.raises(EnclaveLostError, match="it ended the session"):
                enclave.run("conv", {})
            added = [entry.event for entry in broker.store.log.entries[before:]]
            assert added == (["revoke-enclave"] if has_key else [])


def test_a_session_ends_even_where_the_broker_is_gone(broker: KeyBroker, conv_part: Part) -> None:
    """Nobody has to hear that a session gives up its keys: it ends all the same."""
    sealed = seal_part(conv_part, key=b"\x02" * 32, context=CONTEXT)
    server = BrokerServer(broker, LOOPBACK, limits=FREE)
    with running(EnclaveService(ATTESTER, LOOPBACK, keys=lambda: client_of(server.address, broker))) as where:
        enclave = launch(spec_for(where))
        assert isinstance(enclave, ServiceEnclave)
        with running(server):
            enclave.load_brokered("conv", sealed.skeleton, sealed.sealed, "net-2", context=CONTEXT)
        enclave._connection.send(b"no message")
        with pytest.raises(EnclaveLostError, match="it ended the session"):
            enclave.run("conv", {})


def test_nobody_gives_up_in_anothers_name(broker: KeyBroker) -> None:
    """Only an enclave itself, in answer to the broker's nonce, can say that it failed; one without keys has no say."""
    victim, attacker = Asker(), Asker()
    victim.ask(broker, "net-1")
    spki = broker.store.identity.spki
    genuine = GivingUp.by(victim.identity, "why", nonce=NONCE, broker_key=spki)
    forged = dataclasses.replace(
        GivingUp.by(attacker.identity, "why", nonce=NONCE, broker_key=spki), enclave_key=victim.identity.spki
    )
    for notice, nonce in ((forged, NONCE), (genuine, bytes(32)), (dataclasses.replace(genuine, why="x"), NONCE)):
        with pytest.raises(RefusedError):
            broker.give_up(notice, nonce=nonce)
        assert "is not signed by the enclave" in broker.store.log.entries[-1].detail
    with pytest.raises(RefusedError):
        broker.give_up(GivingUp.by(attacker.identity, "why", nonce=NONCE, broker_key=spki), nonce=NONCE)
    assert broker.store.log.entries[-1].detail == "it has nothing to give up"
    assert victim.ask(broker, "net-1")
    assert parse_giving_up(genuine.to_json()) == genuine
    broker.give_up(genuine, nonce=NONCE)
    assert refusal(broker, victim, "net-1") == "the enclave was revoked"
