"""Why the solver did not let the enclave go earlier: what it found at the cuts before a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from siniantrust.graph import Node
from siniantrust.planner._flow import Flow, bits
from siniantrust.planner._plan import Alternative, Plan

NO_CUT = "no cut lies before it"
REFUSED = "no cut before it is allowed with one device"
NO_BETTER = "a cut before it is allowed, but no better"


@dataclass(frozen=True)
class Exits:
    """The plan's alternatives by their first cut; ``flow`` knows the cuts that they name."""

    flow: Flow
    plan: Plan
    _known: dict[int, tuple[str, str]] = field(default_factory=dict)

    def before(self, node: Node) -> tuple[str, str]:
        """Say why no cut before ``node`` was taken, and the figures or names behind that."""
        mask = self.flow.everywhere & ~self.flow.node_masks[node.index] & self._tried
        if mask not in self._known:
            self._known[mask] = self._look(mask)
        return self._known[mask]

    @cached_property
    def _at(self) -> Mapping[int, Alternative]:
        """Per first cut the best that is allowed there, or the first that is refused."""
        number = {cut_id: index for index, cut_id in enumerate(self.flow.ids)}
        found: dict[int, Alternative] = {}
        for each in self.plan.alternatives:
            cut = number.get(each.cut_ids[0]) if each.cut_ids else None
            if cut is not None and (cut not in found or self._order(each) < self._order(found[cut])):
                found[cut] = each
        return found

    @cached_property
    def _tried(self) -> int:
        return sum(1 << cut for cut in self._at)

    def _seconds(self, each: Alternative) -> float:
        return each.latency_s if self.plan.policy.objective.minimise == "latency" else each.period_s

    def _order(self, each: Alternative) -> tuple[bool, float]:
        return each.refusal is not None, self._seconds(each) if each.refusal is None else 0.0

    def _look(self, mask: int) -> tuple[str, str]:
        if not mask:
            return NO_CUT, ""
        best = min((self._at[cut] for cut in bits(mask)), key=self._order)
        if best.refusal is None:
            goal = self.plan.policy.objective.minimise
            prediction = self.plan.prediction
            here_s = prediction.latency_s if goal == "latency" else prediction.period_s
            return NO_BETTER, (
                f"the best is '{best.cut_ids[0]}' with '{best.device}': {goal} {self._seconds(best) * 1e3:.3g} ms, "
                f"here {here_s * 1e3:.3g} ms"
            )
        nearest = self._at[mask.bit_length() - 1]
        return REFUSED, f"the nearest, '{nearest.cut_ids[0]}': {nearest.refusal}"
