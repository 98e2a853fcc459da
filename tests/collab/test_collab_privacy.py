"""Noise with its accounting, and the watch over gradients."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from collab_runs import LAST_CUT, Here, Setup
from hypothesis import given, settings
from hypothesis import strategies as st

import siniantrust.collab
from siniantrust.collab import CollabError, EdgeConfig, HijackError, load_config
from siniantrust.collab._config import PrivacySection
from siniantrust.collab._hijack import WINDOW, HijackDetector, similarity_gap
from siniantrust.collab._privacy import Noise, clipped, epsilons


def test_noise_is_normal_and_the_same_for_a_step_done_again(tmp_path: Path) -> None:
    """Noise is standard normal, other for each step, purpose and values, and follows from the edge's secret."""
    noise = Noise(tmp_path)
    values = torch.ones(200, 101)
    drawn = noise.normal(values, "activations", 7)
    assert abs(float(drawn.mean())) < 0.04
    assert abs(float(drawn.std()) - 1) < 0.03
    assert abs(float((drawn**4).mean()) - 3) < 0.4
    assert torch.equal(drawn, Noise(tmp_path).normal(values.clone(), "activations", 7))
    changed = values.clone()
    changed[-1, -1] += 1e-6
    for other in (
        noise.normal(values, "activations", 8),
        noise.normal(values, "gradients", 7),
        noise.normal(changed, "activations", 7),
    ):
        assert abs(float((drawn * other).mean())) < 0.04
    assert (tmp_path / "noise.key").stat().st_mode & 0o077 == 0


def test_clipping_bounds_every_item_and_lets_gradients_through() -> None:
    """No item's norm is over the clip, items below it stay as they are, and a gradient reaches the values."""
    values = torch.tensor([[3.0, 4.0], [0.3, 0.4]], requires_grad=True)
    found = clipped(values, 1.0)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert bool((values.grad[1] == 1).all())
    assert clipped(values, None) is values


def test_epsilon_is_that_of_the_gaussian_mechanism() -> None:
    """One step's epsilon is above the exact one of Balle and Wang 2018 by little, and more steps cost more."""
    section = PrivacySection(clip=1.0, noise=4.0)
    found = epsilons(section, passes=30)
    mu = 2 / 4.0

    def delta(epsilon: float) -> float:
        def normal(x: float) -> float:
            return math.erfc(-x / 2**0.5) / 2

        return normal(-epsilon / mu + mu / 2) - math.exp(epsilon) * normal(-epsilon / mu - mu / 2)

    exact = next(epsilon for epsilon in np.arange(0, 10, 0.001) if delta(epsilon) <= section.delta)
    assert exact <= found["one_step"] <= 1.25 * exact
    assert found["one_step"] < found["all_steps"]
    both = epsilons(PrivacySection(clip=1.0, noise=4.0, gradient_clip=0.1, gradient_noise=4.0), passes=30)
    assert both["all_steps"] > found["all_steps"]
    assert epsilons(PrivacySection(), passes=30) == {}


def test_a_noisy_run_records_its_epsilon_and_what_it_is_not_for(tmp_path: Path) -> None:
    """Noise on activations and gradients goes out, the run ends, and the record has epsilon and its limits."""
    privacy = {"clip": 5.0, "noise": 0.1, "gradient_clip": 0.01, "gradient_noise": 0.1, "detect_hijack": False}
    setup = Setup(
        tmp_path, edges=("a",), training={"steps": 10, "last_cut": LAST_CUT}, edge_sections={"privacy": privacy}
    ).write()
    Here(setup).run()
    found = json.loads((tmp_path / "at-a/training.json").read_text())
    assert found["epsilon"]["passes"] == 2
    assert found["epsilon"]["all_steps"] > found["epsilon"]["one_step"] > 0
    assert "not for averages" in found["epsilon_is_for"]


def test_noise_without_a_clip_is_refused(tmp_path: Path) -> None:
    """Noise is in units of the clip; without one the configuration says so."""
    setup = Setup(tmp_path, edges=("a",), edge_sections={"privacy": {"noise": 1.0}}).write()
    with pytest.raises(CollabError, match="noise is in units of clip"):
        load_config(setup.write_edge("a", "127.0.0.1:1"), EdgeConfig)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), items=st.integers(6, 40), scale=st.floats(1e-6, 1e6))
def test_the_gap_tells_classes_apart_whatever_the_gradients_size(seed: int, items: int, scale: float) -> None:
    """Gradients with a direction for each class have a gap near one; those without have none; scale does not matter."""
    generator = np.random.default_rng(seed)
    labels = np.arange(items) % 3
    directions = np.linalg.qr(generator.normal(size=(300, 3)))[0].T
    noise = generator.normal(size=(items, 300)) * 0.005
    told = similarity_gap(scale * (directions[labels] + noise), labels)
    untold = similarity_gap(scale * (directions[np.zeros(items, int)] + noise), labels)
    assert told is not None
    assert untold is not None
    assert told > 0.9
    assert abs(untold) < 0.05


def test_one_class_alone_gives_no_verdict() -> None:
    """Where a batch has one class only, or none twice, nothing can be compared; gradients of zero do not count."""
    rows = np.random.default_rng(0).normal(size=(4, 5))
    assert similarity_gap(rows, np.zeros(4)) is None
    assert similarity_gap(rows, np.arange(4)) is None
    assert similarity_gap(0 * rows, np.array([0, 0, 1, 1])) is None


def test_the_detector_needs_a_full_window() -> None:
    """A verdict comes after as many steps as the window has, not before."""
    detector = HijackDetector()
    generator = np.random.default_rng(0)
    labels = np.arange(16) % 4
    for step in range(1, WINDOW):
        detector.observe(generator.normal(size=(16, 50)), labels, step=step)
    assert detector.gap is None
    with pytest.raises(HijackError, match=f"step {WINDOW}: the cloud's gradients do not tell classes apart"):
        detector.observe(generator.normal(size=(16, 50)), labels, step=WINDOW)


def test_only_the_appraisal_of_evidence_reads_the_wall_clock() -> None:
    """A clock that jumps moves no timeout and no rate: nothing else asks what time it is."""
    folder = Path(siniantrust.collab.__file__).parent
    asking = {
        path.name
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and (node.attr in {"now", "utcnow", "today"} or (node.attr == "time" and ast.unparse(node.value) == "time"))
    }
    assert asking == {"_attest.py"}
