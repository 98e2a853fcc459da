from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_deployments import Deployment, deploy, images

from siniantrust.runtime import Session, Span
from siniantrust.runtime._pipeline import run_pipeline


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("siniantrust-stage")}


@settings(max_examples=30, deadline=None)
@given(items=st.lists(st.integers(), max_size=20), steps=st.integers(1, 4))
def test_results_keep_the_order(items: list[int], steps: int) -> None:
    """Every item passes every step once, and results come in the order of the items."""
    functions: list[Callable[[int], int]] = [lambda value: value + 1] * steps
    assert list(run_pipeline(items, functions)) == [item + steps for item in items]
    assert not _threads()


@settings(max_examples=20, deadline=None)
@given(items=st.lists(st.integers(), max_size=20), widths=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_wide_steps_keep_the_order(items: list[int], widths: list[int]) -> None:
    """Steps that take several items at once finish them in any order; results come in the order of the items."""
    lock, now, most = threading.Lock(), [0] * len(widths), [0] * len(widths)

    def step(number: int) -> Callable[[int], int]:
        def work(item: int) -> int:
            with lock:
                now[number] += 1
                most[number] = max(most[number], now[number])
            time.sleep(0.001 * (item % 3))
            with lock:
                now[number] -= 1
            return item + 1

        return work

    steps = [step(number) for number in range(len(widths))]
    assert list(run_pipeline(items, steps, widths=widths)) == [item + len(widths) for item in items]
    assert all(found <= width for found, width in zip(most, widths, strict=True))
    assert not _threads()


@pytest.mark.parametrize("failing_step", [0, 1, 2])
def test_an_error_comes_after_the_answers_before_it(failing_step: int) -> None:
    """The items before the one that fails are answered, its error is raised, and no later item is begun after it."""
    begun: list[tuple[int, int]] = []

    def step(number: int) -> Callable[[int], int]:
        def work(item: int) -> int:
            begun.append((number, item))
            if (number, item) == (failing_step, 4):
                raise OSError("step failed")
            return item

        return work

    answers: list[int] = []
    with pytest.raises(OSError, match="step failed"):
        answers.extend(run_pipeline(range(100), [step(number) for number in range(3)]))
    assert answers == [0, 1, 2, 3]
    assert not [item for number, item in begun if number >= failing_step and item > 4]
    assert not _threads()


def test_an_error_of_the_source_comes_after_the_answers_before_it() -> None:
    """When the requests themselves fail, those that came before are answered first."""

    def source() -> Iterator[int]:
        yield from range(3)
        raise OSError("no more")

    answers: list[int] = []
    with pytest.raises(OSError, match="no more"):
        answers.extend(run_pipeline(source(), [lambda item: item] * 2))
    assert answers == [0, 1, 2]
    assert not _threads()


def test_little_is_read_ahead() -> None:
    """A slow consumer holds the source back: memory stays bounded."""
    read = []

    def source() -> Iterator[int]:
        for item in range(1000):
            read.append(item)
            yield item

    pipeline = run_pipeline(source(), [lambda item: item] * 3)
    for _ in range(5):
        next(pipeline)
    assert len(read) <= 5 + 2 * 3
    pipeline.close()


def test_closing_early_ends_the_threads() -> None:
    """A consumer that stops in the middle leaves no thread behind, also while an item is in a step."""
    entered = threading.Event()

    def slow(item: int) -> int:
        entered.set()
        time.sleep(0.05)
        return item

    pipeline = run_pipeline(range(1000), [slow, slow])
    next(pipeline)
    entered.clear()
    entered.wait(5)
    pipeline.close()
    assert not _threads()


def test_a_pipeline_that_is_forgotten_ends_its_threads() -> None:
    """Dropping the generator is enough."""
    pipeline = run_pipeline(range(1000), [lambda item: item] * 2)
    next(pipeline)
    assert len(_threads()) == 2
    del pipeline
    assert not _threads()


def test_a_closed_stream_leaves_no_thread(vector_deployment: Deployment, session: Session) -> None:
    """The stream of a session can be closed before its end; the session runs on."""
    stream = session.stream(vector_deployment.inputs(1, seed=seed) for seed in range(1000))
    next(stream)
    stream.close()
    assert not _threads()
    session.run(vector_deployment.inputs())


def test_enclave_and_device_overlap(tmp_path: Path) -> None:
    """While the device has an item, the enclave is already at the next one; each stage takes items in order."""
    deployment = deploy(images(channels=48, size=40, depth=2), tmp_path, cut="r1")
    spans: list[Span] = []
    with deployment.open() as session:
        requests = [deployment.inputs(1, seed=seed) for seed in range(8)]
        assert len(list(session.stream(requests, on_span=spans.append))) == 8
    at = {(span.stage, span.item): span for span in spans}
    assert len(at) == len(spans) == 16
    overlapping = [
        item
        for item in range(7)
        if at["part1", item + 1].start_s < at["part2", item].end_s
        and at["part2", item].start_s < at["part1", item + 1].end_s
    ]
    # On a busy machine some do not; stages that wait for each other never would.
    assert overlapping
    for item in range(8):
        assert at["part1", item].end_s <= at["part2", item].start_s
    for stage in ("part1", "part2"):
        starts = [at[stage, item].start_s for item in range(8)]
        assert starts == sorted(starts)
