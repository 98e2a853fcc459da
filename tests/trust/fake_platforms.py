"""Files that behave as a platform's, for tests of what asks them for evidence."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import PosixPath
from typing import Any, ClassVar
from uuid import UUID

CERTIFICATES = {
    "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
    "vlek": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "crl": "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    "other": "11111111-2222-3333-4444-555555555555",
}


def certificate_table(certificates: dict[str, bytes]) -> bytes:
    """Return the table of certificates that a host would hand out."""
    offset = 24 * (len(certificates) + 1)
    head, body = b"", b""
    for name, data in certificates.items():
        head += struct.pack("<16sII", UUID(CERTIFICATES[name]).bytes, offset + len(body), len(data))
        body += data
    return head + bytes(24) + body


class TsmPath(PosixPath):
    """Files that behave as those of configfs-tsm: what is read is made from what was written, at that moment.

    ``kernel`` is shared by all paths below one root, as the kernel is.
    """

    kernel: ClassVar[dict[str, Any]] = {}

    def mkdir(self, *arguments: Any, **options: Any) -> None:
        """Make an entry, in which the kernel puts its attributes."""
        super().mkdir(*arguments, **options)
        self.kernel.update(generation=0, inblob=None, made=self.kernel.get("made", 0) + 1)

    def rmdir(self) -> None:
        """Remove an entry with its attributes."""
        super().rmdir()
        self.kernel["removed"] = self.kernel.get("removed", 0) + 1

    def write_bytes(self, data: Any) -> int:
        """Write an attribute."""
        assert self.name == "inblob", f"{self.name} cannot be written"
        if len(data) > 64:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.kernel.update(generation=self.kernel["generation"] + 1, inblob=bytes(data))
        self.kernel.get("after_write", lambda: None)()
        return len(data)

    def read_bytes(self) -> bytes:
        """Read an attribute."""
        if not self.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))
        answers: dict[str, Callable[[], bytes]] = {
            "provider": lambda: self.kernel.get("provider", b"tdx_guest\n"),
            "generation": lambda: b"%d\n" % self.kernel["generation"],
            "outblob": self._report,
            "auxblob": self._added,
        }
        return answers[self.name]()

    def _report(self) -> bytes:
        if (fault := self.kernel.get("fault")) is not None:
            raise OSError(fault, os.strerror(fault))
        if self.kernel["inblob"] is None:
            raise OSError(errno.EINVAL, "Invalid argument")
        make = self.kernel.get("report", lambda written: b"report of " + written)
        return b"" if self.kernel.get("empty") else make(self.kernel["inblob"])

    def _added(self) -> bytes:
        if "auxblob" not in self.kernel:
            raise OSError(errno.ENXIO, "No such device or address")
        return bytes(self.kernel["auxblob"])


class GraminePath(PosixPath):
    """Files that behave as Gramine's: ``quote`` is made from what ``user_report_data`` was written with."""

    make: ClassVar[Callable[[bytes], bytes]] = staticmethod(
        lambda data: b"h" * 48 + b"r" * 320 + data.ljust(64, b"\0") + b"signature"
    )

    def read_bytes(self) -> bytes:
        """Read a pseudo-file."""
        if self.name != "quote":
            return super().read_bytes()
        return type(self).make((self.parent / "user_report_data").read_bytes())
