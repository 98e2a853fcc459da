"""Noise on what an edge sends in split learning, from a cryptographic generator, and what it amounts to.

Every item's row is scaled to a norm of at most ``clip``, then Gaussian noise of ``noise * clip`` is added to each
number: the Gaussian mechanism (Dwork and Roth 2014, appendix A) on a single item, without trust in anybody beyond the
edge. Two items' rows differ by at most twice the clip.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from siniantrust._extras import require
from siniantrust._files import write_atomic
from siniantrust.collab._config import PrivacySection

_KEY_FILE = "noise.key"
_SECRET_BYTES = 32


class Noise:
    """Draws normal numbers that only this edge can know, and the same ones only for the same values.

    A step that is repeated after a crash so sends the same values again, not a second draw to average with. One that is
    repeated with other weights, as after an edge was left out, gets other noise: else the difference would have none.

    Args:
        folder: the edge's folder; its secret is kept there.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / _KEY_FILE
        if not path.exists():
            write_atomic(path, os.urandom(_SECRET_BYTES), mode=0o600)
        self._secret = path.read_bytes()

    def normal(self, values: torch.Tensor, purpose: str, step: int) -> torch.Tensor:
        """Return standard normal numbers to add to ``values``, float32, in their shape.

        AES-256 in counter mode, turned by Box and Muller (1958).
        """
        count = values.numel()
        content = hashlib.sha256(values.detach().contiguous().numpy().tobytes()).hexdigest()
        key = hmac.new(self._secret, f"{purpose} {step} {content}".encode(), hashlib.sha256).digest()
        pairs = (count + 1) // 2
        stream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(16 * pairs))
        bits = np.frombuffer(stream, dtype="<u8") >> np.uint64(11)
        # In (0, 1]: the logarithm of 0 is none.
        uniform = (bits.astype(np.float64) + 1) * 2.0**-53
        radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
        drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return torch.from_numpy(drawn.astype(np.float32)).reshape(values.shape)


def clipped(values: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Return ``values`` with each item's row scaled to an L2 norm of at most ``clip``; differentiable."""
    if clip is None:
        return values
    norms = values.flatten(1).norm(dim=1).clamp_min(1e-12)
    scale = (clip / norms).clamp_max(1.0)
    found: torch.Tensor = values * scale.reshape(-1, *[1] * (values.dim() - 1))
    return found


def epsilons(section: PrivacySection, *, passes: int) -> dict[str, float]:
    """Return the epsilon of one item's rows, for one step and for all its steps together, at ``section.delta``.

    The bound is for the activations and gradients that leave in steps. It is not for what is averaged of the edges'
    parts, which follows from the items too, nor for labels that are sent to the cloud as they are.

    Args:
        section: what noise there is.
        passes: how often an item takes part in a step, at most.

    Raises:
        MissingExtraError: if there is noise to account for and dp-accounting is not installed.
    """
    multipliers = [noise / 2 for noise in (section.noise, section.gradient_noise) if noise]
    if not multipliers:
        return {}
    events = require("dp_accounting", extra="collab")
    rdp = require("dp_accounting.rdp", extra="collab")
    found = {}
    for name, times in (("one_step", 1), ("all_steps", passes)):
        accountant = rdp.RdpAccountant()
        for multiplier in multipliers:
            accountant.compose(events.GaussianDpEvent(multiplier), times)
        found[name] = float(accountant.get_epsilon(section.delta))
    return found
