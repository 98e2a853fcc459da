"""Pads and their ledger: uniform, a function of their numbers, and used once whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import siniantrust
from siniantrust.errors import TrustError
from siniantrust.masking.exact import PadLedger, PadSource
from siniantrust.masking.exact._field import HALF, PRIME, masked, most_terms, reduced, sealed, unmasked
from siniantrust.masking.exact._ledger import SESSION_BYTES, STRIDE
from siniantrust.masking.exact._stock import Stock

KEY = bytes(range(32))
SESSION = bytes(SESSION_BYTES)


def test_pads_are_uniform_residues() -> None:
    """Pads lie below the prime and are even over it (Kolmogorov-Smirnov)."""
    pads = PadSource(KEY).pad(1, 2, 200_000)
    assert pads.max() < PRIME
    assert stats.kstest(pads / PRIME, "uniform").pvalue > 1e-4


def test_pads_of_different_numbers_differ() -> None:
    """Another query, another value or another key gives another pad; the same numbers give the same."""
    source = PadSource(KEY)
    first = source.pad(1, 1, 64)
    assert np.array_equal(first, source.pad(1, 1, 64))
    for other in (source.pad(2, 1, 64), source.pad(1, 2, 64), PadSource(KEY[::-1]).pad(1, 1, 64)):
        assert not np.intersect1d(first, other).size


def test_the_value_that_is_no_residue_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of 31 ones is replaced, until it is a residue."""
    source, drawn = PadSource(KEY), []

    def words(_query: int, _value: int, block: int, count: int) -> np.ndarray:
        drawn.append(block)
        made = np.arange(count, dtype=np.uint32)
        if len(drawn) < 3:
            made[-1] = PRIME
        return made

    monkeypatch.setattr(source, "_words", words)
    assert source.pad(0, 0, 5).tolist() == [0, 1, 2, 3, 0]
    assert drawn[0] == 0
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("numbers", [(-1, 0, 1), (1 << 64, 0, 1), (0, 1 << 32, 1), (0, 0, (1 << 33) + 1)])
def test_numbers_beyond_the_counter_are_refused(numbers: tuple[int, int, int]) -> None:
    """A number that would wrap the counter, and so use a pad twice, is refused."""
    with pytest.raises(TrustError, match="beyond the counter's range"):
        PadSource(KEY).pad(*numbers)


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=50), st.integers(0, PRIME - 1))
def test_masking_is_undone(values: list[int], pad: int) -> None:
    """What was masked with a pad comes back by taking the pad off again."""
    steps, pads = np.array(values, np.int8), np.full(len(values), pad, np.uint32)
    sent = masked(steps, pads)
    assert sent.max() < PRIME
    assert unmasked(sent, np.zeros_like(sent), pads).tolist() == values


RESIDUES = st.sampled_from([0, 1, HALF, HALF + 1, PRIME - 1]) | st.integers(0, PRIME - 1)


@given(st.integers(-HALF, HALF), RESIDUES, RESIDUES, st.sampled_from([0, PRIME]), st.sampled_from([0, PRIME]))
def test_results_are_read_back_from_any_residue(result: int, correction: int, pad: int, lift: int, other: int) -> None:
    """Every result in range is recovered, under every pad, whether or not a host's words lie below the prime."""
    answer = (result + correction) % PRIME
    words = sealed(np.array([correction], np.uint32), np.array([pad], np.uint32))
    assert words[0] < PRIME
    given_words = np.array([answer + lift, int(words[0]) + other], np.uint32)
    found = unmasked(given_words[:1], given_words[1:], np.array([pad], np.uint32))
    assert found.tolist() == [result]


WORDS = st.sampled_from([0, 1, PRIME - 1, PRIME, PRIME + 1, (1 << 32) - 2, (1 << 32) - 1]) | st.integers(
    0, (1 << 32) - 1
)


@given(st.tuples(WORDS, WORDS), RESIDUES, RESIDUES)
def test_a_changed_word_changes_a_result_alike_whatever_is_secret(
    words: tuple[int, int], pad: int, other_pad: int
) -> None:
    """Whether two words of a host give the same result does not depend on the pad: a refusal tells nothing of it."""
    nothing = np.zeros(1, np.uint32)
    same = [
        unmasked(np.array([words[0]], np.uint32), nothing, np.array([each], np.uint32))
        == unmasked(np.array([words[1]], np.uint32), nothing, np.array([each], np.uint32))
        for each in (pad, other_pad)
    ]
    assert same[0] == same[1] == (words[0] % PRIME == words[1] % PRIME)


def test_what_lies_outside_is_uniform_and_tells_nothing_of_a_correction() -> None:
    """For corrections that are far from random, what the stock keeps outside is even over the residues."""
    outside: dict[bytes, bytes] = {}
    stock = Stock(PadSource(KEY), KEY[::-1], outside)
    stock.put(5, [np.zeros(200_000, np.uint32), np.ones(200_000, np.uint32)])
    first, second = (stock.sealed(5, layer, 200_000) for layer in (0, 1))
    assert max(first.max(), second.max()) < PRIME
    for words in (first, second, (first.astype(np.int64) - second) % PRIME):
        assert stats.kstest(words / PRIME, "uniform").pvalue > 1e-4


@given(st.integers(0, (1 << 32) - 1))
def test_reduction_is_the_remainder(word: int) -> None:
    """Folding 32 bits gives the remainder by the prime."""
    assert int(reduced(np.array([word], np.uint32))[0]) == word % PRIME


