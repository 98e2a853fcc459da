"""A broker's store: its owner's only, never written over, and refused where it was altered."""

from __future__ import annotations

import dataclasses
import json
import stat
from pathlib import Path

import pytest
from remote_cases import key_entry

from siniantrust.errors import (
    TrustError,
)
from siniantrust.trust.broker import KeyBroker, Store


def test_a_store_is_its_owners_only(broker: KeyBroker) -> None:
    """Folders have mode 0700 and files 0600, and keys are not in the clear in any of them."""
    for path in (broker.store.path, *broker.store.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        if path.is_file():
            assert b"\x02" * 32 not in path.read_bytes()
            assert ("02" * 32).encode() not in path.read_bytes()


@pytest.mark.parametrize("name", ["", "master.key", "identity.pem", "keys/net-1.json"])
def test_a_store_that_others_may_read_is_refused(broker: KeyBroker, name: str) -> None:
    """A folder or file with a wider mode is refused, with the command that mends it."""
    path = broker.store.path / name
    path.chmod(path.stat().st_mode | 0o040)
    with pytest.raises(TrustError, match=r"run: chmod [67]00"):
        Store(broker.store.path).get("net-1")


def test_a_store_is_not_made_twice(broker: KeyBroker, tmp_path: Path) -> None:
    """A store is made where nothing is, and opened where one is."""
    with pytest.raises(TrustError, match="something is there already"):
        Store.create(broker.store.path)
    with pytest.raises(TrustError, match="there is no store; make one with: sinian keys init"):
        Store(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrustError, match="cannot be written"):
        Store.create(tmp_path / "file" / "broker")


def test_a_key_is_never_replaced(broker: KeyBroker) -> None:
    """A name is given once."""
    with pytest.raises(TrustError, match="there already and never replaced"):
        broker.add(key_entry("net-1", version=5))


@pytest.mark.parametrize("field", ["version", "lineage", "reference", "accept", "sealed", "key_id"])
def test_an_altered_key_file_is_refused(broker: KeyBroker, field: str) -> None:
    """What a key may be released for is sealed with it: a changed field refuses the key."""
    path = broker.store.path / "keys" / "net-1.json"
    fields = json.loads(path.read_bytes())
    changed = {
        "version": 9,
        "lineage": "other",
        "reference": {**fields["reference"], "kind": "tdx"},
        "accept": ["hardware", "simulated"],
        "sealed": fields["sealed"][:-2] + "00",
        "key_id": "net-2",
    }
    path.write_text(json.dumps({**fields, field: changed[field]}))
    with pytest.raises(TrustError, match="it was altered, or sealed by another broker"):
        broker.store.get("net-1")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sealed": 1}', "[" * 10_000])
def test_a_key_file_that_is_none_is_refused(broker: KeyBroker, text: str) -> None:
    """A key file of another form is refused."""
    (broker.store.path / "keys" / "net-1.json").write_text(text)
    with pytest.raises(TrustError, match="it was altered"):
        broker.store.get("net-1")


def test_a_key_file_in_anothers_place_is_refused(broker: KeyBroker) -> None:
    """A key's file is good under its own name only."""
    keys = broker.store.path / "keys"
    (keys / "net-1.json").write_bytes((keys / "net-2.json").read_bytes())
    with pytest.raises(TrustError, match="it is the file of net-2"):
        broker.store.get("net-1")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"key_id": "a/b"}, "expected a name"),
        ({"key_id": ""}, "expected a name"),
        ({"lineage": ".hidden"}, "expected a name"),
        ({"version": 0}, "expected a version from 1, found 0"),
        ({"key": b""}, "expected 1 to 4096 bytes, found 0"),
        ({"key": bytes(4097)}, "found 4097"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(changes: dict[str, object], match: str) -> None:
    """Names that are paths, versions below 1 and keys without bytes are refused."""
    with pytest.raises(TrustError, match=match):
        dataclasses.replace(key_entry(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [("master.key", b"short", "expected 32 bytes, found 5"), ("identity.pem", b"x", "expected a P-256 private key")],
)
def test_a_store_with_other_files_is_refused(broker: KeyBroker, name: str, data: bytes, match: str) -> None:
    """A master key or TLS key of another form is refused."""
    (broker.store.path / name).write_bytes(data)
    with pytest.raises(TrustError, match=match):
        Store(broker.store.path)


def test_another_master_key_opens_nothing(broker: KeyBroker) -> None:
    """With another master key not even the log's head is believed."""
    (broker.store.path / "master.key").write_bytes(bytes(32))
    with pytest.raises(TrustError, match="this broker did not write it"):
        Store(broker.store.path)
