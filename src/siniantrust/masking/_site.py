"""The place at which a mask is put: one tensor of a cut, and the nodes that are added behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.errors import SinianError
from siniantrust.graph import Model, Tensor

# From here on Clip takes its bounds as inputs.
_CLIP_OPSET = 11
# From here on ReduceL2 takes its axes as an input.
_AXES_OPSET = 18

Fact = float | int | str
"""What a mask says of itself at one place, beyond its strength."""


class MaskError(SinianError):
    """A mask is unknown, or cannot be put at this place of this model."""


@dataclass(slots=True)
class Site:
    """One tensor that is masked, what is known of its values, and the nodes and constants added so far.

    Attributes:
        model: the model.
        tensor: the tensor, as one item sees it.
        strength: how strong the mask is to be; each mask says in which unit.
        parameters: the mask's further parameters, all of them.
        sample: values of all of the cut's tensors on the calibration items, (items, ...) each.
        generator: chooses the mask's fixed secrets. Fresh noise never comes from it.
        fixed: names of the constants that no training may change.
        facts: what the mask says of itself here; written into the model.
        crossing: the value that crosses, where nodes behind it belong to the other side; else the last node's output.
    """

    model: Model = field(repr=False)
    tensor: Tensor
    strength: float
    parameters: Mapping[str, float]
    sample: Mapping[str, np.ndarray] = field(repr=False)
    generator: np.random.Generator = field(repr=False)
    nodes: list[onnx.NodeProto] = field(default_factory=list, repr=False)
    constants: list[onnx.TensorProto] = field(default_factory=list, repr=False)
    fixed: list[str] = field(default_factory=list, repr=False)
    facts: dict[str, Fact] = field(default_factory=dict)
    crossing: str | None = None
    mean: float = field(init=False)
    spread: float = field(init=False)
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        """Work out mean, standard deviation (1 where all values are alike) and range (never empty) of the values."""
        values = self.values
        self.low, self.high = float(values.min()), float(values.max())
        alike = self.high == self.low
        self.mean = float(values.mean())
        self.spread = 1.0 if alike else float(values.std())
        self.high = self.low + 1.0 if alike else self.high

    @property
    def value(self) -> str:
        """Name of the value to mask."""
        return self.tensor.name

    @property
    def values(self) -> np.ndarray:
        """The tensor's values on the calibration items."""
        return self.sample[self.tensor.name]

    @property
    def item_axis(self) -> int:
        """The axis along which items lie; the first one in a model with a fixed batch."""
        return self.tensor.batch_axis or 0

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one item, without the axis of items."""
        return tuple(size for axis, size in enumerate(self.tensor.shape) if axis != self.item_axis)

    @property
    def item_elements(self) -> int:
        """Number of elements of one item."""
        return math.prod(self.item_shape)

    def refuse(self, why: str) -> MaskError:
        """Return the error that says why the mask cannot stand here."""
        return MaskError(f"tensor '{self.value}', {self.tensor.dtype} of shape {list(self.tensor.shape)}: {why}")

    def require_share(self, what: str) -> float:
        """Return the strength, which has to be a share below 1."""
        if self.strength >= 1:
            raise self.refuse(f"the strength is {what}, a share below 1; found {self.strength:g}")
        return self.strength

    def whole(self, name: str, value: float, *, least: int) -> int:
        """Return a number that has to be a whole one of at least ``least``."""
        if value != int(value) or value < least:
            raise self.refuse(f"{name} must be a whole number of at least {least}, found {value:g}")
        return int(value)

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of ONNX's own operators with one output, and return that output's name."""
        made = f"{self.value}_mask_{len(self.nodes)}_{op_type.lower()}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [made], name=made, **attributes))
        return made

    def constant(self, values: np.ndarray | float) -> str:
        """Add a constant of the tensor's own type, which stays as it is, and return its name."""
        return self._stored(np.asarray(values, dtype=self.tensor.dtype))

    def weight(self, values: np.ndarray) -> str:
        """Add numbers of the tensor's own type from which training may go on, and return their name."""
        name = self._stored(np.asarray(values, dtype=self.tensor.dtype))
        self.fixed.remove(name)
        return name

    def indices(self, values: np.ndarray | list[int] | int) -> str:
        """Add a constant of whole numbers, as shapes and indices are, and return its name."""
        return self._stored(np.asarray(values, dtype=np.int64))

    def crosses(self, value: str) -> str:
        """Say that ``value`` is what crosses, and that the nodes added from here on are the other side's."""
        self.crossing = value
        return value

    def note_noise(self, noise_std: float, *, information: float) -> None:
        """Note fresh additive noise, and the Fisher information about each number that noise of variance 1 leaves."""
        self.facts["noise_std"] = noise_std
        if noise_std:
            self.facts["fisher_information_per_number"] = information / noise_std**2

    def normal(self, *, mean: float = 0.0, std: float = 1.0) -> str:
        """Add fresh normal noise in the tensor's shape, independent for every item and query.

        It is scaled where it is drawn, which an enclave does ahead of time.
        """
        if np.float32(std) == 0:  # for which ONNX Runtime aborts the process
            nothing = self.add("Sub", self.value, self.value)
            return self.add("Add", nothing, self.constant(mean)) if mean else nothing
        return self.typed(self.add("RandomNormalLike", self.value, dtype=TensorProto.FLOAT, mean=mean, scale=std))

    def uniform(self, like: str, *, low: float, high: float) -> str:
        """Add fresh noise, even between ``low`` and ``high`` (exclusive), float32 in the shape of ``like``."""
        # No seed attribute: the enclave draws anew, and a runtime of its own does too.
        return self.add("RandomUniformLike", like, dtype=TensorProto.FLOAT, low=low, high=high)

    def single(self, values: np.ndarray | float) -> str:
        """Add a constant of float32, as what is drawn is, and return its name."""
        return self._stored(np.asarray(values, dtype=np.float32))

    def rows(self, value: str, *shape: int) -> str:
        """Add nodes that give every item of ``value``, which has the tensor's shape, another one; else as one row."""
        items = self.add("Transpose", value, perm=self._items_first) if self.item_axis else value
        return self.add("Reshape", items, self.indices([-1, *(shape or (self.item_elements,))]))

    def unrolled(self, rows: str) -> str:
        """Add nodes that bring rows back into the tensor's shape."""
        shaped = self.add("Reshape", rows, self.indices([-1, *self.item_shape]))
        if not self.item_axis:
            return shaped
        return self.add("Transpose", shaped, perm=[int(place) for place in np.argsort(self._items_first)])

    @property
    def _items_first(self) -> list[int]:
        return [self.item_axis, *(axis for axis in range(len(self.tensor.shape)) if axis != self.item_axis)]

    def one_each(self) -> str:
        """Add one number of each item, for what is drawn once for each."""
        value = self.value
        for axis in reversed(range(len(self.tensor.shape))):
            if axis != self.item_axis:
                value = self.add("Gather", value, self.indices(0), axis=axis)
        return value

    def clipped(self, value: str, low: float, high: float) -> str:
        """Add nodes that bring ``value`` between ``low`` and ``high``: a single one where the opset has it."""
        if self._opset >= _CLIP_OPSET and self.tensor.dtype == "float32":
            return self.add("Clip", value, self.constant(low), self.constant(high))
        return self.add("Min", self.add("Max", value, self.constant(low)), self.constant(high))

    def distance(self, value: str) -> str:
        """Add the node that gives the L2 norm of every item, with axes of length 1 in the place of all others."""
        axes = [axis for axis in range(len(self.tensor.shape)) if axis != self.item_axis]
        if self._opset >= _AXES_OPSET:
            return self.add("ReduceL2", value, self.indices(axes))
        return self.add("ReduceL2", value, axes=axes)

    def nearest_level(self, step: float, *, first: int = 0) -> str:
        """Add nodes that clip the tensor to its range and give the number of the nearest level.

        Levels are ``step`` apart from the lower end up, where that of the number ``first`` is. The clip comes last,
        so that sum and product stand where they can become part of what is before them: the sum in the model
        (``fold_linear_masks``), the product in ONNX Runtime, which leaves the model's weights to training as they were.
        """
        above = self.add("Add", self.value, self.constant((first + 0.5) * step - self.low))
        number = self.add("Mul", above, self.constant(1 / step))
        last = first + (self.high - self.low) / step
        return self.add("Floor", self.clipped(number, first + 0.5, last + 0.5))

    def at_level(self, level: str, step: float, *, first: int = 0) -> str:
        """Let the number of a level cross, and add nodes of the other side that give the level itself."""
        self.crosses(level)
        return self.add("Add", self.add("Mul", level, self.constant(step)), self.constant(self.low - first * step))

    def typed(self, noise: str) -> str:
        """Bring noise of float32 into the tensor's own type."""
        if self.tensor.dtype == "float32":
            return noise
        return self.add("Cast", noise, to=helper.np_dtype_to_tensor_dtype(np.dtype(self.tensor.dtype)))

    @property
    def _opset(self) -> int:
        found: int = next(entry.version for entry in self.model.proto.opset_import if not entry.domain)
        return found

    def _stored(self, values: np.ndarray) -> str:
        name = f"{self.value}_mask_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        self.fixed.append(name)
        return name
