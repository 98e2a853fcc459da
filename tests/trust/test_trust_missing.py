from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from siniantrust.errors import EnclaveError
from siniantrust.trust._protections import PROTECTIONS, require
from siniantrust.trust.process import _seccomp

_ALL_ACTIVE = {protection.name: "active" for protection in PROTECTIONS}


def _launch_hampered(*allow_missing: str) -> str:
    program = Path(__file__).with_name("hampered_launcher.py")
    done = subprocess.run(
        [sys.executable, str(program), *allow_missing], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


@pytest.fixture(autouse=True)
def _whole_host(allow_missing: tuple[str, ...]) -> None:
    if allow_missing:
        pytest.skip(f"this host itself lacks {', '.join(allow_missing)}")


def test_what_the_kernel_refuses_is_named_and_refused() -> None:
    """On a kernel without Landlock, memfd_secret and namespaces, the launch is refused and names all three."""
    said = _launch_hampered()
    assert said.startswith("refused ")
    assert 'allow_missing = ["landlock", "namespaces", "secret_memory"]' in said
    for word in ("Function not implemented", "Operation not permitted", "could open files", "read the keys"):
        assert word in said


def test_allowing_some_is_not_enough() -> None:
    """Allowing two of three missing protections still refuses, and names the third."""
    said = _launch_hampered("landlock", "namespaces")
    assert said.startswith("refused ")
    assert "secret_memory (" in said
    assert "landlock (" not in said


def test_allowed_it_launches_and_reports_what_is_missing() -> None:
    """With all three allowed, the enclave launches and says that it lacks them."""
    said = _launch_hampered("landlock", "namespaces", "secret_memory")
    assert said == "launched without landlock namespaces secret_memory"


@pytest.mark.parametrize("name", sorted(_ALL_ACTIVE))
def test_each_protection_is_required(name: str) -> None:
    """A missing, failed or unreported protection is refused, whichever it is."""
    require(_ALL_ACTIVE, allow_missing=())
    unreported = {other: state for other, state in _ALL_ACTIVE.items() if other != name}
    for states in (unreported, {**_ALL_ACTIVE, name: "missing: gone"}, {**_ALL_ACTIVE, name: ""}):
        with pytest.raises(EnclaveError, match=rf"{name} \(.*allow_missing = \[\"{name}\"\]"):
            require(states, allow_missing=())
        require(states, allow_missing=(name,))


def test_without_pyseccomp_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyseccomp is not installed, the reason is the line that installs it."""
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(OSError, match=r"pip install 'siniantrust\[enclave\]'"):
        _seccomp.load_library()
