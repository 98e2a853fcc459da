"""May a device see a value? The one rule, which the validator holds plans against and a session its moves."""

from __future__ import annotations

from siniantrust.planner._plan import ENCLAVE, Plan
from siniantrust.trust import Label, may_see


def clearance_violation(device: str, clearance: Label, tensor: str, label: Label, *, why: str = "") -> str | None:
    """Return why ``device`` may not hold ``tensor``, None if it may; ``why`` says where the label comes from."""
    if may_see(clearance, label):
        return None
    told = f" ({why})" if why else ""
    return f"'{device}' is cleared for {clearance.value}, but '{tensor}' is {label.value}{told}"


def move_violations(plan: Plan, part: str, device: str, *, need_bytes: int = 0) -> list[str]:
    """Return why the untrusted part ``part`` may not run on ``device``, one line each; empty when it may.

    ``need_bytes`` is the memory that the part needs, if known. The labels are the plan's, so the plan has to be one
    that the validator passed, as a loaded bundle's is.
    """
    planned = next((each for each in plan.parts if each.name == part), None)
    if planned is None:
        return [f"the plan has no part '{part}'; it has {', '.join(each.name for each in plan.parts)}"]
    if planned.trusted:
        return [f"{part} is trusted: it stays in the enclave"]
    if device == ENCLAVE:
        return [f"{part} is planned for devices; the enclave is none"]
    entry = next((each for each in plan.policy.device if each.name == device), None)
    if entry is None:
        known = ", ".join(sorted(each.name for each in plan.policy.device))
        return [f"the policy has no device '{device}'; it has {known}"]
    found = (
        clearance_violation(device, entry.clearance, value.tensor, value.label)
        for value in plan.values
        if part in (value.source, *value.targets)
    )
    lines = [line for line in found if line is not None]
    if entry.memory_bytes is not None and need_bytes > entry.memory_bytes:
        lines.append(f"{part} needs {need_bytes:,} bytes, but '{device}' has {entry.memory_bytes:,}")
    return lines
