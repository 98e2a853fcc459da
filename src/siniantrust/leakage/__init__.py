"""How much of the input leaks at every cut: screens, attacks, and the audit that holds them against each other."""

from siniantrust.leakage._arrays import read_arrays
from siniantrust.leakage._audit import audit
from siniantrust.leakage._audit_file import load_audit
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._data import Data, load_data
from siniantrust.leakage._metrics import Metric
from siniantrust.leakage._random import random_tensors
from siniantrust.leakage._registry import (
    Answer,
    Attack,
    Guess,
    Identification,
    InapplicableError,
    Problem,
    Reconstruction,
    Screen,
    ScreenScore,
    ScreenView,
    Transcription,
    list_attacks,
    list_screens,
)
from siniantrust.leakage._schema import (
    SCHEMA_VERSION,
    AttackResult,
    AttackSummary,
    Audit,
    CutAudit,
    DataDescription,
    Estimate,
    PriorSummary,
    Rung,
    ScreenResult,
    ScreenSummary,
)

__all__ = [
    "SCHEMA_VERSION",
    "Answer",
    "Attack",
    "AttackResult",
    "AttackSummary",
    "Audit",
    "Budget",
    "CutAudit",
    "Data",
    "DataDescription",
    "Estimate",
    "Guess",
    "Identification",
    "InapplicableError",
    "Metric",
    "PriorSummary",
    "Problem",
    "Reconstruction",
    "Rung",
    "Screen",
    "ScreenResult",
    "ScreenScore",
    "ScreenSummary",
    "ScreenView",
    "Transcription",
    "audit",
    "list_attacks",
    "list_screens",
    "load_audit",
    "load_data",
    "random_tensors",
    "read_arrays",
]
