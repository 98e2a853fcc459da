"""Lowering a part: operators to calls of kernels, values to places in four blocks of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from siniantrust.errors import ModelError
from siniantrust.lowering import _conv, _layout, _pointwise, _pool, _quantised, _reduce
from siniantrust.lowering._arena import Life, place
from siniantrust.lowering._read import Reading, read
from siniantrust.lowering._source import write_source
from siniantrust.lowering._values import Operation, RefusedError, Step, Value

# The smallest alignment that kernels need. It is kept small on purpose: weights that lie in a serialised ONNX model
# can then be moved to their places from front to back within the memory that the model itself takes.
SLOT_ALIGNMENT_BYTES = 4
_SHOWN = 3

_OPERATORS: Mapping[str, Callable[[Operation], tuple[Step, ...]]] = {
    **_conv.OPERATORS,
    **_layout.OPERATORS,
    **_pointwise.OPERATORS,
    **_pool.OPERATORS,
    **_quantised.OPERATORS,
    **_reduce.OPERATORS,
}
OPERATORS = tuple(sorted(_OPERATORS))


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a tensor lies in its block."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Lowered:
    """A part in C99.

    ``source`` is one file without dependencies but ``memcpy``; it defines
    ``void part_run(const void *weights, const void *input, void *output, void *arena)``. All inputs lie in one block,
    all outputs in another, and so do the weights that are read; the arena holds everything between.

    Attributes:
        source: the C file.
        weights: the weights' places, in the order of the part's initialisers.
        inputs: the inputs' places.
        outputs: the outputs' places.
        weights_bytes: size of the weights' block.
        input_bytes: size of the inputs' block.
        output_bytes: size of the outputs' block.
        arena_bytes: size of the arena.
    """

    source: str = field(repr=False)
    weights: tuple[Slot, ...]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    weights_bytes: int
    input_bytes: int
    output_bytes: int
    arena_bytes: int

    @property
    def memory_bytes(self) -> int:
        """What the part holds while it runs: the four blocks together."""
        return self.weights_bytes + self.input_bytes + self.output_bytes + self.arena_bytes


def lower(model: onnx.ModelProto, *, name: str = "part") -> Lowered:
    """Lower a part, whole or the skeleton of a sealed one, for one batch item.

    Raises:
        ModelError: naming the nodes that cannot be lowered and why; or if the part's own inputs and outputs cannot.
    """
    origin = f"part '{name}'"
    reading = read(model, origin=origin)
    steps, refused = _steps(reading)
    if refused:
        listed = "; ".join(f"node '{node}': {why}" for node, why in list(refused.items())[:_SHOWN])
        more = f"; and {len(refused) - _SHOWN} more nodes" if len(refused) > _SHOWN else ""
        raise ModelError(f"{origin}: cannot be lowered to C: {listed}{more}; cut before them")
    read_by_kernels = {value.name for step in steps for value in step.reads}
    weights, weights_bytes = _slots(value for value in reading.weights if value.name in read_by_kernels)
    inputs, input_bytes = _slots(reading.inputs)
    outputs, output_bytes = _slots(reading.outputs)
    places = {
        slot.name: f"{block}({slot.offset_bytes})"
        for block, slots in (("INPUT", inputs), ("WEIGHTS", weights), ("OUTPUT", outputs))
        for slot in slots
    }
    calls, arena, arena_bytes = _allocate(steps, places)
    blocks = {
        "weights_bytes": weights_bytes,
        "input_bytes": input_bytes,
        "output_bytes": output_bytes,
        "arena_bytes": arena_bytes,
    }
    source = write_source(calls, places | arena, **blocks)
    return Lowered(source=source, weights=weights, inputs=inputs, outputs=outputs, **blocks)


def unsupported(model: onnx.ModelProto, *, name: str = "part") -> dict[str, str]:
    """Return why nodes cannot be lowered, by the nodes' names; empty where ``lower`` would succeed.

    Raises:
        ModelError: if the part's own inputs and outputs cannot be lowered.
    """
    return _steps(read(model, origin=f"part '{name}'"))[1]


def _steps(reading: Reading) -> tuple[list[Step], dict[str, str]]:
    steps: list[Step] = []
    refused: dict[str, str] = {}
    for name, op_type, operation in reading.nodes:
        emit = _OPERATORS.get(op_type)
        if emit is None:
            refused[name] = f"operator {op_type} cannot be lowered"
        elif isinstance(operation, str):
            refused[name] = operation
        else:
            try:
                steps += emit(operation)
            except RefusedError as why:
                refused[name] = f"{op_type}: {why}"
    return steps, refused


def _slots(values: Iterable[Value]) -> tuple[tuple[Slot, ...], int]:
    slots, at = [], 0
    for value in values:
        slots.append(Slot(value.name, value.dtype, value.shape, at, value.size_bytes))
        at += -(-value.size_bytes // SLOT_ALIGNMENT_BYTES) * SLOT_ALIGNMENT_BYTES
    return tuple(slots), at


def _allocate(steps: Sequence[Step], fixed: Mapping[str, str]) -> tuple[list[Step], dict[str, str], int]:
    """Give every value between a place in the arena.

    A view shares its input's place, and an activation takes it over where that input is not read again.

    Returns:
        The steps without those that became views, the places of the values, and the arena's bytes.
    """
    last = {value.name: index for index, step in enumerate(steps) for value in step.reads}
    owner: dict[str, str] = {}  # value to the value whose place it shares
    sizes: dict[str, int] = {}
    begin: dict[str, int] = {}
    end: dict[str, int] = {}
    kept = []
    for index, step in enumerate(steps):
        name = step.output.name
        if name not in fixed and step.view_of is not None:
            owner[name] = owner.get(step.view_of.name, step.view_of.name)
        else:
            kept.append(step)
        if name not in fixed and name not in owner:
            shared = next((owner[value.name] for value in step.over if _ends(value, index, owner, end, last)), None)
            owner[name] = name if shared is None else shared
        root = owner.get(name)
        if root is not None and root not in fixed:
            sizes.setdefault(root, step.output.size_bytes)
            begin.setdefault(root, index)
            end[root] = max(end.get(root, 0), last.get(name, index))
    roots = list(begin)
    offsets, arena_bytes = place([Life(sizes[root], begin[root], end[root]) for root in roots])
    at = {root: f"ARENA({offset})" for root, offset in zip(roots, offsets, strict=True)}
    return kept, {name: at[root] if root in at else fixed[root] for name, root in owner.items()}, arena_bytes


def _ends(value: Value, index: int, owner: Mapping[str, str], end: Mapping[str, int], last: Mapping[str, int]) -> bool:
    """Say whether a value's place in the arena is free once step ``index`` has read it."""
    root = owner.get(value.name)
    return root is not None and root in end and end[root] == index and last[value.name] == index


def pack(slots: Sequence[Slot], arrays: Mapping[str, np.ndarray], size_bytes: int) -> bytearray:
    """Return a block of ``size_bytes`` with ``arrays`` in their places.

    Raises:
        ModelError: if an array is missing, or has another dtype or shape.
    """
    block = bytearray(size_bytes)
    for slot in slots:
        array = arrays.get(slot.name)
        if array is None or str(array.dtype) != slot.dtype or array.shape != slot.shape:
            found = "nothing" if array is None else f"{array.dtype} of shape {list(array.shape)}"
            raise ModelError(f"'{slot.name}': expected {slot.dtype} of shape {list(slot.shape)}, found {found}")
        block[slot.offset_bytes : slot.offset_bytes + slot.size_bytes] = np.ascontiguousarray(array).tobytes()
    return block


def unpack(slots: Sequence[Slot], block: bytes | bytearray | memoryview) -> dict[str, np.ndarray]:
    """Return the arrays of a block; they share its memory."""
    return {
        slot.name: np.frombuffer(
            block, slot.dtype, slot.size_bytes // np.dtype(slot.dtype).itemsize, slot.offset_bytes
        ).reshape(slot.shape)
        for slot in slots
    }
