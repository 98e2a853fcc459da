"""What the tests of the TPM share: emulated TPMs, an authority that certifies them, and a deployment over one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tpm_world import Authority, World, certified_attester, make_world, need

from siniantrust.trust.attestation.tpm2 import Swtpm, Tpm


@pytest.fixture
def emulator() -> Iterator[Swtpm]:
    """Return a new emulated TPM."""
    need("swtpm")
    with Swtpm() as running:
        yield running


@pytest.fixture
def tpm(emulator: Swtpm) -> Iterator[Tpm]:
    """Return a connection to it."""
    with Tpm(emulator.where, timeout_s=30) as connection:
        yield connection


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Return a maker of TPMs that the tests' Relying Parties trust."""
    return Authority("maker")


@pytest.fixture
def world(tpm: Tpm, authority: Authority) -> World:
    """Return an enrolled Attester with measurements, and what a Relying Party expects of it."""
    return make_world(certified_attester(tpm, authority), {"emulated:maker": authority.root})


@pytest.fixture(scope="session")
def shared_world(authority: Authority) -> Iterator[World]:
    """Return a world for the tests that only read from it."""
    need("swtpm")
    with Swtpm() as running, Tpm(running.where, timeout_s=30) as connection:
        yield make_world(certified_attester(connection, authority), {"emulated:maker": authority.root})


@pytest.fixture(scope="session")
def manufactured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tpm, Path]]:
    """Return a TPM that swtpm's own tools made and certified, and the folder of the authority."""
    need("swtpm", "swtpm_setup", "swtpm_localca")
    folder = tmp_path_factory.mktemp("authority")
    with Swtpm(authority=folder) as running, Tpm(running.where, timeout_s=60) as connection:
        yield connection, folder
