"""The search for a mask: cut, mask, strength and structure by leakage, accuracy, FLOPs and bytes sent."""

from siniantrust.masking.tune._plot import draw_front
from siniantrust.masking.tune._record import Point, Tuning, write_tuning
from siniantrust.masking.tune._run import tune
from siniantrust.masking.tune._search import Limits, Search, TuneError, chosen_cuts, defences

__all__ = [
    "Limits",
    "Point",
    "Search",
    "TuneError",
    "Tuning",
    "chosen_cuts",
    "defences",
    "draw_front",
    "tune",
    "write_tuning",
]
