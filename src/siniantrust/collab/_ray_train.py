"""Training Part 2 by Ray Train: ``python -m siniantrust.collab._ray_train MODULE JOB HOST:PORT WORKERS``.

The module is `_part_two`, which trains on stored features, or `_worker`, which helps the cloud in split learning.

A process of its own, since a Ray cluster may run code in the one that joins it, and the cloud's has its key. The Ray
cluster is one that runs; none is started. Every node must see the cloud's folder, and the model, under the same paths.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from siniantrust._extras import require
from siniantrust.collab import _worker
from siniantrust.collab._errors import CollabError
from siniantrust.collab._part_two import Job, train


def train_as_one(settings: dict[str, Any]) -> None:
    """Train on stored features as one of the workers; Ray Train has made the process group."""
    train(Job.model_validate_json(Path(settings["job"]).read_text()))


def follow_cloud(settings: dict[str, Any]) -> None:
    """Take a share of the passes in the group that the cloud has made, in place of Ray Train's."""
    rank = require("ray.train", extra="ray").get_context().get_world_rank()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    _worker.follow(Path(settings["job"]), rank + 1)


def _main(module: str, path: str, address: str, workers: int) -> None:
    ray, torch_trainers = require("ray", extra="ray"), require("ray.train.torch", extra="ray")
    threads = json.loads(Path(path).read_text())["threads"]
    ray.init(address=address, log_to_driver=False)
    room = sum(int(node["Resources"].get("CPU", 0) // threads) for node in ray.nodes() if node["Alive"])
    if room < workers:  # Ray would wait for nodes for ever
        raise CollabError(f"Ray cluster {address}: {workers} workers of {threads} cores asked for, room for {room}")
    torch_trainers.TorchTrainer(
        follow_cloud if module == _worker.__name__ else train_as_one,
        train_loop_config={"job": path},
        torch_config=torch_trainers.TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": threads}),
        run_config=ray.train.RunConfig(name="part-two", storage_path=str(Path(path).with_name("ray"))),
    ).fit()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
