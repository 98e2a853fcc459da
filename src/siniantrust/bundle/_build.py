"""Building a bundle: validate, split, seal, hash, sign; all of it or nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import onnx

from siniantrust import __version__
from siniantrust._files import folder_atomic, sha256_bytes, write_atomic
from siniantrust.bundle._annotated import weightless_annotated, without_unused_functions
from siniantrust.bundle._artifacts import dump_artifacts
from siniantrust.bundle._audit_files import read_audit_folder
from siniantrust.bundle._keys import KeyStore, fingerprint
from siniantrust.bundle._manifest import MANIFEST, SIGNATURE, FileEntry, Manifest, dump_manifest
from siniantrust.bundle._masked_part import dump_masked
from siniantrust.bundle._part_file import dump_part_file
from siniantrust.bundle._quantised import quantise
from siniantrust.bundle._structure import dump_structure
from siniantrust.bundle._versions import default_lineage, newest_version
from siniantrust.errors import BundleError, TrustError
from siniantrust.graph import Cut, Model, Part, split
from siniantrust.leakage import Data
from siniantrust.odla import Artifact
from siniantrust.planner import Plan, dump_plan, validate_plan
from siniantrust.trust import Label, runs_prelude, seal_part

_CLIENT = "client"


Export = Callable[[Part, str], Sequence[Artifact]]
"""Compiles a part ahead of time for the plan's device of a name."""


def build_bundle(
    model: Model,
    plan: Plan,
    out: Path,
    *,
    keystore: KeyStore,
    audit_folder: Path | None = None,
    export: Export | None = None,
    lineage: str | None = None,
    version: int | None = None,
    calibration: Data | None = None,
) -> Path:
    """Write the deployable folder for ``plan`` at ``out``; a bundle already there is replaced when all is written.

    ``partN/`` holds ``model.onnx`` and ``part.json``: the whole part where it is untrusted, a skeleton without numbers
    and ``weights.sealed`` (AES-256-GCM, bound to bundle and part) where it is trusted. Beside them: ``plan.json``,
    ``structure.json`` (the graph without weights, for the validator), ``annotated.onnx`` (the same with devices, for
    other tools), ``audit/``, ``manifest.json`` (SHA-256 and size of everything) and ``manifest.sig`` (Ed25519).

    Args:
        model: the model that the plan is for.
        plan: a plan; it is validated again.
        out: the folder to make.
        keystore: signs, and keeps the new weight key.
        audit_folder: folder of ``audit.json``; needed when the plan rests on an audit.
        export: called with each untrusted part and its device's name; what it returns goes to ``partN/ahead/``.
        lineage: name of what has versions; None for the model's name.
        version: once it was opened, older ones of its lineage are refused; None for the newest one that was opened with
            this keystore (1 if none was), beside which the new bundle stays usable.
        calibration: data like those to come; needed where the plan has layers under pads, which are quantised on it.
            The sealed weights then are a program (``program.head`` says what is in it), and ``exchangeN/`` hold what
            devices compute under pads, with quantised weights in plain.

    Returns:
        ``out``.

    Raises:
        PlanError: if the plan is not valid for this model and audit, or a bound of a padded layer cannot be proven.
        DataError: if the calibration data do not do.
        AuditError: if the audit cannot be read.
        BundleError: if the audit is missing, ``out`` holds something else, or it cannot be written (then nothing is
            left behind).
        TrustError: if the keystore refuses, a part cannot be sealed, or a newer version was opened already.
    """
    audit, audit_files = read_audit_folder(audit_folder) if audit_folder is not None else (None, {})
    if audit is None and any(value.label is Label.OBSCURED for value in plan.values):
        raise BundleError(f"bundle {out}: the plan rests on audit {plan.audit_id}; give the audit's folder too")
    validate_plan(plan, model, audit)
    if plan.masking is not None and calibration is None:
        raise BundleError(
            f"bundle {out}: the plan pads {len(plan.masking.layers)} layers; give data to quantise them on (--data)"
        )
    _check_target(out)
    lineage = default_lineage(model.name) if lineage is None else lineage
    version = _choose_version(keystore, lineage, version)
    parts = _split(model, plan)
    bundle_id = secrets.token_hex(16)
    signing_key = keystore.signing_key()
    key = keystore.new_weight_key(bundle_id)
    try:
        contents = {"plan.json": dump_plan(plan), "structure.json": dump_structure(model), **audit_files}
        contents.update(_part_files(model, plan, parts, bundle_id=bundle_id, key=key))
        if calibration is not None and plan.masking is not None:
            contents.update(_masked_files(model, plan, parts, calibration, bundle_id=bundle_id, key=key))
        if export is not None:
            contents.update(_ahead_files(plan, parts, export))
        manifest = dump_manifest(
            Manifest(
                bundle_id=bundle_id,
                lineage=lineage,
                version=version,
                model_name=model.name,
                model_sha256=model.sha256,
                signer=fingerprint(signing_key.public_key()),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                siniantrust_version=__version__,
                files={
                    path: FileEntry(sha256=sha256_bytes(data), size_bytes=len(data))
                    for path, data in sorted(contents.items())
                },
            )
        )
        _write(out, {**contents, MANIFEST: manifest, SIGNATURE: signing_key.sign(manifest)})
    except BaseException:
        keystore.remove_weight_key(bundle_id)
        raise
    return out


