"""One case of a bench: a model on a data set, bare or with one mask at one cut, and what its audit depends on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from siniantrust import graph, leakage, masking
from siniantrust._files import sha256_bytes, sha256_file
from siniantrust.bench._config import BenchConfig, BenchError, MaskSection, ModelSection

NO_MASK = "none"


@dataclass(frozen=True, slots=True)
class Case:
    """What one audit is about. ``cut_id`` and ``cut_index`` are None where all cuts of a model are audited."""

    model: str
    data: str
    mask: str = NO_MASK
    strength: float = 0.0
    cut_id: str | None = None
    cut_index: int | None = None

    def __str__(self) -> str:
        """Return how progress and errors call it."""
        masked = "" if self.mask == NO_MASK else f", {self.mask} {self.strength:g} at {self.cut_id}"
        return f"{self.model} on {self.data}{masked}"


@dataclass(frozen=True)
class Subject:
    """A model with its data, loaded."""

    section: ModelSection
    data_name: str
    model: graph.Model = field(repr=False)
    data: leakage.Data = field(repr=False)
    cuts: graph.CutSet = field(repr=False)

    @property
    def named(self) -> bool:
        """Whether the file names the cuts."""
        return self.section.cuts != "all"


def load_subjects(config: BenchConfig) -> list[Subject]:
    """Load every model with each of its data sets, so that a wrong file is known before anything long begins.

    Raises:
        BenchError: if a named cut is not one of its model's.
        ModelError, DataError: if a file cannot be used.
    """
    subjects = []
    for section in config.model:
        model = graph.load_model(section.path, dims=section.dims or None)
        cuts = _chosen(section, model)
        for name in section.data:
            data = leakage.load_data(config.data_path(name), model, private_input=section.private_input)
            subjects.append(Subject(section, name, model, data, cuts))
    return subjects


def _chosen(section: ModelSection, model: graph.Model) -> graph.CutSet:
    found = graph.enumerate_cuts(model)
    if section.cuts == "all":
        return found
    for cut_id in section.cuts:
        if found.by_id(cut_id) is None:
            raise BenchError(f"bench: model '{section.name}' has no cut '{cut_id}'; `sinian inspect` lists them")
    kept = tuple(cut for cut in found.cuts if cut.id in section.cuts)
    return graph.CutSet(cuts=kept, capped=found.capped, cap=found.cap)


def masked_cases(
    subject: Subject, masks: Sequence[MaskSection], cuts: Sequence[graph.Cut]
) -> Iterator[tuple[Case, graph.Cut]]:
    """Yield every mask at every strength at every one of ``cuts``."""
    for mask in masks:
        for strength in mask.strengths:
            for index, cut in enumerate(cuts):
                yield Case(subject.section.name, subject.data_name, mask.name, strength, cut.id, index), cut


def masked(subject: Subject, case: Case, cut: graph.Cut) -> tuple[graph.Model, graph.CutSet]:
    """Return the subject's model with the case's mask, and the one cut that the masked values cross.

    Raises:
        MaskError: if the mask cannot be put there.
        BenchError: if the masked values are no cut of the masked model.
    """
    proto = masking.apply_mask(
        subject.model,
        cut,
        case.mask,
        strength=case.strength,
        seed=subject.section.seed,
        sample=masking.calibrate(subject.model, cut, subject.data.arrays()),
    )
    model = graph.load_model(proto)
    wanted = {f"{name}_masked" for name in cut.tensors}
    found = graph.enumerate_cuts(model)
    crossing = next((each for each in found.cuts if set(each.tensors) == wanted), None)
    if crossing is None:
        raise BenchError(f"bench: {case}: the masked values are no cut of the masked model")
    return model, graph.CutSet(cuts=(crossing,), capped=found.capped, cap=found.cap)


def digest(
    model: graph.Model,
    data: leakage.Data,
    cuts: graph.CutSet,
    budget: leakage.Budget,
    attacks: Sequence[str] | None,
    screens: Sequence[str] | None,
    *,
    seed: int,
    max_cuts: int | None,
    named: bool,
) -> str:
    """Return a name for an audit with these inputs: another one wherever any of them, or the audit's code, differs."""
    content = {
        "model": model.sha256,
        "data": data.sha256(),
        "cuts": [cut.tensors for cut in cuts.cuts],
        "budget": asdict(budget),
        "attacks": attacks,
        "screens": screens,
        "seed": seed,
        "max_cuts": max_cuts,
        "named": named,
        "code": _code(),
    }
    return sha256_bytes(json.dumps(content, sort_keys=True).encode())[:24]


@cache
def _code() -> str:
    """Return a hash over the audit's own code: figures of another attack must not pass for this one's."""
    folder = Path(leakage.__file__).parent
    files = sorted(folder.rglob("*.py"))
    return sha256_bytes("".join(f"{file.relative_to(folder)} {sha256_file(file)}\n" for file in files).encode())
