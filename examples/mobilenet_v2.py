"""MobileNetV2 (Sandler et al. 2018) in PyTorch, its parameters named as in torchvision's published weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

# expansion, channels, repeats, stride of the first: table 2 of the paper
_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _HEAD, CLASSES, SIDE = 32, 1280, 1000, 224
# What the published weights expect of a photograph in 0..1.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OPSET = 17


def _layer(channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU6())


class _Bottleneck(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        self._joined = stride == 1 and channels_in == channels_out
        wide = channels_in * expansion
        expand = [] if expansion == 1 else [_layer(channels_in, wide, kernel=1)]
        self.conv = nn.Sequential(
            *expand,
            _layer(wide, wide, kernel=3, stride=stride, groups=wide),
            nn.Conv2d(wide, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv(x)
        return x + made if self._joined else made


class MobileNetV2(nn.Module):
    """Photographs (N, 3, 224, 224) in 0..1 to scores (N, 1000); the normalisation is the network's first step."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_layer(3, _STEM, kernel=3, stride=2)]
        channels_in = _STEM
        for expansion, channels, repeats, first_stride in _GROUPS:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                layers.append(_Bottleneck(channels_in, channels, stride=stride, expansion=expansion))
                channels_in = channels
        layers.append(_layer(channels_in, _HEAD, kernel=1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_HEAD, CLASSES))
        # Not among the parameters: the published weights do not have them.
        self._mean = nn.Buffer(torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self._std = nn.Buffer(torch.tensor(_STD).view(3, 1, 1), persistent=False)

    def forward(self, photographs: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        features = self.features((photographs - self._mean) / self._std)
        scores: torch.Tensor = self.classifier(features.mean(dim=(2, 3)))
        return scores


def export(network: MobileNetV2, path: Path) -> None:
    """Write the network for inference as ONNX: ``photo`` in, ``scores`` out, the batch size free."""
    network.eval()
    with warnings.catch_warnings():
        # The exporter that needs no further package is the older one, and says so.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            input_names=["photo"],
            output_names=["scores"],
            dynamic_axes={"photo": {0: "batch"}, "scores": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )
