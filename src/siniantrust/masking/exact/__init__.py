"""Exact masks: linear layers on devices that see uniform noise, answers that are checked, results that are exact.

program = build_program(model, offered, calibrate(model, entries, data))
with ExactSession(program, [DeviceSpec("gpu", ...)]) as session:
session.prepare(100)
outputs = session.run({"input": x})
"""

from siniantrust.masking.exact._calibrate import calibrate
from siniantrust.masking.exact._choose import Choice, choose_layers
from siniantrust.masking.exact._corrections import Corrections
from siniantrust.masking.exact._costs import Costs, measure_costs
from siniantrust.masking.exact._device_part import Arithmetic
from siniantrust.masking.exact._ledger import PadLedger
from siniantrust.masking.exact._outline import Outline, read_outline
from siniantrust.masking.exact._pads import PadSource
from siniantrust.masking.exact._passes import best_passes
from siniantrust.masking.exact._program import build_program, offerable
from siniantrust.masking.exact._program_file import Settings, dump_program
from siniantrust.masking.exact._prove import unprovable
from siniantrust.masking.exact._query import Query
from siniantrust.masking.exact._reference import QuantisedModel
from siniantrust.masking.exact._relay import Pending, Relay, Status
from siniantrust.masking.exact._session import ExactSession
from siniantrust.masking.exact._stages import Exchange, Program
from siniantrust.masking.exact._sums import JointSum, joint_sums
from siniantrust.masking.exact._trusted import Meter, Trusted

__all__ = [
    "Arithmetic",
    "Choice",
    "Corrections",
    "Costs",
    "ExactSession",
    "Exchange",
    "JointSum",
    "Meter",
    "Outline",
    "PadLedger",
    "PadSource",
    "Pending",
    "Program",
    "QuantisedModel",
    "Query",
    "Relay",
    "Settings",
    "Status",
    "Trusted",
    "best_passes",
    "build_program",
    "calibrate",
    "choose_layers",
    "dump_program",
    "joint_sums",
    "measure_costs",
    "offerable",
    "read_outline",
    "unprovable",
]
