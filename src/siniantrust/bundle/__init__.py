"""The deployable folder: parts, plan, hashes, signature and sealed weights."""

from siniantrust.bundle._build import build_bundle
from siniantrust.bundle._keys import KeyStore, fingerprint
from siniantrust.bundle._load import Bundle, TrustedPart, load_bundle
from siniantrust.bundle._manifest import FileEntry, Manifest, parse_manifest
from siniantrust.bundle._masked_part import MaskedPart
from siniantrust.bundle._quantised import Quantised
from siniantrust.bundle._triton import export_triton
from siniantrust.bundle._versions import admit, default_lineage, newest_version, set_up_tpm

__all__ = [
    "Bundle",
    "FileEntry",
    "KeyStore",
    "Manifest",
    "MaskedPart",
    "Quantised",
    "TrustedPart",
    "admit",
    "build_bundle",
    "default_lineage",
    "export_triton",
    "fingerprint",
    "load_bundle",
    "newest_version",
    "parse_manifest",
    "set_up_tpm",
]
