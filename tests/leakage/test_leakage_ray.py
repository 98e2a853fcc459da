from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from leakage_cases import SMALL, photo_tiles, small_network, write_network

from siniantrust.graph import enumerate_cuts, load_model
from siniantrust.leakage import Data, audit, load_audit

_SCRIPT = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    import numpy as np
    from leakage_cases import SMALL
    from siniantrust.graph import enumerate_cuts, load_model
    from siniantrust.leakage import Data, audit

    if __name__ == "__main__":
        folder = Path(sys.argv[1])
        model = load_model(folder / "model.onnx")
        audit(model, Data(np.load(folder / "data.npy"), None, "x"), cuts=enumerate_cuts(model), out=folder / "ray",
              budget=SMALL, attacks=["ridge"], screens=["distance_correlation"], cluster="ray")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install ray")
def test_a_ray_cluster_gives_the_figures_of_one_process(tmp_path: Path) -> None:
    """An audit whose work runs as tasks of a Ray cluster gives the figures that this process gives."""
    model = load_model(write_network(tmp_path / "model.onnx", small_network()))
    np.save(tmp_path / "data.npy", photo_tiles(300))
    (tmp_path / "run.py").write_text(textwrap.dedent(_SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, str(tmp_path / "run.py"), str(tmp_path)], env=environment, check=True)
    here = audit(
        model,
        Data(photo_tiles(300), None, "x"),
        cuts=enumerate_cuts(model),
        out=tmp_path / "here",
        budget=SMALL,
        attacks=["ridge"],
        screens=["distance_correlation"],
    )
    there = load_audit(tmp_path / "ray")
    for first, second in zip(here.cuts, there.cuts, strict=True):
        for metric, figure in first.leakage.items():
            assert figure.mean == pytest.approx(second.leakage[metric].mean, abs=2e-3)
    assert "and Ray" in there.machine
