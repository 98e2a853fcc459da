from __future__ import annotations

import os
import pty
import signal
import socket
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tpm_world import need

from siniantrust.trust.attestation.tpm2 import DEFAULT_DEVICE, Swtpm, Tpm, Tpm2Attester, TpmError
from siniantrust.trust.attestation.tpm2._commands import nv_read, pcr_extend, pcr_read, primary, quote
from siniantrust.trust.attestation.tpm2._constants import Command, Handle
from siniantrust.trust.attestation.tpm2._pcr import encode_selection
from siniantrust.trust.attestation.tpm2._public import AK_TEMPLATE
from siniantrust.trust.attestation.tpm2._wire import encode_command, uint

_RETRY = b"\x80\x01" + uint(4, 10) + uint(4, 0x922)
_SUCCESS = b"\x80\x01" + uint(4, 10) + uint(4, 0)
Scripted = Callable[[Sequence[bytes]], str]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """Return a function that starts a peer which answers command after command from a list and then hangs up."""
    threads = []

    def start(answers: Sequence[bytes]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with listener, listener.accept()[0] as peer:
                for answer in answers:
                    if not peer.recv(4096):
                        return
                    peer.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return f"swtpm:127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_busy_tpm_is_asked_again(scripted: Scripted) -> None:
    """After TPM_RC_RETRY the same command is sent again until it is taken."""
    with Tpm(scripted([_RETRY, _RETRY, _SUCCESS])) as tpm:
        assert tpm.call(Command.SHUTDOWN) == ([], b"")


def test_a_tpm_that_stays_busy_is_an_error(scripted: Scripted) -> None:
    """The time for a command holds for all tries together."""
    with (
        Tpm(scripted([_RETRY] * 100), timeout_s=0.1) as tpm,
        pytest.raises(TpmError, match=r"busy; try again|no answer"),
    ):
        tpm.call(Command.SHUTDOWN)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "lost during SHUTDOWN"),
        (b"\x80", "lost during SHUTDOWN"),
        (b"\x80\x01" + uint(4, 9) + bytes(4), "a size of 10 to 4096 bytes, found 9"),
        (b"\x80\x01" + uint(4, 4097) + bytes(4), "a size of 10 to 4096 bytes, found 4097"),
        (b"\x80\x01" + uint(4, 0xFFFFFFFF) + bytes(4), "a size of 10 to 4096 bytes, found 4294967295"),
        (b"\x80\x01" + uint(4, 12) + bytes(4) + b"\0", "lost during SHUTDOWN"),
        (_SUCCESS + b"more", "expected 10 bytes, found 14"),
    ],
    ids=range(7),
)
def test_a_peer_that_is_no_tpm_is_an_error(scripted: Scripted, answer: bytes, words: str) -> None:
    """Answers that are too short, too long or none close the connection, so that nothing is taken for a later one's."""
    with Tpm(scripted([answer]), timeout_s=60) as tpm:
        with pytest.raises(TpmError, match=words):
            tpm.call(Command.SHUTDOWN)
        with pytest.raises(TpmError, match="the connection is closed"):
            tpm.call(Command.SHUTDOWN)


@pytest.mark.parametrize("answer", [b"\x80\x02" + _SUCCESS[2:], b"\x80\x01" + uint(4, 11) + bytes(5)])
def test_an_answer_of_another_form_is_an_error(scripted: Scripted, answer: bytes) -> None:
    """An answer with sessions to a command without, and one without the values that it must have, are refused."""
    with Tpm(scripted([answer])) as tpm, pytest.raises(TpmError, match="TPM "):
        pcr_read(tpm, [0])


def test_a_tpm_without_the_bank_is_an_error(scripted: Scripted) -> None:
    """A TPM whose SHA-256 registers are switched off tells none of them, and the error says what to do."""
    none = uint(4, 1) + encode_selection([]) + uint(4, 0)
    with (
        Tpm(scripted([b"\x80\x01" + uint(4, 10 + len(none)) + bytes(4) + none])) as tpm,
        pytest.raises(TpmError, match="others; switch that bank on"),
    ):
        pcr_read(tpm, [14])


def test_a_device_that_is_no_tpm_is_an_error() -> None:
    """A file that swallows commands is lost, and one that gives no time at all does not answer in time."""
    with Tpm("/dev/null") as tpm, pytest.raises(TpmError, match="the other end closed it"):
        pcr_read(tpm, [0])
    with Tpm("/dev/null", timeout_s=0) as tpm, pytest.raises(TpmError, match="no answer to PCR_READ within 0 s"):
        pcr_read(tpm, [0])


def test_no_attester_starts_on_a_closed_connection(tpm: Tpm) -> None:
    """That a TPM cannot be asked for its certificate is no sign that it has none."""
    tpm.close()
    with pytest.raises(TpmError, match="the connection is closed"):
        Tpm2Attester(tpm)


