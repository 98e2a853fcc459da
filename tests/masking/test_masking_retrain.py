"""Re-training: what changes and what stays, that it can be cut off anywhere, and what it refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from retrain_models import cut_at, items, masked, network

from siniantrust.errors import DeviceError
from siniantrust.graph import Cut, Model, load_model
from siniantrust.masking import MaskError, find_cut
from siniantrust.masking.retrain import Recipe, RetrainError, retrain

PART1 = {"w1", "b1"}
QUICK = Recipe(epochs=6, learning_rate=5e-3)


@cache
def _trained() -> Model:
    """Return the network trained on the quadrants."""
    model = load_model(network())
    found = retrain(model, items(), cut=cut_at(model, "p1"), recipe=replace(QUICK, mode="joint"))
    return load_model(found.proto)


@cache
def _masked(name: str = "quantise", strength: float = 1.5) -> tuple[Model, Cut]:
    return masked(_trained(), name, strength)


def _stored(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def _changed(before: onnx.ModelProto, after: onnx.ModelProto) -> set[str]:
    old, new = _stored(before), _stored(after)
    assert old.keys() == new.keys()
    return {name for name, values in new.items() if not np.array_equal(values, old[name])}


def _accuracy(proto: onnx.ModelProto) -> float:
    """Return the accuracy on the held-out items in ONNX Runtime."""
    data = items()
    assert data.labels is not None
    assert data.heldout is not None
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"x": data.inputs[data.heldout]})
    return float((scores.argmax(1) == data.labels[data.heldout]).mean())


def test_part_two_learns_what_the_mask_left() -> None:
    """Part 2 alone is trained on masked features: accuracy comes back, and nothing before the cut changes by a bit."""
    model, cut = _masked()
    found = retrain(model, items(), cut=cut, recipe=QUICK)
    changed = _changed(model.proto, found.proto)
    assert changed == set(_stored(model.proto)) - PART1 - {n for n in _stored(model.proto) if "_mask_" in n}
    assert found.training.features_kept
    assert found.training.accuracy_after is not None
    assert found.training.accuracy_before is not None
    assert found.training.accuracy_after > found.training.accuracy_before + 0.1
    assert _accuracy(found.proto) == pytest.approx(found.training.accuracy_after)
    assert _accuracy(model.proto) == pytest.approx(found.training.accuracy_before)


def test_a_number_that_both_parts_read_stays_with_part_one() -> None:
    """A weight on both sides of the cut is frozen with Part 1: what crosses stays as it was, bit by bit."""
    proto = network()
    proto.graph.node.insert(2, onnx.helper.make_node("Mul", ["r1", "shared"], ["s1"], "scale1"))
    proto.graph.node[3].input[0] = "s1"
    proto.graph.node.insert(4, onnx.helper.make_node("Mul", ["p1", "shared"], ["s2"], "scale2"))
    proto.graph.node[5].input[0] = "s2"
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((6, 1, 1), np.float32), "shared"))
    model = load_model(proto)
    found = retrain(model, items(), cut=cut_at(model, "p1"), recipe=replace(QUICK, epochs=1))
    changed = _changed(model.proto, found.proto)
    assert "w2" in changed
    assert not changed & {"w1", "b1", "shared"}


def test_both_parts_learn_together() -> None:
    """In joint mode Part 1 changes too; the mask's own constants do not."""
    model, cut = _masked()
    found = retrain(model, items(), cut=cut, recipe=replace(QUICK, mode="joint"))
    changed = _changed(model.proto, found.proto)
    assert changed >= PART1 | {"w2", "w3"}
    assert not any("_mask_" in name for name in changed)
    assert not found.training.features_kept


