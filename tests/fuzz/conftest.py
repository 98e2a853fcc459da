"""Where the fuzzed loaders' good files come from: the helpers of the rooms' own tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "planner"))
