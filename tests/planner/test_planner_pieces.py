"""A model taken apart, and the regression over its pieces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from planner_models import chain_model, random_model

from siniantrust.graph import enumerate_cuts
from siniantrust.odla import DeviceSpec, open_device
from siniantrust.planner._pieces import MOST_PIECES, Specimen, even_cuts
from siniantrust.planner._regression import fit_nodes


@pytest.mark.parametrize("seed", range(6))
def test_pieces_compose_to_the_model(seed: int) -> None:
    """Every node is in one piece, and the pieces run one after the other give the model's outputs."""
    model = random_model(seed, nodes=20)
    specimen = Specimen(model, enumerate_cuts(model), 0, open_device(DeviceSpec("here")))
    pieces = specimen.pieces()
    assert len(pieces) <= MOST_PIECES
    assert sorted(name for part in pieces for name in part.node_names) == sorted(node.name for node in model.nodes)
    values = dict(specimen.inputs)
    for part, inputs in zip(pieces, specimen.fed(pieces), strict=True):
        values |= specimen.here.compile(part).run(inputs)
    whole = specimen.here.compile(specimen.whole).run(specimen.inputs)
    for name, array in whole.items():
        np.testing.assert_allclose(values[name], array, rtol=1e-5, atol=1e-6)


def test_pieces_are_of_about_equal_size() -> None:
    """A chain of equal layers is cut into eight pieces, none of which has twice its share of the FLOPs."""
    model = chain_model(96)
    cuts = even_cuts(model, enumerate_cuts(model))
    assert len(cuts) == MOST_PIECES - 1
    edges = [0, *(cut.flops_before for cut in cuts), model.flops]
    assert max(np.diff(edges)) < 2 * model.flops / MOST_PIECES


def test_regression_gives_back_planted_costs() -> None:
    """Groups whose seconds follow from their nodes are predicted exactly, also when they are left out of the fit."""
    model = chain_model(40)
    groups = [model.nodes[start : start + 5] for start in range(0, 40, 5)]

    def planted(nodes: object) -> float:
        return sum(2e-6 + (4e-9 if node.op_type == "MatMul" else 1e-8) * node.flops for node in nodes)  # type: ignore[attr-defined]

    costs = fit_nodes(model, groups, [planted(group) for group in groups])
    for group in groups:
        assert sum(costs.latency_s(node) for node in group) == pytest.approx(planted(group), rel=1e-6)
    assert costs.error < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_the_error_of_a_regression_is_that_of_groups_it_has_not_seen(seed: int) -> None:
    """Seconds that have little to do with the nodes are missed by more than the fit to all of them misses them."""
    model = chain_model(40)
    ends = np.cumsum(range(9))
    groups = [model.nodes[start:end] for start, end in pairwise(ends)]
    seconds = np.random.default_rng(seed).uniform(1e-4, 2e-4, len(groups))
    costs = fit_nodes(model, groups, list(seconds))
    fitted = np.array([sum(costs.latency_s(node) for node in group) for group in groups])
    assert costs.error > 1.1 * np.median(np.abs(fitted - seconds) / seconds)