def test_a_teacher_needs_no_labels() -> None:
    """Without labels an untrained model learns the answers of a trained one, and comes to agree with it."""
    model, data = load_model(network(seed=1)), items(labelled=False)
    cut, recipe = cut_at(model, "p1"), replace(QUICK, mode="joint")
    found = retrain(model, data, cut=cut, recipe=recipe, teacher=_trained()).training
    short = replace(recipe, epochs=1, learning_rate=1e-9)
    untrained = retrain(model, data, cut=cut, recipe=short, teacher=_trained())
    assert found.accuracy_after is None
    assert found.agreement is not None
    assert untrained.training.agreement is not None
    assert found.agreement > untrained.training.agreement + 0.3
    assert found.epochs[-1].training_loss < found.epochs[0].training_loss


def test_a_teacher_whose_answers_are_no_classes_is_learnt_by_their_distance() -> None:
    """Maps are learnt by their squared error; where no classes are answered, labels count for nothing."""

    def cut_short(proto: onnx.ModelProto) -> Model:
        del proto.graph.node[-2:]
        proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("p2", 1, ["n", 8, 2, 2]))
        return load_model(proto)

    given, teacher = cut_short(network(seed=1)), cut_short(network())
    found = retrain(given, items(), cut=cut_at(given, "p1"), recipe=replace(QUICK, mode="joint"), teacher=teacher)
    training = found.training
    assert training.epochs[-1].validation_loss < 0.7 * training.epochs[0].validation_loss
    assert training.accuracy_after is training.accuracy_teacher is training.agreement is None
    with pytest.raises(RetrainError, match=r"labels need scores of shape \(N, classes\), found .*use a teacher"):
        retrain(given, items(), cut=cut_at(given, "p1"), recipe=QUICK)


def test_noise_is_drawn_for_every_batch() -> None:
    """Behind a random mask nothing is kept: each epoch sees other features."""
    model, cut = _masked("gaussian", 1.0)
    found = retrain(model, items(), cut=cut, recipe=replace(QUICK, epochs=2)).training
    assert not found.features_kept


def test_a_final_softmax_is_trained_through_its_scores() -> None:
    """A model that answers with probabilities learns as well as one that answers with scores, and still does so."""
    model = load_model(network(softmax=True))
    found = retrain(model, items(), cut=cut_at(model, "p1"), recipe=replace(QUICK, mode="joint"))
    scores = load_model(network())
    plain = retrain(scores, items(), cut=cut_at(scores, "p1"), recipe=replace(QUICK, mode="joint"))
    assert found.training.epochs[-1].validation_loss == pytest.approx(plain.training.epochs[-1].validation_loss)
    assert found.proto.graph.node[-1].op_type == "Softmax"


def test_training_ends_when_nothing_is_gained() -> None:
    """Steps that only do harm end after as many epochs as patience lasts, and what was given is given back."""
    model = _trained()
    recipe = Recipe(mode="joint", epochs=20, learning_rate=3.0, patience=2)
    found = retrain(model, items(), cut=cut_at(model, "p1"), recipe=recipe)
    assert len(found.training.epochs) == 2
    assert found.training.best_epoch == 0
    assert not _changed(model.proto, found.proto)


