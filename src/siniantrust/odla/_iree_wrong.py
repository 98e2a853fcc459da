"""Nodes that IREE compiles without complaint and computes wrongly, found by the conformance table."""

from __future__ import annotations

from collections.abc import Mapping

from siniantrust.odla._wrong_nodes import (
    Rule,
    Rules,
    Seen,
    aligns_corners,
    always,
    has_peepholes,
    reorders_channels,
    shifts_signed,
)

_WEIGHTS = 2
_MATRIX = 2
_EUCLIDEAN = 2


def _rounds_up_dilated(seen: Seen) -> bool:
    return (
        any(step > 1 for step in seen.attributes.get("dilations", ()))
        and bool(seen.attributes.get("ceil_mode", 0))
        and bool(seen.attributes.get("count_include_pad", 0))
    )


def _euclidean(seen: Seen) -> bool:
    return bool(seen.attributes.get("p", _EUCLIDEAN) == _EUCLIDEAN)


def _batched(seen: Seen) -> bool:
    return seen.rank_of(0) != _MATRIX


def _across(seen: Seen) -> bool:
    axis, rank = seen.attributes.get("axis", -1), seen.rank_of(0)
    return bool(axis != -1 and (rank is None or axis != rank - 1))


def _weighted_mean(seen: Seen) -> bool:
    return bool(seen.attributes.get("reduction", b"mean") == b"mean") and seen.has_input(_WEIGHTS)


_RULES: Mapping[str, tuple[Rule, ...]] = {
    "AveragePool": ((_rounds_up_dilated, "IREE counts padding that dilated windows do not reach"),),
    "BitShift": ((shifts_signed, "IREE shifts signed integers, and beyond their width, in another way"),),
    "Det": ((always, "IREE computes determinants that are off"),),
    "GridSample": ((lambda seen: seen.attributes.get("mode") == b"nearest", "IREE rounds half in another way"),),
    "LSTM": ((has_peepholes, "IREE leaves the peepholes out"),),
    "LpNormalization": ((_euclidean, "IREE divides by a norm of zero"),),
    "QLinearMatMul": ((_batched, "IREE is off where there are more than two dimensions"),),
    "Resize": ((aligns_corners, "IREE measures the corners in the rounded output size"),),
    "SoftmaxCrossEntropyLoss": ((_weighted_mean, "IREE returns NaN for the mean by weights"),),
    "SpaceToDepth": ((reorders_channels, "IREE ignores the order of the channels"),),
}

# Seen on Mesa's lavapipe (llvmpipe of Mesa 22.3); other Vulkan devices may compute these rightly, and nobody looked.
_VULKAN: Mapping[str, tuple[Rule, ...]] = {
    "ArgMax": ((always, "IREE on Vulkan finds another place"),),
    "DynamicQuantizeLinear": ((always, "IREE on Vulkan is off in 8 bits"),),
    "IsNaN": ((always, "IREE on Vulkan takes NaN for a number"),),
    "LogSoftmax": ((_across, "IREE on Vulkan is off along another axis than the last"),),
    "MatMulInteger": ((always, "IREE on Vulkan is off in 8 bits"),),
    "QuantizeLinear": ((always, "IREE on Vulkan is off in 8 bits"),),
    "ReverseSequence": ((always, "IREE on Vulkan loses the device"),),
    "Softmax": ((_across, "IREE on Vulkan is off along another axis than the last"),),
}


def rules_of(backend: str) -> Rules:
    """Return the rules for what IREE compiles for ``backend``: llvm-cpu or vulkan."""
    return {**_RULES, **_VULKAN} if backend == "vulkan" else _RULES
