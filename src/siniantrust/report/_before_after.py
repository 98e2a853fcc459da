"""What the mask changed at the plan's cuts: both audits' figures and reconstructions beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from siniantrust.errors import AuditError
from siniantrust.report._audit_input import AuditRead, CutRead, EstimateRead
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._pictures import Album, Picture, read_picture
from siniantrust.report._reconstructions import Reconstruction, pictured, reconstruction
from siniantrust.report._text import clean, in_policy_order, metric_title, score
from siniantrust.report._tune_input import PointRead

# What ``sinian mask`` appends to the name of a tensor; a composition does so for each mask.
_SUFFIX = "_masked"


@dataclass(frozen=True)
class Pair:
    """One of the plan's cuts with and without the mask. A reconstruction is None where there are no pictures.

    ``rows`` are (metric, mean and upper bound before, the same after, the policy's bound); a dash where unknown.
    """

    cut: CutView
    before_tensors: str
    before_settled: bool
    before: Reconstruction | None
    after: Reconstruction | None
    rows: tuple[tuple[str, str, str, str, str, str], ...]


@dataclass(frozen=True)
class BeforeAfter:
    """Both audits' findings. ``unlike`` names what else than the model differs between them."""

    originals: Picture | None
    pairs: tuple[Pair, ...]
    unlike: tuple[str, ...]


def compare(sources: Sources, cuts: Sequence[CutView]) -> BeforeAfter | None:
    """Return the plan's cuts before and after the mask; None where no audit before it was given.

    Raises:
        AuditError: if the two audits show different items, the one before did not attack the tensor that the mask lies
            behind, or a picture is missing or is no PNG.
    """
    before, after, folder = sources.before, sources.audit, sources.before_folder
    if before is None or after is None or folder is None or sources.audit_folder is None:
        return None
    originals = _originals(folder, before, sources.audit_folder, after)
    bounds = sources.plan.policy.leakage.max
    albums = Album(folder), Album(sources.audit_folder)
    pairs = []
    for cut in cuts:
        if not cut.chosen or cut.measured is None:
            continue
        plain = _same_place(folder, before, cut.measured, sources.lineage.chosen)
        place = f"cut {cut.number}"
        pairs.append(
            Pair(
                cut=cut,
                before_tensors=clean(", ".join(plain.tensors)),
                before_settled=plain.settled_in(bounds),
                before=_best(plain, before, albums[0], bounds, place=f"{place} without the mask"),
                after=_best(cut.measured, after, albums[1], bounds, place=f"{place} with the mask"),
                rows=tuple(_rows(plain, cut.measured, bounds)),
            )
        )
    return BeforeAfter(originals=originals, pairs=tuple(pairs), unlike=tuple(_unlike(before, after)))


def _originals(folder: Path, before: AuditRead, after_folder: Path, after: AuditRead) -> Picture | None:
    """Return the items that both audits show; None where neither shows any."""
    if before.originals_picture is None or after.originals_picture is None:
        return None
    shown = read_picture(after_folder, after.originals_picture)
    if read_picture(folder, before.originals_picture) != shown:
        raise AuditError(
            f"audit {folder / 'audit.json'}: shows other items than the planned model's audit; audit both with the "
            "same seed"
        )
    return shown


def _same_place(folder: Path, before: AuditRead, masked: CutRead, chosen: PointRead | None) -> CutRead:
    """Return the cut of the model without the mask at the tensors that the mask lies behind."""
    wanted = list(_less_masked(masked.tensors))
    if chosen is not None and masked.tensors == (chosen.tensor,):
        wanted.append((chosen.cut,))
    for tensors in wanted:
        for cut in before.cuts:
            if cut.tensors == tensors:
                return cut
    names = " or ".join(", ".join(tensors) for tensors in wanted)
    raise AuditError(
        f"audit {folder / 'audit.json'}: no cut at {clean(names)}; audit the model without the mask at that cut too"
    )


def _less_masked(tensors: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the names as they are, then without one mask after the other."""
    yield tensors
    while all(name.endswith(_SUFFIX) for name in tensors):
        tensors = tuple(name.removesuffix(_SUFFIX) for name in tensors)
        yield tensors


def _best(
    measured: CutRead, audit: AuditRead, album: Album, bounds: dict[str, float], *, place: str
) -> Reconstruction | None:
    names = pictured(measured, bounds)
    return reconstruction(measured, names[0], audit, album, place=place, must=True) if names else None


def _rows(before: CutRead, after: CutRead, bounds: dict[str, float]) -> Iterator[tuple[str, str, str, str, str, str]]:
    for metric in in_policy_order({**after.leakage, **before.leakage}, bounds):
        sides = _figures(before.leakage.get(metric)), _figures(after.leakage.get(metric))
        yield metric_title(metric), *sides[0], *sides[1], score(bounds.get(metric))


def _figures(estimate: EstimateRead | None) -> tuple[str, str]:
    return (score(None), score(None)) if estimate is None else (score(estimate.mean), score(estimate.upper))


def _unlike(before: AuditRead, after: AuditRead) -> Iterator[str]:
    """Name what made the attackers of one audit stronger or luckier than the other's."""
    sides = [
        {
            "attacks": ", ".join(sorted(audit.attacks)),
            "training runs of an attack": str(audit.seeds),
            "seed": str(audit.seed),
            **{name: str(value) for name, value in audit.budget.items()},
        }
        for audit in (before, after)
    ]
    for name in {**sides[0], **sides[1]}:
        first, second = (side.get(name, "not given") for side in sides)
        if first != second:
            yield clean(f"{name}: {first} without the mask, {second} with it")
