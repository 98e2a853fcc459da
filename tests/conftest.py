"""What tests of several rooms share: a Ray cluster, which takes seconds to start and is started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Run a cluster of a head and two nodes; this process joins it when a device on it is opened."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
        import ray_nodes

        with ray_nodes.ray_cluster(nodes=2) as cluster:
            yield cluster
