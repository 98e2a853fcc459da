"""What a reader must know of the audit before its figures: how it was done, how sure it is, what it does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siniantrust.report._audit_input import DOWNSTREAM, AuditRead
from siniantrust.report._cuts import CutView, name_cuts
from siniantrust.report._load import Sources
from siniantrust.report._text import clean, count, metric_title, percent, score, seconds

_THINGS = {"image": "pictures", "token": "texts", "array": "records"}


@dataclass(frozen=True)
class Facts:
    """``answers`` are question and answer in plain words; ``rows`` name and value; ``budget`` the limits by name."""

    answers: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str], ...]
    budget: tuple[tuple[str, str], ...]


def audit_facts(sources: Sources, cuts: Sequence[CutView]) -> Facts | None:
    """Return the facts about the audit, or None where none was given."""
    audit = sources.audit
    if audit is None:
        return None
    given_up = [cut for cut in cuts if cut.measured and cut.measured.cut_short]
    open_cuts = [cut for cut in cuts if cut.measured and not cut.measured.settled and not cut.measured.cut_short]
    return Facts(
        answers=(
            ("What was measured", _measured(audit)),
            ("How sure it is", _sure(audit, open_cuts, given_up)),
            ("What it does not say", _silent(audit)),
        ),
        rows=tuple(_rows(audit, given_up)),
        budget=tuple(
            (clean(name), "no limit" if value is None else f"{value:,}" if isinstance(value, int) else str(value))
            for name, value in audit.budget.items()
        ),
    )


def things(audit: AuditRead) -> str:
    """Return what one calls the audit's items."""
    return "sounds" if audit.data.sample_rate_hz is not None else _THINGS.get(audit.data.kind, "records")


def _measured(audit: AuditRead) -> str:
    sound = (
        " Sounds were attacked as spectrograms: that is what the pictures show and the figures count."
        if audit.data.sample_rate_hz is not None
        else ""
    )
    smaller = (
        f" They were averaged down from {_shape(audit.data.item_shape)} to {_shape(audit.data.target_shape)} first, so "
        "finer detail was neither attacked nor counted."
        if audit.data.kind == "image"
        and audit.data.target_shape not in ((), audit.data.item_shape)
        and audit.data.sample_rate_hz is None
        else ""
    )
    kinds = len(audit.attacks.keys() - {DOWNSTREAM})
    return (
        f"At {_cuts(len(audit.cuts))} of the model, {kinds} {'kind' if kinds == 1 else 'kinds'} of attack tried to "
        f"rebuild private {things(audit)} from what the untrusted side would see there. The attackers learned from "
        f"{count(audit.data.attacker_count)} items of the same kind and were judged on "
        f"{count(audit.data.heldout_count)} that they had never met. A figure is the best attack's, the one that may "
        "leak most by its upper bound: 0 is what a guesser reaches who sees nothing, 1 is a perfect copy."
        f"{sound}{smaller}"
    )


def _sure(audit: AuditRead, open_cuts: Sequence[CutView], given_up: Sequence[CutView]) -> str:
    runs = (
        f"Every attack ran {audit.seeds} times with other random numbers."
        if audit.seeds > 1
        else "Every attack ran once, so that how much luck there was is not known."
    )
    text = (
        f"{runs} The policy's limit is held against the band's upper edge, which these attacks' average leakage "
        "exceeds in at most 5 of 100 such audits, never against the middle."
    )
    if open_cuts:
        text += (
            f" At {_cuts(len(open_cuts))} an attack was still moving by more than {score(audit.tolerance)} when its "
            "budget ended: those count as not converged, never as safe."
        )
    else:
        text += f" Where the whole suite ran, twice the budget moved nothing by more than {score(audit.tolerance)}."
    if given_up:
        text += (
            f" {_cuts(len(given_up)).capitalize()} leaked too much for certain and did not get the whole suite: there "
            "the figure is the least, and more may leak."
        )
    return text


def _silent(audit: AuditRead) -> str:
    limits = (
        "It proves nothing about attacks that were not tried: a better one may get more. It speaks of "
        f"{things(audit)} like those of the audit and of no others, and of averages: single items leak more, which the "
        "worst 5 % show. It says nothing of the enclave itself, of timing, or of what the answer gives away."
    )
    if audit.averaged_queries is None:
        return f"{limits} Nothing that crosses is random, so that asking again for the same item teaches nothing new."
    return f"{limits} Whoever asks more than {audit.averaged_queries} times for the same item may learn more."


def _rows(audit: AuditRead, given_up: Sequence[CutView]) -> list[tuple[str, str]]:
    rows = [
        ("Runs of each attack", f"{audit.seeds}, seeds {audit.seed} to {audit.seed + audit.seeds - 1}"
         if audit.seeds > 1 else f"1, seed {audit.seed}"),
        ("Converged means", f"twice the budget moved no metric by more than {score(audit.tolerance)}"),
    ]  # fmt: skip
    if audit.bounds:
        limits = ", ".join(f"{metric_title(name)} {score(value)}" for name, value in audit.bounds.items())
        numbers = name_cuts(given_up) if given_up else "none"
        rule = "A cut may be failed early, but is never passed early: to pass takes the whole suite."
        rows.append(("Given up early", f"those that surely leak more than {limits}: {numbers}. {rule}"))
    else:
        rows.append(("Given up early", "no cut: every one got the whole suite"))
    if audit.averaged_queries is not None:
        rows.append(
            ("Repeated questions", f"attackers also average {audit.averaged_queries} answers for the same item")
        )
    rows += [(f"Guesser: {clean(name)}", clean(prior.title)) for name, prior in audit.priors.items()]
    if audit.data.sample_rate_hz is not None:
        rows.append(("Sounds", f"{audit.data.sample_rate_hz:,} samples a second, attacked as spectrograms"))
    if audit.heldout_accuracy is not None:
        rows.append(("Accuracy of the model", f"{percent(audit.heldout_accuracy)} of the held-out items"))
    rows.append(("Machine", f"{clean(audit.machine)}; {seconds(audit.time_s)} in all"))
    return rows


def _cuts(number: int) -> str:
    return "1 cut" if number == 1 else f"{number} cuts"


def _shape(shape: Sequence[int]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape))
