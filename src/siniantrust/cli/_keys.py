"""Commands of the key broker: keys init, serve, add, list, revoke, log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siniantrust.cli._options import BrokerStore, BundleFolder, Json, Keys, Lineage, ReferenceFile, Version
from siniantrust.cli._show import show_json, show_line, show_table

if TYPE_CHECKING:
    from siniantrust.trust.broker import KeyBroker

keys_app = typer.Typer(
    name="keys",
    help="A key broker: releases keys to enclaves whose evidence matches, and logs every decision.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


def store_path(store: Path | None) -> Path:
    """Return the broker's folder: the one given, or ``broker`` in the owner's key store."""
    from siniantrust.bundle import KeyStore

    return KeyStore().path / "broker" if store is None else store


def open_broker(store: Path | None) -> KeyBroker:
    """Open the broker over its store."""
    from siniantrust.trust.broker import KeyBroker, Store

    return KeyBroker(Store(store_path(store)))


@keys_app.command()
def init(*, store: BrokerStore = None) -> None:
    """Make the broker's folder, with a fresh master key and a fresh TLS key."""
    from siniantrust.trust.broker import Store
    from siniantrust.trust.tls import fingerprint

    made = Store.create(store_path(store))
    show_line(f"key broker in {made.path}; its key is {fingerprint(made.identity.spki)}")


@keys_app.command()
def serve(
    *,
    store: BrokerStore = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 picks a free one.")
    ] = "127.0.0.1:7444",
) -> None:
    """Appraise evidence and release keys until stopped."""
    from siniantrust.trust.broker import BrokerServer
    from siniantrust.trust.tls import fingerprint, parse_address

    broker = open_broker(store)
    server = BrokerServer(broker, parse_address(listen))
    show_line(f"key broker at {server.address}; its key is {fingerprint(broker.store.identity.spki)}")
    try:
        server.run()
    finally:
        server.close()


@keys_app.command()
def add(
    bundle: BundleFolder,
    *,
    reference: ReferenceFile,
    store: BrokerStore = None,
    keys: Keys = None,
) -> None:
    """Add the weight key of a bundle, with its version, for enclaves whose evidence matches the reference values."""
    from siniantrust.bundle import KeyStore, load_bundle

    keystore = KeyStore(keys)
    loaded = load_bundle(bundle, keystore=keystore)
    lineage, version = loaded.manifest.lineage, loaded.manifest.version
    key = keystore.weight_key(loaded.id)
    add_key(store, loaded.id, key, reference=reference, lineage=lineage, version=version)
    show_line(f"key {loaded.id} added: version {version} of {lineage}")


@keys_app.command()
def put(
    key_id: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The key itself, as bytes.")],
    *,
    reference: ReferenceFile,
    lineage: Lineage,
    version: Version = 1,
    store: BrokerStore = None,
) -> None:
    """Add a key from a file, for example the one that Gramine's encrypted files were made with."""
    add_key(store, key_id, file.read_bytes(), reference=reference, lineage=lineage, version=version)
    show_line(f"key {key_id} added: version {version} of {lineage}")


def add_key(store: Path | None, key_id: str, key: bytes, *, reference: Path, lineage: str, version: int) -> None:
    """Put a key into the broker's store, for enclaves that match the reference values in a file."""
    from siniantrust.trust.attestation import load_reference
    from siniantrust.trust.broker import KeyEntry

    given = load_reference(reference)
    accept = tuple(sorted(given.accept))
    entry = KeyEntry(key_id=key_id, lineage=lineage, version=version, reference=given.values, accept=accept, key=key)
    open_broker(store).add(entry)


@keys_app.command("list")
def list_keys(*, store: BrokerStore = None, as_json: Json = False) -> None:
    """List the keys, to whom they may go, and what the counters say."""
    broker = open_broker(store)
    state = broker.state()
    entries = [entry for key_id in broker.store.key_ids() if (entry := broker.store.get(key_id)) is not None]
    rows = [
        {
            "key_id": entry.key_id,
            "lineage": entry.lineage,
            "version": entry.version,
            "counter": state.counter(entry.lineage),
            "kind": entry.reference.kind,
            "accept": [str(each) for each in entry.accept],
            "revoked": state.is_key_revoked(entry.key_id),
        }
        for entry in entries
    ]
    if as_json:
        show_json(rows)
        return
    show_table(
        ("key", "lineage", "version#", "released up to#", "evidence", "from", "revoked"),
        (
            (
                *(str(row[name]) for name in ("key_id", "lineage", "version", "counter", "kind")),
                ", ".join(map(str, entry.accept)),
                "yes" if row["revoked"] else "",
            )
            for row, entry in zip(rows, entries, strict=True)
        ),
    )


@keys_app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A key; or an enclave's key (SHA-256), with --enclave.")],
    *,
    enclave: Annotated[bool, typer.Option("--enclave", help="Revoke an enclave, as the log names it.")] = False,
    why: Annotated[str, typer.Option(help="Reason, for the log.")] = "",
    store: BrokerStore = None,
) -> None:
    """Release a key to nobody, or no key to an enclave, from now on and for ever."""
    broker = open_broker(store)
    if enclave:
        broker.revoke_enclave(name, why=why)
    else:
        broker.revoke_key(name, why=why)
    show_line(f"{'enclave' if enclave else 'key'} {name} revoked")


@keys_app.command("log")
def show_log(*, store: BrokerStore = None, as_json: Json = False) -> None:
    """Check the log's chain and show every decision; the last line's hash is what to keep elsewhere."""
    entries = open_broker(store).store.log.entries
    if as_json:
        show_json([asdict(entry) for entry in entries])
        return
    show_table(
        ("#", "time", "event", "key", "enclave", "version", "detail"),
        (
            (
                str(entry.number),
                entry.time,
                entry.event,
                entry.key_id,
                entry.enclave[:16],
                f"{entry.lineage} {entry.version}" if entry.version else "",
                entry.detail,
            )
            for entry in entries
        ),
    )
    show_line(f"{len(entries)} entries, unbroken; last hash {entries[-1].hash if entries else '-'}")
