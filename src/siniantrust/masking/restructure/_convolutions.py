"""The convolutions of a trusted part that can be taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from siniantrust.masking.restructure._editor import Editor, attribute

_LEAST_RANK = 3


@dataclass(frozen=True, slots=True)
class Convolution:
    """An ungrouped convolution with stored weights (M, C, *kernel), more than one channel and a kernel above 1."""

    node: onnx.NodeProto
    weights: np.ndarray = field(repr=False)

    @property
    def bias(self) -> list[str]:
        """Name of its bias, if it has one."""
        return list(self.node.input[2:3])


def convolutions(editor: Editor) -> list[Convolution]:
    """Return the convolutions before the cut that a pass may take apart, in order."""
    found = []
    for node in editor.trusted:
        if node.op_type != "Conv" or not editor.holds(node.input[1]) or attribute(node, "group", 1) != 1:
            continue
        weights = editor.weights(node.input[1])
        if weights.ndim >= _LEAST_RANK and weights.shape[1] > 1 and max(weights.shape[2:]) > 1:
            found.append(Convolution(node, weights))
    return found


def take_apart(editor: Editor, convolution: Convolution, first: np.ndarray, second: np.ndarray, *, group: int) -> None:
    """Put two convolutions in a convolution's place: its window with weights ``first``, then 1 x 1 with ``second``."""
    node = convolution.node
    (made,) = node.output
    inner = editor.fresh(f"{made}_inner")
    stem = node.input[1]
    kept = [each for each in node.attribute if each.name not in ("group", "kernel_shape")]
    before = editor.make("Conv", [node.input[0], editor.add(f"{stem}_window", first)], inner, group=group)
    before.attribute.extend(kept)
    after = editor.make("Conv", [inner, editor.add(f"{stem}_mix", second), *convolution.bias], made)
    editor.replace(node, before, after)
