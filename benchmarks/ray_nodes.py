"""A Ray cluster of several nodes on this machine, by Ray's own ``cluster_utils``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from siniantrust._extras import require

# Objects are small here, and every node takes as much of the machine's memory.
_STORE_BYTES = 100 << 20


@contextmanager
def ray_cluster(*, nodes: int) -> Iterator[Any]:
    """Yield a ``ray.cluster_utils.Cluster``: a head that computes nothing, and ``nodes`` nodes of two cores.

    Each node is a raylet with object store and worker processes of its own. Nothing is reported, there is no dashboard,
    and workers are as urgent as this process (Ray would start them at nice 15). It is gone when the block ends.
    """
    with ExitStack() as stack:
        # Short, since sockets lie in it; its own, so that no other process here takes this cluster for its own.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_TMPDIR": folder}
        stack.enter_context(mock.patch.dict(os.environ, settings))
        ray, utils = require("ray", extra="ray"), require("ray.cluster_utils", extra="ray")
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        cluster = utils.Cluster(initialize_head=True, head_node_args=head)
        stack.callback(cluster.shutdown)
        stack.callback(ray.shutdown)
        for _ in range(nodes):
            add_node(cluster)
        yield cluster


def add_node(cluster: Any) -> Any:
    """Add a node of two cores to a cluster, and return it when it is ready."""
    return cluster.add_node(num_cpus=2, object_store_memory=_STORE_BYTES)
