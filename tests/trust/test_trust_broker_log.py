from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust.errors import TrustError
from siniantrust.trust.broker import DecisionLog, Entry
from siniantrust.trust.broker._state import State

KEY = b"l" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the log of five decisions."""
    DecisionLog.create(tmp_path, key=KEY)
    log = DecisionLog(tmp_path, key=KEY)
    with log.exclusive():
        log.append("add", key_id="k1", lineage="net", version=1)
        log.append("release", key_id="k1", enclave="e1", lineage="net", version=1)
        log.append("refuse", key_id="k1", enclave="e2", detail="why\nnot")
        log.append("revoke-key", key_id="k1")
        log.append("release", key_id="k2", enclave="e1", lineage="net", version=3)
    return tmp_path


def _lines(folder: Path) -> list[bytes]:
    return (folder / "log.jsonl").read_bytes().splitlines(keepends=True)


def _refused(folder: Path, match: str) -> None:
    before = (folder / "log.jsonl").read_bytes()
    with pytest.raises(TrustError, match=match):
        DecisionLog(folder, key=KEY)
    assert (folder / "log.jsonl").read_bytes() == before


def test_a_log_is_read_back(folder: Path) -> None:
    """What was decided is there after a restart, in order, each entry on one line and bound to the one before."""
    entries = DecisionLog(folder, key=KEY).entries
    assert [entry.event for entry in entries] == ["add", "release", "refuse", "revoke-key", "release"]
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[2].detail == "why not"
    assert [entry.previous for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
    assert len(_lines(folder)) == 5


def test_two_processes_share_a_log(folder: Path) -> None:
    """Two logs of one folder go on from each other's entries."""
    first, second = DecisionLog(folder, key=KEY), DecisionLog(folder, key=KEY)
    for log in (first, second, first):
        with log.exclusive():
            log.append("start")
    assert len(DecisionLog(folder, key=KEY).entries) == 8


@pytest.mark.parametrize("number", range(5))
def test_an_altered_line_is_named(folder: Path, number: int) -> None:
    """A decision that was rewritten refuses the log at its line."""
    lines = _lines(folder)
    fields = json.loads(lines[number])
    lines[number] = json.dumps({**fields, "key_id": "k9"}, sort_keys=True).encode() + b"\n"
    (folder / "log.jsonl").write_bytes(b"".join(lines))
    _refused(folder, f"line {number + 1}: its hash is another; it was altered")


@pytest.mark.parametrize("number", range(4))
def test_a_removed_line_is_named(folder: Path, number: int) -> None:
    """A decision that was taken out refuses the log at its place."""
    lines = _lines(folder)
    del lines[number]
    (folder / "log.jsonl").write_bytes(b"".join(lines))
    _refused(folder, f"line {number + 1}: it does not follow the line before it")


