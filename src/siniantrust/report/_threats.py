"""The threat models in words: what each one grants the untrusted side, what it protects, and whether it holds here."""

from __future__ import annotations

from dataclasses import dataclass

from siniantrust.report._load import Sources
from siniantrust.report._text import size
from siniantrust.report._verdict import Verdict


@dataclass(frozen=True)
class Threat:
    """One threat model. ``holds`` is ``yes``, ``no`` or ``limits``; ``here`` says why; ``chosen`` marks the plan's."""

    title: str
    attacker: str
    protected: str
    holds: str
    here: str
    chosen: bool = False


def threats(sources: Sources, verdict: Verdict) -> tuple[Threat, ...]:
    """Return the four threat models with what this plan claims of each."""
    plan = sources.plan
    split = any(not part.trusted for part in plan.parts)
    padded = plan.masking is not None
    outputs = plan.threat_model == "output-privacy"
    outside = sum(part.parameter_bytes for part in plan.parts if not part.trusted)
    inside = sum(part.parameter_bytes for part in plan.parts if part.trusted)
    curious = (
        "Runs everything as asked but keeps whatever it sees. It knows the model, both parts of it, owns data of the "
        "same kind as yours, watches every request and trains attackers on what it watched."
    )
    output_claim = (
        "The model's last layers run in the enclave, so that the answer never exists outside."
        if outputs
        else "What runs outside the enclave sees and makes padded values only."
        if padded and not split
        else "Nothing of the model runs outside the enclave."
        if not split
        else "The untrusted side computes the answer and reads it. An answer alone already tells which "
        "kind of input it was."
    )
    holds, here = _input_privacy(verdict, padded=padded)
    return (
        Threat(
            title="Input privacy",
            attacker=curious,
            protected="The input, up to the leakage that the policy allows.",
            holds=holds,
            here=here,
            chosen=not outputs,
        ),
        Threat(
            title="Output privacy",
            attacker="The same curious host.",
            protected="The answer too: it is neither computed nor readable outside the enclave.",
            holds="yes" if outputs or not split else "no",
            here=output_claim,
            chosen=outputs,
        ),
        Threat(
            title="Integrity",
            attacker="Malicious: may answer with wrong numbers, repeat old answers or swap them.",
            protected="Wrong results are noticed before anyone acts on them.",
            holds=("limits" if padded else "no") if split else "yes",
            here=_integrity(sources, split=split),
        ),
        Threat(
            title="Model privacy",
            attacker="The same curious host.",
            protected="Those weights that stay in the enclave.",
            holds="limits" if split or padded else "yes",
            here=f"{size(inside)} of weights are in trusted parts; {size(outside)} are handed to the untrusted "
            "side in the clear."
            + (" The weights of layers under pads are handed over too, quantised." if padded else "")
            + (" Queries may teach it more about the rest than this; that was not measured." if split else ""),
        ),
    )


def _integrity(sources: Sources, *, split: bool) -> str:
    """Say which results are checked before they are used, and how surely."""
    bits = sources.plan.policy.masking.soundness_bits
    checked = f"Answers under pads are checked in the enclave: a wrong one passes with at most 2^-{bits}."
    plain = "Results of the untrusted part are taken as they come."
    if sources.plan.masking is None:
        return plain if split else "No untrusted device computes any result."
    return f"{checked} {plain}" if split else checked


def _input_privacy(verdict: Verdict, *, padded: bool) -> tuple[str, str]:
    """Return whether input privacy holds and why: the measured leakage first, then what the enclave is worth."""
    nothing = "No value inside the model leaves the enclave" + (" without a one-time pad." if padded else ".")
    holds, here = {
        "within": ("limits", "Within the policy's bound against every attacker tried."),
        "nothing": ("yes", nothing),
        "over": ("no", "The measured leakage is above the policy's bound."),
        "open": ("no", "Not shown: an attacker could still improve."),
        "unknown": ("no", "Not shown: the leakage at this cut was not measured."),
    }[verdict.status]
    if verdict.badge in {"simulated", "emulated"}:
        holds = "no" if holds == "no" else "limits"
        here += (
            f" The enclave of the measured run is {verdict.badge}: whoever owns that machine can read the input there."
        )
    elif verdict.badge == "unknown":
        holds = "no" if holds == "no" else "limits"
        here += " It takes a hardware enclave for this to hold; none was launched for this page."
    return holds, here
