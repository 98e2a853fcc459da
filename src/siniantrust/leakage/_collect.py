"""One pass of the model over the data, and what it showed kept on disk: computed once, shared by every attack.

A folder holds one file of half floats per tensor, mapped into memory by whoever reads it, and a record of how they were
encoded, written last: a folder without it is incomplete and is not used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from siniantrust._progress import Step
from siniantrust.leakage._archive import read_archive, write_archive
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._encode import Encoder, Sketch, fit_encoder
from siniantrust.leakage._features import Observed
from siniantrust.leakage._observe import Observer

_FIT_ITEMS = 128
_FIT_MIN_ITEMS = 8
_FIT_BYTES = 32 << 20
_CHUNK_ITEMS = 128
_RECORD = "observed.npz"


def collect(
    observer: Observer,
    inputs: Mapping[str, np.ndarray],
    watched: Sequence[str],
    budget: Budget,
    *,
    seed: int,
    folder: Path,
    step: Step,
    repeats: int = 1,
) -> Observed:
    """Run the model over ``inputs`` and keep the ``watched`` tensors and the outputs in ``folder``.

    Tensors that hold a number that is not finite are named in ``refused`` with the reason. With ``repeats``, the model
    answers so many times and the mean is kept.

    Raises:
        OSError: if the disk is full.
    """
    count = len(next(iter(inputs.values())))
    folder.mkdir(parents=True, exist_ok=True)
    encoders: dict[str, Encoder] = {}
    refused: dict[str, str] = {}
    samples = _samples(observer, {name: array[:_FIT_ITEMS] for name, array in inputs.items()}, watched, repeats)
    for index, name in enumerate(watched):
        if np.isfinite(samples[name]).all():
            encoders[name] = fit_encoder(
                samples.pop(name), max_elements=budget.feature_elements, max_side=budget.max_side, seed=seed + index
            )
        else:
            refused[name] = _not_finite(name)
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in observer.output_names}
    stores = {
        name: _reserved(_path(folder, watched, name), (count, *encoder.shape)) for name, encoder in encoders.items()
    }
    size = observer.batch_items if observer.batch_items > 1 else _CHUNK_ITEMS
    for start in range(0, count, size):
        batch = _mean_run(observer, {name: array[start : start + size] for name, array in inputs.items()}, repeats)
        for name, values in batch.items():
            if name in outputs:
                outputs[name].append(values)
            if name in encoders and name not in refused:
                if np.isfinite(values).all():
                    stores[name][start : start + len(values)] = encoders[name].encode(values)
                else:
                    refused[name] = _not_finite(name)
        step("features", advance=len(next(iter(batch.values()))) / count)
    found = Observed(
        stores=stores,
        encoders=encoders,
        refused=refused,
        outputs={name: np.concatenate(parts) for name, parts in outputs.items()},
    )
    _write_record(folder, found, watched)
    return found


def load_collected(folder: Path) -> Observed | None:
    """Return what ``collect`` kept in ``folder``; None if it is not whole."""
    found = read_archive(folder / _RECORD)
    if found is None:
        return None
    record, arrays = found
    encoders = {name: _encoder(index, entry, arrays) for index, (name, entry) in enumerate(record["encoders"].items())}
    try:
        stores = {
            name: np.memmap(
                _path(folder, record["watched"], name),
                dtype=np.float16,
                mode="r",
                shape=(record["count"], *encoder.shape),
            )
            for name, encoder in encoders.items()
        }
    except (OSError, ValueError):
        return None
    outputs = {name: arrays[f"output {index}"] for index, name in enumerate(record["outputs"])}
    return Observed(stores=stores, encoders=encoders, refused=record["refused"], outputs=outputs)


def _path(folder: Path, watched: Sequence[str], name: str) -> Path:
    return folder / f"{list(watched).index(name)}.f16"


def _reserved(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return a new array on disk whose space is taken now: a full disk must be an error here, not a crash later."""
    size = int(np.prod(shape)) * np.dtype(np.float16).itemsize
    with path.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(size, 1))
    return np.memmap(path, dtype=np.float16, mode="r+", shape=shape)


def _mean_run(observer: Observer, batch: Mapping[str, np.ndarray], repeats: int) -> dict[str, np.ndarray]:
    total = observer.run(batch)
    if repeats == 1:
        return total
    sums = {name: values.astype(np.float64) for name, values in total.items()}
    for _ in range(repeats - 1):
        for name, values in observer.run(batch).items():
            sums[name] += values
    return {name: (values / repeats).astype(total[name].dtype) for name, values in sums.items()}


def _samples(
    observer: Observer, inputs: Mapping[str, np.ndarray], watched: Sequence[str], repeats: int
) -> dict[str, np.ndarray]:
    """Return the watched values of the first items, of a large tensor fewer, so that all of them fit into memory."""
    kept: dict[str, list[np.ndarray]] = {name: [] for name in watched}
    count = len(next(iter(inputs.values())))
    for start in range(0, count, observer.batch_items):
        stop = start + observer.batch_items
        batch = _mean_run(observer, {name: array[start:stop] for name, array in inputs.items()}, repeats)
        for name in watched:
            most = max(_FIT_MIN_ITEMS, _FIT_BYTES // max(batch[name][:1].nbytes, 1))
            if start < most:
                kept[name].append(batch[name][: most - start])
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def _not_finite(name: str) -> str:
    return f"tensor '{name}' is not finite on this data"


def _write_record(folder: Path, found: Observed, watched: Sequence[str]) -> None:
    arrays: dict[str, np.ndarray] = {f"output {index}": values for index, values in enumerate(found.outputs.values())}
    entries = {}
    for index, (name, encoder) in enumerate(found.encoders.items()):
        arrays |= {f"{index} mean": encoder.mean, f"{index} scale": encoder.scale}
        if encoder.components is not None:
            arrays[f"{index} components"] = encoder.components
        if encoder.sketch is not None:
            arrays |= {f"{index} order": encoder.sketch.order, f"{index} signs": encoder.sketch.signs}
        width = None if encoder.sketch is None else encoder.sketch.width
        entries[name] = {"shape": encoder.shape, "block": encoder.block, "width": width}
    record = {
        "count": len(next(iter(found.outputs.values()))),
        "watched": list(watched),
        "encoders": entries,
        "refused": dict(found.refused),
        "outputs": list(found.outputs),
    }
    for values in found.stores.values():
        if isinstance(values, np.memmap):
            values.flush()
    write_archive(folder / _RECORD, record, arrays)


def _encoder(index: int, entry: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> Encoder:
    sketch = None
    if entry["width"] is not None:
        sketch = Sketch(width=int(str(entry["width"])), order=arrays[f"{index} order"], signs=arrays[f"{index} signs"])
    return Encoder(
        shape=tuple(np.asarray(entry["shape"], dtype=int).tolist()),
        mean=arrays[f"{index} mean"],
        scale=arrays[f"{index} scale"],
        block=int(str(entry["block"])),
        components=arrays.get(f"{index} components"),
        sketch=sketch,
    )
