"""A headless Chromium over its debugging pipe: what the page shows, asks for and complains about."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# Chromium takes its commands from descriptor 3 and answers on 4; this puts the pipes there and becomes Chromium.
_LAUNCH = """
import os, sys
reads, writes = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]))
spare = [os.dup(reads) for _ in range(4)]
reads, writes = os.dup(reads), os.dup(writes)
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab. ``requests`` are the addresses that it asked for, ``complaints`` its console and log entries."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads = os.fdopen(reads, "rb")
        self._writes = os.fdopen(writes, "wb")
        self._count = 0
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None

    def attach(self) -> None:
        """Open the tab."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, path: Path, *, width: int, height: int = 900) -> None:
        """Load a local file in a viewport of ``width`` CSS pixels and wait until all of it is there."""
        self._events.clear()
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self._call("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()

    def prefer(self, scheme: str) -> None:
        """Let pages think that the reader prefers ``light`` or ``dark``."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, expression: str) -> Any:
        """Return the JSON value of an expression in the page."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    @property
    def requests(self) -> list[str]:
        """Addresses asked for since the page was opened, without data URIs, which ask nobody."""
        sent = (event for event in self._events if event["method"] == "Network.requestWillBeSent")
        addresses = (str(event["params"]["request"]["url"]) for event in sent)
        return [address for address in addresses if not address.startswith("data:")]

    @property
    def complaints(self) -> list[str]:
        """Everything that the console or the browser's log holds."""
        loud = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [json.dumps(event["params"]) for event in self._events if event["method"] in loud]

    def screenshot(self, path: Path) -> None:
        """Save the whole page, beyond the viewport, as a PNG."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print_pdf(self) -> bytes:
        """Return the page as it prints."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])

    def close(self) -> None:
        """Close the pipe; Chromium ends when it does."""
        self._writes.close()
        self._reads.close()

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._writes.write(json.dumps(message).encode() + b"\0")
        self._writes.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        letters = bytearray()
        while (letter := self._reads.read(1)) != b"\0":
            if not letter:
                raise RuntimeError("Chromium closed the pipe")
            letters += letter
        message: dict[str, Any] = json.loads(letters)
        if "method" in message:
            self._events.append(message)
        return message


@contextmanager
def browser(chromium: str) -> Iterator[Page]:
    """Yield a tab of a fresh Chromium with an empty profile."""
    command_reads, command_writes = os.pipe()
    answer_reads, answer_writes = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = (*FLAGS, f"--user-data-dir={profile}")
        process = subprocess.Popen(
            [sys.executable, "-ISc", _LAUNCH, str(command_reads), str(answer_writes), chromium, *flags],
            pass_fds=(command_reads, answer_writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_reads)
        os.close(answer_writes)
        page = Page(answer_reads, command_writes)
        try:
            page.attach()
            yield page
        finally:
            page.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
