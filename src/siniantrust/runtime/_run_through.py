"""One request through the stages of a session, in the caller's thread."""

from __future__ import annotations

from collections.abc import Sequence

from siniantrust.runtime._interface import Arrays, Interface, Results
from siniantrust.runtime._requests import Requests
from siniantrust.runtime._stages import Stage
from siniantrust.runtime._stream import pass_stage


def run_through(inputs: Arrays, interface: Interface, stages: Sequence[Stage], requests: Requests) -> Results:
    """Check a request, run it through all stages, and return its answer; it is begun and ended whatever comes."""
    request = requests.begin()
    try:
        values = interface.check(inputs)
        for stage in stages:
            requests.wait(request, stage.name)
            values, _ = pass_stage(stage, request, values, requests)
    except BaseException as fault:
        requests.end(request, type(fault).__name__)
        raise
    requests.end(request, None)
    return interface.answer(values)
