"""The network around one cut as an attacker knows it who has the model's file: differentiable, on both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from siniantrust.errors import SinianError
from siniantrust.graph import Cut, Model, Tensor
from siniantrust.leakage._encode import Encoder
from siniantrust.leakage._observe import item_shape
from siniantrust.leakage._registry import InapplicableError, WhiteBox
from siniantrust.odla.torch_graph import TorchGraph

if TYPE_CHECKING:
    import torch

_FLOATS = ("float16", "float32", "float64")
# As the encoder clips what half floats cannot hold.
_HALF_MAX = 60_000.0


def white_box(
    model: Model,
    cut: Cut,
    input_name: str,
    encoders: Sequence[Encoder],
    *,
    low: float,
    high: float,
    shrink: int = 1,
) -> WhiteBox:
    """Return the network on both sides of ``cut``; its tensors lie on torch's default device.

    Args:
        model: The audited model.
        cut: Where it is cut.
        input_name: The private input, whose items the targets show.
        encoders: How each of the cut's tensors is kept, in the cut's order.
        low: The input's value that is 0 in the targets.
        high: The input's value that is 1 in the targets.
        shrink: By how much images were averaged down to targets; they are enlarged by repeating pixels.

    Raises:
        InapplicableError: if the model has other inputs, the input is no quantity, or an operator before the cut is
            one that PyTorch cannot run here.
    """
    tensors = {tensor.name: tensor for tensor in model.inputs}
    if len(tensors) > 1:
        others = ", ".join(f"'{name}'" for name in tensors if name != input_name)
        raise InapplicableError(f"the model has other inputs ({others}), which a white-box attack does not have")
    private = tensors[input_name]
    if private.dtype not in (*_FLOATS, "uint8"):
        raise InapplicableError(f"input '{input_name}' is {private.dtype}, which has no gradient")
    graph = TorchGraph(model.proto)
    _require(graph, [input_name], cut.tensors)
    return _Network(
        graph=graph,
        model=model,
        private=private,
        item=item_shape(model, input_name),
        tensors=tuple(model.tensors[name] for name in cut.tensors),
        codecs=tuple(_Codec.of(encoder) for encoder in encoders),
        low=low,
        high=high,
        shrink=shrink,
    )


@dataclass(frozen=True, slots=True)
class _Codec:
    """An encoder in torch, differentiable, without the rounding to half floats."""

    encoder: Encoder
    mean: torch.Tensor = field(repr=False)
    scale: torch.Tensor = field(repr=False)
    components: torch.Tensor | None = field(repr=False)
    order: torch.Tensor | None = field(repr=False)
    signs: torch.Tensor | None = field(repr=False)

    @classmethod
    def of(cls, encoder: Encoder) -> _Codec:
        from siniantrust.leakage._torch import tensor

        sketch = encoder.sketch
        return cls(
            encoder=encoder,
            mean=tensor(encoder.mean),
            scale=tensor(encoder.scale),
            components=None if encoder.components is None else tensor(encoder.components),
            order=None if sketch is None else tensor(sketch.order.astype(np.int64)),
            signs=None if sketch is None else tensor(sketch.signs),
        )

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """Return the kept form (N, *shape) of ``values`` (N, *item shape)."""
        from torch.nn import functional

        # A tensor of one number per item is kept as a vector of one.
        shaped = values.reshape(len(values), 1) if values.ndim == 1 else values
        kept = (shaped.float() - self.mean) / self.scale
        if self.components is not None:
            maps = functional.pixel_unshuffle(kept, self.encoder.block) if self.encoder.block > 1 else kept
            kept = self.components @ maps.flatten(2)
        elif self.encoder.sketch is not None and self.order is not None and self.signs is not None:
            width = self.encoder.sketch.width
            mixed = kept.flatten(1)[:, self.order] * self.signs
            mixed = functional.pad(mixed, (0, -mixed.shape[1] % width))
            kept = mixed.reshape(len(mixed), -1, width).sum(dim=1)
        return kept.clamp(-_HALF_MAX, _HALF_MAX).reshape(len(values), *self.encoder.shape)

    def decode(self, kept: torch.Tensor) -> torch.Tensor:
        """Undo the affine map.

        Raises:
            InapplicableError: if the tensor was reduced.
        """
        if self.encoder.reduced:
            shape = "x".join(map(str, self.encoder.shape))
            raise InapplicableError(f"a tensor was kept as {shape} numbers only, from which the model cannot go on")
        return kept * self.scale + self.mean


@dataclass(frozen=True, slots=True)
class _Network:
    """See ``WhiteBox``. A model with a fixed batch of one runs item by item."""

    graph: TorchGraph
    model: Model
    private: Tensor
    item: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    codecs: tuple[_Codec, ...]
    low: float
    high: float
    shrink: int

    def features(self, targets: torch.Tensor) -> list[torch.Tensor]:
        """Return what leaves the trusted side for ``targets``; see ``WhiteBox``."""
        inputs = self._enlarged(targets) * (self.high - self.low) + self.low
        names = [tensor.name for tensor in self.tensors]

        def before(batch: torch.Tensor) -> list[torch.Tensor]:
            given = self._to_model(self.private, batch)
            found = _run(self.graph, {self.private.name: given}, names)
            return [self._to_items(tensor, found[tensor.name], len(batch)) for tensor in self.tensors]

        values = self._batched(lambda batches: before(batches[0]), [inputs])
        return [codec.encode(value) for codec, value in zip(self.codecs, values, strict=True)]

    def outputs(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return the model's first output for ``features``; see ``WhiteBox``."""
        values = [codec.decode(kept) for codec, kept in zip(self.codecs, features, strict=True)]
        last = self.model.outputs[0]
        _require(self.graph, [tensor.name for tensor in self.tensors], [last.name])

        def after(batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            given = {
                tensor.name: self._to_model(tensor, batch) for tensor, batch in zip(self.tensors, batches, strict=True)
            }
            return [self._to_items(last, _run(self.graph, given, [last.name])[last.name], len(batches[0]))]

        (answer,) = self._batched(after, values)
        return answer

    def _batched(
        self, work: Callable[[Sequence[torch.Tensor]], list[torch.Tensor]], values: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return ``work(values)``, of a model with a fixed batch for one item after the other."""
        import torch

        if self.model.batch_symbol is not None:
            return work(values)
        pieces = [work([value[row : row + 1] for value in values]) for row in range(len(values[0]))]
        return [torch.cat(parts) for parts in zip(*pieces, strict=True)]

    def _enlarged(self, targets: torch.Tensor) -> torch.Tensor:
        """Return targets (N, *target shape) at the size of the model's input."""
        from torch.nn import functional

        if self.shrink == 1:
            return targets
        large = targets.repeat_interleave(self.shrink, dim=2).repeat_interleave(self.shrink, dim=3)
        # What was left out at the edges because it filled no block.
        right, below = self.item[2] - large.shape[3], self.item[1] - large.shape[2]
        return functional.pad(large, (0, right, 0, below), mode="replicate")

    def _to_model(self, tensor: Tensor, values: torch.Tensor) -> torch.Tensor:
        """Give values (items, *item shape) the axes and the type that they have in the model."""
        from siniantrust.odla.torch_graph import torch_dtype

        # A uint8 input stays floating: rounding would stop the gradient.
        typed = values if tensor.dtype == "uint8" else values.to(torch_dtype(tensor.dtype))
        if self.model.batch_symbol is None:
            return typed.reshape(tensor.shape)
        if tensor.batch_axis is None:
            return typed[0].reshape(tensor.shape)
        rest = [size for axis, size in enumerate(tensor.shape) if axis != tensor.batch_axis]
        return typed.reshape(-1, *rest).movedim(0, tensor.batch_axis)

    def _to_items(self, tensor: Tensor, value: torch.Tensor, items: int) -> torch.Tensor:
        """Move the items of a tensor as it is in the model to its first axis, as ``Observer`` does."""
        if self.model.batch_symbol is None:
            has_axis = tensor.batch_axis == 0 or bool(tensor.shape and tensor.shape[0] == 1)
            return value if has_axis else value[None]
        if tensor.batch_axis is None:
            return value.expand(items, *value.shape)
        moved = value.movedim(tensor.batch_axis, 0)
        return moved if len(moved) == items else moved.reshape(items, len(moved) // items, *moved.shape[1:])


def _require(graph: TorchGraph, given: Sequence[str], wanted: Sequence[str]) -> None:
    try:
        refused = graph.supports(given, wanted)
    except SinianError as error:
        raise InapplicableError(str(error)) from error
    if refused:
        first = refused[0]
        raise InapplicableError(f"node '{first.node}' ({first.op_type}) has no gradient here: {first.reason}")


def _run(graph: TorchGraph, given: Mapping[str, torch.Tensor], wanted: Sequence[str]) -> dict[str, torch.Tensor]:
    try:
        return graph.run(given, wanted)
    except SinianError as error:
        raise InapplicableError(str(error)) from error
