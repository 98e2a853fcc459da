"""A server of one part in a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class PartServer:
    """``sinian serve`` in a process of its own, which can be killed and started again on the same port."""

    def __init__(self, part: Path) -> None:
        self._part = part
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = int(listener.getsockname()[1])
        self.url = f"grpc://127.0.0.1:{self._port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        command = [sys.executable, "-c", "import sys; from siniantrust.cli import main; sys.exit(main())", "serve"]
        options = [str(self._part), "--http-port", "0", "--grpc-port", str(self._port), "--threads", "1"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = self.process.stdout.readline()
        if re.search(r"grpc://", line) is None:
            raise RuntimeError(f"the server of {self._part} did not start: {line!r}")

    def kill(self) -> float:
        """Kill it; return when, on the clock of ``time.perf_counter``."""
        assert self.process is not None  # noqa: S101 - it was started
        at_s = time.perf_counter()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return at_s

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it."""
        self.kill()
