"""An SGX enclave of Gramine that runs the enclave service. Untested on hardware."""

from __future__ import annotations

from typing import ClassVar

from siniantrust.trust.service import ServiceEnclave


class GramineEnclave(ServiceEnclave):
    """The enclave service in Gramine; its evidence is an SGX quote."""

    kinds: ClassVar[tuple[str, ...]] = ("sgx",)
