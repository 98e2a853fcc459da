from __future__ import annotations

import random
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from broker_worker import release_for_ever

from siniantrust.trust.broker import KeyBroker, Store


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rounds", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_broker_forgets_no_release(tmp_path: Path, forks: ForkServerContext, rounds: int) -> None:
    """Killed at random moments, over and over, a broker finds its log whole and no counter lower than what it gave."""
    path = Store.create(tmp_path / "broker").path
    source = random.Random(0)
    given = 0
    for _ in range(rounds):
        here, there = forks.Pipe(duplex=False)
        process = forks.Process(target=release_for_ever, args=(path, there))
        process.start()
        there.close()
        for _ in range(source.randint(1, 4)):
            given = here.recv()
        time.sleep(source.random() * 0.02)
        process.kill()
        process.join(10)
        try:
            while True:
                given = here.recv()
        except EOFError:
            here.close()
        process.close()
        broker = KeyBroker(Store(path))
        assert broker.state().counter("net") >= given
        numbers = [entry.number for entry in broker.store.log.entries]
        assert numbers == list(range(1, len(numbers) + 1))
    assert given >= rounds
