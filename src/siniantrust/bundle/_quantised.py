"""Quantising a part for exact masks on data, and measuring what that costs in accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from siniantrust.errors import DataError
from siniantrust.graph import Model, Part, load_model, split
from siniantrust.leakage import Data
from siniantrust.masking.exact import Program, QuantisedModel, build_program, calibrate
from siniantrust.odla import CheckedExecutable, DeviceSpec, open_part
from siniantrust.planner import Masking

_MOST_ITEMS = 512
_UNMARKED_SHARE = 0.3
_BATCH_ITEMS = 16
_SCORES = 2
_DEVICE = DeviceSpec("this process", options={"threads": 1})

Arrays = Mapping[str, np.ndarray]


class LayerBound(BaseModel):
    """Why no sum of a layer overflows: ``products`` in one, added in ``shares``, and the most that its result is.

    A number of it crosses as ``limbs`` bytes, which are enough for that. Two layers whose results devices add are one,
    by the name of the node that adds them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: str
    products: int
    shares: int
    most: int
    limbs: int


class Quantised(BaseModel):
    """``quantised.json``: the bounds of every layer, and the quantised network against the float one.

    Both on ``items`` items that nothing was calibrated on. ``agreement`` is the share of them with the same largest
    score; accuracies need labels. ``difference`` is the largest one, over the largest magnitude of the float network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    calibrated_on: int
    items: int
    accuracy: float | None
    accuracy_float: float | None
    agreement: float | None
    difference: float
    bounds: tuple[LayerBound, ...]


@dataclass(frozen=True)
class _Items:
    calibration: Arrays
    test: Arrays
    labels: np.ndarray | None


def quantise(
    model: Model, parts: Sequence[Part], masking: Masking, data: Data, *, threads: int
) -> tuple[Program, Quantised]:
    """Arrange the masked part as a program, calibrated on ``data``, and compare it with the float network.

    Args:
        model: the whole model.
        parts: its parts, the masked one first.
        masking: names the layers.
        data: what the audit ran on: items that are marked as held out are compared on, the others calibrated on.
        threads: threads to compare with.

    Raises:
        PlanError: naming a layer that cannot be quantised, or whose bound cannot be proven.
        DataError: if there are too few items, or values on them are not finite.
    """
    items = _divided(data)
    first = load_model(parts[0].proto)
    names = {tensor.name for tensor in first.inputs}
    entries = list(dict.fromkeys(layer.entry for layer in masking.layers))
    scales = calibrate(first, entries, {name: array for name, array in items.calibration.items() if name in names})
    names_padded = [layer.node for layer in masking.layers]
    program = build_program(first, names_padded, scales, arithmetic=masking.arithmetic)
    return program, _compared(model, parts, program, items, threads=threads)


def _divided(data: Data) -> _Items:
    """Divide the items into those to calibrate on and those to compare on."""
    count = len(data)
    heldout = data.heldout
    if heldout is None:
        heldout = np.arange(count) >= count - int(count * _UNMARKED_SHARE)
    used, test = np.flatnonzero(~heldout)[:_MOST_ITEMS], np.flatnonzero(heldout)[:_MOST_ITEMS]
    if not len(used) or not len(test):
        raise DataError(
            f"calibration: expected items that are held out and others, found {len(test)} and {len(used)} of {count}"
        )
    arrays = data.arrays()
    return _Items(
        {name: array[used] for name, array in arrays.items()},
        {name: array[test] for name, array in arrays.items()},
        None if data.labels is None else data.labels[test],
    )


def _compared(model: Model, parts: Sequence[Part], program: Program, items: _Items, *, threads: int) -> Quantised:
    name = model.outputs[0].name
    with ExitStack() as stack:
        (whole,) = split(model, ())
        float_model = _opened(whole, stack)
        quantised = stack.enter_context(QuantisedModel(program, threads=threads))
        later = [(_opened(part, stack), part) for part in parts[1:]]
        wanted, found = [], []
        for batch in _batches(items.test, 1 if model.batch_symbol is None else _BATCH_ITEMS):
            wanted.append(float_model.run(batch)[name])
            values = {**batch, **quantised.run({tensor.name: batch[tensor.name] for tensor in program.inputs})}
            for executable, part in later:
                values |= executable.run({tensor.name: values[tensor.name] for tensor in part.inputs})
            found.append(values[name])
    exact, ours = np.concatenate(wanted), np.concatenate(found)
    scores = exact.ndim == _SCORES
    best, best_float = (array.argmax(axis=1) if scores else None for array in (ours, exact))
    return Quantised(
        calibrated_on=len(next(iter(items.calibration.values()))),
        items=len(exact),
        accuracy=_share(best, items.labels),
        accuracy_float=_share(best_float, items.labels),
        agreement=_share(best, best_float),
        difference=float(np.abs(ours - exact).max(initial=0.0) / max(float(np.abs(exact).max(initial=0.0)), 1e-12)),
        bounds=tuple(
            LayerBound(
                layer=layer.name,
                products=layer.terms,
                shares=len(layer.chunks(exchange.limbs)),
                most=layer.most,
                limbs=exchange.limbs,
            )
            for exchange in program.exchanges
            for layer in exchange.layers
        ),
    )


def _batches(arrays: Arrays, size: int) -> list[dict[str, np.ndarray]]:
    count = len(next(iter(arrays.values())))
    return [{name: array[at : at + size] for name, array in arrays.items()} for at in range(0, count, size)]


def _opened(part: Part, stack: ExitStack) -> CheckedExecutable:
    device, executable = open_part(_DEVICE, part)
    stack.callback(device.close)
    stack.callback(executable.close)
    return executable


def _share(found: np.ndarray | None, wanted: np.ndarray | None) -> float | None:
    return None if found is None or wanted is None else float((found == wanted).mean())