def test_a_killed_emulator_is_an_error_and_no_hang(emulator: Swtpm, tpm: Tpm) -> None:
    """A TPM that dies during a command is told as lost."""
    attester = Tpm2Attester(tpm)
    attester.identity()
    os.kill(emulator.pid, signal.SIGSTOP)
    killer = threading.Timer(0.2, os.kill, (emulator.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(TpmError, match=r"lost during .*; open it again"):
        attester.evidence(bytes(64))
    killer.join()
    assert not tpm.alive
    with pytest.raises(TpmError, match="the connection is closed"):
        attester.evidence(bytes(64))


def test_a_tpm_that_is_lost_has_nothing_to_flush(tpm: Tpm) -> None:
    """The end of a block in which the TPM was lost hides no error behind one of its own."""
    with pytest.raises(TpmError, match="PCR_READ"), primary(tpm, Handle.ENDORSEMENT, AK_TEMPLATE):  # noqa: PT012
        tpm.close()
        raise TpmError("lost during PCR_READ")


def test_a_tpm_that_hangs_is_an_error(emulator: Swtpm) -> None:
    """A command that is not answered in time is told as such."""
    with Tpm(emulator.where, timeout_s=0.2) as tpm:
        os.kill(emulator.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TpmError, match=r"no answer to PCR_READ within 0\.2 s"):
                pcr_read(tpm, [0])
        finally:
            os.kill(emulator.pid, signal.SIGCONT)


def test_a_tpm_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A device file or a socket that cannot be opened is named."""
    for where in (str(tmp_path / "tpm"), f"swtpm:{tmp_path}/socket", "swtpm:127.0.0.1:1", "swtpm:127.0.0.1:70000"):
        with pytest.raises(TpmError, match=f"TPM {where}: it cannot be opened"):
            Tpm(where)


def test_the_device_of_the_kernel_is_the_default() -> None:
    """Without an argument the kernel's resource manager is opened."""
    if Path(DEFAULT_DEVICE).exists():
        pytest.skip("this machine has a TPM, which tests leave alone")
    with pytest.raises(TpmError, match=f"TPM {DEFAULT_DEVICE}: it cannot be opened"):
        Tpm()


@pytest.fixture
def device_file(emulator: Swtpm) -> Iterator[str]:
    """Return the path of a device file (a terminal in raw mode) behind which an emulated TPM is."""
    outer, inner = pty.openpty()
    tty.setraw(inner)
    stop = threading.Event()

    def carry(source: int, target: int) -> None:
        while not stop.is_set():
            try:
                os.write(target, os.read(source, 4096))
            except BlockingIOError:
                time.sleep(0.001)

    data = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    data.connect(emulator.where.removeprefix("swtpm:"))
    for end in (outer, data.fileno()):
        os.set_blocking(end, False)
    ways = [(outer, data.fileno()), (data.fileno(), outer)]
    threads = [threading.Thread(target=carry, args=way) for way in ways]
    for thread in threads:
        thread.start()
    yield os.ttyname(inner)
    stop.set()
    for thread in threads:
        thread.join()
    data.close()
    os.close(outer)
    os.close(inner)


def test_a_device_file_is_spoken_to(device_file: str) -> None:
    """Commands go to a device file as well as to a socket."""
    with Tpm(device_file, timeout_s=20) as tpm:
        pcr_extend(tpm, 3, b"x" * 32)
        assert pcr_read(tpm, [3])[3] != bytes(32)
        assert Tpm2Attester(tpm).evidence(bytes(64)).body


def test_a_device_file_that_hangs_is_an_error(device_file: str, emulator: Swtpm) -> None:
    """A device that does not answer in time is told as such."""
    with Tpm(device_file, timeout_s=0.2) as tpm:
        os.kill(emulator.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TpmError, match="no answer to PCR_READ"):
                pcr_read(tpm, [0])
        finally:
            os.kill(emulator.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda tpm: pcr_extend(tpm, 24, bytes(32)), r"refused PCR_EXTEND: value out of range \(handle 1\)"),
        (lambda tpm: quote(tpm, 0x80000000, b"", [0]), r"refused QUOTE: .*response code 0x910"),
        (lambda tpm: nv_read(tpm, 0x01C00002, 10), r"refused NV_READ: nothing lives under this handle \(handle 1\)"),
        (lambda tpm: quote(tpm, 0x80000000, bytes(5000), [0]), "expected a command of at most 4096 bytes"),
        (lambda tpm: tpm.call(Command.UNSEAL, [0x80000000]), r"refused UNSEAL: .*response code 0x"),
        (lambda tpm: tpm.call(Command.SHUTDOWN), r"refused SHUTDOWN: structure ends too early \(parameter 1\)"),
    ],
)
def test_a_refusal_says_why_in_words(tpm: Tpm, ask: Callable[[Tpm], object], words: str) -> None:
    """What the TPM refused, why, and where in the command stands in the error, and the connection goes on."""
    with pytest.raises(TpmError, match=words):
        ask(tpm)
    assert pcr_read(tpm, [0])


def test_more_registers_than_one_command_gives_are_read(tpm: Tpm) -> None:
    """A TPM tells eight registers at a time; all sixteen are read."""
    assert pcr_read(tpm, range(16)) == dict.fromkeys(range(16), bytes(32))


def test_a_missing_emulator_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without swtpm the error says what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(TpmError, match="swtpm is not installed; to emulate a TPM, run"):
        Swtpm()


def test_an_emulator_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What swtpm wrote about its failure is in the error, and its folder is removed."""
    need("swtpm")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 50)))
    (tmp_path / ("long" * 50)).mkdir()
    with pytest.raises(TpmError, match="swtpm: it did not start"):
        Swtpm()
    assert list((tmp_path / ("long" * 50)).iterdir()) == []


def test_tools_that_fail_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What swtpm's tools wrote about their failure is in the error, and the TPM's folder is removed."""
    need("swtpm", "swtpm_localca")
    tool = tmp_path / "bin" / "swtpm_setup"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho no entropy >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    (tmp_path / "states").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "states"))
    with pytest.raises(TpmError, match="swtpm_setup: it failed: no entropy"):
        Swtpm(authority=tmp_path / "authority")
    assert list((tmp_path / "states").iterdir()) == []


def test_a_command_has_the_form_of_the_specification() -> None:
    """TPM2_Startup(CLEAR) is the twelve bytes that every TPM's handbook shows."""
    assert encode_command(Command.STARTUP, [], [], uint(2, 0)).hex() == "80010000000c000001440000"
