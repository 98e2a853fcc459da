"""Matplotlib figures as inline SVG that several can share one page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from siniantrust._extras import require

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

INK = "#1c2530"
MUTED = "#55606e"
GRID = "#dfe3e8"
PAPER = "#ffffff"
BAND = "#c3cbd5"
CHOSEN = "#fff0c2"
WITHIN = "#e7f2ef"
HALO = "#ffd75e"
EDGE = "#9aa3ad"
TRUSTED = "#0b6e66"
UNTRUSTED = "#b4530a"
RISK = "#b3261e"
# Okabe and Ito's colours (jfly.uni-koeln.de/color, 2008), which stay apart for colour-blind readers; yellow left out.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5b4a8a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# Drawn in these colours, shown in the style sheet's of the same role, which has others for the dark.
_ROLES = {
    INK: "ink", MUTED: "muted", GRID: "line", PAPER: "paper", TRUSTED: "trusted", UNTRUSTED: "untrusted", RISK: "risk",
    BAND: "band", CHOSEN: "chosen-mark", WITHIN: "within-ground", HALO: "halo", EDGE: "edge",
    **{colour: f"c{index}" for index, colour in enumerate(PALETTE)},
}  # fmt: skip
_HEX = re.compile(r"#[0-9a-f]{6}\b")

_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def draw(
    key: str,
    draw_on: Callable[[Figure], None],
    *,
    width: float,
    height: float,
    alt: str,
    tips: Mapping[str, str] | None = None,
    margins: Mapping[str, float] | None = None,
) -> Markup:
    """Draw a figure of ``width`` x ``height`` inches and return it as one ``<svg>`` element.

    ``key`` sets the figure's identifiers apart from those of others on the page. ``alt`` is what a screen reader says.
    ``tips`` maps an artist's gid to the text that a browser shows over it. ``margins`` are matplotlib's
    ``subplots_adjust``; without them every label is measured first, which takes as long as drawing twice. The same
    figure gives the same bytes.

    Raises:
        MissingExtraError: if matplotlib or Jinja2 is not installed.
    """
    matplotlib = require("matplotlib", extra="report")
    markup: type[Markup] = require("markupsafe", extra="report").Markup
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"siniantrust-{key}"}), warnings.catch_warnings():
        # The browser's fonts draw the text; that matplotlib's own lacks a letter does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout=None if margins else "constrained")
        FigureCanvasSVG(figure)
        if margins:
            figure.subplots_adjust(**margins)
        draw_on(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    return markup(_inline(stream.getvalue(), key=key, alt=alt, tips=tips or {}))


def themed(colour: str) -> str:
    """Return a CSS text with the page's own variables in place of the colours that are drawn in."""
    return _HEX.sub(lambda found: f"var(--{_ROLES[found[0]]})" if found[0] in _ROLES else found[0], colour)


def _inline(svg: bytes, *, key: str, alt: str, tips: Mapping[str, str]) -> str:
    """Turn an SVG file into an element for HTML: no namespaces, metadata or page-wide style; identifiers of its own."""
    root = ET.fromstring(svg)  # noqa: S314 - matplotlib wrote it a moment ago
    for parent in list(root.iter()):
        _drop_namespaces(parent)
        for child in list(parent):
            if child.tag.rpartition("}")[2] in {"metadata", "style"}:
                parent.remove(child)
    used = {name for element in root.iter() for value in element.attrib.values() for name in _references(value)}
    for element in root.iter():
        _rename(element, key=key, used=used, tips=tips)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("class", "plot")
    root.set("role", "img")
    root.set("aria-label", alt)
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _drop_namespaces(element: ET.Element) -> None:
    """Write ``svg:path`` as ``path`` and ``xlink:href`` as ``href``: HTML knows them so."""
    element.tag = element.tag.rpartition("}")[2]
    for name in list(element.attrib):
        if name.startswith("{"):
            element.set(name.rpartition("}")[2], element.attrib[name])
            del element.attrib[name]


def _rename(element: ET.Element, *, key: str, used: set[str], tips: Mapping[str, str]) -> None:
    """Keep an identifier only where something points to it, under a name of this figure's; add its tip, if any."""
    name = element.get("id")
    if name is not None:
        del element.attrib["id"]
        if name in used:
            element.set("id", f"{key}-{name}")
        if name in tips:
            title = ET.Element("title")
            title.text = tips[name]
            element.insert(0, title)
    for attribute, value in element.attrib.items():
        if attribute == "href" and value.startswith("#"):
            element.set(attribute, f"#{key}-{value[1:]}")
        elif "url(#" in value:
            element.set(attribute, _REFERENCE.sub(rf"url(#{key}-\1)", value))
        elif attribute == "style":
            element.set(attribute, themed(value))


def _references(value: str) -> list[str]:
    """Return the identifiers that an attribute points to."""
    return [value[1:]] if value.startswith("#") else _REFERENCE.findall(value)
