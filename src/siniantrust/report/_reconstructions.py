"""What every attack got back at every cut: its pictures where the audit made some, and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from siniantrust.report._audit_input import DOWNSTREAM, AttackRead, AuditRead, CutRead
from siniantrust.report._cuts import CutView
from siniantrust.report._load import Sources
from siniantrust.report._pictures import Album, Picture
from siniantrust.report._text import clean, in_policy_order, metric_title, raw, raw_title, score

_OPEN_CUTS = 6


@dataclass(frozen=True)
class Reconstruction:
    """What one attack made at one cut.

    ``figures`` are (metric, value, what guessing reaches) in the metric's own unit, over all held-out items; ``worst``
    are (metric, leakage) of the items that leak most. A picture that is a text says why there is none here.
    """

    attack: str
    best_in: tuple[str, ...]
    strip: Picture | str
    worst_strip: Picture | str | None
    figures: tuple[tuple[str, str, str], ...]
    worst: tuple[tuple[str, str], ...]
    converged: bool
    inverted: str


@dataclass(frozen=True)
class CutGallery:
    """One cut: the best attack, and all others. ``opened`` says whether the page shows it without being asked."""

    cut: CutView
    best: Reconstruction
    others: tuple[Reconstruction, ...]
    opened: bool


@dataclass(frozen=True)
class Gallery:
    """The originals and the reconstructions along the model. ``left_out`` counts the pictures that found no room."""

    originals: Picture
    cuts: tuple[CutGallery, ...]
    left_out: int


def build_gallery(sources: Sources, cuts: Sequence[CutView]) -> Gallery | None:
    """Return the pictures of every cut; open are up to six (the first, the chosen, the last, others spread between).

    None where the audit made no pictures, as for data that is not an image. The pictures of the open cuts' best attacks
    are always embedded; then those of the other cuts' best attacks and of all other attacks, while there is room.

    Raises:
        AuditError: if a picture that the audit names is missing or is no PNG.
    """
    audit, folder = sources.audit, sources.audit_folder
    if audit is None or folder is None or audit.originals_picture is None:
        return None
    bounds = sources.plan.policy.leakage.max
    seen = [(cut, ranked) for cut in cuts if cut.measured and (ranked := pictured(cut.measured, bounds))]
    if not seen:
        return None
    album = Album(folder)
    originals = album.embed(audit.originals_picture, "the originals", must=True)
    opened = _spread([cut for cut, _ in seen])
    made: dict[tuple[int, str], Reconstruction] = {}
    for cut, name in _by_importance(seen, opened):
        must = cut.number in opened and name in _best_names(cut)
        assert cut.measured is not None  # noqa: S101 - a cut with pictures was measured
        made[cut.number, name] = reconstruction(cut.measured, name, audit, album, place=f"cut {cut.number}", must=must)
    galleries = tuple(
        CutGallery(
            cut=cut,
            best=made[cut.number, names[0]],
            others=tuple(made[cut.number, name] for name in names[1:]),
            opened=cut.number in opened,
        )
        for cut, names in seen
    )
    assert isinstance(originals, Picture)  # noqa: S101 - a picture that must be there is
    return Gallery(originals=originals, cuts=galleries, left_out=album.left_out)


def raw_figures(attack: AttackRead, bounds: Sequence[str]) -> tuple[tuple[str, str, str], ...]:
    """Return (metric, value, what guessing reaches) of every metric in its own unit."""
    return tuple(
        (raw_title(metric), raw(metric, attack.leakage[metric].raw), raw(metric, attack.leakage[metric].prior))
        for metric in in_policy_order(attack.leakage, bounds)
    )


def pictured(measured: CutRead, bounds: Iterable[str]) -> list[str]:
    """Return the attacks with pictures at a cut, the best first: best in the first metric that the policy limits."""
    attacks = {name: attack for name, attack in measured.attacks.items() if attack.picture and attack.leakage}
    order = [measured.best_attack[metric] for metric in in_policy_order(measured.leakage, bounds)]
    ranks = {name: rank for rank, name in reversed(list(enumerate(order)))}
    return sorted(attacks, key=lambda name: (ranks.get(name, len(order)), -_likeness(attacks[name])))


def _likeness(attack: AttackRead) -> float:
    deciding = attack.leakage.get("ssim") or next(iter(attack.leakage.values()))
    return deciding.mean


def _best_names(cut: CutView) -> set[str]:
    return set(cut.measured.best_attack.values()) if cut.measured else set()


def _by_importance(seen: Sequence[tuple[CutView, list[str]]], opened: set[int]) -> Iterator[tuple[CutView, str]]:
    """Yield every cut and attack, those first that must find room; a later cut's pictures belong to the later cut."""
    pairs = [(cut, name, rank) for cut, names in seen for rank, name in enumerate(names)]
    pairs.sort(
        key=lambda pair: (
            pair[1] not in _best_names(pair[0]) or pair[0].number not in opened,
            pair[1] == DOWNSTREAM,
            pair[2],
        )
    )
    yield from ((cut, name) for cut, name, _ in pairs)


def _spread(seen: Sequence[CutView]) -> set[int]:
    """Keep the numbers of the first, the last and the chosen cuts, then fill up evenly."""
    if len(seen) <= _OPEN_CUTS:
        return {cut.number for cut in seen}
    keep = {0, len(seen) - 1} | {index for index, cut in enumerate(seen) if cut.chosen}
    while len(keep) < _OPEN_CUTS:
        ordered = sorted(keep)
        start, end = max(pairwise(ordered), key=lambda gap: gap[1] - gap[0])
        keep.add((start + end) // 2)
    return {seen[index].number for index in keep}


def reconstruction(
    measured: CutRead, name: str, audit: AuditRead, album: Album, *, place: str, must: bool
) -> Reconstruction:
    """Return what the attack ``name``, which made a picture, got back at a cut that a caption calls ``place``.

    Raises:
        AuditError: if a picture that the audit names is missing or is no PNG.
    """
    attack = measured.attacks[name]
    summary = audit.attacks.get(name)
    title = clean(summary.title if summary else name)
    caption = f"{title} at {place}"
    return Reconstruction(
        attack=title,
        best_in=tuple(metric_title(metric) for metric, best in measured.best_attack.items() if best == name),
        strip=album.embed(attack.picture or "", caption, must=must),
        worst_strip=None
        if attack.worst_picture is None
        else album.embed(attack.worst_picture, f"the worst case of {caption}", must=must),
        figures=raw_figures(attack, list(attack.leakage)),
        worst=tuple((metric_title(metric), score(estimate.worst_5pct)) for metric, estimate in attack.leakage.items()),
        converged=attack.converged,
        inverted=""
        if attack.heldout_items is None
        else f"{attack.heldout_items:,} of {audit.data.heldout_count:,} held-out items inverted",
    )
