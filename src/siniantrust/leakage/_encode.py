"""How one tensor's values are kept for the attacks: normalised per channel, as half floats, and bounded in size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

# Values beyond this many standard deviations would become infinite as half floats.
_HALF_MAX = 60_000.0


@dataclass(frozen=True, slots=True)
class Encoder:
    """Maps values (N, *item shape) to half floats (N, *shape), fitted once on a few items.

    The map is affine and, unless the tensor is too large, invertible: nothing an attacker could use is lost but the
    half float's rounding, relative to each channel's own spread. Too large tensors are reduced: maps by moving space
    to channels and projecting these on their principal components, anything else by a signed random sum.
    """

    shape: tuple[int, ...]
    mean: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    block: int = 1
    components: np.ndarray | None = field(default=None, repr=False)
    sketch: Sketch | None = None

    @property
    def reduced(self) -> bool:
        """Whether the tensor was too large to be kept whole."""
        return self.components is not None or self.sketch is not None

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the kept form of ``values``, float16 (N, *shape)."""
        values = np.asarray(values, dtype=np.float32)
        # A tensor with one number per item has no axis of its own for it.
        kept = (values.reshape(len(values), *(values.shape[1:] or (1,))) - self.mean) / self.scale
        if self.components is not None:
            maps = space_to_channels(kept, self.block)
            kept = self.components @ maps.reshape(*maps.shape[:2], -1)
        elif self.sketch is not None:
            kept = self.sketch.apply(kept.reshape(len(kept), -1))
        halves: np.ndarray = np.clip(kept, -_HALF_MAX, _HALF_MAX).astype(np.float16)
        return halves.reshape(len(kept), *self.shape)

    def decode(self, kept: np.ndarray) -> np.ndarray:
        """Undo the affine map; what was reduced is returned as it is."""
        return kept if self.reduced else kept * self.scale + self.mean


@dataclass(frozen=True, slots=True)
class Sketch:
    """A count sketch: every number goes with a random sign into one of ``width`` sums.

    It keeps inner products up to a variance of 1 / width (Charikar, Chen, Farach-Colton 2002; Weinberger et al. 2009).
    """

    width: int
    order: np.ndarray = field(repr=False)
    signs: np.ndarray = field(repr=False)

    @classmethod
    def make(cls, elements: int, width: int, seed: int) -> Sketch:
        """Draw a sketch from ``elements`` numbers to ``width``."""
        generator = np.random.default_rng(seed)
        signs = generator.integers(0, 2, elements).astype(np.float32) * 2 - 1
        return cls(width=width, order=generator.permutation(elements), signs=signs)

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """Sketch ``rows`` (N, elements) to (N, width)."""
        mixed = rows[:, self.order] * self.signs
        groups = math.ceil(mixed.shape[1] / self.width)
        mixed = np.pad(mixed, ((0, 0), (0, groups * self.width - mixed.shape[1])))
        sums: np.ndarray = mixed.reshape(len(rows), groups, self.width).sum(axis=1)
        return sums


def space_to_channels(maps: np.ndarray, block: int) -> np.ndarray:
    """Move blocks of ``block`` x ``block`` pixels into channels: (N, C, H, W) to (N, C block², H/block, W/block)."""
    if block == 1:
        return maps
    count, channels, height, width = maps.shape
    split = maps.reshape(count, channels, height // block, block, width // block, block)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(count, channels * block**2, height // block, width // block)


def fit_encoder(sample: np.ndarray, *, max_elements: int, max_side: int, seed: int) -> Encoder:
    """Fit an encoder on ``sample`` (N, *item shape); what it keeps has at most ``max_elements`` numbers per item."""
    sample = np.asarray(sample, dtype=np.float32)
    item = sample.shape[1:] or (1,)
    sample = sample.reshape(len(sample), *item)
    # Maps (C, H, W) keep one scale per channel, sequences (T, D) one per feature, anything else one per number.
    axes = {3: (0, 2, 3), 2: (0, 1)}.get(len(item), (0,))
    # In double precision: large but finite values must not overflow when squared.
    mean = sample.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    spread = sample.std(axis=axes, keepdims=True, dtype=np.float64)
    scale = np.where(spread > 0, spread, 1).astype(np.float32)
    elements = math.prod(item)
    if elements <= max_elements:
        return Encoder(shape=item, mean=mean, scale=scale)
    if len(item) == 3:  # noqa: PLR2004 - (channels, height, width)
        block = _block(item[1], item[2], max_side)
        maps = space_to_channels((sample - mean) / scale, block)
        kept = min(maps.shape[1], max_elements // (maps.shape[2] * maps.shape[3]))
        if kept >= 1:
            flat = maps.transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)
            # eigh sorts ascending: the last vectors carry the most variance.
            _, vectors = np.linalg.eigh(flat @ flat.T / flat.shape[1])
            components = np.ascontiguousarray(vectors[:, -kept:].T)
            shape = (kept, *maps.shape[2:])
            return Encoder(shape=shape, mean=mean, scale=scale, block=block, components=components)
    sketch = Sketch.make(elements, max_elements, seed)
    return Encoder(shape=(max_elements,), mean=mean, scale=scale, sketch=sketch)


def _block(height: int, width: int, max_side: int) -> int:
    """Return the smallest block that divides both sides and brings them to ``max_side``, or 1."""
    wanted = math.ceil(max(height, width) / max_side)
    return next((b for b in range(wanted, 2 * wanted + 1) if height % b == 0 and width % b == 0), 1)
