"""Fresh noise inside the enclave: AES-256 in counter mode under a key that is drawn there and never leaves it.

Uniform numbers are whole multiples of 2**-53 (of 2**-24 for float32, of 2**-11 for float16) on [0, 1), all equally
likely. Normal numbers come from pairs of the former by Box and Muller 1958 in double precision, and are rounded to the
input's type at the end: their tails end at 8.57 standard deviations, beyond which lies a share of 1e-17. Laplace
numbers are differences of two logarithms of even ones, likewise in double precision, with tails to 36 times their
scale. Ones and zeros are even numbers held against the share of ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from siniantrust.errors import EnclaveError

PREFIX = "siniantrust.noise."
PREPARED = PREFIX + "prepared:"
_KEY_BYTES = 32
_BLOCK_BYTES = 16
_PAIRS = 4096  # what is worked on at a time stays in the cache
_BITS = {"float16": 11, "float32": 24, "float64": 53}
_WORD_BITS = 64


Kind = Literal["normal", "uniform", "laplace", "bernoulli"]


@dataclass(frozen=True, slots=True)
class Law:
    """Normal numbers of mean 0 and variance 1, even ones on [0, 1), Laplace ones of scale 1; or 1s and 0s (Bernoulli).

    They are multiplied by ``factor``. ``offset`` is added; of Bernoulli numbers it is the probability of a 1 instead.
    """

    kind: Kind
    offset: float = 0.0
    factor: float = 1.0


class NoiseSource:
    """A generator with a key of its own, from the operating system; no two draw the same, and none can be seeded."""

    def __init__(self) -> None:
        self._stream = Cipher(algorithms.AES(os.urandom(_KEY_BYTES)), modes.CTR(bytes(_BLOCK_BYTES))).encryptor()
        self._zeros = bytes(2 * _PAIRS * _WORD_BITS // 8)

    def draw(self, law: Law, shape: Sequence[int], dtype: str) -> np.ndarray:
        """Return fresh numbers, all independent; they are scaled in double precision."""
        drawn = np.empty(shape, np.dtype(dtype))
        flat = drawn.reshape(-1)
        for start in range(0, flat.size, 2 * _PAIRS):
            piece = flat[start : start + 2 * _PAIRS]
            numbers = self._numbers(law, len(piece), _BITS[dtype])
            numbers *= law.factor
            if law.kind != "bernoulli":
                numbers += law.offset
            piece[:] = numbers
        return drawn

    def _numbers(self, law: Law, count: int, bits: int) -> np.ndarray:
        """Return numbers in double precision, not yet scaled."""
        if law.kind == "normal":
            return self._normal(count)
        if law.kind == "laplace":
            return self._laplace(count)
        numbers = self._uniform(count, bits)
        if law.kind == "bernoulli":
            np.greater_equal(numbers, 1 - law.offset, out=numbers)
        return numbers

    def _uniform(self, count: int, bits: int) -> np.ndarray:
        words = np.empty(count, np.uint64)
        self._stream.update_into(memoryview(self._zeros)[: words.nbytes], words.view(np.uint8).data)
        words >>= np.uint64(_WORD_BITS - bits)
        numbers = words.astype(np.float64)
        numbers *= 2.0**-bits
        return numbers

    def _normal(self, count: int) -> np.ndarray:
        pairs = -(-count // 2)
        uniform = self._uniform(2 * pairs, _BITS["float64"])
        radius, angle = uniform[:pairs], uniform[pairs:]
        np.subtract(1.0, radius, out=radius)  # on (0, 1], where the logarithm is finite
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle *= 2 * np.pi
        numbers = np.empty(2 * pairs)
        np.multiply(radius, np.cos(angle), out=numbers[:pairs])
        np.multiply(radius, np.sin(angle), out=numbers[pairs:])
        return numbers[:count]

    def _laplace(self, count: int) -> np.ndarray:
        numbers = self._logarithms(count)
        numbers -= self._logarithms(count)
        return numbers

    def _logarithms(self, count: int) -> np.ndarray:
        numbers = self._uniform(count, _BITS["float64"])
        np.subtract(1.0, numbers, out=numbers)  # on (0, 1], as above
        np.log(numbers, out=numbers)
        return numbers


@dataclass(frozen=True, slots=True)
class NoiseInput:
    """A reserved input of a part; a free size in ``shape`` is the name of the batch."""

    name: str
    law: Law
    dtype: str
    shape: tuple[int | str, ...]


class NoiseFeed:
    """The reserved inputs of one part, each filled anew for every run, and drawn ahead where there is time.

    Args:
        inputs: what is drawn.
        source: draws it.
        prepare: makes of what was drawn, by name, what the part is fed; what is drawn is fed where there is none.
    """

    def __init__(
        self,
        inputs: Sequence[NoiseInput],
        source: NoiseSource,
        prepare: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
    ) -> None:
        self._inputs = tuple(inputs)
        self._source = source
        self._prepare = prepare
        self._sizes: dict[str, int] | None = None
        self._ahead: dict[str, np.ndarray] | None = None

    def take(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Return noise for one run, in which the free sizes are ``sizes``; what is returned is used once.

        Raises:
            EnclaveError: if a free size is not among them.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None and sizes == self._sizes:
            return ahead
        self._sizes = dict(sizes)
        return self.draw(sizes)

    def draw_ahead(self) -> None:
        """Draw for a next run of the same sizes as the last one."""
        if self._inputs and self._sizes is not None and self._ahead is None:
            self._ahead = self.draw(self._sizes)

    def draw(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Return fresh noise for a run in which the free sizes are ``sizes``."""
        drawn = {
            each.name: self._source.draw(each.law, [_size(each.name, size, sizes) for size in each.shape], each.dtype)
            for each in self._inputs
        }
        return drawn if self._prepare is None else self._prepare(drawn)


def law_of(name: str) -> Law:
    """Return the law of a reserved input, by its name.

    Raises:
        EnclaveError: if the name says no law.
    """
    law, *numbers = name.removeprefix(PREFIX).split(":", 3)
    try:
        offset, factor = (float(number) for number in numbers[:2])
    except ValueError:
        offset = factor = math.nan
    if law not in get_args(Kind) or not math.isfinite(offset) or not math.isfinite(factor):
        raise EnclaveError(f"enclave: the input '{name}' has a reserved name that says no law; seal the part again")
    return Law(cast("Kind", law), offset, factor)


def _size(name: str, size: int | str, sizes: Mapping[str, int]) -> int:
    """Return a size, which may be free (``n``) or a multiple of a free one (``8*n``)."""
    if isinstance(size, int):
        return size
    factor, _, symbol = size.rpartition("*")
    if symbol not in sizes:
        raise EnclaveError(f"enclave: {name}: its size '{symbol}' is the size of no input, so that it cannot be drawn")
    return int(factor or 1) * sizes[symbol]
