"""Run every benchmark and write its figures, and one page over all of them.

python benchmarks/run_all.py --out benchmarks/results
python benchmarks/run_all.py --out /tmp/figures --only import_time --quick
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import copies
import cost_model
import exact_accuracy
import exact_kernels
import exact_masks
import import_time
import mask_costs
import mask_leakage
import parallelism
import pipeline
import restructure
import scaling
import solver
import split_latency
import tpm
from results_file import save, write_summary

BENCHMARKS = {
    "split_latency": split_latency.run,
    "pipeline": pipeline.run,
    "parallelism": parallelism.run,
    "cost_model": cost_model.run,
    "copies": copies.run,
    "scaling": scaling.run,
    "solver": solver.run,
    "import_time": import_time.run,
    "tpm": tpm.run,
    "exact_masks": exact_masks.run,
    "exact_kernels": exact_kernels.run,
    "exact_accuracy": exact_accuracy.run,
    "mask_costs": mask_costs.run,
    "mask_leakage": mask_leakage.run,
    "restructure": restructure.run,
}


def main() -> None:
    """Parse the command line and run what it asks for."""
    parser = argparse.ArgumentParser(description="Measure what README and docs quote.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="run only this one; repeat for more")
    parser.add_argument("--quick", action="store_true", help="small networks and few turns: a test, not a measurement")
    arguments = parser.parse_args()
    for name in arguments.only or BENCHMARKS:
        start = time.monotonic()
        outcome = BENCHMARKS[name](quick=arguments.quick)
        save(outcome, name, arguments.out, quick=arguments.quick)
        for bar in outcome.bars:
            print(f"{name}: {bar.what}: {bar.measured:.4g} (promised {bar.limit:g}): {'met' if bar.met else 'MISSED'}")
        print(f"{name}: done in {time.monotonic() - start:.0f} s")
    print(f"figures in {write_summary(arguments.out, list(BENCHMARKS))}")


if __name__ == "__main__":
    main()
