"""A whole deployment with its trusted part in OP-TEE under QEMU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runtime_deployments import deploy, simulated_policy

import siniantrust
from siniantrust import masking
from siniantrust.errors import EnclaveError, NoPlanError
from siniantrust.graph import load_model
from siniantrust.trust.optee._cache import find_machine

_DEMO = Path(__file__).resolve().parents[2] / "src/siniantrust/demo/scenes.onnx"
_ENCLAVE = {"provider": "optee", "accept": ["emulated"], "memory_bytes": 10 << 20}


@pytest.fixture(autouse=True)
def _is_set_up() -> None:
    try:
        find_machine()
    except EnclaveError as fault:
        pytest.skip(str(fault))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_with_its_first_part_in_optee(tmp_path: Path) -> None:
    """Planned, built, opened from a bundle and run, the split network gives the whole network's answers."""
    deployment = deploy(load_model(_DEMO), tmp_path, cut="/3/3.2/Relu_output_0", enclave=_ENCLAVE)
    x = {"tile": np.random.default_rng(0).random((2, 3, 32, 32), np.float32)}
    with deployment.open() as session:
        outputs = session.run(x)
    np.testing.assert_allclose(outputs["scene"], deployment.expected(x)["scene"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mask", ["gaussian", "shredder_distribution:count=4,steps=0"])
def test_a_masked_deployment_draws_its_noise_in_optee(tmp_path: Path, mask: str) -> None:
    """Built for OP-TEE, a part is sealed whole; run there twice, it answers with fresh noise each time."""
    model = load_model(_DEMO)
    x = {"tile": np.random.default_rng(0).random((2, 3, 32, 32), np.float32)}
    cut = masking.find_cut(model, ["/3/3.2/Relu_output_0"])
    masked, crossing = masking.apply_masks(model, cut, [masking.parse_mask(mask)], seed=0, inputs=x)
    deployment = deploy(masked, tmp_path, cut=crossing.tensors[0], enclave=_ENCLAVE)
    with deployment.open() as session:
        first, second = (session.run(x)["scene"] for _ in range(2))
    assert first.shape == deployment.expected(x)["scene"].shape
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_planning_refuses_what_does_not_fit_with_the_figure() -> None:
    """With too little memory for the whole model and nothing else allowed, planning says what it needs and has."""
    policy = simulated_policy(enclave=_ENCLAVE | {"memory_bytes": 1 << 20}, objective={"allow_all_trusted": True})
    with pytest.raises(NoPlanError, match=r"the whole model needs 1,\d+,\d+ bytes, but the enclave has 1,048,576"):
        siniantrust.plan(load_model(_DEMO), policy=policy)
