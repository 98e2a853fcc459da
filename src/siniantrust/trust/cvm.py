"""A confidential virtual machine (Intel TDX, AMD SEV-SNP): the enclave service runs inside the guest.

Untested on hardware.
"""

from __future__ import annotations

from typing import ClassVar

from siniantrust.trust.service import ServiceEnclave


class CvmEnclave(ServiceEnclave):
    """The enclave service in a guest; its evidence is the guest's report."""

    kinds: ClassVar[tuple[str, ...]] = ("tdx", "sev-snp")
