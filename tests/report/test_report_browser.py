"""The page in a real browser: it shows, fits, asks nobody for anything and raises no complaint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from report_browser import Page, browser, find_chromium
from report_files import write_files
from report_lineages import write_trained
from test_report_page import NASTY, SECTIONS

from siniantrust.report import write_report

WIDTHS = (1280, 390)

# Elements whose own text has less than 4.5 : 1 (3 : 1 when large) against the colour behind it, as WCAG 2.1 counts.
_CONTRAST = """
(() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = node => { for (; node; node = node.parentElement) {
    const colour = rgb(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour; } return [255, 255, 255]; };
  const poor = [];
  for (const node of document.querySelectorAll('body *:not(svg, svg *)')) {
    if (![...node.childNodes].some(c => c.nodeType === 3 && c.data.trim()) || !node.getClientRects().length) continue;
    const style = getComputedStyle(node), [a, b] = [light(rgb(style.color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) poor.push(`${node.className}: ${node.textContent.trim().slice(0, 40)} ${ratio}`);
  }
  return poor;
})()
"""
# Elements that stick out of the viewport although no scrolling box holds them.
_STICKING_OUT = """
[...document.querySelectorAll('body *')].filter(node => !node.closest('.scroll, .skip') && node.getClientRects().length
  && (node.getBoundingClientRect().right > innerWidth + 1 || node.getBoundingClientRect().left < -1))
  .map(node => node.tagName + '.' + node.getAttribute('class'))
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    """A tab of a headless Chromium; the tests are skipped where there is none."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium on this machine; install it to check the page in a browser (Debian: chromium)")
    with browser(chromium) as page:
        yield page


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of several kinds: complete, without measurements, with a long model, and with hostile names."""
    root = tmp_path_factory.mktemp("pages")
    made = {}
    for name, files in {
        "complete": write_files(root / "complete"),
        "long": write_files(
            root / "long", names=[f"/features/features.{i}/conv/Clip_output_0" for i in range(37)], chosen=31
        ),
        "hostile": write_files(root / "hostile", names=NASTY, chosen=8),
    }.items():
        made[name] = write_report(root / f"{name}.html", audit=files.audit, plan=files.plan, run=files.run)
    bare = write_files(root / "bare")
    made["bare"] = write_report(root / "bare.html", audit=None, plan=bare.plan, run=None)
    made["trained"] = root / "trained.html"
    (root / "trained").mkdir()
    write_trained(root / "trained").report(made["trained"])
    return made


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["complete", "long", "hostile", "bare", "trained"])
def test_page_shows_and_fits(tab: Page, pages: dict[str, Path], kind: str, width: int) -> None:
    """Every section is visible, nothing sticks out sideways, nothing is asked for, and the console stays silent."""
    tab.open(pages[kind], width=width)
    for section in SECTIONS:
        box = f"document.getElementById('{section}').getBoundingClientRect()"
        assert tab.evaluate(f"{box}.height > 60 && {box}.width > 300"), section
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate("innerWidth") == width
    assert tab.evaluate(_STICKING_OUT) == []
    assert tab.requests == [pages[kind].as_uri()]
    assert tab.complaints == []


def test_pictures_decode_and_are_described(tab: Page, pages: dict[str, Path]) -> None:
    """Every embedded picture decodes, every drawing has a size, and each has words for those who cannot see it."""
    tab.open(pages["complete"], width=1280)
    tab.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    # Originals, two at each of ten cuts less one that equals another, and the other attack's at eight of them.
    assert tab.evaluate("[...document.images].map(image => image.naturalWidth > 0 && image.complete)") == [True] * 28
    assert tab.evaluate("[...document.images].every(image => image.alt.length > 10)")
    drawings = "[...document.querySelectorAll('svg.plot')]"
    assert tab.evaluate(f"{drawings}.length") == 9
    assert tab.evaluate(f"{drawings}.every(svg => svg.getAttribute('aria-label') && svg.getBBox().width > 300)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["complete", "long", "bare", "trained"])
def test_text_has_contrast(tab: Page, pages: dict[str, Path], kind: str, scheme: str) -> None:
    """All text, folded away or not, stands out from what is behind it as WCAG 2.1 AA asks, by day and by night."""
    tab.prefer(scheme)
    tab.open(pages[kind], width=1280)
    tab.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    poor = tab.evaluate(_CONTRAST)
    tab.prefer("light")
    assert poor == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["complete", "trained"])
def test_nothing_sticks_out_unfolded(tab: Page, pages: dict[str, Path], kind: str, width: int) -> None:
    """With everything unfolded the page still fits its width."""
    tab.open(pages[kind], width=width)
    tab.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate(_STICKING_OUT) == []


def test_tables_have_headers(tab: Page, pages: dict[str, Path]) -> None:
    """Every table has header cells with a scope in its head and in each row of its body."""
    tab.open(pages["complete"], width=1280)
    assert tab.evaluate("document.querySelectorAll('table').length") >= 7
    assert tab.evaluate("[...document.querySelectorAll('th')].every(cell => cell.scope)")
    assert tab.evaluate("[...document.querySelectorAll('table')].every(table => table.querySelector('thead th'))")


def test_hostile_names_make_no_elements(tab: Page, pages: dict[str, Path]) -> None:
    """Names that hold markup add no script, no picture and no handler to the document."""
    tab.open(pages["hostile"], width=1280)
    assert (
        tab.evaluate(
            "document.querySelectorAll('script, iframe, object, embed, img:not([src^=\"data:image/png\"])').length"
        )
        == 0
    )
    handlers = "[...document.querySelectorAll('*')].filter(n => [...n.attributes].some(a => a.name.startsWith('on')))"
    assert tab.evaluate(f"{handlers}.length") == 0


def test_policy_blocks_scripts_and_requests(tab: Page, pages: dict[str, Path], tmp_path: Path) -> None:
    """Even where something foreign got into the file, the page's content security policy stops it."""
    spoiled = tmp_path / "spoiled.html"
    foreign = '<script>document.title = "taken"</script><img src="file:///nothing.png"></body>'
    spoiled.write_text(pages["complete"].read_text(encoding="utf-8").replace("</body>", foreign), encoding="utf-8")
    tab.open(spoiled, width=1280)
    assert tab.evaluate("document.title").startswith("Privacy report")
    assert len(tab.complaints) >= 2
    assert "Content Security Policy" in "".join(tab.complaints)


def test_page_prints(tab: Page, pages: dict[str, Path]) -> None:
    """The page prints to a PDF."""
    tab.open(pages["complete"], width=1280)
    assert tab.print_pdf().startswith(b"%PDF")
