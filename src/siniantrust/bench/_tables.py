"""Audits as tidy tables: one row for each figure, written as CSV, and as Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from siniantrust import leakage
from siniantrust._extras import require
from siniantrust._files import write_atomic
from siniantrust.bench._cases import NO_MASK
from siniantrust.bench._run import Bench, Finished

Value = str | float | int | bool | None
Row = dict[str, Value]


def attack_rows(bench: Bench) -> list[Row]:
    """Return one row for each case, cut, attack and metric.

    ``mean``, ``lower``, ``upper`` and ``worst_5pct`` are prior-corrected leakage (0 is the prior, 1 the input itself);
    ``raw`` and ``prior`` are in the metric's own units, for ``nmse`` the mean squared error in unit scale, from which
    ``psnr_db`` is computed. ``by_seed`` holds the means of all seeds, a space between them. ``best`` marks the attack
    that decides, ``time_s`` is that of the attack at that cut, ``accuracy`` the model's on held-out items.
    """
    rows: list[Row] = []
    for one in bench.finished:
        for place, cut in _placed(one):
            for attack, result in cut.attacks.items():
                for metric, figure in result.leakage.items():
                    rows.append(
                        {
                            **place,
                            "tensors": " ".join(cut.tensors),
                            "attack": attack,
                            "metric": metric,
                            "mean": figure.mean,
                            "lower": figure.lower,
                            "upper": figure.upper,
                            "worst_5pct": figure.worst_5pct,
                            "raw": figure.raw,
                            "prior": figure.prior,
                            "psnr_db": _psnr_db(figure.raw) if metric == "nmse" else None,
                            "by_seed": " ".join(f"{value:.6g}" for value in figure.by_seed),
                            "converged": result.converged,
                            "best": cut.best_attack.get(metric) == attack,
                            "time_s": result.time_s,
                            "accuracy": one.audit.heldout_accuracy,
                        }
                    )
    return rows


def screen_rows(bench: Bench) -> list[Row]:
    """Return one row for each case, cut, screen and metric.

    ``score`` is turned so that more means more leakage; ``rank_correlation`` is Spearman's with the best attack over
    the model's cuts; ``pick`` says whether the screen's own rule would cut there. Both are empty for a masked model,
    of which one cut alone is audited.
    """
    rows: list[Row] = []
    for one in bench.finished:
        bare = one.case.mask == NO_MASK
        for place, cut in _placed(one):
            for screen, result in cut.screens.items():
                summary = one.audit.screens[screen]
                rows += [
                    {
                        **place,
                        "screen": screen,
                        "score": result.score,
                        "metric": metric,
                        "rank_correlation": summary.rank_correlation.get(metric) if bare else None,
                        "pick": summary.plateau_cut_id == cut.cut_id if bare else None,
                        "time_s": result.time_s,
                    }
                    for metric in cut.leakage
                ]
    return rows


def _placed(one: Finished) -> list[tuple[Row, leakage.CutAudit]]:
    """Return what every row of a cut begins with, and the cut; a masked cut is called as the one it masks."""
    case = one.case
    return [
        (
            {
                "model": case.model,
                "data": case.data,
                "mask": case.mask,
                "strength": case.strength,
                "cut": cut.cut_id if case.cut_id is None else case.cut_id,
                "cut_index": index if case.cut_index is None else case.cut_index,
            },
            cut,
        )
        for index, cut in enumerate(one.audit.cuts)
    ]


def _psnr_db(mean_squared_error: float) -> float:
    """Return the peak signal-to-noise ratio for a data range of 1, at most 120 dB."""
    return -10 * math.log10(max(mean_squared_error, 1e-12))


def write_tables(tables: Mapping[str, Sequence[Row]], out: Path) -> list[Path]:
    """Write each table as ``NAME.csv``, and as ``NAME.parquet`` if pyarrow is installed; return the files.

    In CSV an empty cell is a missing value; a number has all its digits.
    """
    written = []
    for name, rows in tables.items():
        stream = io.StringIO()
        columns = list(rows[0]) if rows else []
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        written.append(out / f"{name}.csv")
        write_atomic(written[-1], stream.getvalue().encode())
        if importlib.util.find_spec("pyarrow") is not None:
            written.append(out / f"{name}.parquet")
            write_atomic(written[-1], _parquet(rows))
    return written


def _parquet(rows: Sequence[Row]) -> bytes:
    table = require("pyarrow", extra="bench").Table.from_pylist(list(rows))
    stream = io.BytesIO()
    require("pyarrow.parquet", extra="bench").write_table(table, stream)
    return stream.getvalue()
