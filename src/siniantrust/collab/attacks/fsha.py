"""The feature-space hijacking attack: the cloud trains the edge's Part 1 into an encoder that the cloud can invert."""

from __future__ import annotations

import torch
from torch import nn

from siniantrust.collab._trained_part import seed_of

_BATCH = 64
_LEARNING_RATE = 1e-3
_PENALTY = 10.0


class HijackingCloud:
    """A cloud that plays its part in the protocol, and sends gradients of its own making.

    On images of its own it trains a pilot (image to feature space), an inverse of the pilot, and a critic that tells
    the pilot's features from the edge's (Wasserstein distance with gradient penalty). The gradients that the edge gets
    make its features look like the pilot's to the critic; when they do, the inverse works on them.

    Source: Pasquini, Ateniese and Bernaschi, "Unleashing the Tiger: Inference Attacks on Split Learning", CCS 2021.

    Args:
        public: images of the same kind as the edge's, float32 (items, channels, height, width), height even.
        features: shape of one item's features (channels, height, width), where height divides the images' height.
        seed: of everything random.
    """

    def __init__(self, public: torch.Tensor, features: tuple[int, int, int], *, seed: int) -> None:
        torch.manual_seed(seed)
        self._public = public
        self._seed = seed
        self._step = 0
        stride = public.shape[2] // features[1]
        self._pilot = nn.Sequential(
            nn.Conv2d(public.shape[1], 32, 3, stride, 1), nn.ReLU(), nn.Conv2d(32, features[0], 3, 1, 1), nn.ReLU()
        )
        self._inverse = nn.Sequential(
            nn.Conv2d(features[0], 64, 3, 1, 1),
            nn.ReLU(),
            nn.Upsample(scale_factor=stride),
            nn.Conv2d(64, 32, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(32, public.shape[1], 3, 1, 1),
            nn.Sigmoid(),
        )
        self._critic = nn.Sequential(
            nn.Conv2d(features[0], 32, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.LazyLinear(1),
        )
        self._critic(torch.zeros(1, *features))
        own = [*self._pilot.parameters(), *self._inverse.parameters()]
        self._own_optimiser = torch.optim.Adam(own, _LEARNING_RATE)
        self._critic_optimiser = torch.optim.Adam(self._critic.parameters(), _LEARNING_RATE, betas=(0.5, 0.9))

    def gradient(self, features: torch.Tensor) -> torch.Tensor:
        """Return what an edge gets for its features, after a step of all that the cloud trains for itself."""
        self._step += 1
        generator = torch.Generator().manual_seed(seed_of(self._seed, self._step))
        images = self._public[torch.randint(len(self._public), (_BATCH,), generator=generator)]
        piloted = self._pilot(images)
        self._own_optimiser.zero_grad()
        nn.functional.mse_loss(self._inverse(piloted), images).backward()  # type: ignore[no-untyped-call]
        self._own_optimiser.step()
        self._learn_to_tell(piloted.detach(), features.detach(), generator)
        wanted = features.detach().requires_grad_()
        self._critic(wanted).mean().neg().backward()
        assert wanted.grad is not None  # noqa: S101 - the critic depends on it
        return wanted.grad

    def invert(self, features: torch.Tensor) -> torch.Tensor:
        """Return the images that the cloud makes of an edge's features."""
        with torch.no_grad():
            images: torch.Tensor = self._inverse(features)
        return images

    def _learn_to_tell(self, piloted: torch.Tensor, features: torch.Tensor, generator: torch.Generator) -> None:
        count = min(len(piloted), len(features))
        piloted, features = piloted[:count], features[:count]
        share = torch.rand(count, 1, 1, 1, generator=generator)
        between = (share * piloted + (1 - share) * features).requires_grad_()
        (slope,) = torch.autograd.grad(self._critic(between).sum(), between, create_graph=True)
        penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        loss = self._critic(features).mean() - self._critic(piloted).mean() + _PENALTY * penalty
        self._critic_optimiser.zero_grad()
        loss.backward()
        self._critic_optimiser.step()
