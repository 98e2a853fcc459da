"""Which values of a model are random: the same input gives another one each time."""

from __future__ import annotations

from siniantrust.graph import Model

_SOURCES = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def random_tensors(model: Model) -> frozenset[str]:
    """Return the names of the values that depend on a random operator."""
    found: set[str] = set()
    for node in model.nodes:
        if node.op_type in _SOURCES or found.intersection(node.inputs):
            found.update(node.outputs)
    return frozenset(found)
