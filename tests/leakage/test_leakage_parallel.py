from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from leakage_cases import photo_tiles, small_network, write_network

from siniantrust.graph import enumerate_cuts, load_model
from siniantrust.leakage import Budget, Data, audit
from siniantrust.leakage._parallel import one_at_a_time, run_all, seeded, workers_for


def test_results_come_in_order_and_threads_are_given_back() -> None:
    """Results are in the order of the work, whoever ends first; torch has as many threads afterwards as before."""
    before = torch.get_num_threads()

    def work(index: int, pause_s: float) -> tuple[int, int]:
        time.sleep(pause_s)
        return index, torch.get_num_threads()

    found = run_all(work, [0.1, 0.0, 0.05, 0.0], workers=2, threads=4)
    assert found == [(0, 2), (1, 2), (2, 2), (3, 2)]
    assert torch.get_num_threads() == before


def test_the_first_error_stops_what_has_not_begun() -> None:
    """An error in one piece of work is raised, and work that has not begun is not done."""
    begun: list[int] = []

    def work(index: int, _: int) -> None:
        begun.append(index)
        if index == 0:
            raise ValueError("broken")
        time.sleep(0.05)

    with pytest.raises(ValueError, match="broken"):
        run_all(work, range(50), workers=2, threads=2)
    assert len(begun) < 10


def test_memory_bounds_how_many_cuts_run_at_a_time() -> None:
    """There are never more workers than threads, cuts, or what the memory holds, and always one."""
    budget = Budget(memory_bytes=2 << 30)
    assert workers_for(8, items=3750, attackers=2500, threads=2, budget=budget) == 2
    assert workers_for(1, items=3750, attackers=2500, threads=2, budget=budget) == 1
    assert workers_for(8, items=3750, attackers=2500, threads=64, budget=budget) == 4
    assert workers_for(8, items=30_000, attackers=20_000, threads=8, budget=budget) == 1


def test_progress_is_reported_by_one_thread_at_a_time() -> None:
    """A progress callback that is not made for threads is never entered twice at once."""
    inside = 0
    most = 0

    def step(description: str, *, advance: float = 1.0) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002 * advance * len(description))
        inside -= 1

    guarded = one_at_a_time(step)
    threads = [threading.Thread(target=guarded, args=("a",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_first_weights_depend_on_the_seed_alone() -> None:
    """Layers made in several threads at once draw the same weights as those made alone."""
    with seeded(4):
        alone = torch.nn.Linear(50, 50).weight.detach().clone()

    def work(index: int, seed: int) -> torch.Tensor:
        with seeded(seed):
            time.sleep(0.001 * index)
            return torch.nn.Linear(50, 50).weight.detach().clone()

    for weights in run_all(work, [4] * 6, workers=3, threads=3):
        assert torch.equal(weights, alone)


def test_cuts_attacked_together_give_the_figures_of_one_by_one(tmp_path: Path) -> None:
    """An audit gives the same figures with one worker and with two."""
    model = load_model(write_network(tmp_path / "model.onnx", small_network()))
    data, found = Data(photo_tiles(200), None, "x"), []
    for memory_bytes in (0, 2 << 30):
        budget = Budget(steps=4, width=8, screen_items=40, discriminator_steps=10, threads=2, memory_bytes=memory_bytes)
        assert workers_for(3, items=200, attackers=150, threads=2, budget=budget) == (2 if memory_bytes else 1)
        found.append(audit(model, data, cuts=enumerate_cuts(model), out=tmp_path / "out", budget=budget))
    for first, second in zip(found[0].cuts, found[1].cuts, strict=True):
        assert first.cut_id == second.cut_id
        for metric, figure in first.leakage.items():
            assert figure.mean == pytest.approx(second.leakage[metric].mean, abs=2e-3)
        for name, screen in first.screens.items():
            assert screen.score == pytest.approx(second.screens[name].score, abs=1e-3)
