"""What the leakage study says: one tidy CSV, tables in Markdown, and pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from siniantrust import leakage
from siniantrust._files import write_atomic
from siniantrust.bench import Bench, Finished, attack_rows, screen_rows, write_tables

METRICS = ("ssim", "nmse", "reidentification")
# Inverse network on CIFAR-10, as published by He, Zhang and Lee 2019: SSIM by cut.
PUBLISHED_SSIM = {"conv11": 0.999, "ReLU22": 0.694, "ReLU32": 0.312}
_THEIR_NAMES = {
    "optimisation": "white box (rMLE)",
    "inverter": "inverse network",
    "shadow": "query-free (shadow model)",
}
_RANKS_MEAN = (
    "Spearman's; +1 is a perfect ranking of a network's cuts. Mean over networks, data sets and seeds, with the 95 % "
    "bootstrap interval of that mean; the last column is the worst network."
)
_PICKS_MEAN = (
    "The rule is the screen's own, or the plateau of its curve. Cuts are counted from the input, of those audited; one "
    "number for each seed. SSIM and the share of re-identified inputs are the best attack's, mean (least to most)."
)
_THEIRS_MEAN = (
    "Their target on CIFAR-10 with half the channels, trained on other data. The published column is their SSIM of the "
    "inverse network on CIFAR-10."
)
_RESAMPLES = 2000
_DPI = 110
_LABEL_PIXELS = 260


def network_of(one: Finished) -> tuple[str, str, int]:
    """Return network, data set and seed of an audit, which the bench's model name holds."""
    network, data, seed = one.case.model.rsplit("-", 2)
    return network, data, int(seed)


def write_report(found: Bench, published: Bench, places: Mapping[str, Mapping[str, str]], folder: Path) -> None:
    """Write ``study.csv``, ``attacks.csv``, ``published.csv``, ``tables.md`` and pictures to ``folder``.

    ``places`` holds, by model of ``published``, the cuts by the names that their authors have for them.
    """
    tables = {"study": study_rows(found), "attacks": attack_rows(found), "published": attack_rows(published)}
    write_tables(tables, folder)
    lines = [
        "<!-- Written by benchmarks/leakage_study.py; do not edit. -->",
        "",
        *_networks_table(found),
        *_overall_table(found),
        *_rank_tables(found),
        *_picks_overall(found),
        *_pick_table(found),
        *_published_table(published, places),
        *_conditions(found),
    ]
    write_atomic(folder / "tables.md", ("\n".join(lines).rstrip() + "\n").encode())
    _draw_ranks(found, folder / "correlations.png")
    for one in found.finished:
        if network_of(one)[2] == 0:
            _show_picks(one, folder / f"reconstructions-{one.case.model}.png")


def study_rows(found: Bench) -> list[dict[str, str | float | int | bool | None]]:
    """Return one row for each network, data set, seed, cut, screen and metric: the screen beside the best attack."""
    best = {(row["model"], row["cut"], row["metric"]): row for row in attack_rows(found) if row["best"]}
    names = {one.case.model: network_of(one) for one in found.finished}
    rows: list[dict[str, str | float | int | bool | None]] = []
    for row in screen_rows(found):
        network, data, seed = names[str(row["model"])]
        attack = best[row["model"], row["cut"], row["metric"]]
        rows.append(
            {
                "network": network,
                "data": data,
                "seed": seed,
                **{name: row[name] for name in ("cut", "cut_index", "metric", "screen", "score", "rank_correlation")},
                "pick": row["pick"],
                "best_attack": attack["attack"],
                **{f"leakage_{name}": attack[name] for name in ("mean", "lower", "upper")},
                **{name: attack[name] for name in ("raw", "prior", "converged", "accuracy")},
            }
        )
    return rows


def _groups(found: Bench) -> dict[tuple[str, str], list[Finished]]:
    groups: dict[tuple[str, str], list[Finished]] = {}
    for one in found.finished:
        groups.setdefault(network_of(one)[:2], []).append(one)
    return groups


def _screens(found: Bench) -> dict[str, str]:
    """Return the titles of all screens by name."""
    return {name: screen.title for one in found.finished for name, screen in one.audit.screens.items()}


def _ranks(audits: Iterable[Finished], screen: str, metric: str) -> list[float]:
    """Return the screen's rank correlation with the best attack on each network where it has one."""
    summaries = (one.audit.screens.get(screen) for one in audits)
    values = (summary.rank_correlation.get(metric) for summary in summaries if summary is not None)
    return [value for value in values if value is not None]


