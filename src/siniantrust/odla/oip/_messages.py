"""Requests, answers and metadata of the protocol, the same for gRPC and REST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """What a model says of one input or output; an extent of -1 is free."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a server says of a model."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """What a server says of itself."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference to run. ``outputs`` maps the wanted outputs to "as binary"; empty means all of them."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, bool] = field(default_factory=dict)
    binary: bool = False
    id: str = ""


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """The outcome of one inference."""

    model: str
    version: str
    outputs: Mapping[str, np.ndarray]
