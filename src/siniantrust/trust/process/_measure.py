"""The enclave's measurement, and the reference value that a Verifier expects of it.

A measurement is SHA-256 over the enclave's program, the versions of what it runs on and its configuration. The enclave
(Attester) hashes the files of the modules that it has loaded; the Verifier hashes the files in its own list, so that a
module too many, a module too few and a changed byte all differ. Third-party libraries count by version, not by
content, and Python's byte-code caches are taken to be true to their sources.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from siniantrust.trust._evidence import ReferenceValues
from siniantrust.trust._types import EnclaveSpec
from siniantrust.trust.process._common import PROVIDER

PROGRAM: tuple[str, ...] = (
    "siniantrust.errors",
    "siniantrust.masking.exact._arena",
    "siniantrust.masking.exact._field",
    "siniantrust.masking.exact._finish",
    "siniantrust.masking.exact._joined",
    "siniantrust.masking.exact._layer",
    "siniantrust.masking.exact._native",
    "siniantrust.masking.exact._pads",
    "siniantrust.masking.exact._passes",
    "siniantrust.masking.exact._pool",
    "siniantrust.masking.exact._program_body",
    "siniantrust.masking.exact._program_file",
    "siniantrust.masking.exact._query",
    "siniantrust.masking.exact._ring",
    "siniantrust.masking.exact._stages",
    "siniantrust.masking.exact._stock",
    "siniantrust.masking.exact._trusted",
    "siniantrust.masking.exact._uses",
    "siniantrust.masking.exact._verify",
    "siniantrust.masking.exact._wire",
    "siniantrust.masking.exact.resident",
    "siniantrust.trust._channel",
    "siniantrust.trust._cipher",
    "siniantrust.trust._codec",
    "siniantrust.trust._evidence",
    "siniantrust.trust._handshake",
    "siniantrust.trust._labels",
    "siniantrust.trust._protections",
    "siniantrust.trust._sealed",
    "siniantrust.trust._sealing",
    "siniantrust.trust._secret",
    "siniantrust.trust._types",
    "siniantrust.trust.process._boot",
    "siniantrust.trust.process._common",
    "siniantrust.trust.process._landlock",
    "siniantrust.trust.process._limits",
    "siniantrust.trust.process._measure",
    "siniantrust.trust.process._namespaces",
    "siniantrust.trust.process._noise",
    "siniantrust.trust.process._parts",
    "siniantrust.trust.process._prelude",
    "siniantrust.trust.process._program",
    "siniantrust.trust.process._sandbox",
    "siniantrust.trust.process._seccomp",
    "siniantrust.trust.process._serve",
)
LIBRARIES = ("cryptography", "numpy", "onnxruntime")
_BOOT = "siniantrust.trust.process._boot"
_PACKAGE = Path(__file__).resolve().parents[2]
# Compiled passes, loaded without Python's import system; an installation made without a C compiler has none.
_COMPILED = "siniantrust.masking.exact._kernels"


def _measurement(code: Mapping[str, str], versions: Mapping[str, str], configuration: Mapping[str, int]) -> str:
    whole = {"code": dict(code), "versions": dict(versions), "configuration": dict(configuration)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _python() -> str:
    return f"{sys.implementation.name} {sys.version}"


def measure_self(configuration: Mapping[str, int]) -> str:
    """Measure the process that calls this, as the Attester; the script it was started with counts as the boot file."""
    files = {_BOOT: sys.modules["__main__"].__file__}
    for name, module in list(sys.modules.items()):
        if name.startswith("siniantrust") and getattr(module, "__file__", None):
            files[name] = module.__file__
    code = _compiled() | {name: _digest(Path(str(file))) for name, file in files.items()}
    versions = {name: str(sys.modules[name].__version__) for name in LIBRARIES}
    return _measurement(code, {**versions, "python": _python()}, configuration)


def reference_values(spec: EnclaveSpec) -> ReferenceValues:
    """Compute what to expect of an enclave, as the Verifier, from the files and libraries that it has itself."""
    code = _compiled() | {name: _digest(_place(name).with_suffix(".py")) for name in PROGRAM}
    versions = {name: str(import_module(name).__version__) for name in LIBRARIES}
    configuration = {"memory_bytes": spec.memory_bytes, "threads": spec.threads}
    return ReferenceValues(PROVIDER, _measurement(code, {**versions, "python": _python()}, configuration))


def _compiled() -> dict[str, str]:
    file = _place(_COMPILED).with_suffix(EXTENSION_SUFFIXES[0])
    return {_COMPILED: _digest(file)} if file.is_file() else {}


def _place(name: str) -> Path:
    return _PACKAGE.joinpath(*name.split(".")[1:])


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
