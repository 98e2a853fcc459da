"""A trusted part whose layers run under pads, as files: a sealed program, and what devices compute of it in plain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from siniantrust._files import sha256_bytes
from siniantrust.bundle._part_file import dump_part_file, parse_part_file
from siniantrust.bundle._quantised import Quantised
from siniantrust.errors import BundleError, ModelError, TrustError
from siniantrust.graph import Part, part_from_proto
from siniantrust.masking.exact import Outline, Program, Settings, dump_program, read_outline
from siniantrust.planner import Masking, Plan
from siniantrust.trust import seal_program

HEAD = "program.head"
QUANTISED = "quantised.json"


@dataclass(frozen=True)
class MaskedPart:
    """What the host needs to relay for a masked part: its exchanges' outlines and parts, in order.

    ``quantised`` says what quantisation cost at build.
    """

    outlines: tuple[Outline, ...]
    exchanges: tuple[Part, ...] = field(repr=False)
    quantised: Quantised = field(repr=False)


def dump_masked(
    part: str,
    program: Program,
    quantised: Quantised,
    plan: Plan,
    *,
    key: bytes,
    context: bytes,
) -> dict[str, bytes]:
    """Return the files of a masked part below its folder, but for the skeleton of its float form."""
    masking, policy = plan.masking, plan.policy.masking
    assert masking is not None  # noqa: S101 - a program is made of a masked part
    settings = Settings(soundness_bits=policy.soundness_bits, wait_when_dry=policy.when_dry == "wait")
    head, body = dump_program(program, settings)
    sealed = seal_program(head, body, key=key, context=context)
    files = {
        HEAD: sealed.skeleton,
        "weights.sealed": sealed.sealed,
        QUANTISED: quantised.model_dump_json(indent=1).encode() + b"\n",
    }
    for exchange in program.exchanges:
        named = replace(exchange.part, name=exchange_name(part, exchange.number))
        model = named.proto.SerializeToString(deterministic=True)
        folder = f"exchange{exchange.number}"
        files[f"{folder}/model.onnx"] = model
        files[f"{folder}/part.json"] = dump_part_file(named, model, device=masking.devices[0], trusted=False)
    return files


def exchange_name(part: str, number: int) -> str:
    """Return what an exchange's part is called: to devices, servers and observers."""
    return f"{part}-exchange{number}"


def load_masked(contents: Mapping[str, bytes], part: str, masking: Masking, *, origin: str) -> MaskedPart:
    """Read a masked part back, and hold it against the plan.

    Raises:
        BundleError: naming the file that is missing, malformed or of another plan.
    """
    where = f"{origin}: {part}/{HEAD}"
    try:
        outlines = read_outline(_need(contents, f"{part}/{HEAD}", origin))
    except TrustError as fault:
        raise BundleError(f"{where}: {fault}") from None
    planned = [(layer.node, layer.entry, layer.exit) for layer in masking.layers]
    found = [(each.node, each.entry, each.exit) for outline in outlines for each in outline.nodes]
    if sorted(found) != sorted(planned):
        raise BundleError(f"{where}: its layers are not those that the plan pads")
    try:
        quantised = Quantised.model_validate_json(_need(contents, f"{part}/{QUANTISED}", origin))
    except ValidationError as fault:
        raise BundleError(f"{origin}: {part}/{QUANTISED}: {' '.join(str(fault).split())}") from None
    parts = tuple(_load_exchange(contents, part, number, each, origin) for number, each in enumerate(outlines))
    return MaskedPart(outlines, parts, quantised)


def _load_exchange(contents: Mapping[str, bytes], part: str, number: int, outline: Outline, origin: str) -> Part:
    folder = f"{part}/exchange{number}"
    raw = _need(contents, f"{folder}/model.onnx", origin)
    described = parse_part_file(_need(contents, f"{folder}/part.json", origin), origin=f"{origin}: {folder}/part.json")
    name = exchange_name(part, number)
    if (described.name, described.trusted, described.sha256) != (name, False, sha256_bytes(raw)):
        raise BundleError(f"{origin}: {folder}/part.json describes another part than the one beside it")
    try:
        read = part_from_proto(onnx.ModelProto.FromString(raw), name=name)
    except (DecodeError, ModelError) as error:
        raise BundleError(f"{origin}: {folder}/model.onnx: {' '.join(str(error).split())}") from None
    inputs, outputs = ({tensor.name for tensor in side} for side in (read.inputs, read.outputs))
    if inputs != set(outline.entries) or outputs != {each.exit for each in outline.corrections}:
        raise BundleError(f"{origin}: {folder}/model.onnx is not the exchange that {part}/{HEAD} describes")
    return read


def _need(contents: Mapping[str, bytes], path: str, origin: str) -> bytes:
    if path not in contents:
        raise BundleError(f"{origin}: {path} is missing; build the bundle again")
    return contents[path]
