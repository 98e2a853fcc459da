"""Where a program's values are wanted: as floats inside, as steps for devices, and until when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from siniantrust.errors import PlanError
from siniantrust.masking.exact._finish import Finish
from siniantrust.masking.exact._joined import check_parts
from siniantrust.masking.exact._stages import Program


@dataclass(frozen=True)
class Uses:
    """In which form values are made and kept.

    A value that devices read and that is added to a result later is added as it was quantised: it is there in a quarter
    of the bytes, and 8-bit networks add it so.

    Attributes:
        scales: of each value that devices read, what one step is worth.
        floats: the values that something reads as float32.
        steps_added: the values that are added as steps.
        last_floats: at which step of the program each is read as float32 for the last time: segment ``i`` is step 2i,
            exchange ``i`` 2i + 1, and the model's outputs are read one step after the last segment.
        last_steps: the same for steps.
    """

    scales: dict[str, float]
    floats: frozenset[str]
    steps_added: frozenset[str]
    last_floats: dict[str, int]
    last_steps: dict[str, int]


def uses(program: Program) -> Uses:
    """Return where the values of ``program`` are wanted.

    Raises:
        PlanError: if a value is read that nothing before makes, layers read one in steps that differ, what is pooled as
            steps is wanted in another form, or its windows are not proven to meet the image, or an entry is not what
            its parts make.
    """
    scales, whole = _input_scales(program), set[str]()
    last_floats: dict[str, int] = {}
    last_steps: dict[str, int] = {}
    added: set[str] = set()
    for exchange in program.exchanges:
        whole.update(exchange.entries.keys() - exchange.steps.keys() - exchange.joins.keys())
        whole.update(part.value for parts in exchange.joins.values() for part in parts if part.steps == (1, 1))
    for number, exchange in enumerate(program.exchanges):
        last_steps |= dict.fromkeys(exchange.read, 2 * number + 1)
        for finish in exchange.finishes:
            if finish.addend in whole:
                added.add(finish.addend)
                last_steps[finish.addend] = 2 * number + 1
            elif finish.addend is not None:
                last_floats[finish.addend] = 2 * number + 1
    for number, segment in enumerate(program.segments):
        for tensor in segment.inputs if segment else ():
            last_floats[tensor.name] = max(last_floats.get(tensor.name, 0), 2 * number)
    last_floats |= dict.fromkeys((tensor.name for tensor in program.outputs), 2 * len(program.exchanges) + 1)
    found = Uses(scales, frozenset(last_floats), frozenset(added), last_floats, last_steps)
    for exchange in program.exchanges:
        for finish in exchange.finishes:
            _check_pool(finish, found)
    _check_order(program)
    return found


def _check_order(program: Program) -> None:
    there = {tensor.name for tensor in program.inputs}

    def require(names: Iterable[str], reader: str) -> None:
        for name in names:
            if name not in there:
                raise PlanError(f"exact masks: {reader} reads '{name}', which nothing before it makes")

    if len(program.segments) != len(program.exchanges) + 1:
        raise PlanError(
            f"exact masks: expected a segment before and behind each of {len(program.exchanges)} exchanges, found "
            f"{len(program.segments)}"
        )
    for number, (segment, exchange) in enumerate(zip_longest(program.segments, program.exchanges)):
        if segment is not None:
            require((tensor.name for tensor in segment.inputs), f"segment {number}")
            there.update(tensor.name for tensor in segment.outputs)
        if exchange is not None:
            require(exchange.read, f"exchange {number}")
            for finish in exchange.finishes:
                require(filter(None, [finish.addend]), f"exchange {number}")
                there.add(finish.value)
    require((tensor.name for tensor in program.outputs), "the model's end")


def _input_scales(program: Program) -> dict[str, float]:
    scales: dict[str, float] = {}
    for exchange in program.exchanges:
        for entry, parts in exchange.joins.items():
            check_parts(entry, exchange.shapes.get(entry, ()) if entry in exchange.entries else (), parts)
        for layer in exchange.layers:
            parts = exchange.joins.get(layer.entry, ())
            read = [(part.node, part.value, part.scale) for part in parts]
            for name, value, scale in read or [(layer.name, layer.entry, layer.input_scale)]:
                if scales.setdefault(value, scale) != scale:
                    raise PlanError(
                        f"exact masks: layer '{name}' reads '{value}' in other steps than one before it; give both the "
                        "same input_scale"
                    )
    return scales


def _check_pool(finish: Finish, found: Uses) -> None:
    if finish.pool is None:
        return
    finish.pool.check(finish.value)
    if finish.value not in found.scales or finish.value in found.floats | found.steps_added:
        raise PlanError(
            f"exact masks: value '{finish.value}' is pooled as steps, and not read by devices alone; pool it inside"
        )
