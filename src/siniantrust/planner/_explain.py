"""The sentences of a plan: why each part is where it is, and what the reader must not take for granted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from siniantrust.graph import CutSet, Model
from siniantrust.leakage import Audit
from siniantrust.planner._plan import ENCLAVE
from siniantrust.planner._policy import Policy
from siniantrust.trust import Label, Provenance, ThreatModel

# A shared shape or axis is no secret.
_FEW_NUMBERS = 32


def explain_parts(
    *,
    cut_ids: Sequence[str],
    devices: Sequence[Sequence[str]],
    returns: bool,
    leakage_upper: Mapping[str, float] | None,
    policy: Policy,
) -> tuple[str, ...]:
    """Return one sentence per part of a split: the enclave's, each of ``devices``, and the enclave's last."""
    held = f"It holds everything up to the cut '{cut_ids[0]}'"
    readers = " and ".join(f"'{name}'" for names in devices for name in names)
    if leakage_upper is None:
        first = f"{held}; nothing that {readers} reads there is more private than it is cleared for."
    else:
        bounds = ", ".join(
            f"{metric} at most {leakage_upper[metric]:.3g} (allowed {bound:g})"
            for metric, bound in sorted(policy.leakage.max.items())
            if metric in leakage_upper
        )
        first = f"{held}, so the input stays in the enclave; what leaves there leaks {bounds} under the best attack."
    sentences = [first, *(_explain_stage(names, policy, alone=len(devices) == 1) for names in devices)]
    if returns:
        sentences.append(f"It makes the outputs from the cut '{cut_ids[-1]}' on, so that the host does not see them.")
    return tuple(sentences)


def _explain_stage(names: Sequence[str], policy: Policy, *, alone: bool) -> str:
    goal = "latency" if policy.objective.minimise == "latency" else "period"
    if len(names) > 1:
        cleared = f"its {len(names)} devices are cleared for; they share its requests"
    else:
        cleared = f"'{names[0]}' is cleared for"
    worth = "there it gives" if alone else "with the other devices it gives"
    return f"It reads nothing more private than {cleared}, and {worth} the lowest {goal}."


def explain_plan(*, cut_ids: tuple[str, ...], device: str | None, latency_s: float, trusted_s: float | None) -> str:
    """Return one sentence that says what was chosen and what it is worth."""
    if device is None:
        return f"The whole model runs in the enclave: {latency_s * 1e3:.3g} ms predicted, and nothing leaves it."
    where = " and ".join(f"'{cut_id}'" for cut_id in cut_ids)
    against = "" if trusted_s is None else f" against {trusted_s * 1e3:.3g} ms with the whole model in the enclave"
    return f"Cut at {where}, with the rest on '{device}': {latency_s * 1e3:.3g} ms predicted{against}."


def list_warnings(model: Model, cut_set: CutSet, policy: Policy, audit: Audit | None, *, split: bool) -> list[str]:
    """Return what limits the plan's promises, most important first. ``split`` says whether a device takes part."""
    warnings = []
    weaker = [provenance.value for provenance in policy.enclave.accept if provenance is not Provenance.HARDWARE]
    if weaker:
        warnings.append(f"The policy accepts an enclave that is {' or '.join(weaker)}: that protects nothing for real.")
    if policy.enclave.allow_missing:
        warnings.append(f"The enclave may do without: {', '.join(policy.enclave.allow_missing)}.")
    if not split:
        return warnings
    if policy.threat_model is ThreatModel.OUTPUT_PRIVACY:
        warnings.append(
            "Output privacy rests on part 3's sealed weights: a host that holds the original weights, or trains a "
            "surrogate of part 3 on labelled data, can compute the outputs from what it sees; how much the outputs "
            "leak was not audited."
        )
    if audit is not None and not policy.leakage.require_converged:
        warnings.append("The policy admits attacks that did not converge: a larger budget may leak more than stated.")
    if set(policy.public_inputs) >= {tensor.name for tensor in model.inputs}:
        warnings.append("All inputs are declared public, so no leakage was demanded.")
    trusted = [device.name for device in policy.device if device.clearance is Label.SECRET]
    if trusted:
        warnings.append(f"The policy clears {', '.join(trusted)} for secret values: nothing hides them there.")
    if cut_set.capped:
        warnings.append(f"The search for cuts stopped at {cut_set.cap}: the plan is the best among those found.")
    return warnings


def warn_of_shared_weights(model: Model, part_of: Sequence[int], devices: Sequence[str]) -> list[str]:
    """Return a warning if a trusted and an untrusted part read the same weights: sealing those protects nothing."""
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    for node, part in zip(model.nodes, part_of, strict=True):
        seen[devices[part] == ENCLAVE].update(node.inputs)
    both = seen[True] & seen[False]
    shared = [t.name for t in model.proto.graph.initializer if t.name in both and math.prod(t.dims) > _FEW_NUMBERS]
    if not shared:
        return []
    names = ", ".join(f"'{name}'" for name in shared[:3]) + (" and others" if len(shared) > 3 else "")  # noqa: PLR2004 - as many as a line holds
    return [f"Weights that the enclave and a device both read are in plain on the device: {names}."]
