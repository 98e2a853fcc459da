"""Loading a bundle: nothing of it is used before its signature, its files and its plan are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from cryptography.exceptions import InvalidSignature
from google.protobuf.message import DecodeError

from siniantrust._files import sha256_bytes
from siniantrust.bundle._artifacts import read_artifacts
from siniantrust.bundle._audit_files import check_audit
from siniantrust.bundle._build import seal_context
from siniantrust.bundle._keys import KeyStore
from siniantrust.bundle._manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    SIGNATURE_BYTES,
    Manifest,
    parse_manifest,
)
from siniantrust.bundle._masked_part import HEAD, MaskedPart, load_masked
from siniantrust.bundle._part_file import parse_part_file
from siniantrust.bundle._read_once import list_files, open_folder, read_file, read_listed
from siniantrust.bundle._structure import parse_structure, restore_tensor
from siniantrust.errors import BundleError, ModelError, PlanError
from siniantrust.graph import Model, Part, Tensor, part_from_proto
from siniantrust.leakage import Audit
from siniantrust.odla import Artifact
from siniantrust.planner import Masking, Plan, PlannedPart, enclave_bytes, find_violations, parse_plan


@dataclass(frozen=True)
class TrustedPart:
    """A part for the enclave: ``enclave.load(name, skeleton, sealed, key, context=context)``.

    Where layers of it run under pads, the skeleton is a program's head, and ``masked`` says what is to be relayed.
    """

    name: str
    skeleton: bytes = field(repr=False)
    sealed: bytes = field(repr=False)
    context: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch_symbol: str | None
    masked: MaskedPart | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte was checked. ``parts`` are in the plan's order, untrusted ones as ``graph.Part``.

    ``artifacts`` holds, by name of an untrusted part, what was compiled ahead of time from it; ``enclave_bytes`` says
    what the trusted parts hold at once.

    The weight key is not part of it: ask ``KeyStore.weight_key(bundle.id)`` when an enclave has been attested.
    """

    path: Path
    id: str
    manifest: Manifest = field(repr=False)
    plan: Plan = field(repr=False)
    audit: Audit | None = field(repr=False)
    parts: tuple[TrustedPart | Part, ...] = field(repr=False)
    artifacts: Mapping[str, tuple[Artifact, ...]] = field(repr=False)
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch_symbol: str | None
    enclave_bytes: int


def load_bundle(path: Path, *, keystore: KeyStore) -> Bundle:
    """Read and check a bundle: signature, hashes, that nothing is missing or added, and the plan against the graph.

    Every file is read once, and what was checked is what is used.

    Args:
        path: the bundle's folder.
        keystore: holds the keys whose signatures count (the bundle's own word does not), and the weight key.

    Raises:
        BundleError: naming the file or key at fault.
        TrustError: if the keystore refuses.
    """
    origin = f"bundle {path}"
    with open_folder(path) as folder:
        manifest = _read_manifest(folder, keystore, origin)
        found = list_files(folder, origin=origin) - {MANIFEST, SIGNATURE}
        for extra in sorted(found - manifest.files.keys())[:1]:
            raise BundleError(f"{origin}: {extra!r} is not in the manifest; remove it or build the bundle again")
        for missing in sorted(manifest.files.keys() - found)[:1]:
            raise BundleError(f"{origin}: {missing} is missing; copy or build the bundle again")
        contents = read_listed(folder, manifest.files, origin=origin)
    model = parse_structure(_need(contents, "structure.json", origin), origin=f"{origin}: structure.json")
    plan, audit = _check_plan(contents, model, manifest, origin)
    if plan.policy.enclave.keys == "keystore":
        keystore.weight_key(manifest.bundle_id)  # refused now rather than after an enclave was launched
    parts = tuple(_load_part(contents, planned, plan.masking, manifest, origin) for planned in plan.parts)
    return Bundle(
        path=path,
        id=manifest.bundle_id,
        manifest=manifest,
        plan=plan,
        audit=audit,
        parts=parts,
        artifacts={
            part.name: read_artifacts(contents, part, origin=origin) for part in parts if isinstance(part, Part)
        },
        inputs=model.inputs,
        outputs=model.outputs,
        batch_symbol=model.batch_symbol,
        enclave_bytes=enclave_bytes(plan, model),
    )


