"""Objectives for training Part 1: penalties on features from which the input can be told (``retrain.Penalty``)."""

from siniantrust.masking.objectives._adversarial import Adversarial
from siniantrust.masking.objectives._make import OBJECTIVES, make_objective
from siniantrust.masking.objectives._nopeek import NoPeek
from siniantrust.masking.objectives._within_class import WithinClass

__all__ = ["OBJECTIVES", "Adversarial", "NoPeek", "WithinClass", "make_objective"]
