"""Training Part 2 by Ray Train: ``python -m siniantrust.collab._ray_train JOB HOST:PORT WORKERS``.

A process of its own, since a Ray cluster may run code in the one that joins it, and the cloud's has its key. The Ray
cluster is one that runs; none is started. Every node must see the cloud's folder, and the model, under the same paths.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from siniantrust._extras import require
from siniantrust.collab._errors import CollabError
from siniantrust.collab._part_two import Job, train


def work(settings: dict[str, Any]) -> None:
    """Train as one of the workers; Ray Train has made the process group."""
    train(Job.model_validate_json(Path(settings["job"]).read_text()))


def _main(path: str, address: str, workers: int) -> None:
    ray, torch_trainers = require("ray", extra="ray"), require("ray.train.torch", extra="ray")
    job = Job.model_validate_json(Path(path).read_text())
    ray.init(address=address, log_to_driver=False)
    room = sum(int(node["Resources"].get("CPU", 0) // job.threads) for node in ray.nodes() if node["Alive"])
    if room < workers:  # Ray would wait for nodes for ever
        raise CollabError(f"Ray cluster {address}: {workers} workers of {job.threads} cores asked for, room for {room}")
    torch_trainers.TorchTrainer(
        work,
        train_loop_config={"job": path},
        torch_config=torch_trainers.TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": job.threads}),
        run_config=ray.train.RunConfig(name="part-two", storage_path=str(job.folder / "ray")),
    ).fit()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
