"""Pictures that stand beside audit.json, embedded in the page while there is room for them."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from pathlib import Path

from siniantrust.errors import AuditError
from siniantrust.report._text import clean

# What is shown beyond the pictures that must be there, as characters of the page's text.
ROOM_CHARACTERS = 4 << 20
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass
class Album:
    """Embeds pictures, and keeps count of how much the page holds.

    ``taken`` maps a picture's data URI to the caption under which it was embedded first; ``left_out`` counts pictures
    that found no room.
    """

    folder: Path
    room: int = ROOM_CHARACTERS
    left_out: int = 0
    taken: dict[str, str] = field(default_factory=dict)
    _used: int = 0

    def embed(self, name: str, caption: str, *, must: bool) -> Picture | str:
        """Return the picture ``name``, or in words why it does not stand here.

        One that is no ``must`` needs room, and points to an equal one that was embedded before.

        Raises:
            AuditError: as ``read_picture``.
        """
        picture = read_picture(self.folder, name)
        if picture.uri in self.taken and not must:
            return f"the same picture, to the pixel, as {self.taken[picture.uri]}"
        if not must and self._used + len(picture.uri) > self.room:
            self.left_out += 1
            return f"left out to keep this page small; it stands beside the audit as {clean(name)}"
        self._used += len(picture.uri)
        self.taken.setdefault(picture.uri, caption)
        return picture


def read_picture(folder: Path, name: str) -> Picture:
    """Read a PNG that stands beside audit.json.

    Raises:
        AuditError: if ``name`` is not a plain file name, or there is no such file, or it is no PNG.
    """
    audit = folder / "audit.json"
    if not name or Path(name).name != name:
        raise AuditError(f"audit {audit}: a picture must be a file name without a folder, found {clean(name)!r}")
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise AuditError(
            f"audit {audit}: picture {path} cannot be read ({fault.strerror}); keep the audit's folder whole"
        ) from None
    if not data.startswith(_PNG_HEAD) or len(data) < len(_PNG_HEAD) + 8:
        raise AuditError(f"audit {audit}: picture {path}: expected a PNG file, found something else; audit again")
    width, height = struct.unpack_from(">II", data, len(_PNG_HEAD))
    return Picture(f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}", width, height)
