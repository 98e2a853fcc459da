"""Run a bench: every case one audit, kept in its folder, so that a killed bench goes on where it stopped."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from siniantrust import _progress, graph, leakage
from siniantrust._files import write_atomic
from siniantrust.bench._cases import Case, Subject, digest, load_subjects, masked, masked_cases
from siniantrust.bench._config import BenchConfig
from siniantrust.errors import SinianError

_AUDITS, _CACHE, _SUMMARY = "audits", "cache", "bench.json"


@dataclass(frozen=True, slots=True)
class Finished:
    """A case whose audit is there, and the folder of its ``audit.json`` and pictures."""

    case: Case
    audit: leakage.Audit = field(repr=False)
    folder: Path


@dataclass(frozen=True, slots=True)
class Bench:
    """What a bench has measured, and by case the reason why something was not: nothing is known of those."""

    finished: tuple[Finished, ...]
    skipped: dict[str, str]
    time_s: float


def run_bench(
    config: BenchConfig,
    *,
    out: Path,
) -> Bench:
    """Audit every case of ``config``, keep each audit below ``out``, and write ``bench.json`` there.

    Each model is audited bare, then with each mask at each strength at each of the cuts audited bare: attackers are
    trained anew for every mask. A finished audit is taken over if its model, data, cuts, limits, attacks, screens,
    seed and the audit's own code are what they were; an unfinished one goes on from its cache.

    Raises:
        BenchError: if a named cut is not there.
        ModelError, DataError: if a file cannot be used.
        AuditError: if a bare model cannot be audited or a worker dies; the same call goes on from there.
    """
    started = time.monotonic()
    subjects = load_subjects(config)
    runner = _Runner(config, out)
    finished: list[Finished] = []
    skipped: dict[str, str] = {}
    strengths = sum(len(mask.strengths) for mask in config.mask)
    total = sum(config.run.unmasked + strengths * _cuts_about(subject, config) for subject in subjects)
    with _progress.progress("bench", total) as step:
        for subject in subjects:
            cuts: Sequence[graph.Cut] = subject.cuts.cuts
            if config.run.unmasked:
                case = Case(subject.section.name, subject.data_name)
                bare = runner.audit(case, subject, subject.model, subject.cuts, step)
                finished.append(bare)
                skipped |= {f"{case}, cut {cut_id}": reason for cut_id, reason in bare.audit.skipped.items()}
                measured = {cut.cut_id for cut in bare.audit.cuts}
                cuts = [cut for cut in cuts if cut.id in measured]
            for each, reason in _masked(runner, subject, cuts, step):
                if isinstance(each, Finished):
                    finished.append(each)
                else:
                    skipped[str(each)] = reason
    bench = Bench(tuple(finished), skipped, time.monotonic() - started)
    write_atomic(out / _SUMMARY, _summary(config, bench))
    return bench


def _masked(
    runner: _Runner, subject: Subject, cuts: Sequence[graph.Cut], step: _progress.Step
) -> Iterator[tuple[Finished | Case, str]]:
    """Yield every masked case's audit, or the case and why it has none."""
    for case, cut in masked_cases(subject, runner.config.mask, cuts):
        try:
            model, crossing = masked(subject, case, cut)
            yield runner.audit(case, subject, model, crossing, step), ""
        except SinianError as error:
            step(str(case))
            yield case, str(error)


class _Runner:
    """Audits with the same limits, kept in one folder."""

    def __init__(self, config: BenchConfig, out: Path) -> None:
        self.config = config
        self._out = out
        run = config.run
        self._budget = run.limits()
        self._attacks = None if run.attacks == "all" else run.attacks
        self._screens = None if run.screens == "all" else run.screens

    def audit(
        self, case: Case, subject: Subject, model: graph.Model, cuts: graph.CutSet, step: _progress.Step
    ) -> Finished:
        """Return the case's audit: the one kept, or a new one."""
        named = subject.named or case.cut_id is not None
        max_cuts = None if named else self.config.run.max_cuts
        seed = subject.section.seed
        name = digest(
            model,
            subject.data,
            cuts,
            self._budget,
            self._attacks or sorted(leakage.list_attacks()),
            self._screens if self._screens is not None else sorted(leakage.list_screens()),
            seed=seed,
            max_cuts=max_cuts,
            named=named,
        )
        folder = self._out / _AUDITS / name
        kept = _kept(folder)
        if kept is None:

            def within(description: str, *, advance: float = 1.0) -> None:
                step(f"{case}: {description}", advance=0 * advance)

            kept = leakage.audit(
                model,
                subject.data,
                cuts=cuts,
                out=folder,
                seed=seed,
                attacks=self._attacks,
                screens=self._screens,
                include_fusable=named,
                max_cuts=max_cuts,
                budget=self._budget,
                cache=self._out / _CACHE,
                progress=within,
            )
            # It serves only an audit that was stopped, and holds the data's features.
            shutil.rmtree(self._out / _CACHE, ignore_errors=True)
        step(str(case))
        return Finished(case, kept, folder)


def _kept(folder: Path) -> leakage.Audit | None:
    """Return the audit that lies in ``folder``, whole and unaltered, or None."""
    if not folder.is_dir():
        return None
    try:
        return leakage.load_audit(folder)
    except SinianError:
        return None


def _cuts_about(subject: Subject, config: BenchConfig) -> int:
    """Return how many cuts will be masked, near enough for a progress bar."""
    count = sum(subject.named or not cut.fusable for cut in subject.cuts.cuts)
    return count if subject.named or config.run.max_cuts is None else min(count, config.run.max_cuts)


def _summary(config: BenchConfig, bench: Bench) -> bytes:
    record = {
        "config": config.model_dump(mode="json"),
        "audits": [
            {
                "model": one.case.model,
                "data": one.case.data,
                "mask": one.case.mask,
                "strength": one.case.strength,
                "cut": one.case.cut_id,
                "folder": f"{_AUDITS}/{one.folder.name}",
                "audit_id": one.audit.id,
                "machine": one.audit.machine,
                "time_s": one.audit.time_s,
            }
            for one in bench.finished
        ],
        "skipped": bench.skipped,
        "time_s": bench.time_s,
    }
    return (json.dumps(record, indent=1) + "\n").encode()