def _networks_table(found: Bench) -> list[str]:
    rows = []
    for (network, data), audits in _groups(found).items():
        first, last = zip(*((one.audit.cuts[0], one.audit.cuts[-1]) for one in audits), strict=True)
        rows.append(
            [
                network,
                data,
                str(len(audits)),
                str(len(audits[0].audit.cuts)),
                _range([one.audit.heldout_accuracy or 0.0 for one in audits]),
                *(
                    f"{_mean_raw(first, metric):.2f} → {_mean_raw(last, metric):.2f}"
                    for metric in ("ssim", "reidentification")
                ),
                f"{np.mean([cut.leakage['ssim'].prior for cut in first]):.2f}",
            ]
        )
    columns = ["network", "data", "seeds", "cuts", "accuracy", "SSIM, first → last cut", "re-identified", "prior SSIM"]
    return ["### The networks, and what the best attack gets", "", *_table(columns, rows)]


def _mean_raw(cuts: Sequence[leakage.CutAudit], metric: str) -> float:
    return float(np.mean([_raw(cut, metric) for cut in cuts]))


def _raw(cut: leakage.CutAudit, metric: str) -> float:
    """Return SSIM or a share; where the best attack ran on a few items, its estimate for all of them may pass 1."""
    return min(cut.leakage[metric].raw, 1.0)


def _overall_table(found: Bench) -> list[str]:
    rows = []
    for name, title in _screens(found).items():
        cells = []
        for metric in METRICS:
            values = np.array(_ranks(found.finished, name, metric))
            cells.append("-" if not len(values) else f"{values.mean():+.2f} [{_interval(values)}]")
        worst = _ranks(found.finished, name, "ssim")
        rows.append([title, *cells, f"{min(worst):+.2f}" if worst else "-"])
    return [
        "### Rank correlation of each screen with the best attack, over all networks",
        "",
        _RANKS_MEAN,
        "",
        *_table(["screen", "SSIM", "squared error", "re-identification", "worst, SSIM"], rows),
    ]


def _interval(values: np.ndarray) -> str:
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{low:+.2f}, {high:+.2f}"


def _rank_tables(found: Bench) -> list[str]:
    groups = _groups(found)
    lines = []
    for metric in METRICS:
        rows = []
        for name, title in _screens(found).items():
            cells = []
            for audits in groups.values():
                values = _ranks(audits, name, metric)
                cells.append(_range(values, sign="+") if values else "-")
            rows.append([title, *cells])
        columns = ["screen", *(f"{network}, {data}" for network, data in groups)]
        lines += [f"### By network: rank correlation with {metric}, mean (least to most over seeds)", ""]
        lines += _table(columns, rows)
    return lines


def _pick_table(found: Bench) -> list[str]:
    rows = []
    for (network, data), audits in _groups(found).items():
        for name, title in _screens(found).items():
            picked = [cut for one in audits if (cut := _pick(one, name)) is not None]
            row = [network, data, title, f"{len(picked)} of {len(audits)}"]
            if not picked:
                rows.append([*row, "-", "-", "-"])
                continue
            places = [f"{_place(one, name)}" for one in audits if _pick(one, name) is not None]
            rows.append(
                [
                    *row,
                    ", ".join(places),
                    *(_range([_raw(cut, metric) for cut in picked]) for metric in ("ssim", "reidentification")),
                ]
            )
    return [
        "### Where each screen's own rule would cut, and what the best attacker gets there",
        "",
        _PICKS_MEAN,
        "",
        *_table(["network", "data", "screen", "picks", "cut", "SSIM there", "re-identified there"], rows),
    ]


def _picks_overall(found: Bench) -> list[str]:
    rows = []
    for name, title in _screens(found).items():
        picked = [cut for one in found.finished if (cut := _pick(one, name)) is not None]
        cells = (
            _median([_raw(cut, metric) for cut in picked]) if picked else "-" for metric in ("ssim", "reidentification")
        )
        rows.append([title, f"{len(picked)} of {len(found.finished)}", *cells])
    return [
        "### What the best attacker gets at the cuts that each screen's own rule picks, over all networks",
        "",
        "Median (least to most).",
        "",
        *_table(["screen", "picks", "SSIM there", "re-identified there"], rows),
    ]


