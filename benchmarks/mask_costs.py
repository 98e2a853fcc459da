"""What masks cost the trusted side: Part 1 with each mask against Part 1 without, on one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import onnx
from networks import NETWORKS
from results_file import Bar, Outcome
from timing import in_turns, median_ms, ratio_interval

from siniantrust import graph, masking
from siniantrust.errors import MissingExtraError
from siniantrust.trust.process._noise import NoiseSource
from siniantrust.trust.process._parts import noise_feed, session

_BAR_PERCENT = 3.0
# Items a request, and how often it is run.
_REQUESTS = {"demo": {1: 400, 16: 120}, "MobileNetV2": {1: 120}}
# What a structured one is there for to replace.
_REPLACED = "random_projection:structured=0"
_MASKS = (
    "gaussian",
    "laplace",
    "budgeted_gaussian",
    "shredder_bank:count=8,steps=0",
    "shredder_distribution:count=8,steps=0",
    "quantise:strength=0.5",
    "randomised_response",
    "dropout",
    "channel_pruning",
    "bottleneck",
    "pooling",
    _REPLACED,
    "random_projection:structured=1",
    "patch_shuffle",
)


@dataclass(frozen=True)
class _Part:
    """A first part that is ready to run, with one fixed set of noise, and how to draw such a set."""

    run: Callable[[], object]
    draw: Callable[[], object]
    crossing_bytes: int


def run(*, quick: bool) -> Outcome:
    """Time every mask at one cut of the demo's network and of another."""
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for name, model, tensor in _subjects(quick=quick):
        for items, turns in _REQUESTS[name].items():
            found = _at(name, model, tensor, items=items, turns=3 if quick else turns)
            rows += found
            bars += [
                Bar(f"{name}, requests of {items}, {row['mask']}: added to Part 1, %", _BAR_PERCENT, row["added, %"])
                for row in found
                if row["mask"] != _REPLACED
            ]
    return Outcome(
        title="Masks on the trusted side",
        method=(
            "Part 1 up to the named tensor with each mask, in turns with Part 1 without one, in ONNX Runtime with one "
            "thread, in requests of so many images; seconds of the thread's processor time. Noise is an input, as in "
            "the enclave, which draws it between requests and computes there what depends on noise and constants "
            "alone: `drawing` is what both take, and `added with drawing` what a request takes when none was drawn "
            "ahead."
        ),
        rows=rows,
        bars=bars,
        remarks=[
            "Learned noise is not trained here: what it costs does not depend on its values.",
            "Dropping channels behind a convolution becomes part of it, and it computes less: the figure is below 0.",
            "The dense projection is what the structured one replaces, and has no bar.",
            "What a node of ONNX Runtime's costs whatever its size weighs in single requests of a small network alone.",
        ],
    )


def _subjects(*, quick: bool) -> list[tuple[str, graph.Model, str]]:
    demo = onnx.load_model_from_string(files("siniantrust.demo").joinpath("scenes.onnx").read_bytes())
    scenes = graph.load_model(demo)
    found = [("demo", scenes, next(c for c in graph.enumerate_cuts(scenes).cuts if c.nodes_before == 8).tensors[0])]  # noqa: PLR2004
    if not quick:
        network = NETWORKS["mobilenet_v2"](224)
        found.append((network.name, graph.load_model(network.proto), network.cuts[2]))
    return found


def _at(name: str, model: graph.Model, tensor: str, *, items: int, turns: int) -> list[dict[str, Any]]:
    cut = masking.find_cut(model, [tensor])
    item = model.inputs[0]
    inputs = {item.name: np.random.default_rng(0).random((16, *item.shape[1:]), dtype=np.float32)}
    parts = {"none": _part(graph.split(model, (cut,))[0], inputs, items)}
    refused: dict[str, str] = {}
    for text in _MASKS:
        try:
            masked, crossing = masking.apply_masks(model, cut, [masking.parse_mask(text)], seed=0, inputs=inputs)
        except (masking.MaskError, MissingExtraError) as fault:
            refused[text] = str(fault)
        else:
            parts[text] = _part(graph.split(masked, (crossing,))[0], inputs, items)
    bare = parts.pop("none")
    drawing = in_turns(
        {text: part.draw for text, part in parts.items()}, turns=max(turns // 4, 3), clock=time.thread_time
    )
    rows: list[dict[str, Any]] = []
    for text, part in parts.items():
        # Two at a time: of many in a row, those at the ends would find the caches as they left them more often.
        seconds = in_turns({"none": bare.run, text: part.run}, turns=turns, clock=time.thread_time)
        low, high = ratio_interval(seconds[text], seconds["none"])
        bare_ms, masked_ms, drawing_ms = median_ms(seconds["none"]), median_ms(seconds[text]), median_ms(drawing[text])
        rows.append(
            {
                "network": name,
                "tensor": tensor,
                "items a request": items,
                "mask": text,
                "Part 1, ms": bare_ms,
                "added, %": (masked_ms / bare_ms - 1) * 100,
                "interval, %": f"{(low - 1) * 100:.1f} to {(high - 1) * 100:.1f}",
                "drawing, ms": drawing_ms,
                "added with drawing, %": ((masked_ms + drawing_ms) / bare_ms - 1) * 100,
                "crosses, KiB": part.crossing_bytes / 1024,
            }
        )
    return rows


def _part(part: graph.Part, inputs: Mapping[str, np.ndarray], items: int) -> _Part:
    proto = onnx.ModelProto()
    proto.CopyFrom(part.proto)
    graph.feed_noise(proto, origin=part.name)
    prelude = graph.take_prelude(proto)
    opened = session(proto.SerializeToString(), threads=1)
    before = None if prelude is None else session(prelude.SerializeToString(), threads=1)
    request = {each.name: inputs[each.name][:items] for each in part.inputs}
    draw = partial(noise_feed(part.name, opened, before, NoiseSource()).draw, {part.batch_symbol or "": items})
    names = [each.name for each in part.outputs]
    return _Part(
        partial(opened.run, names, {**request, **draw()}), draw, items * sum(each.size_bytes for each in part.outputs)
    )
