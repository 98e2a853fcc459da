"""Adversarial training: the model against inverters that are trained against it at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

_RATE = 1e-3


class Adversarial:
    """``weight`` times the share of the inputs' variance that the best of several inverters explains, 0 to 1.

    Before each step of the model every inverter takes ``inner_steps`` of its own (Adam) towards the inputs: a min-max
    game. The penalty ends at 0, where no inverter is better than the mean, so that the model gains nothing by blowing
    features up. What holds against these inverters may fall to others: attacks decide.

    Source: Xiao et al., Adversarial Learning of Privacy-Preserving and Task-Oriented Representations, AAAI 2020; with
    several adversaries as here, Li et al., DeepObfuscator, IoTDI 2021.
    """

    def __init__(self, weight: float = 1.0, *, inner_steps: int = 1) -> None:
        self._weight = weight
        self._inner_steps = inner_steps
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._inverters: list[nn.Module] = []
        self._optimisers: list[torch.optim.Optimizer] = []

    def __call__(self, inputs: torch.Tensor, features: torch.Tensor, _labels: torch.Tensor | None, /) -> torch.Tensor:
        """Return the penalty of a batch; inverters do not learn from it."""
        import torch

        from siniantrust.masking.objectives._inverters import explained

        self._make(inputs, features)
        shares = [explained(inverter(features.to(inputs.dtype)), inputs) for inverter in self._inverters]
        return self._weight * torch.stack(shares).max().clamp_min(0)

    def inner_step(self, inputs: torch.Tensor, features: torch.Tensor, _labels: torch.Tensor | None, /) -> None:
        """Let every inverter learn from one batch."""
        import torch

        self._make(inputs, features)
        for inverter, optimiser in zip(self._inverters, self._optimisers, strict=True):
            for _ in range(self._inner_steps):
                optimiser.zero_grad()
                loss = (inverter(features.to(inputs.dtype)) - inputs).square().mean()
                torch.autograd.backward(loss)
                optimiser.step()

    def state_dict(self) -> Mapping[str, Any]:
        """Return inverters and optimisers, with the shapes that they are for."""
        return {
            "shapes": self._shapes,
            "inverters": [inverter.state_dict() for inverter in self._inverters],
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over what ``state_dict`` returned."""
        if state["shapes"] is None:
            return
        feature_shape, input_shape = (tuple(each) for each in state["shapes"])
        device = next(iter(state["inverters"][0].values())).device
        self._build(feature_shape, input_shape, device)
        for inverter, values in zip(self._inverters, state["inverters"], strict=True):
            inverter.load_state_dict(values)
        for optimiser, values in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)

    def _make(self, inputs: torch.Tensor, features: torch.Tensor) -> None:
        if self._shapes is None:
            self._build(tuple(features.shape[1:]), tuple(inputs.shape[1:]), inputs.device)

    def _build(self, feature_shape: tuple[int, ...], input_shape: tuple[int, ...], device: torch.device) -> None:
        import torch

        from siniantrust.masking.objectives._inverters import make_inverters

        self._shapes = (feature_shape, input_shape)
        self._inverters = [each.to(device) for each in make_inverters(feature_shape, input_shape)]
        self._optimisers = [torch.optim.Adam(each.parameters(), _RATE) for each in self._inverters]
