"""Torch on whichever device computes by default: the processor, or a GPU where the audit found one."""

from __future__ import annotations

import numpy as np
import torch


def generator(seed: int) -> torch.Generator:
    """Return a source of random numbers on the default device."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def tensor(values: np.ndarray) -> torch.Tensor:
    """Return ``values`` on the default device; shared with the array where that is the processor and it is writable."""
    contiguous = np.require(values, requirements=("C", "W"))
    return torch.as_tensor(contiguous, device=torch.get_default_device())


def array(values: torch.Tensor) -> np.ndarray:
    """Return ``values`` as an array, without their gradient."""
    found: np.ndarray = values.detach().cpu().numpy()
    return found
