"""Targets: what a bundle, a key store and a pad ledger consist of, and sealed blobs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bundle_cases import make_case
from fuzz_target import MakeTarget, Target

from siniantrust.bundle import load_bundle, parse_manifest
from siniantrust.bundle._artifacts import ArtifactFile, read_artifacts
from siniantrust.bundle._keys import _parse_public
from siniantrust.bundle._part_file import parse_part_file
from siniantrust.bundle._structure import parse_structure
from siniantrust.errors import BundleError, PlanError, TrustError
from siniantrust.graph import Part, part_digest
from siniantrust.masking.exact import PadLedger
from siniantrust.planner import parse_plan
from siniantrust.trust import Provenance, seal_part, unseal_part
from siniantrust.trust._seal import seal_file, unseal_file
from siniantrust.trust._sealed_data import SealedData, SealOrigin
from siniantrust.trust._sealing import DerivedSealing, open_data, seal_data

_KEY, _CONTEXT = b"k" * 32, b"context"
_SESSION = b"s" * 16


def _part(folder: Path) -> Part:
    """Return the first part of a small bundle that runs on a device."""
    case = make_case(folder)
    loaded = load_bundle(case.build(folder / "deploy"), keystore=case.keystore)
    return next(part for part in loaded.parts if isinstance(part, Part))


def _sealed(folder: Path, half: str) -> Target:
    sealed = seal_part(_part(folder), key=_KEY, context=_CONTEXT)

    def read(raw: bytes) -> None:
        halves = {"skeleton": sealed.skeleton, "sealed": sealed.sealed} | {half: raw}
        unseal_part(**halves, key=_KEY, context=_CONTEXT)

    return Target(read, (getattr(sealed, half),), refusals=(TrustError,))


def _sealed_file(_: Path) -> Target:
    sealed = seal_file(b"plain" * 20, key=_KEY, key_id="k1")
    return Target(partial(unseal_file, key=_KEY, key_id="k1"), (sealed,), refusals=(TrustError,))


def _sealed_data(_: Path) -> Target:
    """Return a target that opens data which an enclave sealed."""
    sealing = DerivedSealing(_KEY, measurement="m")
    origin = SealOrigin("process", Provenance.SIMULATED, "m")
    kept, ciphertext = seal_data(sealing, b"data", origin=origin.to_json(), context=_CONTEXT)

    def read(raw: bytes) -> None:
        found = SealedData.from_bytes(raw)
        sealed = memoryview(bytearray(found.ciphertext))
        open_data(sealing, sealed, kept=found.kept, origin=found.origin.to_json(), context=_CONTEXT)

    return Target(read, (SealedData(origin, kept, ciphertext).to_bytes(),), refusals=(TrustError,))


def _file(folder: Path, path: str) -> Target:
    """Return a target that reads one file of a bundle, whatever the manifest says of it."""
    case = make_case(folder)
    genuine = (case.build(folder / "deploy") / path).read_bytes()
    readers: dict[str, Callable[[bytes], object]] = {
        "manifest.json": partial(parse_manifest, origin="manifest.json"),
        "plan.json": partial(parse_plan, origin="plan.json"),
        "structure.json": partial(parse_structure, origin="structure.json"),
        "part1/part.json": partial(parse_part_file, origin="part.json"),
    }
    return Target(readers[path], (genuine,), refusals=(BundleError, PlanError), form=None)


def _artefact(folder: Path) -> Target:
    part = _part(folder)
    described = ArtifactFile(
        backend="openvino", version="1", target="x86_64", part=part.name, part_sha256=part_digest(part)
    )

    def read(raw: bytes) -> None:
        files = {f"{part.name}/ahead/0.json": raw, f"{part.name}/ahead/0.bin": b"code"}
        read_artifacts(files, part, origin="bundle")

    return Target(read, (described.model_dump_json().encode(),), refusals=(BundleError,), form=None)


def _signed(folder: Path, path: str) -> Target:
    """Return a target that loads a whole bundle in which one file is another one."""
    case = make_case(folder)
    deploy = case.build(folder / "deploy")
    genuine = (deploy / path).read_bytes()

    def read(raw: bytes) -> None:
        (deploy / path).write_bytes(raw)
        load_bundle(deploy, keystore=case.keystore)

    return Target(read, (genuine,), refusals=(BundleError,))


def _signing_key(folder: Path) -> Target:
    case = make_case(folder)
    case.build(folder / "deploy")
    path = case.keystore.path / "signing.pem"

    def read(raw: bytes) -> None:
        path.write_bytes(raw)
        case.keystore.signing_key()

    return Target(read, (path.read_bytes(),), refusals=(TrustError,), form=None)


def _trusted_key(folder: Path) -> Target:
    case = make_case(folder)
    return Target(
        partial(_parse_public, origin="key"), (case.keystore.public_key_pem(),), refusals=(TrustError,), form=None
    )


def _ledger(folder: Path) -> Target:
    path = folder / "ledger"
    ledger = PadLedger.create(path, session=_SESSION, key=_KEY)
    for _ in range(700):
        ledger.take()
    stretches = ledger.stretches
    ledger.close()
    genuine = path.read_bytes()

    def read(raw: bytes) -> None:
        path.write_bytes(raw)
        PadLedger.reopen(path, session=_SESSION, key=_KEY, at_least=stretches).close()

    # What a crash left of a record is dropped.
    return Target(read, (genuine,), refusals=(TrustError,), form=lambda raw: raw[: len(genuine)])


BUNDLE: dict[str, MakeTarget] = {
    "sealed weights": partial(_sealed, half="sealed"),
    "skeleton of sealed weights": partial(_sealed, half="skeleton"),
    "sealed file": _sealed_file,
    "data that an enclave sealed": _sealed_data,
    **{
        f"bundle's {path}": partial(_file, path=path)
        for path in ("manifest.json", "plan.json", "structure.json", "part1/part.json")
    },
    "bundle's artefact": _artefact,
    **{
        f"signed bundle with another {path}": partial(_signed, path=path)
        for path in ("manifest.json", "manifest.sig", "plan.json", "part1/model.onnx", "part1/weights.sealed")
    },
    "signing key": _signing_key,
    "trusted builder's key": _trusted_key,
    "pad ledger": _ledger,
}
