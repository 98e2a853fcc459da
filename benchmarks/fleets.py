"""What runs the untrusted part and can be killed: servers in processes of their own, or actors of a Ray cluster."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from part_server import PartServer
from ray_nodes import add_node, ray_cluster

from siniantrust._extras import require
from siniantrust.odla import DeviceSpec
from siniantrust.odla.ray import NAMESPACE

DEVICES = ("cloud", "standby")
_SERVING_SHARE = 0.75
_NODES = 2
_ACTOR_S = 120.0


class Fleet(Protocol):
    """Two devices, ``cloud`` and ``standby``, for the untrusted part."""

    about: str
    """What they are and how they are killed, for the page."""

    def specs(self) -> dict[str, DeviceSpec]:
        """Return how to open them."""

    def kill(self, serving: str, source: random.Random) -> float:
        """Kill one, perhaps the one that serves; return when, on the clock of ``time.perf_counter``."""

    def restore(self) -> None:
        """Bring back what was killed, if it does not come back by itself."""


class ServerFleet:
    """Two ``sinian serve`` processes with the same part."""

    about = (
        "Two `sinian serve` processes on this machine serve the untrusted part over gRPC; four threads send requests\n"
        "to one session with a simulated enclave. Servers are killed by SIGKILL at random times, mostly the one that\n"
        "serves (three times in four), and started again; never both at once."
    )

    def __init__(self, servers: Mapping[str, PartServer]) -> None:
        self._servers = servers
        self._killed = ""

    def specs(self) -> dict[str, DeviceSpec]:
        """Return how to open them."""
        return {name: DeviceSpec(name, "remote", {"url": server.url}) for name, server in self._servers.items()}

    def kill(self, serving: str, source: random.Random) -> float:
        """Kill one, three times in four the one that serves."""
        self._killed = (
            serving if source.random() < _SERVING_SHARE else next(name for name in DEVICES if name != serving)
        )
        return self._servers[self._killed].kill()

    def restore(self) -> None:
        """Start it again."""
        self._servers[self._killed].start()


@contextmanager
def server_fleet(part: Path) -> Iterator[ServerFleet]:
    """Run two servers of a part until the block ends."""
    with ExitStack() as stack:
        yield ServerFleet({name: stack.enter_context(PartServer(part)) for name in DEVICES})


class RayFleet:
    """Two devices of the backend ``ray`` on a cluster of several nodes; every kill is another kind of death."""

    about = (
        f"The untrusted part is on actors of a Ray cluster on this machine, a head and {_NODES} nodes by Ray's\n"
        "`cluster_utils`; four threads send requests to one session with a simulated enclave. At random times an\n"
        "actor is killed, by turns with `ray.kill` and with SIGKILL to its process, and the kill in the middle takes\n"
        "the node of an actor away with all that is on it (SIGKILL to its raylet); another node joins then. Nothing\n"
        "else comes back from outside: the session opens a new actor, wherever Ray has room."
    )

    def __init__(self, cluster: Any, *, kills: int) -> None:
        self._cluster = cluster
        self._ways = itertools.cycle([self._by_ray, self._by_signal])
        self._kills_to_node = kills // 2

    def specs(self) -> dict[str, DeviceSpec]:
        """Return how to open them."""
        options = {"address": self._cluster.address, "inner.threads": 1}
        return {name: DeviceSpec(name, "ray", options) for name in DEVICES}

    def kill(self, serving: str, source: random.Random) -> float:  # noqa: ARG002 - what is open is what can be killed
        """Kill one of the actors that are there, by the way whose turn it is."""
        actor, opened = self._victim(source)
        at_s = time.perf_counter()
        self._kills_to_node -= 1
        if self._kills_to_node == -1:
            node = next(node for node in self._cluster.worker_nodes if node.node_id == opened.node_id)
            self._cluster.remove_node(node, allow_graceful=False)
            # On this one machine it would outlive its raylet for a moment.
            with suppress(ProcessLookupError):
                self._by_signal(actor, opened)
        else:
            next(self._ways)(actor, opened)
        return at_s

    def restore(self) -> None:
        """Add a node where one was removed."""
        for _ in range(_NODES - len(self._cluster.worker_nodes)):
            add_node(self._cluster)

    def _victim(self, source: random.Random) -> tuple[Any, Any]:
        """Return an actor that answers, and where it is. After a kill it takes a moment until there is one."""
        ray = require("ray", extra="ray")
        until_s = time.monotonic() + _ACTOR_S
        while time.monotonic() < until_s:
            listed = ray.util.list_named_actors(all_namespaces=True)
            names = sorted(entry["name"] for entry in listed if entry["namespace"] == NAMESPACE)
            try:
                actor = ray.get_actor(source.choice(names), namespace=NAMESPACE)
                return actor, ray.get(actor.opened.remote(), timeout=_ACTOR_S)
            except (IndexError, ValueError, ray.exceptions.RayError):  # none, gone by now, or not open yet
                time.sleep(0.05)
        raise RuntimeError(f"no actor of the namespace {NAMESPACE!r} within {_ACTOR_S:g} s")

    @staticmethod
    def _by_ray(actor: Any, _: Any) -> None:
        require("ray", extra="ray").kill(actor)

    @staticmethod
    def _by_signal(_: Any, opened: Any) -> None:
        os.kill(opened.process_id, signal.SIGKILL)


@contextmanager
def ray_fleet(*, kills: int) -> Iterator[RayFleet]:
    """Run a cluster until the block ends."""
    with ray_cluster(nodes=_NODES) as cluster:
        yield RayFleet(cluster, kills=kills)
