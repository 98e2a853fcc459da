"""What a program is made of: the stages that alternate. An enclave reads this module too, without an ONNX library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from siniantrust.masking.exact._finish import Finish
from siniantrust.masking.exact._joined import Joined
from siniantrust.masking.exact._layer import Layer
from siniantrust.masking.exact._stock import TAG_BYTES

if TYPE_CHECKING:
    from siniantrust.graph import Part, Tensor


@dataclass(frozen=True, slots=True)
class Correction:
    """What belongs to one layer's result ``exit`` in one item: ``count`` numbers of ``limbs`` bytes, and a tag."""

    exit: str
    limbs: int
    count: int

    @property
    def size_bytes(self) -> int:
        """What it takes at the host."""
        return self.limbs * self.count + TAG_BYTES


@dataclass(frozen=True)
class Exchange:
    """One round trip: masked entries out, results of the layers back.

    ``number`` counts exchanges; ``entries`` maps each value that is sent to its number in the whole program, which its
    pad is drawn with; ``steps`` says of which of them only every so many rows and columns are sent, and ``joins`` which
    are no values of the model, but put together of several. ``finishes`` says for every layer what unmasking it gives,
    and ``shapes`` holds the shapes of entries and results for one item, as they cross, but for the axis of limbs: of
    ``limbs`` bytes each number is then made. ``part`` is what devices run, ``inside`` what the trusted side runs for
    the same results.
    """

    number: int
    entries: Mapping[str, int]
    layers: tuple[Layer, ...]
    finishes: tuple[Finish, ...]
    steps: Mapping[str, tuple[int, int]]
    joins: Mapping[str, tuple[Joined, ...]]
    limbs: int
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    part: Part = field(repr=False)
    inside: Part = field(repr=False)

    @property
    def read(self) -> tuple[str, ...]:
        """The values that entries are, or are put together of."""
        joined = (part.value for parts in self.joins.values() for part in parts)
        return (*(name for name in self.entries if name not in self.joins), *joined)

    def form(self, value: str, items: int) -> tuple[int, ...]:
        """Return the shape in which an entry or a result of so many items crosses."""
        return (items, self.limbs, *self.shapes[value][1:])

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """What belongs to each layer's result in one item."""
        return tuple(
            Correction(layer.exit, self.limbs, math.prod(self.shapes[layer.exit][1:])) for layer in self.layers
        )


@dataclass(frozen=True)
class Program:
    """Stages in the order in which they run; ``segments[i]`` comes before ``exchanges[i]``, the last one at the end.

    A segment is None where nothing is to be computed.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    segments: tuple[Part | None, ...] = field(repr=False)
    exchanges: tuple[Exchange, ...] = field(repr=False)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer that a device computes."""
        return tuple(layer for exchange in self.exchanges for layer in exchange.layers)
