from __future__ import annotations

import pytest

from siniantrust.trust.attestation.tpm2._codes import refusal


@pytest.mark.parametrize(
    ("raw", "words", "code"),
    [
        (0x99D, "policy not satisfied (session 1)", 0x1D),
        (0x18B, "nothing lives under this handle (handle 1)", 0x0B),
        (0x2C4, "value out of range (parameter 2)", 0x04),
        (0x14C, "NV index already defined", 0x14C),
        (0x921, "in dictionary-attack lockout", 0x921),
        (0x922, "busy; try again", 0x922),
        (0xB0143, "command not implemented", 0x143),
        (0x17F, "error without a name", 0x17F),
        (0x97F, "warning without a name", 0x97F),
        (0x1BF, "error without a name (handle 1)", 0x3F),
    ],
)
def test_a_response_code_is_told_in_words(raw: int, words: str, code: int) -> None:
    """Number, meaning and place of a response code are in the error, and software can tell it by its code."""
    error = refusal("QUOTE", raw)
    assert str(error) == f"TPM: it refused QUOTE: {words}; response code {raw:#x}"
    assert error.code == code
