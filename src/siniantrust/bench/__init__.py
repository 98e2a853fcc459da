"""A bench for researchers: models x data x cuts x masks x attacks from one TOML file into tidy tables and plots.

An attack, a screen or a mask that is added as a file to its room is measured by the next run without another line.
"""

from siniantrust.bench._cases import Case
from siniantrust.bench._config import BenchConfig, BenchError, load_config, parse_config
from siniantrust.bench._plots import write_plots
from siniantrust.bench._run import Bench, Finished, run_bench
from siniantrust.bench._tables import attack_rows, screen_rows, write_tables

__all__ = [
    "Bench",
    "BenchConfig",
    "BenchError",
    "Case",
    "Finished",
    "attack_rows",
    "load_config",
    "parse_config",
    "run_bench",
    "screen_rows",
    "write_plots",
    "write_tables",
]
