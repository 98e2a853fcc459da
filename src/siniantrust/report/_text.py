"""Figures and names as a reader wants to see them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

_KEEP = 22
TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "\N{EN DASH}"

METRIC_TITLES = {
    "ssim": "Likeness (SSIM)",
    "reidentification": "Re-identification",
    "nmse": "Signal recovered (NMSE)",
    "token": "Tokens recovered",
    "attribute": "Private label guessed",
    "character": "Characters understood",
    "word": "Words understood",
}
METRIC_MEANINGS = {
    "ssim": "how much a reconstruction looks like the original, by structural similarity",
    "reidentification": "how often a reconstruction finds its own original in a gallery of others",
    "nmse": "how much of the input's energy the attacker recovers",
    "token": "how many of an input's tokens the attacker gets right",
    "attribute": "how often the attacker tells an input's private label",
    "character": "how much of what is said or written the attacker spells right: 1 less the character error rate",
    "word": "how many of the words said or written the attacker gets right: 1 less the word error rate",
}
_BUDGET_WORDS = {"attacker_items": "items to learn from", "steps": "steps", "width": "channels wide"}
_SHARES = {"reidentification", "token", "attribute", "character", "word"}
_SMALLEST_ERROR = 1e-12


def metric_title(metric: str) -> str:
    """Return the metric's name in words; an unknown metric keeps its own."""
    return METRIC_TITLES.get(metric, clean(metric))


def in_policy_order(metrics: Iterable[str], bounds: Iterable[str]) -> list[str]:
    """Return metrics with those that the policy limits first, in the policy's order."""
    order = {metric: index for index, metric in enumerate(bounds)}
    return sorted(metrics, key=lambda metric: (order.get(metric, len(order)), metric))


def clean(name: str) -> str:
    """Turn white space into spaces, and what neither HTML nor SVG may carry or show into a visible mark.

    That covers control characters, lone surrogates and the marks that turn the direction of writing.
    """
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )


def short(name: str, keep: int = _KEEP) -> str:
    """Shorten a tensor's name from the middle: its ends say most (``/features/…/Relu_output_0``)."""
    name = clean(name)
    if len(name) <= keep:
        return name
    head = (keep - 1) // 2
    return f"{name[:head]}…{name[len(name) - (keep - 1 - head) :]}"


def readable(names: Iterable[str]) -> dict[str, str]:
    """Shorten tensor names as a family, to what tells them apart.

    An exporter's ``_output_0`` and the number before a cut's id go, as does the folder that all share and a folder
    that the next one repeats: ``/features/features.3/conv/Relu_output_0`` becomes ``features.3/conv/Relu``. Where two
    names would become one, all stay whole.
    """
    whole = list(dict.fromkeys(names))
    paths = []
    for name in whole:
        steps = [step for step in re.sub(r"^c\d+-|_output_\d+$", "", clean(name)).split("/") if step]
        paths.append(
            [here for here, after in zip(steps, [*steps[1:], ""], strict=False) if not after.startswith(f"{here}.")]
        )
    while len(paths) > 1 and all(len(path) > 1 for path in paths) and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    labels = ["/".join(path) or clean(name) for path, name in zip(paths, whole, strict=True)]
    distinct = len(set(labels)) == len(labels)
    return {name: label if distinct else clean(name) for name, label in zip(whole, labels, strict=True)}


def seconds(value: float | None) -> str:
    """Format a duration with the unit that keeps its figures few: µs, ms, s or min."""
    if value is None:
        return "not measured"
    if value == 0:
        return "0 ms"
    for bound, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s")):
        if value < bound:
            return f"{_three(value * factor)} {unit}"
    return f"{_three(value / 60)} min"


def size(value: float | None) -> str:
    """Format a number of bytes with binary units."""
    if value is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:  # noqa: PLR2004 - the step between binary units
            return f"{_three(value)} {unit}"
        value /= 1024
    return f"{_three(value)} GiB"


def count(value: float) -> str:
    """Format a large count: 1.2 G, 34 M, 5,600."""
    for bound, unit in ((1e9, " G"), (1e6, " M")):
        if abs(value) >= bound:
            return f"{_three(value / bound)}{unit}"
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Format a share of one."""
    if value is None:
        return "not measured"
    scaled = 100 * value
    if value in {0, 1}:
        return f"{scaled:.0f} %"
    if 99.9 < scaled < 100:  # noqa: PLR2004 - where one decimal would show 100.0
        return "> 99.9 %"
    return "< 0.1 %" if 0 < scaled < 0.1 else f"{scaled:.1f} %"  # noqa: PLR2004 - where one decimal would show 0.0


def score(value: float | None) -> str:
    """Format a leakage or a correlation with two decimals and a real minus sign."""
    if value is None:
        return NONE
    text = f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
    return text.removeprefix("\N{MINUS SIGN}") if float(f"{value:.2f}") == 0 else text


def multiple(value: float | None) -> str:
    """Format a multiple of the policy's bound, as in "0.4x" or "12x"; never round one across the bound."""
    if value is None:
        return "?"
    if value >= 9.95:  # noqa: PLR2004 - from here on, two figures need no decimal
        return f"{value:.0f}{TIMES}"
    if 0.95 <= value < 1.05:  # noqa: PLR2004 - where one decimal would show 1.0 on either side
        side = ">" if value > 1 else "<"
        text = f"{value:.2f}"
        return f"{side}1{TIMES}" if text == "1.00" and value != 1 else f"{text}{TIMES}"
    return f"{max(value, 0.0):.1f}{TIMES}"


def raw(metric: str, value: float) -> str:
    """Format a metric's raw value in its own unit; a mean squared error becomes a signal-to-noise ratio."""
    if metric == "nmse":
        return f"{psnr(value):.1f} dB".replace("-", "\N{MINUS SIGN}")
    return percent(value) if metric in _SHARES else score(value)


def raw_title(metric: str) -> str:
    """Return the name of what ``raw`` shows."""
    return {"nmse": "PSNR", "ssim": "SSIM"}.get(metric, metric_title(metric))


def psnr(error: float) -> float:
    """Return the peak signal-to-noise ratio in decibels of a mean squared error, for values in a range of 1."""
    return -10 * math.log10(max(error, _SMALLEST_ERROR))


def budget_words(budget: Mapping[str, int]) -> str:
    """Name a budget in words: "5,000 items, 96 steps"; an unknown limit keeps its own name."""
    return ", ".join(f"{value:,} {_BUDGET_WORDS.get(name, clean(name))}" for name, value in budget.items())


def _three(value: float) -> str:
    """Format with three significant figures and no exponent."""
    if value == round(value):
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 3)}f}"
