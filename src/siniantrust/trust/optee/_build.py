"""Building a part into a signed trusted application; what was built is kept, by a hash over all that went into it."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import helper

from siniantrust._files import sha256_bytes, write_atomic
from siniantrust.errors import EnclaveError
from siniantrust.lowering import Lowered, Slot
from siniantrust.trust.optee._cache import CROSS_COMPILE, SETUP, SOURCES, Machine
from siniantrust.trust.optee._inputs import LAWS, Noise, inputs_of

_DEFINITIONS = """
#include "part.h"

#define ROOM(bytes) ((bytes) ? (bytes) : 1)

const struct part_weight part_weights[] = {{{entries}}};
const uint32_t part_weights_count = {count};
const struct part_noise part_noise[] = {{{noise}}};
const uint32_t part_noise_count = {noise_count}, part_given_bytes = {given_bytes};
const uint32_t part_plain_bytes = {plain_bytes};
const uint32_t part_input_bytes = PART_INPUT_BYTES, part_output_bytes = PART_OUTPUT_BYTES;
const uint32_t part_arena_bytes = PART_ARENA_BYTES;
const uint8_t part_skeleton_sha256[32] = {{{skeleton}}};
__attribute__((aligned(16))) uint8_t part_weights_block[ROOM({plain_bytes})];
__attribute__((aligned(16))) uint8_t part_input_block[ROOM(PART_INPUT_BYTES)];
__attribute__((aligned(16))) uint8_t part_output_block[ROOM(PART_OUTPUT_BYTES)];
__attribute__((aligned(16))) uint8_t part_arena_block[ROOM(PART_ARENA_BYTES)];
"""
_PLAIN_CHARACTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-")


@dataclass(frozen=True, slots=True)
class Application:
    """A signed trusted application. ``memory_bytes`` is what its part holds: weights and tensors."""

    uuid: str
    signed: bytes
    sha256: str
    memory_bytes: int


def build(machine: Machine, lowered: Lowered, *, skeleton: bytes, plain_bytes: int) -> Application:
    """Build, or take what was built before.

    Args:
        machine: the emulated machine, which has the kit.
        lowered: the part.
        skeleton: of the sealed part: the application opens weights that were sealed with this one only.
        plain_bytes: of the sealed weights once they are decrypted, which happens in the weights' own place.

    Raises:
        EnclaveError: if the compiler or the kit fails, or there is noise that an application cannot draw.
    """
    source = lowered.source + _definitions(lowered, skeleton=skeleton, plain_bytes=plain_bytes)
    digest = hashlib.sha256(source.encode())
    for path in sorted((SOURCES / "ta").iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(machine.optee_version.encode())
    uuid = _uuid(digest.digest())
    kept = machine.applications / f"{digest.hexdigest()}.ta"
    if not kept.exists():
        write_atomic(kept, _compile(machine, source, uuid))
    signed = kept.read_bytes()
    memory_bytes = lowered.memory_bytes - lowered.weights_bytes + plain_bytes
    return Application(uuid, signed, sha256_bytes(signed), memory_bytes)


def _definitions(lowered: Lowered, *, skeleton: bytes, plain_bytes: int) -> str:
    inputs = inputs_of(lowered)
    entries = ", ".join(_entry(slot) for slot in lowered.weights)
    return _DEFINITIONS.format(
        entries=entries or '{"", 0, 0, 0}',
        count=len(lowered.weights),
        noise=", ".join(map(_drawn, inputs.noise)) or "{0, 0, 0, 0, 0}",
        noise_count=len(inputs.noise),
        given_bytes=inputs.given_bytes,
        plain_bytes=plain_bytes,
        skeleton=", ".join(map(str, hashlib.sha256(skeleton).digest())),
    )


def _drawn(noise: Noise) -> str:
    law = f"{LAWS.index(noise.law.kind)}, {noise.slot.offset_bytes}, {math.prod(noise.slot.shape)}"
    return f"{{{law}, {noise.law.offset!r}, {noise.law.factor!r}}}"


def _entry(slot: Slot) -> str:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(slot.dtype))
    return f"{{{_c_text(slot.name)}, {kind}, {slot.offset_bytes}, {slot.size_bytes}}}"


def _c_text(text: str) -> str:
    """Return a C string of the text in UTF-8; whatever might mean something else in C is written in octal."""
    return '"' + "".join(chr(byte) if byte in _PLAIN_CHARACTERS else f"\\{byte:03o}" for byte in text.encode()) + '"'


def _uuid(digest: bytes) -> str:
    """Return the first half of a hash in the form of a UUID of version 8 (RFC 9562)."""
    raw = bytearray(digest[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _compile(machine: Machine, source: str, uuid: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="siniantrust-optee-") as name:
        folder = Path(name, "ta")
        shutil.copytree(SOURCES / "ta", folder)
        (folder / "part.c").write_text(source, encoding="ascii")
        command = [
            *("make", "-C", str(folder), "O=out", f"BINARY={uuid}", f"PART_UUID={_initialiser(uuid)}"),
            *(f"TA_DEV_KIT_DIR={machine.dev_kit}", f"CROSS_COMPILE={CROSS_COMPILE}", f"PYTHON3={sys.executable}"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as fault:
            raise EnclaveError(f"enclave 'optee': make does not start ({fault.strerror}); run: {SETUP}") from None
        if done.returncode:
            words = next((line for line in done.stderr.splitlines() if "error" in line.lower()), done.stderr[-300:])
            raise EnclaveError(f"enclave 'optee': the application does not build ({' '.join(words.split())})")
        return (folder / f"out/{uuid}.ta").read_bytes()


def _initialiser(uuid: str) -> str:
    """Return a UUID as C's initialiser of a ``TEE_UUID``."""
    low, mid, high, sequence, node = uuid.split("-")
    rest = sequence + node
    octets = ", ".join(f"0x{rest[at : at + 2]}" for at in range(0, len(rest), 2))
    return f"{{ 0x{low}, 0x{mid}, 0x{high}, {{ {octets} }} }}"
