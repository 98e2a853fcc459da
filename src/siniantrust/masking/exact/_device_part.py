"""A device's share of one exchange, as an ONNX model: masked values in, residues of the layers' results out.

Residues travel as uint32. On the device they become float64, products are summed exactly (see ``_field``), and a
partial sum below 2^53 is folded once by 2^31 = 1 (mod 2^31 - 1), which brings it below 2^32 again. Convolutions are
unrolled into matrix products, since runtimes hardly ever convolve in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.graph import Part, part_from_proto
from siniantrust.masking.exact import _field
from siniantrust.masking.exact._layer import Layer, Window

_OPSET = 18
_IR_VERSION = 8
_UINT32, _UINT64, _DOUBLE = onnx.TensorProto.UINT32, onnx.TensorProto.UINT64, onnx.TensorProto.DOUBLE


def device_part(name: str, layers: Sequence[Layer], shapes: Mapping[str, Sequence[int]]) -> Part:
    """Return the model that computes ``layers``; each reads ``<entry>`` and makes ``<exit>``, both uint32.

    Args:
        name: the part's name.
        layers: the layers, which may share entries.
        shapes: shape of every entry and exit for one batch item, the batch as the first axis.
    """
    writer = _Writer()
    entries = dict.fromkeys(layer.entry for layer in layers)
    wide = {entry: writer.op("Cast", [entry], to=_DOUBLE) for entry in entries}
    for layer in layers:
        columns = wide[layer.entry]
        if layer.window is not None:
            columns = writer.unrolled(columns, layer.window, shapes[layer.entry], shapes[layer.exit])
            result = writer.product(layer, columns)
            rows = [-1, layer.rows, *shapes[layer.exit][2:]]
            result = writer.op("Reshape", [result, writer.constant(np.array(rows, dtype=np.int64))])
        else:
            result = writer.product(layer, columns)
        writer.op("Cast", [result], to=_UINT32, name=layer.exit)
    graph = helper.make_graph(
        writer.nodes,
        name,
        [_value(entry, shapes[entry]) for entry in entries],
        [_value(layer.exit, shapes[layer.exit]) for layer in layers],
        writer.constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return part_from_proto(proto, name=name)


def _value(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _UINT32, ["batch", *shape[1:]])


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
        size = np.array([-1, entry[1] * len(pieces), high * wide], dtype=np.int64)
        return self.op("Reshape", [joined, self.constant(size)])

    def product(self, layer: Layer, columns: str) -> str:
        """Return residues (below 2^32, uint64) of the layer's sums over ``columns``."""
        matrix = matrix_of(layer)
        shares = layer.chunks()
        folded = []
        for share in shares:
            part = columns
            if len(shares) > 1:
                ends = [self.constant(np.array([end], dtype=np.int64)) for end in (share.start, share.stop)]
                axis = self.constant(np.array([1 if layer.window is not None else -1], dtype=np.int64))
                part = self.op("Slice", [columns, *ends, axis])
            # Eight times smaller to send than float64; runtimes fold the conversion when they load it.
            weights = self.op("Cast", [self.constant(np.ascontiguousarray(matrix[:, share]))], to=_DOUBLE)
            if layer.window is not None:
                total = self.op("MatMul", [weights, part])
            else:
                total = self.op("MatMul", [part, self.op("Transpose", [weights], perm=[1, 0])])
            folded.append(self.folded(total))
        result = folded[0]
        for other in folded[1:]:
            result = self.folded_integers(self.op("Add", [result, other]))
        return result

    def folded(self, total: str) -> str:
        """Return a sum (float64, magnitude below 2^53) as residues: first lifted above zero by a multiple."""
        lift = self.constant(np.array(float(_field.LIFT)))
        return self.folded_integers(self.op("Cast", [self.op("Add", [total, lift])], to=_UINT64))

    def folded_integers(self, value: str) -> str:
        """Return ``value`` (uint64, below 2^62) folded once: the low 31 bits plus the rest."""
        prime = self.constant(np.array(_field.PRIME, dtype=np.uint64))
        bits = self.constant(np.array(_field.BITS, dtype=np.uint64))
        low = self.op("BitwiseAnd", [value, prime])
        high = self.op("BitShift", [value, bits], direction="RIGHT")
        return self.op("Add", [low, high])


def matrix_of(layer: Layer) -> np.ndarray:
    """Return the weights as (rows, terms) in the order of ``unrolled``: kernel position first, then channel."""
    if layer.window is None:
        return layer.weight
    return layer.weight.transpose(0, 2, 3, 1).reshape(layer.rows, -1)
