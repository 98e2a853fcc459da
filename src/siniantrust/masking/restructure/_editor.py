"""Changing a graph: weights by name, nodes in place of others, and a clean end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from siniantrust.graph import Cut, Model, prefix_nodes


class Editor:
    """A copy of a model's graph that is being changed.

    Attributes:
        proto: the copy.
        trusted: the nodes before the cut, as they were when editing began.
    """

    def __init__(self, model: Model, cut: Cut) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(model.proto)
        self._nodes = list(self.proto.graph.node)
        self.trusted = [self._nodes[index] for index in prefix_nodes(model, cut)]
        self._stored = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self._taken = {*self._stored, *model.tensors, *(node.name for node in self._nodes)}

    @property
    def nodes(self) -> tuple[onnx.NodeProto, ...]:
        """The nodes as they are now, in order."""
        return tuple(self._nodes)

    def holds(self, name: str) -> bool:
        """Return whether a value is stored in the model."""
        return name in self._stored

    def weights(self, name: str) -> np.ndarray:
        """Return a stored tensor."""
        return numpy_helper.to_array(self._stored[name])

    def add(self, name: str, values: np.ndarray) -> str:
        """Store a new tensor under this name, or a like one if it is taken; return the name."""
        name = self.fresh(name)
        self._stored[name] = self.proto.graph.initializer.add()
        self.change(name, values)
        return name

    def change(self, name: str, values: np.ndarray) -> None:
        """Replace a stored tensor."""
        self._stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    def fresh(self, name: str) -> str:
        """Return a name that nothing has yet, and take it."""
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def maker(self, value: str) -> onnx.NodeProto | None:
        """Return the node that makes a value; None for inputs and stored tensors."""
        return next((node for node in self._nodes if value in node.output), None)

    def readers(self, value: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a value."""
        return [node for node in self._nodes if value in node.input]

    def is_output(self, value: str) -> bool:
        """Return whether a value leaves the model."""
        return any(output.name == value for output in self.proto.graph.output)

    def make(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
        """Return a new node, not yet in the graph, whose output is ``output``."""
        return helper.make_node(op_type, list(inputs), [output], name=self.fresh(f"{output}_node"), **attributes)

    def put_behind(self, node: onnx.NodeProto, *added: onnx.NodeProto) -> None:
        """Put nodes behind another one."""
        place = self._place(node)
        self._nodes[place + 1 : place + 1] = added

    def replace(self, node: onnx.NodeProto, *by: onnx.NodeProto) -> None:
        """Put nodes in another one's place."""
        place = self._place(node)
        self._nodes[place : place + 1] = by

    def redirect(self, old: str, new: str, *, but: Sequence[onnx.NodeProto] = ()) -> None:
        """Let everything that reads ``old`` read ``new``, except for some nodes."""
        for node in self._nodes:
            if not any(node is each for each in but):
                for place, name in enumerate(node.input):
                    if name == old:
                        node.input[place] = new

    def finish(self) -> onnx.ModelProto:
        """Return the changed model, without tensors that nothing reads and without shapes that may be stale."""
        copies = []
        for node in self._nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copies.append(copy)
        graph = self.proto.graph
        del graph.node[:]
        graph.node.extend(copies)
        read = {name for node in copies for name in node.input} | {output.name for output in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        tensors = []
        for tensor in kept:
            held = onnx.TensorProto()
            held.CopyFrom(tensor)
            tensors.append(held)
        del graph.initializer[:]
        graph.initializer.extend(tensors)
        del graph.value_info[:]
        return self.proto

    def _place(self, node: onnx.NodeProto) -> int:
        return next(place for place, each in enumerate(self._nodes) if each is node)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, or ``default`` if it does not have it."""
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give a node an attribute, in place of the one that it had."""
    kept = [each for each in node.attribute if each.name != name]
    copies = []
    for each in kept:
        copy = onnx.AttributeProto()
        copy.CopyFrom(each)
        copies.append(copy)
    del node.attribute[:]
    node.attribute.extend([*copies, helper.make_attribute(name, value)])
