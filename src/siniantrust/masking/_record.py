"""What a masked model says of its masks: an entry of its metadata for each, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import onnx

from siniantrust.masking._site import Fact, MaskError

_KEY = "siniantrust.mask."


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """One mask behind one tensor.

    Attributes:
        tensor: the tensor that it masks.
        mask: its name.
        strength: its strength, in its own unit.
        parameters: its further parameters.
        facts: what it says of itself here: levels, what crosses, its privacy budget.
        fixed: names of its constants that no training may change, as what the mask hides rests on them.
    """

    tensor: str
    mask: str
    strength: float
    parameters: Mapping[str, float]
    facts: Mapping[str, Fact]
    fixed: Sequence[str]


def write_record(proto: onnx.ModelProto, record: MaskRecord) -> None:
    """Note a mask in the model's metadata."""
    entry = proto.metadata_props.add(key=f"{_KEY}{record.tensor}")
    entry.value = json.dumps(asdict(record), sort_keys=True, allow_nan=False)


def note_facts(proto: onnx.ModelProto, tensor: str, facts: Mapping[str, Fact]) -> None:
    """Add to what the mask behind ``tensor`` says of itself."""
    for entry in proto.metadata_props:
        if entry.key == f"{_KEY}{tensor}":
            record = MaskRecord(**json.loads(entry.value))
            changed = replace(record, facts={**record.facts, **facts})
            entry.value = json.dumps(asdict(changed), sort_keys=True, allow_nan=False)


def fixed_constants(proto: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the constants on which the model's masks rest: noise, its size, clipping, signs.

    Raises:
        MaskError: if an entry of the metadata is malformed.
    """
    return frozenset(name for record in read_records(proto) for name in record.fixed)


def read_records(proto: onnx.ModelProto) -> tuple[MaskRecord, ...]:
    """Return the masks that a model says it has, in the order in which they were put there.

    Raises:
        MaskError: if an entry is malformed.
    """
    records = []
    for entry in proto.metadata_props:
        if entry.key.startswith(_KEY):
            try:
                records.append(MaskRecord(**json.loads(entry.value)))
            except (ValueError, TypeError):
                raise MaskError(f"model metadata {entry.key!r} is no record of a mask; mask the model again") from None
    return tuple(records)
