"""The page: views of the stages' files, poured into the templates and written in one piece."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from siniantrust._extras import require
from siniantrust._files import write_atomic
from siniantrust.report import _text
from siniantrust.report._attack_cards import attack_cards
from siniantrust.report._audit_facts import audit_facts
from siniantrust.report._axis import metrics_of
from siniantrust.report._before_after import compare
from siniantrust.report._candidates import candidates, notable
from siniantrust.report._cost_figures import cost_figure, term_colours, timeline_figure
from siniantrust.report._costs import compare_costs
from siniantrust.report._curve_figures import attack_keys, curve_figures, state_words
from siniantrust.report._cuts import CutView, thin_out, view_cuts
from siniantrust.report._figures_table import figure_rows
from siniantrust.report._front_figure import front_figure
from siniantrust.report._load import Sources, load_sources
from siniantrust.report._read import ReportError
from siniantrust.report._reconstructions import build_gallery
from siniantrust.report._screen_figures import screen_figures
from siniantrust.report._screens import screen_rows
from siniantrust.report._search import mask_words, view_search
from siniantrust.report._svg import themed
from siniantrust.report._threats import threats
from siniantrust.report._trainings import view_retrainings, view_runs
from siniantrust.report._verdict import judge

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_PACKAGE = "siniantrust.report"
_STYLES = ("page.css", "audit.css", "dark.css")


def write_report(
    out: Path,
    *,
    audit: Path | None,
    plan: Path,
    run: Path | None,
    explanation: Path | None = None,
    trainings: Sequence[Path] = (),
    tune: Path | None = None,
    before: Path | None = None,
) -> Path:
    """Write one self-contained HTML page about a plan, and return where it stands.

    The page needs no network, no script and no other file. What was not given is said to be missing. The same input
    gives the same bytes.

    Args:
        out: the file to write; it is there whole or not at all.
        audit: the folder with ``audit.json`` and its pictures, or None.
        plan: ``plan.json``.
        run: ``run.json`` of a run over held-out items, or None.
        explanation: ``explanation.json`` of the plan's nodes, or None.
        trainings: ``training.json`` of each training that led to the model: of re-trainings, edges and clouds.
        tune: the folder of a search with ``tune.json``, or None.
        before: the folder of the audit of the model without the mask, on the same data and seed, or None.

    Returns:
        ``out``.

    Raises:
        AuditError: if an audit or a picture of it cannot be read, is malformed, is not of this plan, or does not
            compare with the other.
        PlanError: if the plan or the explanation cannot be read or is malformed, or they do not belong together.
        ReportError: if the run, a training or the search cannot be read, is malformed or is of another model, or
            ``out`` cannot be written.
        MissingExtraError: if Jinja2 or matplotlib is not installed.
    """
    sources = load_sources(
        audit=audit, plan=plan, run=run, explanation=explanation, trainings=trainings, tune=tune, before=before
    )
    page = render(sources)
    try:
        write_atomic(out, page.encode("utf-8"))
    except OSError as fault:
        raise ReportError(f"report {out}: cannot be written ({fault.strerror}); give another path") from None
    return out


def render(sources: Sources) -> str:
    """Return the page's HTML."""
    cuts = view_cuts(sources)
    verdict = judge(sources, cuts)
    found = candidates(sources, cuts)
    shown = notable(found)
    costs = compare_costs(sources)
    audit = sources.audit
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            plan=sources.plan,
            audit=audit,
            run=sources.run,
            explanation=sources.explanation,
            files=sources.files,
            cuts=cuts,
            strip=thin_out(cuts),
            tail_share=_tail_share(cuts),
            largest_cut_bytes=max((cut.size_bytes or 0 for cut in cuts), default=0),
            verdict=verdict,
            metrics=metrics_of(sources),
            facts=audit_facts(sources, cuts),
            curve_figures=curve_figures(sources, cuts),
            attack_keys=list(attack_keys(audit).values()) if audit else [],
            attack_cards=attack_cards(sources, cuts),
            screen_figures=screen_figures(sources, cuts),
            screen_rows=screen_rows(sources, cuts),
            figure_rows=figure_rows(sources, cuts),
            gallery=build_gallery(sources, cuts),
            before=sources.before,
            comparison=compare(sources, cuts),
            retrainings=view_retrainings(sources),
            runs=view_runs(sources),
            search=view_search(sources),
            candidates=found,
            shown=shown,
            front_figure=front_figure(shown),
            costs=costs,
            cost_figure=cost_figure(sources, costs),
            term_colours=term_colours(sources, costs),
            timeline_figure=timeline_figure(sources),
            threats=threats(sources, verdict),
        )
    )


def _tail_share(cuts: tuple[CutView, ...]) -> float | None:
    """Return the share of FLOPs after the last cut."""
    known = [cut.share for cut in cuts if cut.share is not None]
    return max(1.0 - max(known), 0.0) if known else None


@cache
def _environment() -> Environment:
    """Return Jinja2 set up to escape everything that is not marked as HTML already."""
    jinja2 = require("jinja2", extra="report")
    require("matplotlib", extra="report")
    environment: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE, package_path="."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_presentable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        breakable=_breakable,
        budget=_text.budget_words,
        bytes=_text.size,
        count=_text.count,
        in_policy_order=_text.in_policy_order,
        mask_words=mask_words,
        metric=_text.metric_title,
        multiple=_text.multiple,
        percent=_text.percent,
        score=_text.score,
        seconds=_text.seconds,
        short=_text.short,
        state=state_words,
        themed=themed,
    )
    style = "\n".join(resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8") for name in _STYLES)
    environment.globals["style"] = require("markupsafe", extra="report").Markup(style)
    return environment


def _breakable(name: str) -> Markup:
    """Let a long name break after its slashes and underlines."""
    markup: type[Markup] = require("markupsafe", extra="report").Markup
    return markup("<wbr>").join(re.split(r"(?<=[/_])", _text.clean(name)))


def _presentable(value: object) -> object:
    """Clean every plain string on its way into the page; markup that is already HTML passes."""
    return _text.clean(value) if type(value) is str else value
