"""One case on one device: run and compared, or declined with a reason, and nothing else goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from siniantrust.errors import DeviceError, SinianError
from siniantrust.odla._compare import difference
from siniantrust.odla._device import Device
from siniantrust.odla._unreadable import Unreadable
from siniantrust.odla.conformance._cases import Case


class Outcome(StrEnum):
    """How a case ended. ``NO_PART`` cases have something at their edge that no part may have."""

    PASSED = "passed"
    DECLINED = "declined"
    FAILED = "failed"
    NO_PART = "no part"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome and its reason; the reason is empty where the case passed."""

    case: str
    operator: str
    outcome: Outcome
    reason: str = ""


def run_case(device: Device, case: Case) -> Verdict:
    """Run ``case`` on ``device``.

    A case fails if ``supports`` takes it and ``compile`` or ``run`` does not, or if an output is missing, is of another
    dtype or shape, or is off. A device that runs shapes only has to refuse to be read.
    """
    part = case.part
    if part is None:
        return Verdict(case.name, case.operator, Outcome.NO_PART, case.why_no_part)
    refused = device.supports(part)
    if refused:
        first = refused[0]
        reason = f"{first.op_type}: {first.reason}" if first.op_type else first.reason
        return Verdict(case.name, case.operator, Outcome.DECLINED, reason)
    try:
        executable = device.compile(part)
        try:
            found = executable.run(case.inputs)
        finally:
            executable.close()
    except SinianError as error:
        return Verdict(case.name, case.operator, Outcome.FAILED, f"supports takes it, yet: {error}")
    except Exception as error:  # noqa: BLE001 - a backend of others may raise anything, and the table goes on
        return Verdict(case.name, case.operator, Outcome.FAILED, f"{type(error).__name__}: {error}")
    problem = _problem(case, found)
    if problem is not None:
        return Verdict(case.name, case.operator, Outcome.FAILED, problem)
    return Verdict(case.name, case.operator, Outcome.PASSED)


def _problem(case: Case, found: Mapping[str, np.ndarray]) -> str | None:
    unread = {name: value for name, value in found.items() if isinstance(value, Unreadable)}
    if not unread and case.values_count:
        return difference(case.expected, found, rtol=case.rtol, atol=case.atol)
    if found.keys() != case.expected.keys():
        return f"outputs {sorted(found)} stand where {sorted(case.expected)} are expected"
    for name, expected in case.expected.items():
        if (found[name].dtype, found[name].shape) != (expected.dtype, expected.shape):
            return f"output {name!r}: {found[name].dtype}{list(found[name].shape)} stands where {expected.dtype}"
    for name, value in unread.items():
        try:
            np.asarray(value)
        except DeviceError:
            continue
        return f"output {name!r} can be read"
    return None
