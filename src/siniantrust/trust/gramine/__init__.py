"""Gramine, a library OS for Intel SGX: its manifest for a bundle, and the enclave service inside."""
