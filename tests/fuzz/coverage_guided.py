"""The same targets under a coverage-guided fuzzer, atheris.

pip install atheris
python tests/fuzz/coverage_guided.py NAME [-runs=100000] [-max_total_time=60] [a folder for the corpus]

What it finds is a traceback, and a file ``crash-…`` with the input. Options are libFuzzer's.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def main() -> None:
    """Fuzz the target that the first argument names."""
    atheris = importlib.import_module("atheris")
    sys.path[:0] = [str(path) for path in TESTS.iterdir() if path.is_dir()]
    with atheris.instrument_imports(include=["siniantrust"]):
        table = importlib.import_module("test_fuzz_parsers")
        fuzz_target = importlib.import_module("fuzz_target")
    warnings.simplefilter("ignore")  # as in the tests: what cryptography warns of is refused
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        target = table.TARGETS[name](Path(folder))
        for number, seed in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda raw: fuzz_target.attempt(target, raw) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
