"""Targets: what the key broker reads from the network and from its disk, and what its client reads."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from fuzz_target import MakeTarget, Target
from remote_cases import key_entry

from siniantrust.errors import AttestationError, ChannelError, TrustError
from siniantrust.trust.attestation import EvidenceBundle
from siniantrust.trust.broker import Store
from siniantrust.trust.broker._client import _nonce
from siniantrust.trust.broker._jwe import decrypt_key, encrypt_key
from siniantrust.trust.broker._log import HEAD, LOG, DecisionLog
from siniantrust.trust.broker._request import (
    GivingUp,
    new_request,
    parse_giving_up,
    parse_request,
    request_binding,
)
from siniantrust.trust.tls import Identity

_LOG_KEY = b"l" * 32


def _request(_: Path) -> Target:
    enclave, recipient = Identity.fresh(), Identity.fresh()
    nonce, broker = b"n" * 32, b"the broker's key"
    binding = request_binding(nonce, broker, key_id="k1", enclave_key=enclave.spki, recipient_key=recipient.spki)
    evidence = EvidenceBundle(kind="sgx", body=b"body", endorsements={"collateral": b"{}"})
    genuine = new_request(enclave, recipient, evidence, key_id="k1", binding=binding)

    def read(raw: bytes) -> None:
        request = parse_request(raw)
        if not request.is_signed(request.binding(nonce, broker)):
            raise TrustError("not signed")

    def form(raw: bytes) -> object:  # the signature is not over the evidence, which is bound to the same
        fields = parse_request(raw)
        return fields.key_id, fields.enclave_key, fields.recipient_key, fields.signature

    return Target(read, (genuine.to_json(),), refusals=(ChannelError, AttestationError, TrustError), form=form)


def _giving_up(_: Path) -> Target:
    nonce, broker = b"n" * 32, b"the broker's key"
    genuine = GivingUp.by(Identity.fresh(), "why", nonce=nonce, broker_key=broker)

    def read(raw: bytes) -> None:
        if not parse_giving_up(raw).is_signed(nonce, broker):
            raise TrustError("not signed")

    return Target(read, (genuine.to_json(),), refusals=(ChannelError, TrustError), form=parse_giving_up)


def _client_nonce(_: Path) -> Target:
    return Target(
        lambda raw: _nonce(bytearray(raw)),
        (json.dumps({"nonce": "ab" * 32}).encode(),),
        refusals=(ChannelError,),
        form=None,
    )


def _jwe(_: Path) -> Target:
    recipient = Identity.fresh()
    token = encrypt_key(b"k" * 32, recipient.key.public_key(), key_id="k1").encode()

    def form(raw: bytes) -> object:  # the last letter of a part may have bits that stand for nothing
        return [base64.urlsafe_b64decode(part + b"==") for part in raw.split(b".")]

    return Target(
        lambda raw: decrypt_key(raw.decode("latin-1"), recipient.key, key_id="k1"),
        (token,),
        refusals=(TrustError,),
        form=form,
    )


def _log(folder: Path, name: str) -> Target:
    DecisionLog.create(folder, key=_LOG_KEY)
    log = DecisionLog(folder, key=_LOG_KEY)
    with log.exclusive():
        for version in (1, 2):
            log.append("add", key_id=f"k{version}", lineage="net", version=version)
            log.append("release", key_id=f"k{version}", enclave="e" * 64, lineage="net", version=version)
        log.append("revoke-key", key_id="k1", detail="tests")
    files = {each: (folder / each).read_bytes() for each in (LOG, HEAD)}
    lines = files[LOG].count(b"\n")

    def read(raw: bytes) -> None:
        for each, data in files.items():
            (folder / each).write_bytes(raw if each == name else data)
        DecisionLog(folder, key=_LOG_KEY)

    def form(raw: bytes) -> object:
        if name == HEAD:
            return raw.strip()
        return raw.split(b"\n")[:lines]  # a line that a crash left unfinished is dropped

    return Target(read, (files[name],), refusals=(TrustError,), form=form)


def _key_file(folder: Path) -> Target:
    store = Store.create(folder / "broker")
    store.put(key_entry())
    path = store.path / "keys" / "k1.json"

    def read(raw: bytes) -> None:
        path.write_bytes(raw)
        store.get("k1")

    return Target(read, (path.read_bytes(),), refusals=(TrustError,), form=json.loads)


def _identity_pem(_: Path) -> Target:
    return Target(
        lambda raw: Identity.from_pem(raw, origin="identity.pem"),
        (Identity.fresh().key_pem(),),
        (TrustError,),
        form=None,
    )


BROKER: dict[str, MakeTarget] = {
    "key request": _request,
    "notice of giving up": _giving_up,
    "key broker's nonce": _client_nonce,
    "key broker's answer (JWE)": _jwe,
    "key broker's log": lambda folder: _log(folder, LOG),
    "key broker's log head": lambda folder: _log(folder, HEAD),
    "key broker's key file": _key_file,
    "key broker's identity": _identity_pem,
}
