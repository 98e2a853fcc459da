"""Noise that a trusted application draws, and masks that run there, under QEMU."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from scipy import stats
from trust_parts import CONTEXT, build_part

from siniantrust import masking
from siniantrust.errors import DataError, EnclaveError
from siniantrust.graph import NOISE_PREFIX, Part, enumerate_cuts, load_model, split
from siniantrust.trust import Enclave, EnclaveSpec, Provenance, launch, seal_part, unsupported_nodes
from siniantrust.trust.optee._cache import find_machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_DEMO = Path(__file__).resolve().parents[2] / "src/siniantrust/demo/scenes.onnx"
_SPEC = EnclaveSpec(provider="optee", memory_bytes=10 << 20, accept=(Provenance.EMULATED,))
WIDTH = 2000
ITEMS = 12
# What is drawn anew passes but for once in a million runs.
RARE = 1e-6
SAME = (
    "channel_pruning",
    "bottleneck",
    "pooling",
    "quantise:strength=0.5",
    "random_projection:structured=1",
    "random_projection:structured=0",
    "patch_shuffle",
    "permutation",
    "fixed_additive",
    "constant",
)
NOISY = (
    "gaussian",
    "laplace",
    "budgeted_gaussian",
    "shredder_distribution:count=8,steps=0",
    "randomised_response",
    "dropout",
    "noise_only",
)
BANKS = ("bank", "shredder_bank:count=8,steps=0")


@pytest.fixture(scope="module")
def enclave() -> Iterator[Enclave]:
    """Return one enclave for all tests."""
    try:
        find_machine()
    except EnclaveError as fault:
        pytest.skip(str(fault))
    with contextlib.closing(launch(_SPEC)) as launched:
        yield launched


def _load(enclave: Enclave, name: str, part: Part, *, prelude: bool = False) -> None:
    key = secrets.token_bytes(32)
    sealed = seal_part(part, key=key, context=CONTEXT, prelude=prelude)
    enclave.load(name, sealed.skeleton, sealed.sealed, key, context=CONTEXT)


def _drawing(**attributes: Any) -> Part:
    shape: list[int | str] = ["n", WIDTH]
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["y"], name="normal", **attributes),
        helper.make_node("RandomUniformLike", ["x"], ["z"], name="uniform", low=-1.0, high=3.0),
    ]
    kind = TensorProto.FLOAT
    return build_part(nodes, [("x", kind, shape)], [("y", kind, shape), ("z", kind, shape)])


def test_an_application_draws_by_the_operators_attributes(enclave: Enclave) -> None:
    """Mean, scale and bounds hold for what it draws, and no two items or runs share numbers, whatever the seed."""
    _load(enclave, "drawing", _drawing(mean=5.0, scale=2.0, seed=1.0))
    runs = [enclave.run("drawing", {"x": np.zeros((5, WIDTH), np.float32)}) for _ in range(2)]
    rows = np.concatenate([run["y"] for run in runs])
    assert stats.kstest(rows.ravel(), stats.norm(5, 2).cdf).pvalue > RARE
    assert stats.kstest(np.concatenate([run["z"] for run in runs]).ravel(), stats.uniform(-1, 4).cdf).pvalue > RARE
    assert len(np.unique(rows[:, 0])) == len(rows)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.14


def test_the_host_cannot_give_the_noise(enclave: Enclave) -> None:
    """A caller that sends the reserved input is refused, and its numbers are not used."""
    _load(enclave, "given", _drawing())
    zeros = np.zeros((1, WIDTH), np.float32)
    with pytest.raises(DataError, match=r"expected inputs \['x'\]"):
        enclave.run("given", {"x": zeros, f"{NOISE_PREFIX}normal:0.0:1.0:y": zeros})
    assert enclave.run("given", {"x": zeros})["y"].any()


def _masked(text: str) -> tuple[Part, np.ndarray]:
    """Return the demo's part 1 with a mask, and pictures."""
    model = load_model(_DEMO)
    cut = next(each for each in enumerate_cuts(model).cuts if each.nodes_before == 8)
    pictures = np.random.default_rng(0).random((16, *model.inputs[0].shape[1:]), dtype=np.float32)
    inputs = {model.inputs[0].name: pictures}
    masked, crossing = masking.apply_masks(model, cut, [masking.parse_mask(text)], seed=0, inputs=inputs)
    return split(masked, (crossing,))[0], pictures


def _bare(part: Part, pictures: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(part.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run([part.outputs[0].name], {part.inputs[0].name: pictures})
    return np.asarray(found)


@pytest.mark.parametrize("text", SAME)
def test_a_mask_without_noise_gives_what_onnx_runtime_gives(enclave: Enclave, text: str) -> None:
    """Levels, places and sums are the same but for rounding, and a level apart at most where that decides."""
    part, pictures = _masked(text)
    assert not unsupported_nodes("optee", part)
    _load(enclave, "masked", part)
    found = enclave.run("masked", {part.inputs[0].name: pictures[:3]})[part.outputs[0].name]
    wanted = _bare(part, pictures[:3])
    close = np.isclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert close.mean() > 0.999 if text.startswith("quantise") else close.all()


@pytest.mark.parametrize("text", NOISY)
def test_a_mask_with_noise_has_the_runtimes_distribution(enclave: Enclave, text: str) -> None:
    """Of one picture many times, what leaves is distributed as what ONNX Runtime gives, and never twice the same."""
    part, pictures = _masked(text)
    assert not unsupported_nodes("optee", part)
    _load(enclave, "masked", part)
    same = np.repeat(pictures[:1], ITEMS, axis=0)
    found = enclave.run("masked", {part.inputs[0].name: same})[part.outputs[0].name].reshape(ITEMS, -1)
    wanted = _bare(part, np.repeat(pictures[:1], 8 * ITEMS, axis=0)).reshape(8 * ITEMS, -1)
    assert stats.ks_2samp(found.ravel(), wanted.ravel()).pvalue > RARE
    assert len(np.unique(found, axis=0)) == ITEMS
    # By place, too: means of a few draws, in their own deviations.
    apart = (found.mean(axis=0) - wanted.mean(axis=0)) / (wanted.std(axis=0) / np.sqrt(ITEMS) + 1e-6)
    assert np.mean(apart**2) < 1.6


@pytest.mark.parametrize("text", BANKS)
def test_a_bank_gives_one_of_its_tensors(enclave: Enclave, text: str) -> None:
    """What is added is one of the bank's tensors, whole, and not always the same one."""
    part, pictures = _masked(text)
    assert not unsupported_nodes("optee", part)
    _load(enclave, "masked", part)
    same = np.repeat(pictures[:1], 16, axis=0)
    found = enclave.run("masked", {part.inputs[0].name: same})[part.outputs[0].name].reshape(16, -1)
    known = np.unique(_bare(part, np.repeat(pictures[:1], 300, axis=0)).reshape(300, -1), axis=0)
    nearest = np.abs(found[:, None] - known[None]).max(axis=2)
    assert nearest.min(axis=1).max() < 1e-3
    assert len(np.unique(found.round(3), axis=0)) > 2


def test_a_part_with_a_prelude_is_refused(enclave: Enclave) -> None:
    """What was sealed for an enclave that runs preludes is refused by name, with what to do."""
    part, _ = _masked("budgeted_gaussian")
    with pytest.raises(EnclaveError, match="is made by a prelude, which a trusted application does not run; seal"):
        _load(enclave, "prelude", part, prelude=True)
