"""Sides that are killed: both go on from a checkpoint in common, and end with the weights of an undisturbed run."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from collab_runs import LAST_CUT, Here, Setup, address_of, process

_LIMIT_S = 3000.0


def undisturbed(folder: Path, edges: tuple[str, ...], training: dict[str, object], **cloud: int) -> Setup:
    """Do a run that nobody kills."""
    setup = Setup(folder, edges=edges, training=training, cloud={**cloud}).write()
    Here(setup).run()
    return setup


def outcome(setup: Setup, sides: tuple[str, ...]) -> list[tuple[bytes, object]]:
    """Return each side's weights and the curve in its record."""
    return [(setup.model(side), setup.record(side)["curve"]) for side in sides]


def disturbed(
    folder: Path,
    edges: tuple[str, ...],
    training: dict[str, object],
    kills: Sequence[tuple[int, str, float]],
    **cloud: int,
) -> Setup:
    """Run sides by the command line; at each of ``kills`` (step, side, seconds after it) kill one and restart it."""
    setup = Setup(folder, edges=edges, training=training, cloud={**cloud}).write()
    left = list(kills)
    end_s = time.monotonic() + _LIMIT_S
    with ExitStack() as stack:
        running = {"cloud": stack.enter_context(process(folder, "cloud", "cloud"))}
        address = address_of(running["cloud"])
        # From now on the cloud listens where it was first given a port.
        setup.cloud["listen"] = address
        setup.write_cloud()
        for name in edges:
            setup.write_edge(name, address)
            running[name] = stack.enter_context(process(folder, "edge", name))
        while any(each.poll() is None for each in running.values()):
            assert time.monotonic() < end_s, {name: each.poll() for name, each in running.items()}
            time.sleep(0.02)
            if left and setup.newest_checkpoint() >= left[0][0]:
                _, name, wait_s = left.pop(0)
                time.sleep(wait_s)
                assert running[name].poll() is None, f"the kill of {name} came too late; make the run longer"
                running[name].kill()
                running[name].wait()
                side = "cloud" if name == "cloud" else "edge"
                running[name] = stack.enter_context(process(folder, side, name))
        said = {name: each.communicate() for name, each in running.items()}
        assert {each.returncode for each in running.values()} == {0}, said
        for name, (line, _) in said.items():
            assert line.splitlines()[-1] == f"trained: {folder / f'at-{name}' / 'model.onnx'}"
    assert not left
    return setup


def test_a_killed_cloud_and_a_killed_edge_change_nothing(tmp_path: Path) -> None:
    """A kill -9 of the cloud and one of an edge in the middle leave weights and curves of an undisturbed run."""
    training: dict[str, object] = {"steps": 200, "checkpoint_every": 20}
    setup = disturbed(tmp_path / "killed", ("a",), training, [(20, "cloud", 0.0), (80, "a", 0.0)])
    expected = undisturbed(tmp_path / "whole", ("a",), training)
    assert outcome(setup, ("cloud", "a")) == outcome(expected, ("cloud", "a"))
    assert len(expected.record("cloud")["curve"]) == 200


@pytest.mark.slow
def test_a_killed_cloud_with_workers_changes_nothing(tmp_path: Path) -> None:
    """A kill -9 of a cloud that has a worker, and one of its edge, leave an undisturbed run's weights and curves."""
    training: dict[str, object] = {"steps": 300, "checkpoint_every": 20, "last_cut": LAST_CUT}
    setup = disturbed(tmp_path / "killed", ("a",), training, [(20, "cloud", 0.0), (60, "a", 0.0)], workers=2)
    expected = undisturbed(tmp_path / "whole", ("a",), training, workers=2)
    assert outcome(setup, ("cloud", "a")) == outcome(expected, ("cloud", "a"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "more",
    [{"average_every": 2}, {"last_cut": LAST_CUT}],
    ids=["weights averaged", "labels at the edge"],
)
def test_twenty_kills_at_random_change_nothing(tmp_path: Path, more: dict[str, object]) -> None:
    """Twenty kills of random sides at random times leave an undisturbed run's weights and curves, in both ways."""
    training: dict[str, object] = {"steps": 1200, "checkpoint_every": 25, **more}
    sides, chance = ("cloud", "a", "b"), random.Random(1)
    kills = [(50 * number, chance.choice(sides), chance.uniform(0, 0.2)) for number in range(1, 21)]
    setup = disturbed(tmp_path / "killed", ("a", "b"), training, kills)
    expected = undisturbed(tmp_path / "whole", ("a", "b"), training)
    assert outcome(setup, sides) == outcome(expected, sides)
