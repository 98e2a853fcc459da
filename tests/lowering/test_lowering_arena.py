"""The arena: no two tensors that live at the same time overlap, and the figure is what it takes."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lowering_host import build_model
from onnx import TensorProto, helper

from siniantrust.lowering import lower
from siniantrust.lowering._arena import ALIGNMENT_BYTES, Life, place

_LIVES = st.lists(
    st.builds(
        lambda size, first, length: Life(size, first, first + length),
        st.integers(1, 300),
        st.integers(0, 12),
        st.integers(0, 6),
    ),
    max_size=14,
)


@given(_LIVES)
def test_tensors_alive_together_do_not_overlap(lives: list[Life]) -> None:
    """Whatever the sizes and lives, places are aligned, inside the arena, and disjoint while two are alive."""
    offsets, total = place(lives)
    for at, life in zip(offsets, lives, strict=True):
        assert at % ALIGNMENT_BYTES == 0
        assert at >= 0
        assert at + life.size_bytes <= total
    for one, other in itertools.combinations(range(len(lives)), 2):
        first, second = lives[one], lives[other]
        if first.first <= second.last and second.first <= first.last:
            assert (
                offsets[one] + first.size_bytes <= offsets[other] or offsets[other] + second.size_bytes <= offsets[one]
            )


def test_memory_of_a_chain_is_two_activations() -> None:
    """In a chain, an activation function works in place, and two convolutions take turns in the arena."""
    nodes = []
    for index in range(4):
        nodes.append(helper.make_node("Conv", [f"r{index}", "w"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index + 1}"]))
    model = build_model(
        nodes,
        {"r0": (TensorProto.FLOAT, [1, 4, 8, 8])},
        {"r4": (TensorProto.FLOAT, [1, 4, 8, 8])},
        {"w": np.ones((4, 4, 3, 3), np.float32)},
    )
    lowered = lower(model)
    one_bytes = 4 * 8 * 8 * 4
    assert (lowered.input_bytes, lowered.output_bytes, lowered.weights_bytes) == (one_bytes, one_bytes, 4 * 4 * 9 * 4)
    assert lowered.arena_bytes == 2 * one_bytes
    assert lowered.memory_bytes == 4 * one_bytes + 4 * 4 * 9 * 4
