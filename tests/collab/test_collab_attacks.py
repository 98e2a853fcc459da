"""Attacks of the cloud on split learning: each succeeds on an edge without protection, and is caught or blunted else.

The cloud's own code is put in the attacker's hands by replacing what it computes; everything else is the real protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from collab_runs import LAST_CUT, Here, Setup, network
from onnx import helper, numpy_helper
from torch import nn

from siniantrust.collab import HijackError
from siniantrust.collab._hijack import WINDOW
from siniantrust.collab._middle import BACKWARD, FORWARD, LOSS, Arrays, Middle
from siniantrust.collab._privacy import Noise, clipped
from siniantrust.collab.attacks.fsha import HijackingCloud
from siniantrust.collab.attacks.label_leakage import area_under_curve, direction_labels, norm_scores
from siniantrust.collab.attacks.unsplit import unsplit
from siniantrust.odla.torch_graph import TrainableGraph

datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images of handwritten digits, 8 x 8 in 0..1, and which digits they are, in a fixed random order."""
    found = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = (found.images / 16).astype(np.float32)[:, None]
    return images[order], found.target[order].astype(np.int64)


def digits_setup(
    folder: Path, *, items: int, detect: bool = True, privacy: Mapping[str, object] = {}, **training: object
) -> Setup:
    """Return a run of one edge on digits; its classes are those of the network, 0 to 3."""
    sections = {"privacy": {"detect_hijack": detect, **privacy}}
    setup = Setup(folder, edges=("a",), training=dict(training), edge={"batch": 64}, edge_sections=sections).write()
    onnx.save(network(channels=8), folder / "model.onnx")
    images, labels = digits()
    rows = np.flatnonzero(labels < 4)[:items]
    np.savez(folder / "a.npz", inputs=images[rows], labels=labels[rows])
    return setup


def hijack(monkeypatch: pytest.MonkeyPatch, public: np.ndarray) -> HijackingCloud:
    """Let every cloud in this process answer with gradients of an attacker that has ``public`` images."""
    attacker = HijackingCloud(torch.from_numpy(public), (8, 4, 4), seed=0)
    honest = Middle.run

    def run(self: Middle, phase: str, given: Mapping[str, Arrays], step: int, steps: int) -> dict[str, Arrays]:
        if phase != FORWARD:
            return honest(self, phase, given, step, steps)
        name = self._task.features.name
        self._items = {edge: len(arrays[name]) for edge, arrays in given.items()}
        return {
            edge: {
                name: attacker.gradient(torch.from_numpy(arrays[name])).numpy(),
                LOSS: np.zeros(1, np.float32),
            }
            for edge, arrays in given.items()
        }

    monkeypatch.setattr(Middle, "run", run)
    return attacker


def test_a_hijacking_cloud_is_caught_in_the_first_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge that watches its gradients stops a hijacking cloud as soon as its window is full."""
    images, labels = digits()
    hijack(monkeypatch, images[labels >= 4][:500])
    here = Here(digits_setup(tmp_path, items=600, steps=60))
    here.start_cloud()
    here.start_edge("a")
    here.wait("a")
    with pytest.raises(HijackError, match=f"step {WINDOW}: "):
        raise here.faults["a"]


def test_an_honest_cloud_is_not_accused(tmp_path: Path) -> None:
    """The same edge trains to the end with a cloud that does its task, also with labels at the edge."""
    for setup in (
        digits_setup(tmp_path / "at the cloud", items=600, steps=60),
        digits_setup(tmp_path / "at the edge", items=600, steps=60, last_cut=LAST_CUT),
    ):
        Here(setup).run()


def two_convolutions(folder: Path) -> None:
    """Write a network whose Part 1, up to the tensor ``code``, can become an encoder of the attacker's choice."""
    proto = network(channels=8)
    generator = np.random.default_rng(3)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((generator.normal(size=shape) / np.prod(shape[1:]) ** 0.5).astype("f4"), name)

    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    stored["w1"].CopyFrom(weight("w1", 16, 1, 3, 3))
    stored["b1"].CopyFrom(numpy_helper.from_array(np.zeros(16, "f4"), "b1"))
    proto.graph.initializer.extend([weight("w0", 8, 16, 3, 3), numpy_helper.from_array(np.zeros(8, "f4"), "b0")])
    nodes = list(proto.graph.node)
    nodes[3].input[0] = "code"
    nodes[3:3] = [
        helper.make_node("Conv", ["pool", "w0", "b0"], ["deep"], "deep", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["deep"], ["code"], "code"),
    ]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save(proto, folder / "model.onnx")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hijacking_cloud_inverts_features_where_nobody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the watch, the hijacked Part 1's features of unseen digits are inverted, better than by guessing."""
    images, labels = digits()
    attacker = hijack(monkeypatch, images[900:1600])
    setup = digits_setup(
        tmp_path, items=0, detect=False, steps=1200, learning_rate=0.001, checkpoint_every=400, cut="c005-code"
    )
    two_convolutions(tmp_path)
    # The labels only have to fit the network: a hijacking cloud does not look at them.
    np.savez(tmp_path / "a.npz", inputs=images[:900], labels=labels[:900] % 4)
    Here(setup, limit_s=3000).run()
    part = TrainableGraph(
        onnx.utils.Extractor(onnx.load(tmp_path / "at-a/model.onnx")).extract_model(["image"], ["code"])
    )
    unseen = torch.from_numpy(images[1600:])
    with torch.no_grad():
        made = attacker.invert(part(unseen)[0])
    guessed = torch.from_numpy(images[900:1600].mean(0, keepdims=True))
    error, prior = float(((made - unseen) ** 2).mean()), float(((guessed - unseen) ** 2).mean())
    assert error < 0.85 * prior


