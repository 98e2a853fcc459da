"""Gramine, a library OS for Intel SGX: its manifest for a bundle, what a signed enclave measures, and the provider."""

from siniantrust.trust.gramine._manifest import NAME, EnclavePlan, manifest_template
from siniantrust.trust.gramine._sigstruct import parse_sigstruct, reference_toml

__all__ = ["NAME", "EnclavePlan", "manifest_template", "parse_sigstruct", "reference_toml"]
