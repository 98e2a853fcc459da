"""The inputs of a lowered part: what is given from outside, and the noise that the application draws itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import onnx

from siniantrust.errors import EnclaveError
from siniantrust.lowering import Lowered, Slot
from siniantrust.trust.process._noise import PREFIX, PREPARED, Kind, Law, law_of

LAWS: tuple[str, ...] = get_args(Kind)
"""In the order of ``enum law`` of the application's laws.h."""


@dataclass(frozen=True, slots=True)
class Noise:
    """An input that the application fills with fresh numbers of a law for every run."""

    slot: Slot
    law: Law


@dataclass(frozen=True, slots=True)
class Inputs:
    """A part's inputs; those of noise lie behind the others in one block, of which ``given_bytes`` are given."""

    given: tuple[Slot, ...]
    given_bytes: int
    noise: tuple[Noise, ...]


def inputs_of(lowered: Lowered) -> Inputs:
    """Tell the inputs of a part apart.

    Raises:
        EnclaveError: if there is noise that an application cannot draw.
    """
    given = tuple(slot for slot in lowered.inputs if not slot.name.startswith(PREFIX))
    noise = lowered.inputs[len(given) :]
    if lowered.inputs[: len(given)] != given:
        raise EnclaveError("trusted application: expected noise behind the other inputs; seal the part again")
    for slot in noise:
        if slot.dtype != "float32":
            raise EnclaveError(f"trusted application: '{slot.name}' is {slot.dtype}, it draws float32")
    given_bytes = noise[0].offset_bytes if noise else lowered.input_bytes
    return Inputs(given, given_bytes, tuple(Noise(slot, law_of(slot.name)) for slot in noise))


def require_no_prelude(name: str, proto: onnx.ModelProto) -> None:
    """Refuse a part that was sealed for an enclave that runs preludes.

    Raises:
        EnclaveError: naming the part and what a prelude would make.
    """
    made = next((entry.name for entry in proto.graph.input if entry.name.startswith(PREPARED)), None)
    if made is not None:
        raise EnclaveError(
            f"part {name}: '{made.removeprefix(PREPARED)}' is made by a prelude, which a trusted application does not "
            'run; seal the part for it (enclave.provider = "optee")'
        )