def seal_context(bundle_id: str, part: str) -> bytes:
    """Return what the sealed weights of a part are bound to."""
    return f"siniantrust bundle {bundle_id} {part}".encode()


def _choose_version(keystore: KeyStore, lineage: str, wanted: int | None) -> int:
    newest = max(1, newest_version(keystore, lineage))
    if wanted is not None and wanted < newest:
        raise TrustError(
            f"bundle, lineage {lineage}: expected a version from {newest}, the newest that was opened, found {wanted}; "
            "give a higher one"
        )
    return newest if wanted is None else wanted


def _check_target(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BundleError(f"bundle {out}: it exists and is no folder; choose another path")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise BundleError(f"bundle {out}: the folder holds something that is no bundle; choose another path")


def _split(model: Model, plan: Plan) -> tuple[Part, ...]:
    """Split the model where the plan says, by the values that it lists, and check that the parts came out so."""
    order = {part.name: number for number, part in enumerate(plan.parts)}
    cuts = []
    for index, cut_id in enumerate(plan.cut_ids):
        tensors = tuple(
            value.tensor
            for value in plan.values
            if order.get(value.source, len(order)) <= index
            and any(target == _CLIENT or order[target] > index for target in value.targets)
        )
        cuts.append(Cut(cut_id, tensors, nodes_before=0, size_bytes=0, flops_before=0, fusable=False))
    parts = split(model, cuts)
    for part, planned in zip(parts, plan.parts, strict=True):
        if set(part.node_names) != set(planned.nodes):
            raise BundleError(f"bundle of '{model.name}': {planned.name} came out with other nodes than planned")
    return parts


@dataclass(frozen=True)
class _Half:
    """What may be seen of a part, as a model, and its files."""

    visible: onnx.ModelProto
    files: Mapping[str, bytes]


def _part_files(model: Model, plan: Plan, parts: tuple[Part, ...], *, bundle_id: str, key: bytes) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    visible = []
    for part, planned in zip(parts, plan.parts, strict=True):
        half = _sealed(part, key, bundle_id, plan.policy.enclave.provider) if planned.trusted else _plain(part)
        visible.append(half.visible)
        contents.update({f"{part.name}/{name}": data for name, data in half.files.items()})
        described = dump_part_file(part, half.files["model.onnx"], device=planned.device, trusted=planned.trusted)
        contents[f"{part.name}/part.json"] = described
    contents["annotated.onnx"] = weightless_annotated(model, plan, parts, visible)
    return contents


def _masked_files(
    model: Model, plan: Plan, parts: tuple[Part, ...], data: Data, *, bundle_id: str, key: bytes
) -> dict[str, bytes]:
    """Return the files of the part with layers under pads; its program takes the place of its sealed weights."""
    assert plan.masking is not None  # noqa: S101 - asked by the caller
    name = plan.masking.part
    program, quantised = quantise(model, parts, plan.masking, data, threads=plan.policy.enclave.threads)
    context = seal_context(bundle_id, name)
    files = dump_masked(name, program, quantised, plan, key=key, context=context)
    return {f"{name}/{path}": raw for path, raw in files.items()}


def _ahead_files(plan: Plan, parts: tuple[Part, ...], export: Export) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for part, planned in zip(parts, plan.parts, strict=True):
        if not planned.trusted:
            written = replace(part, proto=without_unused_functions(part.proto))  # as it stands in model.onnx
            files = dump_artifacts(written, export(written, planned.device))
            contents.update({f"{part.name}/{name}": data for name, data in files.items()})
    if plan.masking is not None and not contents:
        raise BundleError(
            "ahead of time: the plan has no untrusted part; what devices compute under pads is compiled when a session "
            "opens; build without --ahead-of-time"
        )
    return contents


def _sealed(part: Part, key: bytes, bundle_id: str, provider: str) -> _Half:
    context = seal_context(bundle_id, part.name)
    sealed = seal_part(part, key=key, context=context, prelude=runs_prelude(provider))
    files = {"model.onnx": sealed.skeleton, "weights.sealed": sealed.sealed}
    return _Half(onnx.ModelProto.FromString(sealed.skeleton), files)


def _plain(part: Part) -> _Half:
    proto = without_unused_functions(part.proto)
    try:
        return _Half(proto, {"model.onnx": proto.SerializeToString(deterministic=True)})
    except ValueError as error:  # protobuf's limit of 2 GiB
        raise BundleError(f"{part.name}: cannot be written as one ONNX file ({error})") from None


def _write(out: Path, contents: Mapping[str, bytes]) -> None:
    try:
        with folder_atomic(out) as folder:
            for path, data in contents.items():
                write_atomic(folder / path, data)
    except OSError as error:
        raise BundleError(f"bundle {out}: cannot be written ({error.strerror}); nothing was left behind") from None
