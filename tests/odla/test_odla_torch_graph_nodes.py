"""Every operator of the torch graph, held against ONNX's own node tests."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from siniantrust.odla.torch_graph import TorchGraph
from siniantrust.odla.torch_graph._table import operators
from siniantrust.odla.torch_graph._types import DTYPES

# Random draws cannot be compared, and ONNX has no more cases of an operator that it withdrew.
_NO_CASES = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Upsample"}
# Training, the largest of nothing, and unsigned integers beyond eight bits, which torch only stores.
_LEFT_OUT = ("training_dropout", "_empty_set", "_uint16", "_uint32", "_uint64", "_UINT16", "_UINT32", "_UINT64")
# How many cases must agree over all operators, so that leaving out cannot grow unseen.
_LEAST = 650


@cache
def _cases() -> dict[str, list[Any]]:
    """Return ONNX's cases of a single node by operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators of these cases overflow on purpose
        from onnx.backend.test.case.node import collect_testcases

        found: dict[str, list[Any]] = {}
        for case in collect_testcases(None):
            assert case.model is not None
            nodes = case.model.graph.node
            if len(nodes) == 1 and not any(word in case.name for word in _LEFT_OUT):
                found.setdefault(nodes[0].op_type, []).append(case)
    return found


def _array(value: Any) -> np.ndarray | None:
    """Return a case's value as an array, or None if numpy or torch has no such type, or it is no tensor."""
    if isinstance(value, onnx.TensorProto):
        if value.data_type not in DTYPES:
            return None
        value = numpy_helper.to_array(value)
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "fiub":
        return None
    return np.asarray(value)


def _agreeing(case: Any) -> bool:
    """Run one case and hold it against what ONNX expects; False if it is declined or in other types."""
    graph = TorchGraph(case.model)
    wanted = [value.name for value in case.model.graph.output]
    inputs, outputs = ([_array(value) for value in part] for part in case.data_sets[0])
    given = dict(zip((value.name for value in case.model.graph.input), inputs, strict=True))
    if any(value is None for value in (*inputs, *outputs)) or graph.supports(given, wanted):
        return False
    found = graph.run({name: torch.tensor(value) for name, value in given.items()}, wanted)
    for name, expected in zip(wanted, outputs, strict=True):
        assert expected is not None
        actual = found[name].numpy()
        np.testing.assert_allclose(actual, expected, rtol=max(case.rtol, 1e-4), atol=1e-5, err_msg=case.name)
        # Quantised values stay floating, so that gradients pass.
        assert actual.dtype == expected.dtype or "quantizelinear" in case.name, case.name
    return True


@pytest.mark.parametrize("name", sorted(operators().keys() - _NO_CASES))
def test_an_operator_computes_what_onnx_expects(name: str) -> None:
    """Every operator in the table agrees with ONNX's node tests in value, shape and type; most cases are served."""
    agreed = [_agreeing(case) for case in _cases()[name]]
    assert any(agreed)


def test_few_cases_are_declined() -> None:
    """Over all operators of the table, hundreds of ONNX's cases are served."""
    served = sum(_agreeing(case) for name in operators() for case in _cases().get(name, []))
    assert served > _LEAST
