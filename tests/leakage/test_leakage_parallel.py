from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import parallel_work
import pytest
import torch
from leakage_cases import SMALL, photo_tiles, small_network, write_network

from siniantrust.errors import AuditError
from siniantrust.graph import enumerate_cuts, load_model
from siniantrust.leakage import Budget, Data, audit, load_audit
from siniantrust.leakage._parallel import computing, run_all, seeded, workers_for


def test_several_workers_are_processes_of_their_own() -> None:
    """Two workers compute in two other processes; one computes in this one."""
    tasks = [((number,), {"pause_s": 0.2}) for number in range(4)]
    found = list(run_all(parallel_work.double, tasks, workers=2))
    assert sorted(value for value, _ in found) == [0, 2, 4, 6]
    assert os.getpid() not in {process for _, process in found}
    assert {process for _, process in run_all(parallel_work.double, tasks[:1], workers=1)} == {os.getpid()}


def test_an_error_in_a_worker_is_raised() -> None:
    """An error in a worker comes out as it is."""
    with pytest.raises(ValueError, match="broken"):
        list(run_all(parallel_work.fail, [((number,), {}) for number in range(4)], workers=2))


def test_a_killed_worker_is_named() -> None:
    """A worker that dies gives an error that says so and what to do, instead of waiting for ever."""
    with pytest.raises(AuditError, match="a worker of the audit died"):
        list(run_all(parallel_work.die, [((number,), {}) for number in range(4)], workers=2))


def test_memory_bounds_how_many_cuts_run_at_a_time() -> None:
    """There are never more workers than threads, cuts, or what the memory holds, and always one."""
    budget = Budget(memory_bytes=2 << 30)
    assert workers_for(8, items=3750, attackers=2500, threads=2, budget=budget) == 2
    assert workers_for(1, items=3750, attackers=2500, threads=2, budget=budget) == 1
    assert workers_for(8, items=3750, attackers=2500, threads=64, budget=budget) == 4
    assert workers_for(8, items=30_000, attackers=20_000, threads=8, budget=budget) == 1


def test_threads_are_given_back() -> None:
    """Torch has as many threads after the work as before."""
    before = torch.get_num_threads()
    with computing(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_first_weights_depend_on_the_seed_alone() -> None:
    """Layers draw the same weights under the same seed, and the global state is as it was."""
    state = torch.random.get_rng_state()
    drawn = []
    for seed in (4, 4, 5):
        with seeded(seed):
            drawn.append(torch.nn.Linear(50, 50).weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
def test_cuts_attacked_together_give_the_figures_of_one_by_one(tmp_path: Path) -> None:
    """An audit gives the same figures with one worker and with two."""
    model = load_model(write_network(tmp_path / "model.onnx", small_network()))
    data, found = Data(photo_tiles(200), None, "x"), []
    for threads in (1, 2):
        budget = replace(SMALL, steps=4, seeds=2, discriminator_steps=10, threads=threads)
        found.append(
            audit(
                model,
                data,
                cuts=enumerate_cuts(model),
                out=tmp_path / "out",
                budget=budget,
                attacks=["ridge", "inverter"],
                screens=["distance_correlation"],
            )
        )
    for first, second in zip(found[0].cuts, found[1].cuts, strict=True):
        assert first.cut_id == second.cut_id
        for metric, figure in first.leakage.items():
            assert figure.mean == pytest.approx(second.leakage[metric].mean, abs=2e-3)
        for name, screen in first.screens.items():
            assert screen.score == pytest.approx(second.screens[name].score, abs=1e-3)


def audit_in(folder: Path, said: Callable[..., None]) -> None:
    """Audit the model and data of ``folder`` with a cache."""
    audit(
        load_model(folder / "model.onnx"),
        Data(np.load(folder / "data.npy"), None, "x"),
        cuts=enumerate_cuts(load_model(folder / "model.onnx")),
        out=folder / "audit",
        budget=replace(SMALL, attacker_items=150, heldout_items=60, patch_rows=2000, steps=2, seeds=1),
        cache=folder / "cache",
        progress=said,
        attacks=["ridge", "inverter"],
        screens=["distance_correlation"],
    )


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    from test_leakage_parallel import audit_in

    def said(text, advance=1.0):
        if text.endswith(": attacks"):
            os.kill(os.getpid(), signal.SIGKILL)

    audit_in(Path(sys.argv[1]), said)
"""


def test_a_killed_audit_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """An audit that is killed after its first cut leaves no audit, and the next run takes over what was finished."""
    write_network(tmp_path / "model.onnx", small_network())
    np.save(tmp_path / "data.npy", photo_tiles(300))
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), str(tmp_path)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "audit").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npz")}
    trials = [path for path in kept if path.parent.name == "trials"]
    assert len(trials) >= 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "cache").iterdir())
    said: list[str] = []
    audit_in(tmp_path, lambda text, **_: said.append(text))
    assert sum(text.endswith(": attacks") for text in said) == len(load_audit(tmp_path / "audit").cuts)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
