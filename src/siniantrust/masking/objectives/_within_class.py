"""Features that are the class and little else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from siniantrust.errors import DataError

if TYPE_CHECKING:
    import torch

_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class WithinClass:
    """``weight`` times the share of the features' variance that lies within classes, 0 to 1.

    Features that are the same for all items of a class tell the class and nothing beside it, which is what the answer
    tells anyway. As with every objective, what holds on the items that were learnt from may not hold on others: attacks
    decide.

    Source: the centre loss of Wen, Zhang, Li and Qiao, ECCV 2016, over the total variance, so that the model gains
    nothing by making features small; that inversion turns hard where the radius within classes falls is Liu et al.'s
    finding (the screen ``intra_class_radius``).
    """

    weight: float = 1.0

    def __call__(self, _inputs: torch.Tensor, features: torch.Tensor, labels: torch.Tensor | None, /) -> torch.Tensor:
        """Return the penalty of a batch.

        Raises:
            DataError: if there are no labels.
        """
        if labels is None:
            raise DataError("within_class: there are no labels to tell classes by; add them, or take another penalty")
        from torch.nn import functional

        rows = features.flatten(1)
        members = functional.one_hot(labels).to(rows.dtype)
        centres = (members.T @ rows) / members.sum(0).clamp_min(1)[:, None]
        within = (rows - centres[labels]).square().mean()
        return self.weight * within / (rows - rows.mean(0)).square().mean().clamp_min(_LEAST)
