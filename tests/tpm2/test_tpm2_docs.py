from __future__ import annotations

import re
from pathlib import Path

from siniantrust.trust.attestation.tpm2 import Swtpm

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "attestation-tpm.md"


def test_the_page_does_what_it_shows(emulator: Swtpm) -> None:
    """The page's program runs from its first to its last line; only the place of the TPM is another."""
    program = "\n".join(re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL))
    assert "tpm = Tpm()" in program
    names: dict[str, object] = {}
    exec(program.replace("Tpm()", f"Tpm({emulator.where!r})"), names)  # noqa: S102 - the program is the page's own
    assert len(names["key"]) == 32  # type: ignore[arg-type]
    names["tpm"].close()  # type: ignore[attr-defined]