@pytest.mark.parametrize("kept", range(5))
def test_a_truncated_log_is_refused(folder: Path, kept: int) -> None:
    """Lines that are missing at the end are noticed, whole or in part."""
    lines = _lines(folder)
    (folder / "log.jsonl").write_bytes(b"".join(lines[:kept]))
    _refused(folder, f"truncated after line {kept}, it had 5 lines")
    (folder / "log.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:-1])
    _refused(folder, f"truncated after line {kept}, it had 5 lines")


def test_lines_in_another_order_are_refused(folder: Path) -> None:
    """Two decisions that changed places refuse the log."""
    lines = _lines(folder)
    lines[1], lines[2] = lines[2], lines[1]
    (folder / "log.jsonl").write_bytes(b"".join(lines))
    _refused(folder, "line 2: it does not follow")


def test_a_line_by_somebody_else_is_refused(folder: Path) -> None:
    """Who knows the form but not the broker's key cannot add to the end."""
    forger = folder / "forger"
    DecisionLog.create(forger, key=b"f" * 32)
    for name in ("log.jsonl", "log.head"):
        (forger / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(TrustError, match="did not write it"):
        DecisionLog(forger, key=b"f" * 32)
    log = DecisionLog(folder, key=KEY)
    log._key = b"f" * 32
    with log._path.open("rb"):
        log.append("release", key_id="k1")
    _refused(folder, "did not write it")
    (folder / "log.head").write_bytes((forger / "log.head").read_bytes())
    _refused(folder, "line 6: this broker did not write it")


def test_a_rewritten_chain_is_refused(folder: Path) -> None:
    """A whole chain with right hashes, but without the broker's key, is refused at its first line."""
    forger = folder / "forger"
    DecisionLog.create(forger, key=b"f" * 32)
    log = DecisionLog(forger, key=b"f" * 32)
    with log.exclusive():
        for _ in range(5):
            log.append("start")
    (folder / "log.jsonl").write_bytes((forger / "log.jsonl").read_bytes())
    _refused(folder, "line 1: this broker did not write it")


@pytest.mark.parametrize("name", ["log.jsonl", "log.head"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    """A log without its file or its head is not an empty log."""
    (folder / name).unlink()
    with pytest.raises(TrustError, match="cannot be read"):
        DecisionLog(folder, key=KEY)


@pytest.mark.parametrize("head", [b"", b"0 " + b"0" * 64 + b" " + b"0" * 64, b"\xff\n", b"x y z"])
def test_an_altered_head_is_refused(folder: Path, head: bytes) -> None:
    """A head that the broker did not write is refused."""
    (folder / "log.head").write_bytes(head)
    _refused(folder, "did not write it")


def test_a_head_of_another_log_is_refused(folder: Path) -> None:
    """A true head of this broker's, but of another log, is refused at the line that it names."""
    other = folder / "other"
    DecisionLog.create(other, key=KEY)
    log = DecisionLog(other, key=KEY)
    with log.exclusive():
        for _ in range(3):
            log.append("start")
    (folder / "log.head").write_bytes((other / "log.head").read_bytes())
    _refused(folder, "line 3: not the line that the head names")


def test_a_broker_stopped_between_line_and_head_goes_on(folder: Path) -> None:
    """Lines that the head does not know yet were written by the broker, and count."""
    head = (folder / "log.head").read_bytes()
    log = DecisionLog(folder, key=KEY)
    with log.exclusive():
        log.append("start")
        log.append("release", key_id="k3", lineage="net", version=7)
    (folder / "log.head").write_bytes(head)
    again = DecisionLog(folder, key=KEY)
    assert again.entries[-1].version == 7
    assert (folder / "log.head").read_bytes() != head


def test_a_line_that_was_never_finished_is_dropped(folder: Path) -> None:
    """A line torn by a crash had no consequence; it is dropped, and the log says so."""
    with (folder / "log.jsonl").open("ab") as stream:
        stream.write(b'{"detail": "half')
    entries = DecisionLog(folder, key=KEY).entries
    assert (len(entries), entries[-1].event) == (6, "recover")
    assert entries[-1].detail == "dropped 16 bytes of a line that was never finished"
    assert len(DecisionLog(folder, key=KEY).entries) == 6


def test_a_log_truncated_while_in_use_is_refused(folder: Path) -> None:
    """A broker that runs notices that its log became shorter."""
    log = DecisionLog(folder, key=KEY)
    (folder / "log.jsonl").write_bytes(b"".join(_lines(folder)[:3]))
    with pytest.raises(TrustError, match="truncated while it was in use"), log.exclusive():
        pass


def test_a_line_over_the_limit_is_refused(folder: Path) -> None:
    """A line longer than any decision is refused before it is parsed."""
    with (folder / "log.jsonl").open("ab") as stream:
        stream.write(b"[" * (17 << 10) + b"\n")
    _refused(folder, "line 6: 17408 bytes are over the limit")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> DecisionLog:
    """Return the log of five releases, whose files are written over and over."""
    folder = tmp_path_factory.mktemp("damaged")
    DecisionLog.create(folder, key=KEY)
    log = DecisionLog(folder, key=KEY)
    with log.exclusive():
        for version in range(1, 6):
            log.append("release", key_id=f"k{version}", lineage="net", version=version)
    for name in ("log.jsonl", "log.head"):
        (folder / f"{name}.whole").write_bytes((folder / name).read_bytes())
    return log


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_any_damage_is_refused_or_leaves_what_was_decided(whole: DecisionLog, seed: int) -> None:
    """Whatever is done to the log's bytes, it is refused with a line's number, or all five decisions still stand."""
    folder, entries = whole._path.parent, whole.entries
    source = random.Random(seed)
    (folder / "log.head").write_bytes((folder / "log.head.whole").read_bytes())
    raw = bytearray((folder / "log.jsonl.whole").read_bytes())
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(raw))
        kind = source.randrange(4)
        if kind == 0:
            raw[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            del raw[place:]
        elif kind == 2:
            del raw[place : place + source.randint(1, 500)]
        else:
            raw[place:place] = bytes(raw[source.randrange(len(raw) + 1) :][: source.randint(1, 500)])
        raw = raw or bytearray(b"x")
    (folder / "log.jsonl").write_bytes(raw)
    try:
        found = DecisionLog(folder, key=KEY).entries
    except TrustError as refusal:
        assert "line" in str(refusal)  # noqa: PT017 - one of two allowed outcomes
    else:
        assert found[:5] == entries
        assert [entry.event for entry in found[5:]] in ([], ["recover"])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "release", "refuse", "revoke-key", "revoke-enclave"]),
            st.sampled_from(["k1", "k2"]),
            st.sampled_from(["a", "b"]),
            st.integers(1, 5),
        ),
        max_size=30,
    )
)
def test_counters_and_revocations_only_grow(decisions: list[tuple[str, str, str, int]]) -> None:
    """No order of decisions lets a counter go down or takes a revocation back, however the entries are read."""
    log = _Recorder()
    steps, whole = State(), State()
    released = {"a": 0, "b": 0}
    revoked = set()
    for event, key_id, lineage, version in decisions:
        before = {name: steps.counter(name) for name in released}
        log.append(event, key_id, lineage, version)
        steps.follow(log.entries)
        if event == "release":
            released[lineage] = max(released[lineage], version)
        if event == "revoke-key":
            revoked.add(key_id)
        assert {name: steps.counter(name) for name in released} == released
        assert all(steps.counter(name) >= before[name] for name in before)
        assert {name for name in ("k1", "k2") if steps.is_key_revoked(name)} == revoked
    whole.follow(log.entries)
    assert {name: whole.counter(name) for name in released} == released


class _Recorder:
    """Entries as a log would hold them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def append(self, event: str, key_id: str, lineage: str, version: int) -> None:
        """Add one."""
        self.entries.append(
            Entry(
                number=len(self.entries) + 1,
                time="",
                event=event,
                key_id="" if event == "revoke-enclave" else key_id,
                enclave="e1",
                lineage=lineage,
                version=version,
                detail="",
                previous="",
            )
        )
