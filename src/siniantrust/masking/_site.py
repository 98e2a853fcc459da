"""The place at which a mask is put: one tensor of a cut, and the nodes that are added behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import Tensor


@dataclass(slots=True)
class Site:
    """One tensor that is masked, what is known of its values, and the nodes and constants added so far.

    Attributes:
        tensor: the tensor, as one item sees it.
        strength: how strong the mask is to be; each mask says in which unit.
        mean: mean of the tensor's values on the calibration items.
        spread: their standard deviation; 1 where they are all alike.
        low: their smallest value.
        high: their largest value, above ``low``.
        generator: chooses the mask's fixed secrets. Fresh noise never comes from it.
    """

    tensor: Tensor
    strength: float
    mean: float
    spread: float
    low: float
    high: float
    generator: np.random.Generator = field(repr=False)
    nodes: list[onnx.NodeProto] = field(default_factory=list, repr=False)
    constants: list[onnx.TensorProto] = field(default_factory=list, repr=False)

    @property
    def value(self) -> str:
        """Name of the value to mask."""
        return self.tensor.name

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

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of ONNX's own operators with one output, and return that output's name."""
        made = f"{self.value}_mask_{len(self.nodes)}_{op_type.lower()}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [made], name=made, **attributes))
        return made

    def constant(self, values: np.ndarray | float) -> str:
        """Add a constant of the tensor's own type and return its name."""
        return self._stored(np.asarray(values, dtype=self.tensor.dtype))

    def indices(self, values: np.ndarray | int) -> str:
        """Add a constant of whole numbers, as shapes and indices are, and return its name."""
        return self._stored(np.asarray(values, dtype=np.int64))

    def normal(self) -> str:
        """Add fresh standard normal noise in the tensor's shape, independent for every item and query."""
        return self.typed(self.add("RandomNormalLike", self.value, dtype=TensorProto.FLOAT))

    def uniform(self, like: str, *, low: float, high: float) -> str:
        """Add fresh noise, even between ``low`` and ``high`` (exclusive), float32 in the shape of ``like``."""
        # No seed attribute: the runtime draws anew.
        return self.add("RandomUniformLike", like, dtype=TensorProto.FLOAT, low=low, high=high)

    def clipped(self, value: str, low: float, high: float) -> str:
        """Add nodes that bring ``value`` between ``low`` and ``high``."""
        return self.add("Min", self.add("Max", value, self.constant(low)), self.constant(high))

    def typed(self, noise: str) -> str:
        """Bring noise of float32 into the tensor's own type."""
        if self.tensor.dtype == "float32":
            return noise
        return self.add("Cast", noise, to=helper.np_dtype_to_tensor_dtype(np.dtype(self.tensor.dtype)))

    def _stored(self, values: np.ndarray) -> str:
        name = f"{self.value}_mask_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name
