"""A program as bytes: a head that anyone may read, and a body with every number in it, which is to be sealed.

The head names stages, values, shapes and what each layer is; the body holds weights, scales and the models of segments
and exchanges. It is read inside an enclave, so that reading it takes no ONNX library and no code of others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from siniantrust.errors import PlanError, TrustError
from siniantrust.masking.exact._finish import Finish
from siniantrust.masking.exact._joined import Joined
from siniantrust.masking.exact._layer import Layer, Window
from siniantrust.masking.exact._pool import Pool
from siniantrust.masking.exact._program_body import Body, taken
from siniantrust.masking.exact._ring import NARROW, WIDE
from siniantrust.masking.exact._stages import Exchange, Program
from siniantrust.masking.exact._wire import RESERVED

if TYPE_CHECKING:
    from siniantrust.graph import Part

MAGIC = b"SNEXACT3"
# What reading JSON of another form, or arrays of another shape, ends with.
FAULTS = (LookupError, ValueError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the owner decided of the trusted side: how sure a check is, and what to do when no pads are prepared."""

    soundness_bits: int
    wait_when_dry: bool


@dataclass(frozen=True, slots=True)
class Port:
    """A value of the program, as ``graph.Tensor`` describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    batch_axis: int | None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of ``shape`` can be this value, for any batch size if its first axis is free."""
        if self.batch_axis is None:
            return shape == self.shape
        return len(shape) == len(self.shape) and shape[0] > 0 and shape[1:] == self.shape[1:]


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment's or an exchange's model, serialised, and of a segment its inputs and outputs."""

    model: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def dump_program(program: Program, settings: Settings) -> tuple[bytes, bytes]:
    """Return head and body of a program.

    Raises:
        PlanError: if a value's name is one that the exchange with the host needs.
    """
    body = Body()
    names = {tensor.name for tensor in (*program.inputs, *program.outputs)}
    names |= {name for exchange in program.exchanges for name in exchange.shapes}
    for name in sorted(names):
        if name.startswith(RESERVED):
            raise PlanError(f"exact masks: value '{name}' has a reserved name; rename what begins with '{RESERVED}'")
    head = {
        "settings": asdict(settings),
        "inputs": [_port(tensor) for tensor in program.inputs],
        "outputs": [_port(tensor) for tensor in program.outputs],
        "segments": [part and _segment(part, body) for part in program.segments],
        "exchanges": [
            {
                "limbs": exchange.limbs,
                "entries": dict(exchange.entries),
                "steps": {name: list(steps) for name, steps in exchange.steps.items()},
                "joins": {name: [_part(part, body) for part in parts] for name, parts in exchange.joins.items()},
                "shapes": {name: list(shape) for name, shape in exchange.shapes.items()},
                "finishes": [asdict(finish) for finish in exchange.finishes],
                "layers": [_described(layer, body) for layer in exchange.layers],
                "model": body.add_bytes(exchange.inside.proto.SerializeToString()),
            }
            for exchange in program.exchanges
        ],
    }
    return MAGIC + json.dumps(head).encode(), body.joined()


def load_program(head: bytes, body: memoryview) -> tuple[Program, Settings]:
    """Read a program back, and prove the bounds of every layer of it again.

    Its parts are ``Piece``s and its tensors ``Port``s: what they offer of ``graph.Part`` and ``graph.Tensor`` is what a
    trusted side uses of them.

    Raises:
        TrustError: if head and body are not what ``dump_program`` writes.
        PlanError: if a layer's bound cannot be proven.
    """
    raw = parsed(head)
    try:
        program = Program(
            inputs=cast("Any", _ports(raw["inputs"])),
            outputs=cast("Any", _ports(raw["outputs"])),
            segments=cast("Any", tuple(each and _piece(each, body) for each in raw["segments"])),
            exchanges=tuple(_exchange(number, each, body) for number, each in enumerate(raw["exchanges"])),
        )
        settings = Settings(**raw["settings"])
        for layer in program.layers:
            layer.check()
        _require_distinct(program)
    except FAULTS as fault:
        raise malformed(fault) from None
    return program, settings


def _require_distinct(program: Program) -> None:
    """Raise ValueError where two entries have one number, with which both would get the same pad."""
    numbers = [number for exchange in program.exchanges for number in exchange.entries.values()]
    if len(set(numbers)) != len(numbers) or any(type(number) is not int for number in numbers):
        raise ValueError(f"expected of every entry a number of its own, found {numbers}")


def limbs_of(raw: Mapping[str, Any]) -> int:
    """Return how many bytes an exchange's numbers have. Raises ValueError for what they cannot have."""
    limbs = int(raw["limbs"])
    if limbs not in (NARROW, WIDE):
        raise ValueError(f"{limbs} limbs")
    return limbs


