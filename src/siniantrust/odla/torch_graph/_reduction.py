"""Reductions over axes, and softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch

from siniantrust.odla.torch_graph._table import Call, operator
from siniantrust.odla.torch_graph._types import integers

_PER_AXIS = 13


def _product(values: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:  # noqa: FBT001 - as torch's
    for axis in sorted((axis % values.ndim for axis in axes), reverse=True):
        values = values.prod(dim=axis, keepdim=keep)
    return values


_Reduce = Callable[[torch.Tensor, tuple[int, ...], bool], torch.Tensor]
_REDUCTIONS: dict[str, _Reduce] = {
    "ReduceL1": lambda values, axes, keep: values.abs().sum(axes, keep),
    "ReduceL2": lambda values, axes, keep: torch.linalg.vector_norm(values, 2, axes, keep),
    "ReduceLogSum": lambda values, axes, keep: values.sum(axes, keep).log(),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceSum": torch.sum,
    "ReduceSumSquare": lambda values, axes, keep: values.square().sum(axes, keep),
}


def _reduction(reduce: _Reduce) -> Callable[..., torch.Tensor]:
    def run(call: Call, values: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        chosen = call.get("axes", []) if axes is None else integers(axes)
        if not chosen and call.get("noop_with_empty_axes", 0):
            return values
        answer = reduce(values, tuple(chosen) or tuple(range(values.ndim)), bool(call.get("keepdims", 1)))
        # Torch adds integers in 64 bits.
        return answer.to(values.dtype)

    return run


for _name, _reduce in _REDUCTIONS.items():
    operator(_name, attributes="axes keepdims noop_with_empty_axes")(_reduction(_reduce))


@operator("Softmax", attributes="axis")
def softmax(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Normalise exponentials along one axis; before opset 13 over all axes from ``axis`` on."""
    return _along(call, values, torch.softmax)


@operator("LogSoftmax", attributes="axis")
def log_softmax(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the softmax."""
    return _along(call, values, torch.log_softmax)


@operator("CumSum", attributes="exclusive reverse")
def running_sum(call: Call, values: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    """Add up along an axis, from either end, with or without the element itself."""
    along = int(axis.item())
    turned = values.flip(along) if call.get("reverse", 0) else values
    sums = turned.cumsum(along, dtype=values.dtype)
    if call.get("exclusive", 0):
        sums = sums - turned
    return sums.flip(along) if call.get("reverse", 0) else sums


def _along(call: Call, values: torch.Tensor, function: Callable[[torch.Tensor, int], torch.Tensor]) -> torch.Tensor:
    if call.opset >= _PER_AXIS:
        return function(values, call.get("axis", -1))
    axis = call.get("axis", 1) % values.ndim
    return function(values.flatten(axis), axis).reshape(values.shape)
