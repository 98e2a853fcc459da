"""The features of many tensors over many items, as the attacks read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from siniantrust.leakage._encode import Encoder

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
