"""The enclave service: parts that run inside a TEE of any kind, behind TLS whose key the TEE's evidence vouches for."""

from siniantrust.trust.service._client import ServiceEnclave
from siniantrust.trust.service._server import EnclaveService

__all__ = ["EnclaveService", "ServiceEnclave"]