def _convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())


def test_unsplit_inverts_plain_features_and_noise_blunts_it(tmp_path: Path) -> None:
    """Without weights and without data, shallow features say which digit was which image; noisy ones do not."""
    images = torch.from_numpy(digits()[0][:16])
    torch.manual_seed(9)
    with torch.no_grad():
        features = _convolution()(images)
    clip = float(features.flatten(1).norm(dim=1).median())
    protected = clipped(features, clip) + 0.2 * clip * Noise(tmp_path).normal(features, "activations", 1)

    def named(seen: torch.Tensor) -> float:
        """Return the share of images that what the attack made of them is most like, in whichever contrast."""
        made = unsplit(seen, _convolution, (1, 8, 8), rounds=20, inner=15, seed=5).flatten(1).numpy()
        alike = np.abs(np.corrcoef(made, images.flatten(1).numpy())[:16, 16:])
        return float((alike.argmax(1) == np.arange(16)).mean())

    assert named(features) > 0.8
    assert named(protected) < 0.4


def gradients_seen(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return a list into which every cloud in this process puts the gradients that edges send it."""
    seen: list[np.ndarray] = []
    honest = Middle.run

    def run(self: Middle, phase: str, given: Mapping[str, Arrays], step: int, steps: int) -> dict[str, Arrays]:
        if phase == BACKWARD:
            seen.extend(arrays["hidden"] for arrays in given.values())
        return honest(self, phase, given, step, steps)

    monkeypatch.setattr(Middle, "run", run)
    return seen


def test_labels_follow_from_gradients_and_noise_blunts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud that knows two labels of each class reads the others off the gradients, but not through noise."""
    from siniantrust.collab._data import rows_of_step

    found = {}
    for name, privacy in {
        "plain": {},
        "protected": {"gradient_clip": 0.001, "gradient_noise": 1.0},
    }.items():
        with monkeypatch.context() as patch:
            seen = gradients_seen(patch)
            setup = digits_setup(tmp_path / name, items=600, detect=False, privacy=privacy, steps=10, last_cut=LAST_CUT)
            Here(setup).run()
        labels = np.load(setup.folder / "a.npz")["labels"]
        rows = rows_of_step(len(labels), 64, 10, seed=0, name="a")
        known = np.concatenate([np.flatnonzero(labels[rows] == each)[:2] for each in range(4)])
        rest = np.setdiff1d(np.arange(64), known)
        guessed = direction_labels(seen[-1][rest], seen[-1][known], labels[rows][known])
        found[name] = float((guessed == labels[rows][rest]).mean())
    assert found["plain"] > 0.9
    assert found["protected"] < 0.6


def test_a_rare_class_has_larger_gradients_and_clipping_hides_it() -> None:
    """Where one class is rare, the norm of a gradient tells its items, and clipped with noise it does not."""
    generator = np.random.default_rng(0)
    labels = (generator.random(2000) < 0.05).astype(np.int64)
    values = torch.from_numpy((generator.normal(size=(2000, 16)) + labels[:, None] * 0.3).astype(np.float32))
    values.requires_grad_()
    layer = nn.Linear(16, 2)
    torch.manual_seed(0)
    with torch.no_grad():  # a model that has learnt how rare the class is, as any soon has
        layer.bias.copy_(torch.tensor([1.5, -1.5]))
    nn.functional.cross_entropy(layer(values), torch.from_numpy(labels)).backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    gradients = values.grad
    assert area_under_curve(norm_scores(gradients.numpy()), labels == 1) > 0.95
    clip = float(gradients.flatten(1).norm(dim=1).quantile(0.1))
    noisy = clipped(gradients, clip) + clip * torch.from_numpy(generator.normal(size=(2000, 16)).astype(np.float32))
    assert abs(area_under_curve(norm_scores(noisy.numpy()), labels == 1) - 0.5) < 0.1
