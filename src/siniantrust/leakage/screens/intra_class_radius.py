"""How far features spread within a class: what is left of an item beside its class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siniantrust.leakage._budget import Budget
from siniantrust.leakage._plateau import plateau
from siniantrust.leakage._registry import Screen, ScreenScore, ScreenView

_MIN_MEMBERS, _MIN_CLASSES = 2, 2


def score(view: ScreenView, budget: Budget, seed: int) -> ScreenScore | None:
    """Return r / (r + b): r the distance to the own class's centre, b that between centres, both root mean squares.

    Features that are the class and nothing else have r = 0 and score 0; a large r says that items of one class still
    differ. The intra-class mean-squared radius, mean over items of ||z - centre of its class||², is what Liu et al.
    find to fall where features turn into decisions, and inversion turns hard; they give no scale on which layers of
    different width compare, so that the ratio to the distance between centres is ours. Both squares are corrected for
    the centres being means of few items: r² by n / (n - 1) for a class of n, b² by what r² adds to it.

    The classes are the items' labels, or where there are none what the model predicts. Raw: ``radius`` and ``between``
    in units of the features' own root-mean-square distance from their mean; ``classes``. Fresh noise spreads within
    classes too: of randomised features this screen says nothing. None if there are neither labels nor a classifier, or
    fewer than two classes with two items each.
    """
    del seed
    count = min(budget.screen_items, len(view.inputs))
    labels = view.labels
    if labels is None:
        if view.classify is None or view.kind != "image":
            return None
        count = min(count, max(1, int(budget.classifier_flops / max(view.classify_flops, 1))))
        labels = view.classify(view.inputs[:count]).argmax(axis=1)
    labels = labels[:count]
    named, sizes = np.unique(labels, return_counts=True)
    named, sizes = named[sizes >= _MIN_MEMBERS], sizes[sizes >= _MIN_MEMBERS]
    if len(named) < _MIN_CLASSES:
        return None
    rows = view.features.flat(slice(0, count)).astype(np.float64)
    centres = np.stack([rows[labels == name].mean(axis=0) for name in named])
    spreads = np.asarray(
        [((rows[labels == name] - centre) ** 2).sum() for name, centre in zip(named, centres, strict=True)]
    )
    radius_squared = float(spreads.sum() / (sizes - 1).sum())
    # The squared distance of two centres is on average twice their variance.
    variance = float(((centres - centres.mean(axis=0)) ** 2).sum()) / (len(named) - 1)
    by_chance = float((spreads / (sizes - 1) / sizes).mean())
    between_squared = 2 * max(variance - by_chance, 0.0)
    total = float(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
    if total == 0:
        return ScreenScore(score=0.0, raw={"radius": 0.0, "between": 0.0, "classes": float(len(named))})
    radius, between = (radius_squared / total) ** 0.5, (between_squared / total) ** 0.5
    raw = {"radius": radius, "between": between, "classes": float(len(named))}
    return ScreenScore(score=radius / (radius + between), raw=raw)


def pick(scores: Sequence[ScreenScore]) -> int | None:
    """Return where the radius has reached its plateau."""
    return plateau([entry.score for entry in scores])


SCREEN = Screen(
    title="Intra-class radius (feature-to-decision transition)",
    source=(
        "Liu, Zhu, Zhou, Zhang and Wang, Partitioning for Intrinsic Model Inversion Resistance in Collaborative "
        "Inference (Golden Partition Zone), arXiv 2506.15412; the ratio to the distance between classes is ours"
    ),
    cost="a tenth of a second at a cut; without labels, one run of the classifier over the items",
    score=score,
    pick=pick,
)
