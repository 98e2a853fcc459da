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
from siniantrust.masking.exact._ledger import SESSION_BYTES, STRIDE
from siniantrust.masking.exact._ring import from_limbs, minus, most_terms, plus, to_limbs
from siniantrust.masking.exact._stock import TAG_BYTES, Stock

KEY = bytes(range(32))
SESSION = bytes(SESSION_BYTES)


@pytest.mark.parametrize("limbs", [3, 4])
def test_pads_are_uniform(limbs: int) -> None:
    """Every byte of a pad is even over its values (chi-square), and so are the numbers (Kolmogorov-Smirnov)."""
    pads = PadSource(KEY).pad(1, 2, 200_000, limbs=limbs)
    for limb in pads:
        assert stats.chisquare(np.bincount(limb, minlength=256)).pvalue > 1e-4
    numbers = from_limbs(pads).astype(np.float64) / (1 << (8 * limbs)) + 0.5
    assert stats.kstest(numbers, "uniform").pvalue > 1e-4


def test_pads_of_different_numbers_differ() -> None:
    """Another query, another value or another key gives another pad; the same numbers give the same."""
    source = PadSource(KEY)
    first = source.pad(1, 1, 64, limbs=4)
    assert np.array_equal(first, source.pad(1, 1, 64, limbs=4))
    others = (source.pad(2, 1, 64, limbs=4), source.pad(1, 2, 64, limbs=4), PadSource(KEY[::-1]).pad(1, 1, 64, limbs=4))
    for other in others:
        assert not np.intersect1d(from_limbs(first), from_limbs(other)).size


def test_a_pad_is_one_stretch_of_the_generator() -> None:
    """By shares of any size, no byte of the generator is left out or comes twice."""
    source = PadSource(KEY)
    whole = source.pad(1, 2, 100, limbs=3, share=100).tobytes()
    for share in (1, 7, 99):
        pieces = source.shares(1, 2, 100, limbs=3, share=share)
        assert b"".join(pads.tobytes() for _, pads in pieces) == whole


@pytest.mark.parametrize("numbers", [(-1, 0, 1), (1 << 64, 0, 1), (0, 1 << 32, 1), (0, 0, (1 << 34) + 1)])
def test_numbers_beyond_the_counter_are_refused(numbers: tuple[int, int, int]) -> None:
    """A number that would wrap the counter, and so use a pad twice, is refused."""
    with pytest.raises(TrustError, match="beyond the counter's range"):
        PadSource(KEY).pad(*numbers, limbs=4)


def _random(limbs: int, numbers: list[int]) -> np.ndarray:
    return to_limbs(np.array(numbers), limbs, axis=0)


@given(st.sampled_from([3, 4]), st.data())
def test_results_are_read_back_from_any_number(limbs: int, data: st.DataObject) -> None:
    """Every result in range is recovered, whatever the correction and the pads are."""
    half = 1 << (8 * limbs - 1)
    number = st.sampled_from([0, 1, half - 1, half, 2 * half - 1]) | st.integers(0, 2 * half - 1)
    result = data.draw(st.sampled_from([-half, -1, 0, half - 1]) | st.integers(-half, half - 1), label="result")
    correction, pad = (_random(limbs, [data.draw(number, label=name)]) for name in ("correction", "pad"))
    answer = plus(_random(limbs, [result]), correction)
    kept = minus(pad, correction)
    assert from_limbs(minus(plus(answer, kept), pad)).tolist() == [result]


@given(st.sampled_from([3, 4]), st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=1, max_size=20))
def test_limbs_are_the_bytes_of_a_number(limbs: int, numbers: list[int]) -> None:
    """The lowest byte comes first, and numbers are read back as signed ones."""
    raw, modulus = _random(limbs, numbers), 1 << (8 * limbs)
    for number, each in zip(numbers, raw.T, strict=True):
        assert bytes(each) == (number % modulus).to_bytes(limbs, "little")
    assert [found % modulus for found in from_limbs(raw).tolist()] == [number % modulus for number in numbers]


def test_what_the_host_keeps_is_uniform_and_tells_nothing_of_a_correction() -> None:
    """For corrections that are far from random, every byte that is kept is even, and so is what two differ by."""
    stock = Stock(PadSource(KEY), KEY[::-1])
    count = 200_000
    first, second = (
        np.frombuffer(stock.sealed(5, layer, np.full((3, count), layer, np.uint8), share=1000), np.uint8, 3 * count)
        for layer in (0, 1)
    )
    for raw in (first, second, first - second):
        for limb in raw.reshape(-1, 3, 1000).swapaxes(0, 1):
            assert stats.chisquare(np.bincount(limb.ravel(), minlength=256)).pvalue > 1e-4


def test_a_changed_correction_does_not_open() -> None:
    """Whichever byte of a correction or its tag changes, or its numbers, it is no longer what was made."""
    stock = Stock(PadSource(KEY), KEY[::-1])
    kept = stock.sealed(5, 1, np.zeros((3, 10), np.uint8), share=10)
    assert len(kept) == 30 + TAG_BYTES
    assert stock.is_untouched(5, 1, kept)
    for place in range(len(kept)):
        assert not stock.is_untouched(5, 1, kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
    assert not any((stock.is_untouched(4, 1, kept), stock.is_untouched(5, 2, kept), stock.is_untouched(5, 1, b"")))


@pytest.mark.parametrize("limbs", [3, 4])
def test_the_bound_on_terms_is_tight_enough_for_float64(limbs: int) -> None:
    """As many products as are allowed stay exact in float64 for every magnitude of weights, and not many more would."""
    for weight in (1, 3, 127):
        most = most_terms(limbs, weight)
        assert most * weight * ((1 << (8 * limbs)) - 1) < 1 << 53
        assert (2 * most + 2) * weight * ((1 << (8 * limbs)) - 1) > 1 << 52


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
