"""Restructuring: a smaller trusted part, and less that leaves it, as rewrites of the ONNX graph with distillation."""

from siniantrust.masking.restructure._figures import PartFigures
from siniantrust.masking.restructure._observe import observe
from siniantrust.masking.restructure._pass import Pass, RestructureError, Step, list_passes, parse_step
from siniantrust.masking.restructure._restructure import Restructured, StepResult, restructure, rewrite, sample_items

__all__ = [
    "PartFigures",
    "Pass",
    "RestructureError",
    "Restructured",
    "Step",
    "StepResult",
    "list_passes",
    "observe",
    "parse_step",
    "restructure",
    "rewrite",
    "sample_items",
]
