"""The features of many tensors over many items, computed in one pass and kept in memory or on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from siniantrust._progress import Step
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._encode import Encoder, fit_encoder
from siniantrust.leakage._observe import Observer

_FIT_ITEMS = 128
_FIT_MIN_ITEMS = 8
_FIT_BYTES = 32 << 20
_CHUNK_ITEMS = 128


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A run of items of one cut's tensors: ``stores[i]`` is (all items, *shape) float16, rows ``start`` to ``stop``.

    ``encoders[i]`` made it; ``note`` says what of the tensors was reduced, empty if nothing.
    """

    stores: tuple[np.ndarray, ...] = field(repr=False)
    encoders: tuple[Encoder, ...] = field(repr=False)
    start: int
    stop: int
    note: str = ""

    def __len__(self) -> int:
        """Return the number of items."""
        return self.stop - self.start

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one item of each tensor."""
        return tuple(store.shape[1:] for store in self.stores)

    @property
    def width(self) -> int:
        """Numbers per item over all tensors."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def head(self, count: int) -> FeatureSet:
        """Return the first ``count`` items."""
        return replace(self, stop=self.start + min(count, len(self)))

    def tensor(self, index: int, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return rows of one tensor, float32 (rows, *shape)."""
        return np.asarray(self.stores[index][self.start : self.stop][rows], dtype=np.float32)

    def original(self, index: int, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return rows of one tensor as the model gave them, float32; a reduced one stays as it is kept."""
        return self.encoders[index].decode(self.tensor(index, rows))

    def flat(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return rows of all tensors side by side, float32 (rows, width)."""
        parts = [self.tensor(index, rows) for index in range(len(self.stores))]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield ``flat`` in pieces of some items, so that wide features never stand in memory as a whole."""
        for start in range(0, len(self), _CHUNK_ITEMS):
            yield self.flat(slice(start, start + _CHUNK_ITEMS))


@dataclass(frozen=True, slots=True)
class Observed:
    """What one pass over the data gave: kept features by tensor, the model's outputs, and what could not be kept."""

    stores: Mapping[str, np.ndarray] = field(repr=False)
    encoders: Mapping[str, Encoder] = field(repr=False)
    refused: Mapping[str, str]
    outputs: Mapping[str, np.ndarray] = field(repr=False)

    def features(self, tensors: Sequence[str], start: int, stop: int) -> FeatureSet:
        """Return rows ``start`` to ``stop`` of a cut's tensors."""
        encoders = {name: self.encoders[name] for name in tensors}
        return FeatureSet(
            stores=tuple(self.stores[name] for name in tensors),
            encoders=tuple(encoders.values()),
            start=start,
            stop=stop,
            note="; ".join(
                f"{name} kept as {'x'.join(map(str, encoder.shape))} numbers"
                for name, encoder in encoders.items()
                if encoder.reduced
            ),
        )


@contextmanager
def observe(
    observer: Observer,
    inputs: Mapping[str, np.ndarray],
    watched: Sequence[str],
    budget: Budget,
    *,
    seed: int,
    step: Step,
) -> Iterator[Observed]:
    """Run the model over ``inputs`` once and keep the ``watched`` tensors; what lies on disk vanishes at the end.

    Tensors that hold a number that is not finite are named in ``refused`` with the reason.
    """
    count = len(next(iter(inputs.values())))
    encoders: dict[str, Encoder] = {}
    refused: dict[str, str] = {}
    samples = _samples(observer, {name: array[:_FIT_ITEMS] for name, array in inputs.items()}, watched)
    for index, name in enumerate(watched):
        if np.isfinite(samples[name]).all():
            encoders[name] = fit_encoder(
                samples.pop(name), max_elements=budget.feature_elements, max_side=budget.max_side, seed=seed + index
            )
        else:
            refused[name] = _not_finite(name)
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in observer.output_names}
    with tempfile.TemporaryDirectory(prefix="siniantrust-features-") as folder:
        stores = _make_stores(encoders, count, budget.memory_bytes, Path(folder))
        size = observer.batch_items if observer.batch_items > 1 else _CHUNK_ITEMS
        for start in range(0, count, size):
            batch = observer.run({name: array[start : start + size] for name, array in inputs.items()})
            for name, values in batch.items():
                if name in outputs:
                    outputs[name].append(values)
                if name in encoders and name not in refused:
                    if np.isfinite(values).all():
                        stores[name][start : start + len(values)] = encoders[name].encode(values)
                    else:
                        refused[name] = _not_finite(name)
            step("features", advance=len(next(iter(batch.values()))) / count)
        yield Observed(
            stores=stores,
            encoders=encoders,
            refused=refused,
            outputs={name: np.concatenate(parts) for name, parts in outputs.items()},
        )


def _samples(observer: Observer, inputs: Mapping[str, np.ndarray], watched: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the watched values of the first items, of a large tensor fewer, so that all of them fit into memory."""
    kept: dict[str, list[np.ndarray]] = {name: [] for name in watched}
    count = len(next(iter(inputs.values())))
    for start in range(0, count, observer.batch_items):
        stop = start + observer.batch_items
        batch = observer.run({name: array[start:stop] for name, array in inputs.items()})
        for name in watched:
            most = max(_FIT_MIN_ITEMS, _FIT_BYTES // max(batch[name][:1].nbytes, 1))
            if start < most:
                kept[name].append(batch[name][: most - start])
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def _not_finite(name: str) -> str:
    return f"tensor '{name}' is not finite on this data"


def _make_stores(encoders: Mapping[str, Encoder], count: int, memory_bytes: int, folder: Path) -> dict[str, np.ndarray]:
    stores: dict[str, np.ndarray] = {}
    free = memory_bytes
    for index, (name, encoder) in enumerate(encoders.items()):
        shape = (count, *encoder.shape)
        size = int(np.prod(shape)) * np.dtype(np.float16).itemsize
        if size <= free:
            stores[name] = np.empty(shape, dtype=np.float16)
            free -= size
        else:
            stores[name] = np.memmap(folder / f"{index}.f16", dtype=np.float16, mode="w+", shape=shape)
    return stores
