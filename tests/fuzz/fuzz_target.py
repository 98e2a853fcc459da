"""What is fuzzed, and how one input is tried on it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mutations import spoil

from siniantrust.errors import AttestationError

MAX_CPU_S = 1.0
MAX_MESSAGE = 3000
# What no parser may choke on, whatever it reads.
NASTY = (
    b"",
    b"\0",
    b"[" * 200_000,
    b"[" + b"9" * 200_000 + b"]",
    b'{"a":' * 100_000,
    bytes(64) + b"[" * 900,
    b"\xff" * 5000,
    b"\x30\x84\xff\xff\xff\xff" * 50,
    b"-----BEGIN CERTIFICATE-----\n" * 50,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and what it accepts.

    Attributes:
        read: takes bytes, and returns or raises one of ``refusals``.
        seeds: what it reads without an error.
        refusals: how it refuses.
        form: what an input must have in common with a seed to be accepted, where something authenticates it; None where
            other inputs may be well-formed as well.
    """

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    refusals: tuple[type[BaseException], ...] = (AttestationError,)
    form: Callable[[bytes], object] | None = bytes


MakeTarget = Callable[[Path], Target]
"""Makes a target, which may keep files in a folder of its own."""


def attempt(target: Target, raw: bytes) -> bool:
    """Try one input; return whether it was accepted, which only a seed may be where something authenticates it."""
    start_s = time.thread_time()
    try:
        target.read(raw)
    except target.refusals as refusal:
        accepted = False
        assert "\n" not in str(refusal)  # noqa: PT017 - the error is one of two allowed outcomes
        assert len(str(refusal)) < MAX_MESSAGE  # noqa: PT017 - as above
    else:
        accepted = True
    # A collection of garbage may fall into any one reading: what really takes long does so again.
    if time.thread_time() - start_s >= MAX_CPU_S:
        start_s = time.thread_time()
        with contextlib.suppress(*target.refusals):
            target.read(raw)
        assert time.thread_time() - start_s < MAX_CPU_S
    if accepted and target.form is not None:
        assert target.form(raw) in [target.form(seed) for seed in target.seeds]
    return accepted


def fuzz(target: Target, inputs: int) -> int:
    """Try what is nasty, and that many spoilt seeds, the same ones every time; return how many were accepted."""
    for raw in NASTY:
        attempt(target, raw)
    accepted = 0
    for number in range(inputs):
        raw = spoil(target.seeds, random.Random(number))
        try:
            accepted += attempt(target, raw)
        except BaseException as fault:
            fault.add_note(f"input {number}: {raw[:2000]!r}")
            raise
    return accepted
