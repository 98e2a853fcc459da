"""The tables that `sinian plan` adds: layers under pads, and why each node is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siniantrust.cli._show import milliseconds, show_line, show_table

if TYPE_CHECKING:
    from siniantrust import planner


def show_masking(masking: planner.Masking) -> None:
    """Print the layers under pads, and why others stay inside."""
    show_table(
        ("layer under pads", "device", "masked#", "there#", "inside#", "why"),
        (
            (
                layer.node,
                masking.devices[0],
                milliseconds(layer.masked_s),
                milliseconds(layer.device_s),
                milliseconds(layer.inside_s),
                layer.reason,
            )
            for layer in masking.layers
        ),
        title="layers of part 1 that a device computes under pads: the enclave's own work, the device's, and inside",
    )
    for name, reason in masking.kept.items():
        show_line(f"stays inside: {name}: {reason}")
    show_line(f"preparing pads takes {milliseconds(masking.offline_s)} for each item, in idle time of the enclave")


def show_explanation(explanation: planner.Explanation) -> None:
    """Print why each run of nodes is where it is."""
    show_table(
        ("nodes", "#", "operators", "device", "there#", "elsewhere", "label", "why"),
        (
            (
                run.first if run.count == 1 else f"{run.first} … {run.last}",
                str(run.count),
                ", ".join(f"{operator} {count}" for operator, count in run.operators.items()),
                run.device,
                milliseconds(run.latency_s),
                ", ".join(
                    [f"{name} {milliseconds(seconds)}" for name, seconds in run.elsewhere_s.items()]
                    + [f"{name}: {why}" for name, why in run.refused.items()]
                ),
                run.label.value,
                "; ".join(run.reasons),
            )
            for run in explanation.runs
        ),
        title="why each node is where it is; seconds are predicted sums over the nodes of a row",
    )