def test_the_bound_on_terms_is_tight_enough_for_float64() -> None:
    """As many products as are allowed stay exact in float64, lifted above zero, for every magnitude of weights."""
    for weight in (1, 3, 127):
        most = most_terms(weight)
        assert most * weight * (PRIME - 1) * 2 < 1 << 53


def test_numbers_are_handed_out_once(tmp_path: Path) -> None:
    """Numbers count up over the end of a stretch, and go on beyond it after reopening."""
    ledger = PadLedger.create(tmp_path / "ledger", session=SESSION, key=KEY)
    taken = [ledger.take() for _ in range(STRIDE + 10)]
    assert taken == list(range(STRIDE + 10))
    count = ledger.stretches
    ledger.close()
    again = PadLedger.reopen(tmp_path / "ledger", session=SESSION, key=KEY, at_least=count)
    assert again.take() == 2 * STRIDE
    again.close()


def test_a_torn_record_is_dropped(tmp_path: Path) -> None:
    """What a crash left of a record that was being written was never handed out, and does no harm."""
    path = tmp_path / "ledger"
    ledger = PadLedger.create(path, session=SESSION, key=KEY)
    ledger.take()
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-20:])
    again = PadLedger.reopen(path, session=SESSION, key=KEY, at_least=1)
    assert again.take() == STRIDE
    again.close()


@pytest.mark.parametrize("fault", ["session", "key", "bit", "cut", "order"])
def test_a_ledger_that_is_not_ours_is_refused(tmp_path: Path, fault: str) -> None:
    """Another session's, another key's, a changed, a shortened or a reordered ledger hands out nothing."""
    path = tmp_path / "ledger"
    ledger = PadLedger.create(path, session=SESSION, key=KEY)
    for _ in range(3 * STRIDE):
        ledger.take()
    ledger.close()
    raw = bytearray(path.read_bytes())
    if fault == "bit":
        raw[40] ^= 1
    elif fault == "cut":
        raw = raw[:-48]
    elif fault == "order":
        raw[24:72], raw[72:120] = raw[72:120], raw[24:72]
    path.write_bytes(raw)
    session = b"x" * SESSION_BYTES if fault == "session" else SESSION
    key = KEY[::-1] if fault == "key" else KEY
    with pytest.raises(TrustError, match="pad ledger"):
        PadLedger.reopen(path, session=session, key=key, at_least=3)


def test_a_ledger_is_never_begun_over_another(tmp_path: Path) -> None:
    """An existing file is not overwritten: it may be the only record of what was used."""
    PadLedger.create(tmp_path / "ledger", session=SESSION, key=KEY).close()
    with pytest.raises(TrustError, match="cannot be begun"):
        PadLedger.create(tmp_path / "ledger", session=SESSION, key=KEY)


def test_a_full_disk_hands_out_nothing(tmp_path: Path) -> None:
    """Where the next stretch cannot be written, no number is handed out, then or later."""
    ledger = PadLedger.create(tmp_path / "ledger", session=SESSION, key=KEY)
    ledger.take()
    os.close(ledger._handle)
    ledger._handle = os.open("/dev/full", os.O_RDWR)
    for _ in range(STRIDE - 1):
        ledger.take()
    for _ in range(2):
        with pytest.raises(TrustError, match="cannot be written"):
            ledger.take()
    ledger.close()


# One process that is started once: what is killed is a fork of it, which has the libraries already.
_NURSERY = """
    import os, random, signal, sys, time
    from pathlib import Path
    from siniantrust.masking.exact import PadLedger

    path, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    key, session = bytes(range(32)), bytes(16)

    def take():
        told = os.open(out, os.O_WRONLY | os.O_APPEND)
        while True:
            if path.exists() and path.stat().st_size >= 24:
                ledger = PadLedger.reopen(path, session=session, key=key, at_least=0)
            else:
                path.unlink(missing_ok=True)
                ledger = PadLedger.create(path, session=session, key=key)
            for _ in range(700):
                os.write(told, f"{ledger.take()}\\n".encode())
            ledger.close()

    out.touch()
    chance = random.Random(kills)
    for _ in range(kills):
        before = out.stat().st_size
        child = os.fork()
        if child == 0:
            try:
                take()
            finally:
                os._exit(1)
        while out.stat().st_size == before and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            sys.exit(1)
"""


def _kill_often(folder: Path, *, kills: int) -> list[int]:
    """Kill a process that takes numbers, at random times, and return everything that it handed out."""
    out = folder / "taken"
    environment = os.environ | {"PYTHONPATH": str(Path(siniantrust.__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(_NURSERY), str(folder / "ledger"), str(out), str(kills)]
    subprocess.run(command, env=environment, check=True)
    return [int(line) for line in out.read_text().splitlines()]


def test_kills_at_random_times_reuse_no_number(tmp_path: Path) -> None:
    """However often the process is killed and goes on, no number is handed out twice."""
    taken = _kill_often(tmp_path, kills=5)
    assert len(taken) > 5
    assert len(set(taken)) == len(taken)


@pytest.mark.slow
def test_a_thousand_kills_reuse_no_number(tmp_path: Path) -> None:
    """The same a thousand times over."""
    taken = _kill_often(tmp_path, kills=1000)
    assert len(taken) > 1000
    assert len(set(taken)) == len(taken)