def _read_manifest(folder: int, keystore: KeyStore, origin: str) -> Manifest:
    raw = read_file(folder, MANIFEST, most_bytes=MAX_MANIFEST_BYTES, origin=origin)
    signature = read_file(folder, SIGNATURE, most_bytes=SIGNATURE_BYTES, origin=origin)
    trusted = keystore.trusted_keys()
    for key in trusted.values():
        try:
            key.verify(signature, raw)
        except InvalidSignature:
            continue
        return parse_manifest(raw, origin=f"{origin}: {MANIFEST}")
    known = ", ".join(trusted) or "no key at all"
    raise BundleError(
        f"{origin}: {SIGNATURE} is no signature over {MANIFEST} by a trusted key: one of the two was changed, or an "
        f"unknown builder signed it; this keystore trusts {known}"
    )


def _check_plan(contents: dict[str, bytes], model: Model, manifest: Manifest, origin: str) -> tuple[Plan, Audit | None]:
    """Validate the plan against the graph in the bundle, as at build."""
    if model.sha256 != manifest.model_sha256:
        raise BundleError(
            f"{origin}: structure.json is of model {model.sha256[:12]}, the manifest says {manifest.model_sha256[:12]}"
        )
    try:
        plan = parse_plan(_need(contents, "plan.json", origin), origin="plan.json")
    except PlanError as error:
        raise BundleError(f"{origin}: {error}") from None
    audit = check_audit(contents, origin=origin)
    violations = find_violations(plan, model, audit)
    if violations:
        raise BundleError(f"{origin}: plan.json is not valid for the bundle's model: {violations[0]}")
    return plan, audit


def _load_part(
    contents: dict[str, bytes], planned: PlannedPart, masking: Masking | None, manifest: Manifest, origin: str
) -> TrustedPart | Part:
    where = f"{origin}: {planned.name}/part.json"
    raw = _need(contents, f"{planned.name}/model.onnx", origin)
    described = parse_part_file(_need(contents, f"{planned.name}/part.json", origin), origin=where)
    if (described.name, described.device, described.trusted) != (planned.name, planned.device, planned.trusted):
        raise BundleError(f"{where}: it describes {described.name} on {described.device}, the plan another part")
    if described.sha256 != sha256_bytes(raw):
        raise BundleError(f"{where}: it names another model.onnx than the one beside it")
    inputs, outputs = (tuple(map(restore_tensor, side)) for side in (described.inputs, described.outputs))
    for side, listed, expected in (("inputs", inputs, planned.inputs), ("outputs", outputs, planned.outputs)):
        if sorted(tensor.name for tensor in listed) != sorted(expected):
            raise BundleError(f"{where}: its {side} are not those of the plan")
    try:
        proto = onnx.ModelProto.FromString(raw)
        if planned.trusted:
            masked = None
            if masking is not None and masking.part == planned.name:
                masked = load_masked(contents, planned.name, masking, origin=origin)
            return TrustedPart(
                name=planned.name,
                skeleton=raw if masked is None else _need(contents, f"{planned.name}/{HEAD}", origin),
                sealed=_need(contents, f"{planned.name}/weights.sealed", origin),
                context=seal_context(manifest.bundle_id, planned.name),
                inputs=inputs,
                outputs=outputs,
                batch_symbol=described.batch_symbol,
                masked=masked,
            )
        part = part_from_proto(proto, name=planned.name)
    except (DecodeError, ModelError) as error:
        raise BundleError(f"{origin}: {planned.name}/model.onnx: {' '.join(str(error).split())}") from None
    if set(part.node_names) != set(planned.nodes) or (part.inputs, part.outputs) != (inputs, outputs):
        raise BundleError(f"{origin}: {planned.name}/model.onnx is not the part that the plan and part.json describe")
    return part


def _need(contents: dict[str, bytes], path: str, origin: str) -> bytes:
    if path not in contents:
        raise BundleError(f"{origin}: {path} is missing; build the bundle again")
    return contents[path]
