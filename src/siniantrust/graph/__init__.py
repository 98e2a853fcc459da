"""The ONNX model as a graph: load, check, shapes, costs, cut points, extraction of parts, and placement."""

from siniantrust.graph._cuts import enumerate_cuts, prefix_nodes
from siniantrust.graph._describe import describe
from siniantrust.graph._load import load_model
from siniantrust.graph._noise import NOISE_PREFIX, feed_noise, noise_inputs, unfed_noise
from siniantrust.graph._parts import part_digest, part_from_proto, peak_bytes
from siniantrust.graph._placement import read_device_configurations, with_device_configurations
from siniantrust.graph._prelude import PREPARED_PREFIX, take_prelude
from siniantrust.graph._skeleton import digest
from siniantrust.graph._split import split
from siniantrust.graph._types import Cut, CutSet, Model, Node, Part, Tensor

__all__ = [
    "NOISE_PREFIX",
    "PREPARED_PREFIX",
    "Cut",
    "CutSet",
    "Model",
    "Node",
    "Part",
    "Tensor",
    "describe",
    "digest",
    "enumerate_cuts",
    "feed_noise",
    "load_model",
    "noise_inputs",
    "part_digest",
    "part_from_proto",
    "peak_bytes",
    "prefix_nodes",
    "read_device_configurations",
    "split",
    "take_prelude",
    "unfed_noise",
    "with_device_configurations",
]
