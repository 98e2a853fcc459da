"""The attackers' pictures beside the originals, embedded in the page."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from siniantrust.errors import AuditError
from siniantrust.report._audit_input import AttackRead, AuditRead
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._text import clean, metric_title, raw

_ROWS = 6
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Reconstruction:
    """What one attack made at one cut. ``figures`` are (metric, value, what guessing reaches) in the metric's unit."""

    cut: CutView
    attack: str
    picture: Picture
    figures: tuple[tuple[str, str, str], ...]
    converged: bool


@dataclass(frozen=True)
class Gallery:
    """The originals and the reconstructions along the model."""

    originals: Picture
    rows: tuple[Reconstruction, ...]


def build_gallery(sources: Sources, cuts: Sequence[CutView]) -> Gallery | None:
    """Return pictures at up to six cuts (the first, the chosen ones, the last, and others spread between).

    None where the audit made no pictures, as for data that is not an image.

    Raises:
        AuditError: if a picture that the audit names is missing or is no PNG.
    """
    if sources.audit is None or sources.audit_folder is None or sources.audit.originals_picture is None:
        return None
    seen = [(cut, found) for cut in cuts if (found := _best_with_picture(cut)) is not None]
    folder = sources.audit_folder
    rows = [_row(cut, *found, audit=sources.audit, folder=folder) for cut, found in _spread(seen)]
    if not rows:
        return None
    return Gallery(originals=read_picture(folder, sources.audit.originals_picture), rows=tuple(rows))


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


def _best_with_picture(cut: CutView) -> tuple[str, AttackRead] | None:
    """Return the attack whose pictures resemble the originals most, by SSIM where it was measured."""
    if cut.measured is None:
        return None
    pictured = [(name, attack) for name, attack in cut.measured.attacks.items() if attack.picture and attack.leakage]
    return max(pictured, key=lambda item: _likeness(item[1]), default=None)


def _likeness(attack: AttackRead) -> float:
    deciding = attack.leakage.get("ssim") or next(iter(attack.leakage.values()))
    return deciding.mean


def _spread(
    seen: Sequence[tuple[CutView, tuple[str, AttackRead]]],
) -> list[tuple[CutView, tuple[str, AttackRead]]]:
    """Keep the first, the last and the chosen cuts, then fill up evenly."""
    if len(seen) <= _ROWS:
        return list(seen)
    keep = {0, len(seen) - 1} | {index for index, (cut, _) in enumerate(seen) if cut.chosen}
    while len(keep) < _ROWS:
        ordered = sorted(keep)
        start, end = max(pairwise(ordered), key=lambda gap: gap[1] - gap[0])
        keep.add((start + end) // 2)
    return [seen[index] for index in sorted(keep)]


def _row(cut: CutView, name: str, attack: AttackRead, *, audit: AuditRead, folder: Path) -> Reconstruction:
    summary = audit.attacks.get(name)
    return Reconstruction(
        cut=cut,
        attack=clean(summary.title if summary else name),
        picture=read_picture(folder, attack.picture or ""),
        figures=tuple(
            (metric_title(metric), raw(metric, estimate.raw), raw(metric, estimate.prior))
            for metric, estimate in attack.leakage.items()
            if metric in {"ssim", "reidentification"}
        ),
        converged=attack.converged,
    )
