"""The conformance table: ONNX's own backend tests, held against any device, with an outcome for every case."""

from siniantrust.odla.conformance._cases import Case, light_cases, node_cases, sample
from siniantrust.odla.conformance._run import Outcome, Verdict, run_case

__all__ = ["Case", "Outcome", "Verdict", "light_cases", "node_cases", "run_case", "sample"]
