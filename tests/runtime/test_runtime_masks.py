"""A masked model runs like any other: its noise comes from the enclave, and what crosses is the masked value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from runtime_deployments import Deployment, deploy, images

from siniantrust.graph import NOISE_PREFIX, PREPARED_PREFIX, enumerate_cuts
from siniantrust.masking import apply_masks, parse_mask
from siniantrust.runtime import Session, record_run


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a deployment whose first part pools its activation and adds noise to it, a fresh and a learned one."""
    model = images()
    cut = next(each for each in enumerate_cuts(model).cuts if each.tensors == ("r0",))
    inputs = {"image": np.random.default_rng(5).standard_normal((40, 3, 12, 12)).astype(np.float32)}
    masks = [
        parse_mask(text) for text in ("pooling", "gaussian:strength=0.3", "shredder_bank:strength=0.3,count=3,steps=0")
    ]
    masked, crossing = apply_masks(model, cut, masks, seed=0, inputs=inputs)
    return deploy(masked, tmp_path_factory.mktemp("masked"), cut=crossing.tensors[0])


@pytest.fixture(scope="module")
def session(deployment: Deployment) -> Iterator[Session]:
    """Return an open session over it."""
    with deployment.open() as opened:
        yield opened


def test_only_the_masked_value_crosses(session: Session) -> None:
    """What the device is handed is the pooled and noisy tensor, another one for each of two equal queries."""
    first, second = session.stages
    assert (first.where, second.where) == ("enclave", "cloud")
    image = {"image": np.ones((2, 3, 12, 12), np.float32)}
    crossed = [first.run(image).outputs for _ in range(2)]
    assert [list(each) for each in crossed] == [["r0_masked_masked_masked"]] * 2
    values = [each["r0_masked_masked_masked"] for each in crossed]
    assert values[0].shape == (2, 8, 6, 6)
    every = np.stack([*values[0], *values[1]])
    assert all(np.ptp(every[:, place].reshape(4, -1), axis=0).min() > 0 for place in range(8))


def test_answers_scatter_about_those_without_noise(deployment: Deployment, session: Session) -> None:
    """Answers differ from query to query by as much as those of the masked model in ONNX Runtime do."""
    inputs = {"image": np.repeat(deployment.inputs(1)["image"], 400, axis=0)}
    found, expected = session.run(inputs)["scores"], deployment.expected(inputs)["scores"]
    assert found.std(axis=0).min() > 0
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(found.std(axis=0), expected.std(axis=0), rtol=0.3)


def test_it_is_measured_like_any_other(deployment: Deployment, session: Session) -> None:
    """A run record has the trusted part's seconds, for which numbers of the noise's shape are taken outside."""
    record, _ = record_run(session, deployment.model, deployment.inputs(4), batch_items=2, keystore=deployment.keystore)
    assert {"compute part 1", "cross into part 1 and back"} <= {term.what for term in record.measured.terms}


def test_other_tools_see_the_noise_as_an_input(deployment: Deployment) -> None:
    """The annotated model is valid, holds no random operator and no bank, and names what the enclave fills."""
    annotated = onnx.load(Path(deployment.path, "annotated.onnx"))
    onnx.checker.check_model(annotated)
    assert not [node for node in annotated.graph.node if node.op_type.startswith("Random")]
    reserved = [value.name for value in annotated.graph.input if value.name.startswith(NOISE_PREFIX)]
    assert [name.startswith(PREPARED_PREFIX) for name in reserved] == [False, True]
    assert not [
        tensor.name for tensor in annotated.graph.initializer if tensor.name.startswith("r0_masked_masked_mask_")
    ]