class _Adversary:
    """A penalty that learns to find the input's mean in the features; it fails at one step if told to."""

    def __init__(self, fail_at: int | None = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.probe = torch.nn.Linear(6 * 16, 1)
        self.optimiser = torch.optim.Adam(self.probe.parameters(), lr=1e-2)
        self.fail_at = fail_at
        self.steps = 0

    def _error(self, inputs: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        wanted = inputs.mean((1, 2, 3)).unsqueeze(1)
        error: torch.Tensor = (self.probe(features.flatten(1)) - wanted).square().mean()
        return error

    def inner_step(self, inputs: torch.Tensor, features: torch.Tensor, labels: torch.Tensor | None) -> None:
        assert not features.requires_grad
        assert labels is not None
        if self.steps == self.fail_at:
            raise KeyboardInterrupt
        self.steps += 1
        self.optimiser.zero_grad()
        self._error(inputs, features).backward()  # type: ignore[no-untyped-call] # torch's
        self.optimiser.step()

    def __call__(self, inputs: torch.Tensor, features: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        assert labels is not None
        return 0.1 * features.square().mean() - 0.05 * self._error(inputs, features)

    def state_dict(self) -> Mapping[str, Any]:
        return {"probe": self.probe.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.probe.load_state_dict(state["probe"])
        self.optimiser.load_state_dict(state["optimiser"])


@pytest.mark.parametrize("fail_at", [0, 2, 3, 5])
def test_a_training_that_was_cut_off_ends_in_the_same_bits(
    fail_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise, penalty, optimiser and order go on as if nothing had been: in the middle of an epoch or between two."""
    monkeypatch.setattr("siniantrust.masking.retrain._loop._SAVE_EVERY_S", 0.0)
    model, cut = _masked("gaussian", 0.5)
    recipe = Recipe(mode="joint", epochs=3, learning_rate=5e-3, batch_items=72)
    checkpoint = tmp_path / "run.checkpoint"
    expected = retrain(model, items(), cut=cut, recipe=recipe, penalty=_Adversary())
    with pytest.raises(KeyboardInterrupt):
        retrain(model, items(), cut=cut, recipe=recipe, penalty=_Adversary(fail_at), checkpoint=checkpoint)
    assert checkpoint.exists() == (fail_at > 0)
    resumed = _Adversary()
    found = retrain(model, items(), cut=cut, recipe=recipe, penalty=resumed, checkpoint=checkpoint)
    assert resumed.steps == 9 - fail_at
    assert found.proto == expected.proto
    assert found.training.best_epoch == 3
    assert [replace(each, time_s=0) for each in found.training.epochs] == [
        replace(each, time_s=0) for each in expected.training.epochs
    ]
    assert not checkpoint.exists()


def test_a_training_leaves_the_callers_random_numbers_alone() -> None:
    """What torch draws next does not depend on a training in between."""
    model, cut = _masked("gaussian", 0.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    retrain(model, items(), cut=cut, recipe=replace(QUICK, epochs=1))
    assert torch.rand(3).equal(expected)


def test_a_penalty_acts_on_part_one() -> None:
    """A penalty on the features' size makes them smaller, and its share of the loss is in the curves."""
    model = _trained()
    cut = cut_at(model, "p1")

    def size(_: torch.Tensor, features: torch.Tensor, __: torch.Tensor | None) -> torch.Tensor:
        return features.square().mean()

    recipe = Recipe(mode="joint", epochs=8, learning_rate=2e-2)
    found = retrain(model, items(), cut=cut, recipe=recipe, penalty=size).training
    assert found.epochs[-1].penalty < 0.5 * found.epochs[0].penalty
    with pytest.raises(RetrainError, match="use the mode 'joint'"):
        retrain(model, items(), cut=cut, recipe=QUICK, penalty=size)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """What differs is named: another model, another recipe."""
    model, cut = _masked()
    checkpoint = tmp_path / "run.checkpoint"
    recipe = Recipe(mode="joint", epochs=2, batch_items=72)
    with pytest.raises(KeyboardInterrupt):
        retrain(model, items(), cut=cut, recipe=recipe, penalty=_Adversary(4), checkpoint=checkpoint)
    kept = checkpoint.read_bytes()
    other = replace(recipe, seed=1)
    with pytest.raises(RetrainError, match="of another run: seed is 0 there and 1 here"):
        retrain(model, items(), cut=cut, recipe=other, penalty=_Adversary(), checkpoint=checkpoint)
    with pytest.raises(RetrainError, match="of another run: data is"):
        retrain(model, items(seed=1), cut=cut, recipe=recipe, penalty=_Adversary(), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == kept


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_checkpoint_is_refused(keep: int, tmp_path: Path) -> None:
    """A file that was cut short, or is none, is named, and nothing is trained."""
    model, cut = _masked()
    checkpoint = tmp_path / "run.checkpoint"
    recipe = Recipe(mode="joint", epochs=2, batch_items=72)
    with pytest.raises(KeyboardInterrupt):
        retrain(model, items(), cut=cut, recipe=recipe, penalty=_Adversary(4), checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(RetrainError, match=r"run\.checkpoint: damaged"):
        retrain(model, items(), cut=cut, recipe=recipe, penalty=_Adversary(), checkpoint=checkpoint)


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no room the error says so, and training goes on from the checkpoint before."""
    model, cut = _masked()
    checkpoint = tmp_path / "run.checkpoint"
    expected = retrain(model, items(), cut=cut, recipe=QUICK)
    real, calls = os.fsync, iter(range(100))

    def full(handle: int) -> None:
        if next(calls) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RetrainError, match=r"cannot be written \(No space left on device\)"):
        retrain(model, items(), cut=cut, recipe=QUICK, checkpoint=checkpoint)
    monkeypatch.setattr(os, "fsync", real)
    assert [path.name for path in tmp_path.iterdir()] == ["run.checkpoint"]
    assert retrain(model, items(), cut=cut, recipe=QUICK, checkpoint=checkpoint).proto == expected.proto


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    """Steps that are far too long end in an error that says where, and to take shorter ones."""
    model = _trained()
    recipe = Recipe(mode="joint", epochs=50, learning_rate=1e30, patience=50)
    with pytest.raises(RetrainError, match=r"epoch \d+, step \d+: the .*loss.* is (nan|inf).*lower learning rate"):
        retrain(model, items(), cut=cut_at(model, "p1"), recipe=recipe)


def test_data_that_cannot_be_learnt_from_are_refused() -> None:
    """No labels and no teacher, labels that are no classes, too few items."""
    model, cut = _masked()
    with pytest.raises(RetrainError, match="no labels to learn"):
        retrain(model, items(labelled=False), cut=cut, recipe=QUICK)
    data = items()
    assert data.labels is not None
    with pytest.raises(RetrainError, match="labels must be 0 to 3, the classes of 'y'; found 1 to 4"):
        retrain(model, replace(data, labels=data.labels + 1), cut=cut, recipe=QUICK)
    with pytest.raises(RetrainError, match="too few"):
        retrain(model, items(5), cut=cut, recipe=QUICK)


def test_models_that_cannot_be_trained_are_refused() -> None:
    """A fixed batch, a teacher of another shape, a cut with nothing behind it to train, operators without gradient."""
    fixed = load_model(network(batch=1))
    with pytest.raises(RetrainError, match="batch size is fixed"):
        retrain(fixed, items(), cut=cut_at(fixed, "p1"), recipe=QUICK)
    model, cut = _masked()
    proto = network()
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "other"
    with pytest.raises(RetrainError, match=r"its outputs are \[\('other'.*expected those of"):
        retrain(model, items(), cut=cut, recipe=QUICK, teacher=load_model(proto))
    soft = load_model(network(softmax=True))
    with pytest.raises(RetrainError, match="stores numbers to train"):
        retrain(soft, items(), cut=cut_at(soft, "z"), recipe=QUICK)
    decided = network()
    decided.graph.node.add(op_type="Hardmax", name="decide", input=["y"], output=["hard"])
    decided.graph.output[0].name = "hard"
    hard = load_model(decided)
    with pytest.raises(DeviceError, match=r"'decide' \(Hardmax\)"):
        retrain(hard, items(), cut=cut_at(hard, "p1"), recipe=QUICK)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "part1"),
        ("epochs", 0),
        ("batch_items", 0),
        ("patience", 0),
        ("learning_rate", float("nan")),
        ("temperature", 0.0),
        ("weight_decay", -1.0),
    ],
)
def test_a_recipe_out_of_range_is_refused(field: str, value: Any) -> None:
    """Every figure that makes no sense is named when it is given."""
    with pytest.raises(RetrainError, match=field):
        replace(QUICK, **{field: value})


def test_a_cut_is_found_by_its_tensors_or_its_id() -> None:
    """Both name the same cut; a tensor at which the model cannot be cut is refused with those at which it can."""
    model = _trained()
    cut = find_cut(model, ["p1"])
    assert cut.tensors == ("p1",)
    assert find_cut(model, [cut.id]) == cut
    with pytest.raises(MaskError, match=r"nothing is no cut; one tensor crosses at .*p1.*p2"):
        find_cut(model, ["nothing"])
