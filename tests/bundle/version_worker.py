"""A process that opens one version after the other, until it is killed."""

from __future__ import annotations

import itertools
from multiprocessing.connection import Connection
from pathlib import Path

from siniantrust.bundle import KeyStore, admit, newest_version


def admit_for_ever(path: Path, acknowledged: Connection) -> None:
    """Admit versions, and say each that was admitted."""
    keystore = KeyStore(path)
    for version in itertools.count(newest_version(keystore, "net") + 1):
        admit(keystore, lineage="net", version=version)
        acknowledged.send(version)
