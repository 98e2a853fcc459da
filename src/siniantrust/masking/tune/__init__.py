"""The search for a mask: cut, mask, strength and structure by leakage, accuracy, FLOPs and bytes sent."""

from siniantrust.masking.tune._plot import draw_front
from siniantrust.masking.tune._record import Point, Tuning, write_tuning
from siniantrust.masking.tune._run import tune
from siniantrust.masking.tune._search import (
    NONE,
    PENALTIES,
    Choice,
    Limits,
    Search,
    TuneError,
    chosen_cuts,
    composition,
    corners,
    defences,
)

__all__ = [
    "NONE",
    "PENALTIES",
    "Choice",
    "Limits",
    "Point",
    "Search",
    "TuneError",
    "Tuning",
    "chosen_cuts",
    "composition",
    "corners",
    "defences",
    "draw_front",
    "tune",
    "write_tuning",
]