def _median(values: Sequence[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _pick(one: Finished, screen: str) -> leakage.CutAudit | None:
    """Return the cut that a screen's own rule chooses, or None if it chooses none."""
    summary = one.audit.screens.get(screen)
    return None if summary is None or summary.plateau_cut_id is None else one.audit.by_cut(summary.plateau_cut_id)


def _place(one: Finished, screen: str) -> str:
    picked = _pick(one, screen)
    return "-" if picked is None else f"{one.audit.cuts.index(picked) + 1}/{len(one.audit.cuts)}"


def _published_table(published: Bench, places: Mapping[str, Mapping[str, str]]) -> list[str]:
    by_place = {(row["model"], row["cut"], row["attack"], row["metric"]): row for row in attack_rows(published)}
    rows = []
    for one in published.finished:
        data = network_of(one)[1]
        for attack, title in _THEIR_NAMES.items():
            for name, cut in places[one.case.model].items():
                ssim = by_place.get((one.case.model, cut, attack, "ssim"))
                error = by_place.get((one.case.model, cut, attack, "nmse"))
                if ssim is None or error is None:
                    continue
                stated = f"{PUBLISHED_SSIM[name]:.3f}" if attack == "inverter" else "not compared"
                rows.append([data, title, name, f"{ssim['raw']:.3f}", f"{error['psnr_db']:.1f}", stated])
    return [
        "### The attacks of He, Zhang and Lee 2019 on their kind of network",
        "",
        _THEIRS_MEAN,
        "",
        *_table(["data", "attack", "cut", "SSIM", "PSNR, dB", "SSIM, published"], rows),
    ]


def _conditions(found: Bench) -> list[str]:
    first = found.finished[0].audit
    limits = ", ".join(
        f"{name} {first.budget[name]}"
        for name in ("attacker_items", "heldout_items", "steps", "optimised_items", "optimisation_steps")
        if name in first.budget
    )
    attacks = sorted({name for one in found.finished for cut in one.audit.cuts for name in cut.attacks})
    hours = sum(one.audit.time_s for one in found.finished) / 3600
    cuts = [cut for one in found.finished for cut in one.audit.cuts]
    return [
        f"Attacks: {', '.join(attacks)}. Limits: {limits}.",
        f"{len(found.finished)} audits, {hours:.2f} hours of them; {first.machine}.",
        f"{sum(cut.converged for cut in cuts)} of {len(cuts)} cuts converged: where not, more leaks than is said here.",
    ]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
    return [*lines, ""]


def _range(values: Sequence[float], *, sign: str = "") -> str:
    """Return the mean, and the least and the most where there are several."""
    mean = f"{np.mean(values):{sign}.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{sign}.2f} to {max(values):{sign}.2f})"


def _draw_ranks(found: Bench, path: Path) -> None:
    """Draw every network's rank correlation of every screen, a panel for each metric, with the means."""
    screens = _screens(found)
    figure = Figure(figsize=(12, 0.5 * len(screens) + 1.5), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True, squeeze=False)[0]
    colours = {pair: f"C{number}" for number, pair in enumerate(_groups(found))}
    for axes, metric in zip(panels, METRICS, strict=True):
        for (network, data), audits in _groups(found).items():
            points = [(value, row) for row, name in enumerate(screens) for value in _ranks(audits, name, metric)]
            if points:
                axes.scatter(
                    *zip(*points, strict=True),
                    s=18,
                    alpha=0.7,
                    color=colours[network, data],
                    label=f"{network}, {data}",
                )
        for row, name in enumerate(screens):
            values = _ranks(found.finished, name, metric)
            if values:
                axes.plot([np.mean(values)] * 2, [row - 0.35, row + 0.35], color="black", linewidth=2)
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set_xlim(-1.05, 1.05)
        axes.set_xlabel(f"rank correlation, {metric}")
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(screens)), list(screens.values()), fontsize=8)
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize=6, loc="lower left")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    write_atomic(path, stream.getvalue())


def _show_picks(one: Finished, path: Path) -> None:
    """Write the originals, below them the best reconstructions at every cut, and which screens would cut there."""
    originals = one.audit.originals_picture
    if originals is None:
        return
    rows = [("originals", one.folder / originals)]
    for number, cut in enumerate(one.audit.cuts, start=1):
        shown = [result for result in cut.attacks.values() if result.picture is not None]
        if not shown:
            continue
        best = max(shown, key=lambda result: result.leakage["ssim"].mean)
        chosen = [name for name in cut.screens if one.audit.screens[name].plateau_cut_id == cut.cut_id]
        title = f"cut {number}, {cut.cut_id}: SSIM {best.leakage['ssim'].raw:.2f}"
        rows.append(("\n".join([title, *(f"  {name} cuts here" for name in chosen)]), one.folder / str(best.picture)))
    strips: list[tuple[str, Image.Image]] = []
    for label, file in rows:
        with Image.open(file) as image:
            strips.append((label, image.convert("RGB")))
    width = _LABEL_PIXELS + max(strip.width for _, strip in strips)
    heights = [max(strip.height, 12 * (label.count("\n") + 1) + 4) + 4 for label, strip in strips]
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    top = 0
    for (label, strip), height in zip(strips, heights, strict=True):
        pen.text((3, top + 2), label, fill="black", spacing=2, font_size=10)
        sheet.paste(strip, (_LABEL_PIXELS, top))
        top += height
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    write_atomic(path, stream.getvalue())