def parsed(head: bytes) -> dict[str, Any]:
    """Return a head's object. Raises TrustError as ``load_program``."""
    if head[: len(MAGIC)] != MAGIC:
        raise TrustError(f"exact masks: expected a program that begins with {MAGIC!r}, found {head[:8]!r}")
    try:
        raw = json.loads(head[len(MAGIC) :])
    except (ValueError, RecursionError) as fault:
        raise malformed(fault) from None
    if not isinstance(raw, dict):
        raise malformed(TypeError("its head is no object"))
    return raw


def malformed(fault: Exception) -> TrustError:
    """Return the error for a program in which reading found this."""
    return TrustError(f"exact masks: the program is malformed ({type(fault).__name__}: {fault}); build it again")


def _port(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "batch_axis": tensor.batch_axis}


def _ports(raw: Sequence[Mapping[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(each["name"], each["dtype"], tuple(each["shape"]), each["batch_axis"]) for each in raw)


def _piece(raw: Mapping[str, Any], body: memoryview) -> Piece:
    return Piece(taken(raw["model"], body).tobytes(), *(_ports(raw.get(side, ())) for side in ("inputs", "outputs")))


def _segment(part: Part, body: Body) -> dict[str, Any]:
    return {
        "model": body.add_bytes(part.proto.SerializeToString()),
        "inputs": [_port(each) for each in part.inputs],
        "outputs": [_port(each) for each in part.outputs],
    }


def _described(layer: Layer, body: Body) -> dict[str, Any]:
    return {
        "name": layer.name,
        "entry": layer.entry,
        "exit": layer.exit,
        "window": layer.window and asdict(layer.window),
        "weight": body.add(layer.weight),
        "bias": body.add(layer.bias),
        "row_scales": body.add(layer.row_scales),
        "input_scale": _scale(layer.input_scale, body),
    }


def _part(part: Joined, body: Body) -> dict[str, Any]:
    return {
        "node": part.node,
        "value": part.value,
        "shape": list(part.shape),
        "steps": list(part.steps),
        "scale": _scale(part.scale, body),
    }


def _scale(scale: float, body: Body) -> dict[str, Any]:
    # As float64: a scale that is rounded would be another one.
    return body.add_bytes(np.float64(scale).tobytes())


def _scale_at(place: Mapping[str, Any], body: memoryview) -> float:
    return float(taken(place, body).view(np.float64)[0])


def _joined(raw: Mapping[str, Any], body: memoryview) -> Joined:
    rows, columns = raw["steps"]
    shape = tuple(map(int, raw["shape"]))
    return Joined(raw["node"], raw["value"], shape, (int(rows), int(columns)), _scale_at(raw["scale"], body))


def _layer(raw: Mapping[str, Any], body: memoryview) -> Layer:
    window = raw["window"]
    return Layer(
        name=raw["name"],
        entry=raw["entry"],
        exit=raw["exit"],
        weight=taken(raw["weight"], body),
        bias=taken(raw["bias"], body),
        input_scale=_scale_at(raw["input_scale"], body),
        row_scales=taken(raw["row_scales"], body),
        window=window and Window(**{name: tuple(sizes) for name, sizes in window.items()}),
    )


def _finish(raw: Mapping[str, Any]) -> Finish:
    return Finish(**{**raw, "pool": None if raw["pool"] is None else _pool(**raw["pool"])})


def _pool(kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> Pool:
    (high, wide), (down, across), (top, left, bottom, right) = (map(int, each) for each in (kernel, strides, pads))
    return Pool((high, wide), (down, across), (top, left, bottom, right))


def _exchange(number: int, raw: Mapping[str, Any], body: memoryview) -> Exchange:
    inside = cast("Any", _piece(raw, body))
    return Exchange(
        number=number,
        entries=dict(raw["entries"]),
        layers=tuple(_layer(each, body) for each in raw["layers"]),
        finishes=tuple(_finish(each) for each in raw["finishes"]),
        joins={name: tuple(_joined(part, body) for part in parts) for name, parts in raw["joins"].items()},
        limbs=limbs_of(raw),
        steps={name: (int(rows), int(columns)) for name, (rows, columns) in raw["steps"].items()},
        shapes={name: tuple(shape) for name, shape in raw["shapes"].items()},
        part=inside,
        inside=inside,
    )
