"""Train the demo's network on the demo's photographs and write it as ONNX.

The network narrows to a few channels on a coarse grid before its wide trunk: what must stay private is small and near
the input, what costs time comes after it.

    python tools/train_demo.py src/siniantrust/demo/scenes.onnx
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from siniantrust._files import write_atomic
from siniantrust.demo import SCENES, load_scenes

EPOCHS = 40
BATCH = 64
SEED = 0
NARROW = 6
WIDE = 128


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


def make_network() -> nn.Sequential:
    """Return the untrained network: (N, 3, 32, 32) to (N, scenes)."""
    return nn.Sequential(
        _block(3, 16, 1),
        _block(16, 32, 2),
        _block(32, 48, 2),
        _block(48, 64, 2),
        nn.Conv2d(64, NARROW, 1),
        nn.ReLU(),
        _block(NARROW, WIDE, 1),
        _block(WIDE, WIDE, 1),
        _block(WIDE, WIDE, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDE, len(SCENES)),
    )


def _augment(tiles: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirror, shift by up to 4 pixels, and change the brightness by up to 10 %."""
    if rng.random() < 0.5:  # noqa: PLR2004 - every second batch
        tiles = tiles.flip(3)
    row, column = rng.integers(0, 9, size=2)
    padded = nn.functional.pad(tiles, (4, 4, 4, 4), mode="reflect")
    brightness = torch.from_numpy(rng.uniform(0.9, 1.1, size=(len(tiles), 1, 1, 1)).astype(np.float32))
    return padded[:, :, row : row + 32, column : column + 32] * brightness


def train(network: nn.Sequential, inputs: torch.Tensor, labels: torch.Tensor, *, epochs: int) -> None:
    """Train in place."""
    rng = np.random.default_rng(SEED)
    batches = len(inputs) // BATCH
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=epochs * batches)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    network.train()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(inputs))[: batches * BATCH].reshape(batches, BATCH):
            loss = loss_of(network(_augment(inputs[chosen], rng)), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / batches:.3f}")
    network.eval()


def export(network: nn.Sequential) -> bytes:
    """Return the network as ONNX with a free batch size; batch normalisation is folded into the convolutions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenes.onnx"
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 32, 32),),
            path,
            dynamo=False,
            input_names=["tile"],
            output_names=["scene"],
            dynamic_axes={"tile": {0: "batch"}, "scene": {0: "batch"}},
            opset_version=17,
        )
        proto = onnx.load(path)
    proto.graph.name = "scenes"
    written: bytes = proto.SerializeToString(deterministic=True)
    return written


def main() -> None:
    """Train, print the accuracy on held-out tiles, and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    scenes = load_scenes()
    network = make_network()
    train(
        network,
        torch.from_numpy(scenes.train_inputs),
        torch.from_numpy(scenes.train_labels),
        epochs=arguments.epochs,
    )
    with torch.no_grad():
        predicted = network(torch.from_numpy(scenes.heldout_inputs)).argmax(1).numpy()
    accuracy = float((predicted == scenes.heldout_labels).mean())
    print(f"accuracy on {len(predicted)} held-out tiles: {accuracy:.4f}")
    write_atomic(arguments.out, export(network))


if __name__ == "__main__":
    main()
