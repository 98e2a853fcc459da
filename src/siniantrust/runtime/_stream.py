"""Many requests through the stages at once: each is admitted, passed on and ended, and answers keep the order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from siniantrust.runtime._interface import Arrays, Interface, Results
from siniantrust.runtime._pipeline import run_pipeline
from siniantrust.runtime._requests import Request, Requests
from siniantrust.runtime._stages import Answer, Span, Stage


@dataclass(eq=False)
class _Passing:
    """A request between two stages. ``item`` is its place in the stream."""

    item: int
    request: Request
    values: Results = field(repr=False)


def pass_stage(stage: Stage, request: Request, values: Results, ledger: Requests) -> tuple[Results, Answer]:
    """Run one stage on what it may see, the inputs of its part and nothing else; return all values then known."""
    ledger.enter(request)
    seen = {name: values[name] for name in stage.inputs}
    answer = stage.run(seen, request=request.number, ready_s=request.ready_s)
    return {**values, **answer.outputs}, answer


def stream_requests(
    requests: Iterable[Arrays],
    interface: Interface,
    stages: Sequence[Stage],
    ledger: Requests,
    on_span: Callable[[Span], None],
) -> Generator[Results, None, None]:
    """Yield the answers to ``requests`` in their order; see ``Session.stream``.

    Args:
        requests: the requests; read lazily, in the caller's thread.
        interface: checks each request, and makes its answer.
        stages: the parts, in order.
        ledger: told of each request's begin, waiting and end, whatever that is.
        on_span: called when an item leaves a stage, in that stage's thread.
    """
    on_the_way: dict[int, Request] = {}

    def admit() -> Iterator[_Passing]:
        for item, inputs in enumerate(requests):
            request = on_the_way[item] = ledger.begin()
            try:
                values = interface.check(inputs)
            except BaseException as fault:
                ledger.end(request, type(fault).__name__)
                raise
            ledger.wait(request, stages[0].name)
            yield _Passing(item, request, values)

    def through(number: int, passing: _Passing) -> _Passing:
        stage, request = stages[number], passing.request
        try:
            values, answer = pass_stage(stage, request, passing.values, ledger)
            call = answer.call
            on_span(Span(stage.name, passing.item, call.start_s, call.end_s, call.device, call.ready_s))
        except BaseException as fault:
            ledger.end(request, type(fault).__name__)
            raise
        if number + 1 < len(stages):
            ledger.wait(request, stages[number + 1].name)
        else:
            values = interface.answer(values)
            ledger.end(request, None)
            del on_the_way[passing.item]
        return _Passing(passing.item, request, values)

    steps = [partial(through, number) for number in range(len(stages))]
    pipeline = run_pipeline(admit(), steps, widths=[stage.width for stage in stages])
    try:
        for passing in pipeline:
            yield passing.values
    finally:
        pipeline.close()
        for request in on_the_way.values():
            ledger.end(request, "Dropped")
