"""TPM 2.0: the quote of a machine's TPM, over the register that measurements go to by default."""

from __future__ import annotations

from siniantrust.trust.attestation.tpm2 import Tpm2Verifier

VERIFIER = Tpm2Verifier()
