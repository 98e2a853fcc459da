from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import numpy as np
import pytest
from trust_parts import Launch, LoadPart

from siniantrust.graph import Part
from siniantrust.trust._protections import ACTIVE
from siniantrust.trust._secret import SecretMemory, wipe
from siniantrust.trust.process._host import ProcessEnclave


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _regions(pid: int) -> list[tuple[int, int, str]]:
    """Return the mapped regions of a process: start, end and name."""
    found = []
    for line in Path("/proc", str(pid), "maps").read_text(encoding="ascii").splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)", line)
        assert match is not None
        found.append((int(match[1], 16), int(match[2], 16), match[3]))
    return found


@pytest.fixture
def enclave(launched: Launch, load_part: LoadPart, conv_part: Part) -> tuple[ProcessEnclave, bytes]:
    """Return an enclave that has computed, and the key of the weights that it opened."""
    if os.geteuid() != 0:
        pytest.skip("only root may look into a process that is not dumpable")
    enclave = launched()
    assert isinstance(enclave, ProcessEnclave)
    state = enclave.info().protections["secret_memory"]
    if state != ACTIVE:
        pytest.skip(f"no secret memory here: {state}")
    key = load_part(enclave, "conv", conv_part)
    enclave.run("conv", {"x": np.ones((1, 3, 16, 16), np.float32)})
    return enclave, key


def test_root_cannot_read_the_secret_page(enclave: tuple[ProcessEnclave, bytes]) -> None:
    """Neither /proc/PID/mem nor process_vm_readv reads the page of keys, while both read other pages."""
    pid = enclave[0].info().pid
    assert pid is not None
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(16)
    ours = _Span(ctypes.addressof(buffer), 16)
    regions = _regions(pid)
    (secret,) = [start for start, _, name in regions if name.startswith("/secretmem")]
    (stack,) = [end - 64 for _, end, name in regions if name == "[stack]"]
    with Path("/proc", str(pid), "mem").open("rb", buffering=0) as memory:
        memory.seek(stack)
        assert memory.read(16)
        memory.seek(secret)
        with pytest.raises(OSError, match="Input/output error"):
            memory.read(16)
    for address, expected in ((stack, 16), (secret, -1)):
        theirs = _Span(address, 16)
        assert libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) == expected


def test_no_key_lies_anywhere_else_in_the_enclave(enclave: tuple[ProcessEnclave, bytes]) -> None:
    """Root reads all other memory of an enclave at rest and finds neither session keys nor the weights' key."""
    pid = enclave[0].info().pid
    assert pid is not None
    channel = enclave[0]._channel
    keys = {"to enclave": bytes(channel._sealer._key), "to client": bytes(channel._opener._key), "weights": enclave[1]}
    read_bytes = 0
    with Path("/proc", str(pid), "mem").open("rb", buffering=0) as memory:
        for start, end, name in _regions(pid):
            if "memfd:siniantrust" in name:  # the windows, which are sparse and visible to the host anyway
                continue
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            read_bytes += len(content)
            assert [key_name for key_name, key in keys.items() if key in content] == []
    assert read_bytes > 20 << 20


def test_secret_memory_is_zeroed_and_released_on_close() -> None:
    """After close, no view of the page can be read, and closing again does nothing."""
    secret = SecretMemory()
    view = secret.allocate(32)
    view[:] = b"k" * 32
    secret.close()
    secret.close()
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_secret_memory_has_an_end() -> None:
    """Asking for more than a page is refused."""
    with SecretMemory() as secret, pytest.raises(ValueError, match="holds"):
        secret.allocate(secret.size_bytes + 1)


def test_wipe_overwrites_the_bytes() -> None:
    """A secret that a library returned as bytes is gone afterwards."""
    secret = os.urandom(32)
    wipe(secret)
    assert secret == bytes(32)
