"""Every parser of evidence, tokens, frames and sealed blobs: no crash, no hang, no acceptance."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_broker import BROKER
from fuzz_bundle import BUNDLE
from fuzz_evidence import EVIDENCE
from fuzz_links import LINKS
from fuzz_target import MakeTarget, attempt, fuzz
from fuzz_tpm import TPM

TARGETS: dict[str, MakeTarget] = {**EVIDENCE, **TPM, **BROKER, **BUNDLE, **LINKS}

# cryptography warns of serial numbers that a spoilt certificate may have; it is refused all the same.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


@pytest.mark.parametrize("name", TARGETS)
def test_no_spoilt_input_is_accepted(name: str, tmp_path: Path) -> None:
    """Whatever arrives is read or refused with the reader's own kind of error, in one line and in time: 300 inputs."""
    target = TARGETS[name](tmp_path)
    for seed in target.seeds:
        attempt(target, seed)
    fuzz(target, 300)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TARGETS)
def test_no_spoilt_input_is_accepted_in_100_000(name: str, tmp_path: Path) -> None:
    """The same for 100,000 inputs."""
    fuzz(TARGETS[name](tmp_path), 100_000)
