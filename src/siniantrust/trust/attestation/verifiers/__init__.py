"""Verifiers, one file each, named for the kind: a module whose ``VERIFIER`` follows the protocol ``Verifier``."""
