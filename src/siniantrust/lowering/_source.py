"""The C text of a lowered part: the kernels, its sizes, and one function that calls one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from siniantrust.lowering._values import KINDS, Argument, Quantised, Step, Value

KERNELS = files("siniantrust.lowering").joinpath("kernels.h").read_text(encoding="ascii")

_FRAME = """{kernels}
#define PART_WEIGHTS_BYTES {weights_bytes}
#define PART_INPUT_BYTES {input_bytes}
#define PART_OUTPUT_BYTES {output_bytes}
#define PART_ARENA_BYTES {arena_bytes}

#define WEIGHTS(offset) ((const void *)((const uint8_t *)weights + (offset)))
#define INPUT(offset) ((const void *)((const uint8_t *)input + (offset)))
#define OUTPUT(offset) ((void *)((uint8_t *)output + (offset)))
#define ARENA(offset) ((void *)((uint8_t *)arena + (offset)))

/* All four blocks are aligned to 16 bytes. */
void part_run(const void *weights, const void *input, void *output, void *arena)
{{
    (void)weights, (void)input, (void)output, (void)arena;
{calls}
}}
"""


def write_source(steps: Sequence[Step], places: Mapping[str, str], **sizes: int) -> str:
    """Return the whole C file. ``places`` has the pointer to each value, as C text."""
    calls = "\n".join(
        f"    {step.kernel}({', '.join(_text(argument, places) for argument in step.arguments)});" for step in steps
    )
    return _FRAME.format(kernels=KERNELS, calls=calls, **sizes)


def _text(argument: Argument, places: Mapping[str, str]) -> str:
    if argument is None:
        return "NULL"
    if isinstance(argument, Value):
        return places[argument.name]
    if isinstance(argument, Quantised):
        pointers = [_text(entry, places) for entry in (argument.data, argument.scale, argument.zero)]
        data, scale, zero = pointers
        return f"&(const struct quantised){{{data}, {KINDS[argument.dtype]}, {scale}, {zero}, {argument.step}}}"
    return str(argument)
