"""A device's share of one exchange, as an ONNX model: masked values in, the layers' results out, as limbs of bytes.

In ``int8`` every limb is convolved, or multiplied, by itself, in the 8-bit operators of ONNX, with 32-bit sums, which
are proven to hold them. Weights are unsigned with a zero in the middle, since runtimes add products of signed weights
in 16 bits on some processors, which do not. Sums of limbs carry into the next one.

In ``float64`` limbs become one number, products are summed exactly (see ``_ring``), and sums become limbs again: what a
limb of a number below zero is, as a residue, is what rounding down leaves. Only arithmetic is used that runtimes have
for float64 on every device. Convolutions are unrolled into matrix products, since runtimes hardly ever convolve in
float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.graph import Part, part_from_proto
from siniantrust.masking.exact._layer import Layer, Window
from siniantrust.masking.exact._ring import LIMB_BITS, NARROW

_OPSET = 18
_IR_VERSION = 8
_UINT8, _DOUBLE = onnx.TensorProto.UINT8, onnx.TensorProto.DOUBLE
_LIMB = float(1 << LIMB_BITS)
_ZERO = 128
# Sums of limbs, of 255 times a row's weights, are smaller: see ``_ring``.
_LIFT, _WIDE_LIFT = 1 << 25, 1 << 40

Arithmetic = Literal["int8", "float64"]


def device_part(
    name: str, layers: Sequence[Layer], shapes: Mapping[str, Sequence[int]], *, limbs: int, arithmetic: Arithmetic
) -> Part:
    """Return the model that computes ``layers``; each reads ``<entry>`` and makes ``<exit>``, both uint8 with limbs.

    Args:
        name: the part's name.
        layers: the layers, which may share entries.
        shapes: shape of every entry and exit for one batch item, the batch as the first axis; limbs become the second.
        limbs: how many there are.
        arithmetic: in which it computes; results are the same.
    """
    writer = _Writer()
    entries = dict.fromkeys(layer.entry for layer in layers)
    if arithmetic == "int8":
        for layer in layers:
            writer.by_limb(layer, limbs, shapes)
    else:
        wide = {entry: writer.joined(entry, limbs, len(shapes[entry])) for entry in entries}
        for layer in layers:
            columns = wide[layer.entry]
            if layer.window is not None:
                columns = writer.unrolled(columns, layer.window, shapes[layer.entry], shapes[layer.exit])
            total = writer.product(layer, columns, limbs)
            writer.split(total, limbs, shapes[layer.exit], name=layer.exit)
    graph = helper.make_graph(
        writer.nodes,
        name,
        [_value(entry, shapes[entry], limbs) for entry in entries],
        [_value(layer.exit, shapes[layer.exit], limbs) for layer in layers],
        writer.constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return part_from_proto(proto, name=name)


def _value(name: str, shape: Sequence[int], limbs: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _UINT8, ["batch", limbs, *shape[1:]])


class _Writer:
    """Appends operators; each method returns the name of what it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, bytes], str] = {}

    def op(self, kind: str, inputs: list[str], *, name: str | None = None, **attributes: Any) -> str:
        made = name or f"exact.v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [made], name=f"exact.n{len(self.nodes)}", **attributes))
        return made

    def constant(self, values: np.ndarray) -> str:
        key = (f"{values.dtype}{values.shape}", values.tobytes())
        if key not in self._known:
            self._known[key] = f"exact.c{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(values, self._known[key]))
        return self._known[key]

    def by_limb(self, layer: Layer, limbs: int, shapes: Mapping[str, Sequence[int]]) -> None:
        """Make a layer's result of its entry, each limb by itself; then carry."""
        weight = (layer.weight.astype(np.int16) + _ZERO).astype(np.uint8)
        zeros = [self.constant(np.array(value, np.uint8)) for value in (0, _ZERO)]
        if layer.window is None:
            matrix = self.constant(np.ascontiguousarray(weight.T))
            each = self.op("MatMulInteger", [layer.entry, matrix, *zeros])
        else:
            window = layer.window
            apart = self.op("Reshape", [layer.entry, self.shape(-1, *shapes[layer.entry][1:])])
            each = self.op(
                *("ConvInteger", [apart, self.constant(weight), *zeros]),
                kernel_shape=window.kernel,
                strides=window.strides,
                dilations=window.dilations,
                pads=window.pads,
            )
            each = self.op("Reshape", [each, self.shape(-1, limbs, *shapes[layer.exit][1:])])
        # Above zero a quotient is rounded down. What lifts it there is nothing modulo 2^(8 limbs).
        lift, dtype = (_LIFT, np.int32) if limbs == NARROW else (_WIDE_LIFT, np.int64)
        if limbs != NARROW:
            each = self.op("Cast", [each], to=onnx.TensorProto.INT64)
        words = self.op("Add", [each, self.constant(np.array(lift, dtype))])
        size, axis = self.constant(np.array(_LIMB, dtype)), self.shape(1)
        pieces, carried = [], ""
        for limb in range(limbs):
            word = self.op("Slice", [words, self.shape(limb), self.shape(limb + 1), axis])
            if carried:
                word = self.op("Add", [word, carried])
            carried = self.op("Div", [word, size])
            pieces.append(self.op("Cast", [self.op("Sub", [word, self.op("Mul", [carried, size])])], to=_UINT8))
        self.op("Concat", pieces, axis=1, name=layer.exit)

    def shape(self, *sizes: int) -> str:
        """Return a shape as a constant."""
        return self.constant(np.array(sizes, dtype=np.int64))

    def joined(self, x: str, limbs: int, rank: int) -> str:
        """Return (batch, limbs, ...) bytes as (batch, ...) numbers, float64."""
        worth = np.array([_LIMB**limb for limb in range(limbs)]).reshape(limbs, *[1] * (rank - 1))
        each = self.op("Mul", [self.op("Cast", [x], to=_DOUBLE), self.constant(worth)])
        return self.op("ReduceSum", [each, self.constant(np.array([1], dtype=np.int64))], keepdims=0)

    def split(self, total: str, limbs: int, shape: Sequence[int], *, name: str) -> None:
        """Make integers, float64, into (batch, limbs, ...) bytes ``name``."""
        shrink, grow = (self.constant(np.array(value)) for value in (1 / _LIMB, _LIMB))
        form = self.shape(-1, 1, *shape[1:])
        pieces = []
        for _ in range(limbs):
            above = self.op("Floor", [self.op("Mul", [total, shrink])])
            limb = self.op("Sub", [total, self.op("Mul", [above, grow])])
            # By 32 bits: some runtimes have signed bytes on the way from floating point.
            limb = self.op("Cast", [self.op("Cast", [limb], to=onnx.TensorProto.INT32)], to=_UINT8)
            pieces.append(self.op("Reshape", [limb, form]))
            total = above
        self.op("Concat", pieces, axis=1, name=name)

    def unrolled(self, x: str, window: Window, entry: Sequence[int], exit_: Sequence[int]) -> str:
        """Return the neighbourhoods of a convolution as columns: (batch, channels * kernel, positions)."""
        top, left, bottom, right = window.pads
        if any(window.pads):
            pads = np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64)
            x = self.op("Pad", [x, self.constant(pads)])
        high, wide = exit_[2], exit_[3]
        axes = self.constant(np.array([2, 3], dtype=np.int64))
        steps = self.constant(np.array(window.strides, dtype=np.int64))
        pieces = []
        for row in range(window.kernel[0]):
            for column in range(window.kernel[1]):
                start = np.array([row * window.dilations[0], column * window.dilations[1]], dtype=np.int64)
                reach = np.array(
                    [(high - 1) * window.strides[0] + 1, (wide - 1) * window.strides[1] + 1], dtype=np.int64
                )
                piece = [x, self.constant(start), self.constant(start + reach), axes, steps]
                pieces.append(self.op("Slice", piece))
        joined = pieces[0] if len(pieces) == 1 else self.op("Concat", pieces, axis=1)
        return self.op("Reshape", [joined, self.shape(-1, entry[1] * len(pieces), high * wide)])

    def product(self, layer: Layer, columns: str, limbs: int) -> str:
        """Return the layer's sums over ``columns``: float64, of a magnitude below 2^53, right modulo 2^(8 limbs)."""
        matrix = matrix_of(layer)
        shares = layer.chunks(limbs)
        totals = []
        for share in shares:
            part = columns
            if len(shares) > 1:
                ends = [self.constant(np.array([end], dtype=np.int64)) for end in (share.start, share.stop)]
                axis = self.constant(np.array([1 if layer.window is not None else -1], dtype=np.int64))
                part = self.op("Slice", [columns, *ends, axis])
            # Eight times smaller to send than float64; runtimes fold the conversion when they load it.
            weights = self.op("Cast", [self.constant(np.ascontiguousarray(matrix[:, share]))], to=_DOUBLE)
            if layer.window is not None:
                totals.append(self.op("MatMul", [weights, part]))
            else:
                totals.append(self.op("MatMul", [part, self.op("Transpose", [weights], perm=[1, 0])]))
        result = totals[0]
        for other in totals[1:]:
            result = self.op("Add", [self.lowered(result, limbs), self.lowered(other, limbs)])
        return result

    def lowered(self, total: str, limbs: int) -> str:
        """Return integers modulo 2^(8 limbs)."""
        shrink, grow = (self.constant(np.array(value)) for value in (_LIMB**-limbs, _LIMB**limbs))
        above = self.op("Floor", [self.op("Mul", [total, shrink])])
        return self.op("Sub", [total, self.op("Mul", [above, grow])])


def matrix_of(layer: Layer) -> np.ndarray:
    """Return the weights as (rows, terms) in the order of ``unrolled``: kernel position first, then channel."""
    if layer.window is None:
        return layer.weight
    return layer.weight.transpose(0, 2, 3, 1).reshape(layer.rows, -1)
