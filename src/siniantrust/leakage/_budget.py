"""How much work the audit may do: a stronger attacker costs more time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of one audit. More of any of them makes the attacker stronger and the audit slower.

    Attributes:
        attacker_items: most items the attacker learns from; mirror images fill up where images are fewer.
        heldout_items: most items that leakage is measured on; they are also the gallery of the re-identification.
        kernel_features: width that wider features are sketched to before kernel regression.
        patch_rows: feature neighbourhoods that the local regression is fitted on.
        steps: gradient steps of a trained decoder.
        batch_items: items per gradient step.
        width: channels of a trained decoder.
        attack_time_s: time after which a training stops early, within one attack at one cut.
        tolerance: gain of a leakage metric, from half the budget to all of it, above which an attack is not converged.
        screen_items: items that a screen looks at.
        discriminator_steps: gradient steps of the discriminator that tells feature maps from inputs.
        classifier_flops: most floating-point operations that one screen at one cut may spend in a classifier.
        max_side: images are averaged down to at most this side before they are attacked.
        feature_elements: most numbers per item that are kept of one tensor.
        memory_bytes: features beyond this lie on disk; cuts are attacked at the same time as far as they fit in it.
        seeds: runs of every attack with other random numbers.
        max_doublings: how often data, training and width may double while an attack still gains by it.
        optimised_items: held-out items that attacks invert which optimise each item by itself.
        optimisation_steps: gradient steps of such an attack.
        max_weight: attacks that are dearer are left out, unless asked for by name; None for the whole suite.
        repeats: times that an attacker asks for the same item where what crosses the cut is random.
        threads: threads of the computation; None for every core the process may use.
    """

    attacker_items: int = 3600
    heldout_items: int = 1000
    kernel_features: int = 4096
    patch_rows: int = 25_000
    steps: int = 48
    batch_items: int = 32
    width: int = 24
    attack_time_s: float = 60.0
    tolerance: float = 0.05
    screen_items: int = 400
    discriminator_steps: int = 50
    classifier_flops: float = 2e10
    max_side: int = 64
    feature_elements: int = 65_536
    memory_bytes: int = 2 << 30
    seeds: int = 3
    max_doublings: int = 0
    optimised_items: int = 24
    optimisation_steps: int = 40
    repeats: int = 16
    max_weight: float | None = 2.5
    threads: int | None = None

    @classmethod
    def preset(cls, name: Literal["quick", "standard"]) -> Budget:
        """Return a named budget: ``quick`` for a first look and the demo, ``standard`` for a decision that lasts."""
        if name == "quick":
            return cls()
        return cls(
            attacker_items=6000,
            kernel_features=8192,
            patch_rows=100_000,
            steps=150,
            width=32,
            attack_time_s=300.0,
            tolerance=0.03,
            screen_items=800,
            discriminator_steps=300,
            classifier_flops=1e11,
            memory_bytes=8 << 30,
            max_doublings=2,
            optimised_items=64,
            optimisation_steps=120,
            max_weight=None,
        )

    def half(self) -> Budget:
        """Return the budget with half the training, which the convergence check compares with."""
        return replace(
            self,
            steps=max(1, self.steps // 2),
            patch_rows=max(1, self.patch_rows // 2),
            optimisation_steps=max(1, self.optimisation_steps // 2),
        )

    def narrow(self) -> Budget:
        """Return the budget for networks of half the width, which the convergence check compares with."""
        return replace(self, width=max(1, self.width // 2))

    def doubled(self, *, data: bool, width: bool) -> Budget:
        """Return the budget with twice the data and training, or twice the width, or both."""
        twice = self
        if data:
            twice = replace(
                twice,
                attacker_items=2 * twice.attacker_items,
                steps=2 * twice.steps,
                patch_rows=2 * twice.patch_rows,
                optimisation_steps=2 * twice.optimisation_steps,
            )
        if width:
            twice = replace(twice, width=2 * twice.width)
        return twice
