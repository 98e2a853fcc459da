"""Figures and names as a reader wants to see them."""

from __future__ import annotations

import math

_KEEP = 22

METRIC_TITLES = {
    "ssim": "Likeness (SSIM)",
    "reidentification": "Re-identification",
    "nmse": "Signal recovered (NMSE)",
}
METRIC_MEANINGS = {
    "ssim": "how much a reconstruction looks like the original, by structural similarity",
    "reidentification": "how often a reconstruction finds its own original in a gallery of others",
    "nmse": "how much of the input's energy the attacker recovers",
}


def metric_title(metric: str) -> str:
    """Return the metric's name in words; an unknown metric keeps its own."""
    return METRIC_TITLES.get(metric, clean(metric))


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
    if 0 < abs(scaled) < 0.1:  # noqa: PLR2004 - where one decimal would show 0.0
        return "< 0.1 %"
    return f"{scaled:.1f} %" if abs(scaled) < 99.95 and scaled != round(scaled) else f"{scaled:.0f} %"  # noqa: PLR2004 - where one decimal would round to 100.0


def score(value: float | None) -> str:
    """Format a leakage or a correlation with two decimals and a real minus sign."""
    if value is None:
        return "–"
    text = f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
    return text.removeprefix("\N{MINUS SIGN}") if float(f"{value:.2f}") == 0 else text


def multiple(value: float | None) -> str:
    """Format a multiple of the policy's bound, for instance ``0.4×`` or ``12×``."""
    if value is None:
        return "?"
    return f"{value:.0f}×" if value >= 9.95 else f"{max(value, 0.0):.1f}×"  # noqa: PLR2004 - two figures either side of 10


def raw(metric: str, value: float) -> str:
    """Format a metric's raw value in its own unit."""
    return percent(value) if metric == "reidentification" else score(value)


def _three(value: float) -> str:
    """Format with three significant figures and no exponent."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{min(digits, 3)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
