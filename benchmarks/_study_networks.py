"""The networks of the leakage study: four families small enough to be trained on one core, and a published target."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

_BATCH = 64
_MIRROR = 0.5


def _convolved(before: int, after: int, stride: int = 1, size: int = 3, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(after)]


class _Sum(nn.Module):
    """A block and what goes around it, added up."""

    def __init__(self, block: nn.Module, around: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.around = around
        self.after = after

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return after(block(values) + around(values))."""
        summed: torch.Tensor = self.after(self.block(values) + self.around(values))
        return summed


def lenet(channels: int, side: int, classes: int) -> nn.Sequential:
    """Two 5 x 5 convolutions, each pooled, and three dense layers (LeCun et al. 1998), with ReLU."""
    reduced = ((side - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 12, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * reduced**2, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def vgg(channels: int, side: int, classes: int) -> nn.Sequential:
    """Three stages of two 3 x 3 convolutions, each stage pooled, and two dense layers (Simonyan, Zisserman 2015)."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 12), (12, 24), (24, 48)):
        layers += [*_convolved(before, after), nn.ReLU(), *_convolved(after, after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * (side // 8) ** 2, 96), nn.ReLU(), nn.Linear(96, classes))


def resnet(channels: int, side: int, classes: int) -> nn.Sequential:
    """A stem and four residual blocks of two convolutions at three scales, then the mean (He et al. 2016)."""
    _ = side
    layers: list[nn.Module] = [*_convolved(channels, 12), nn.ReLU()]
    for before, after, stride in ((12, 12, 1), (12, 24, 2), (24, 24, 1), (24, 48, 2)):
        block = nn.Sequential(*_convolved(before, after, stride), nn.ReLU(), *_convolved(after, after))
        same = before == after and stride == 1
        around = nn.Identity() if same else nn.Sequential(*_convolved(before, after, stride, size=1))
        layers.append(_Sum(block, around, nn.ReLU()))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, classes))


def mobilenet(channels: int, side: int, classes: int) -> nn.Sequential:
    """A stem and five inverted residual blocks with depthwise convolutions, then the mean (Sandler et al. 2018)."""
    _ = side
    layers: list[nn.Module] = [*_convolved(channels, 12), nn.ReLU6()]
    for before, after, stride in ((12, 12, 1), (12, 16, 2), (16, 16, 1), (16, 24, 2), (24, 24, 1)):
        wide = 3 * before
        block = nn.Sequential(
            *_convolved(before, wide, size=1),
            nn.ReLU6(),
            *_convolved(wide, wide, stride, groups=wide),
            nn.ReLU6(),
            *_convolved(wide, after, size=1),
        )
        layers.append(_Sum(block, nn.Identity(), nn.Identity()) if before == after and stride == 1 else block)
    layers += [*_convolved(24, 96, size=1), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, classes))


def six_convolutions(channels: int, side: int, classes: int) -> nn.Sequential:
    """The target of He, Zhang and Lee 2019 on CIFAR-10 with half the channels: six convolutions, three poolings."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 32), (32, 64), (64, 64)):
        for given in (before, after):
            layers += [nn.Conv2d(given, after, 3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    dense = [nn.Linear(64 * (side // 8) ** 2, 256), nn.Sigmoid(), nn.Linear(256, classes)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network, and how long it is trained: how many items it sees, the same one in every epoch."""

    make: Callable[[int, int, int], nn.Sequential]
    seen_items: int
    learning_rate: float


STUDIED = {
    "lenet": Recipe(lenet, seen_items=60_000, learning_rate=4e-3),
    "vgg": Recipe(vgg, seen_items=20_000, learning_rate=8e-3),
    "resnet": Recipe(resnet, seen_items=24_000, learning_rate=1e-2),
    "mobilenet": Recipe(mobilenet, seen_items=28_000, learning_rate=1e-2),
}
PUBLISHED = {"six-convolutions": Recipe(six_convolutions, seen_items=14_000, learning_rate=2e-3)}
RECIPES = STUDIED | PUBLISHED


def train(
    recipe: Recipe, inputs: np.ndarray, labels: np.ndarray, *, classes: int, seed: int, seen_items: int
) -> nn.Sequential:
    """Return a network trained on inputs (N, channels, side, side) in 0..1, on one thread; mirrored, shifted by 2."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    network = recipe.make(inputs.shape[1], inputs.shape[2], classes)
    batches, epochs = len(inputs) // _BATCH, max(1, seen_items // len(inputs))
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=epochs * batches, pct_start=0.25
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    network.train()
    side = inputs.shape[2]
    for _ in range(epochs):
        for rows in generator.permutation(len(inputs))[: batches * _BATCH].reshape(batches, _BATCH):
            images = torch.from_numpy(inputs[rows])
            if generator.random() < _MIRROR:
                images = images.flip(3)
            row, column = generator.integers(0, 5, size=2)
            padded = nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
            loss = loss_of(
                network(padded[:, :, row : row + side, column : column + side]), torch.from_numpy(labels[rows])
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def accuracy(network: nn.Sequential, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of ``inputs`` that the network names rightly."""
    with torch.no_grad():
        predicted = network(torch.from_numpy(inputs)).argmax(1).numpy()
    return float((predicted == labels).mean())


def export(network: nn.Sequential, shape: tuple[int, ...], name: str) -> bytes:
    """Return the network as ONNX with a free batch size; batch normalisation is folded into the convolutions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            network,
            (torch.zeros(1, *shape),),
            path,
            dynamo=False,
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
            opset_version=17,
        )
        proto = onnx.load(path)
    proto.graph.name = name
    written: bytes = proto.SerializeToString(deterministic=True)
    return written
