"""What a screen and an attack are, and how they are found: one file each in ``screens`` and ``attacks``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from siniantrust.errors import AuditError
from siniantrust.leakage._budget import Budget
from siniantrust.leakage._features import FeatureSet
from siniantrust.leakage._targets import Kind

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")

Classifier = Callable[[np.ndarray], np.ndarray]
"""Images (N, channels, height, width) in unit scale to class probabilities (N, classes)."""


class InapplicableError(Exception):
    """An attack cannot be mounted on this problem; the message says what it lacks."""


class WhiteBox(Protocol):
    """The network on both sides of a cut as an attacker knows it: differentiable, in torch, one for each cut."""

    def features(self, targets: torch.Tensor) -> list[torch.Tensor]:
        """Return what leaves the trusted side for ``targets`` (N, *target shape) in unit scale.

        One tensor (N, *shape) for each of the cut's tensors, in the form in which the problem's feature sets keep
        them. Differentiable with respect to ``targets``.
        """

    def outputs(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return the model's first output (N, ...) for features in that form, as the untrusted side computes it.

        Raises:
            InapplicableError: if the features were reduced to be kept, so that the model cannot go on from them.
        """


@dataclass(frozen=True, slots=True)
class Problem:
    """What an attacker at one cut has: features with their inputs to learn from, and features to invert.

    Targets are float32 (N, *shape) in unit scale: 0 and 1 are the smallest and largest value of the attacker's data.
    The held-out inputs are not here; no attack can see them. ``memo`` keeps what several attacks compute alike, and
    ``whole`` is the problem that this one is half of. ``white_box`` makes the network itself, for attacks that know it.
    ``attacker_labels`` (N,) are the classes of the model's task, where the data name them. ``attacker_attribute`` and
    ``validation_attribute`` (N,) hold a private label of those items, where there is one, and ``attacker_transcript``
    and ``validation_transcript`` (N,) their text. Token targets are integers (N, length).
    """

    kind: Kind
    attacker: FeatureSet
    attacker_targets: np.ndarray = field(repr=False)
    validation: FeatureSet
    validation_targets: np.ndarray = field(repr=False)
    heldout: FeatureSet
    whole: Problem | None = field(default=None, repr=False)
    attacker_labels: np.ndarray | None = field(default=None, repr=False)
    attacker_attribute: np.ndarray | None = field(default=None, repr=False)
    validation_attribute: np.ndarray | None = field(default=None, repr=False)
    attacker_transcript: np.ndarray | None = field(default=None, repr=False)
    validation_transcript: np.ndarray | None = field(default=None, repr=False)
    white_box: Callable[[], WhiteBox] | None = field(default=None, repr=False)
    memo: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    def first(self, count: int) -> Problem:
        """Return the problem of an attacker who has only the first ``count`` items to learn from."""
        labels, attribute, texts = self.attacker_labels, self.attacker_attribute, self.attacker_transcript
        return replace(
            self,
            attacker=self.attacker.head(count),
            attacker_targets=self.attacker_targets[:count],
            attacker_labels=None if labels is None else labels[:count],
            attacker_attribute=None if attribute is None else attribute[:count],
            attacker_transcript=None if texts is None else texts[:count],
            whole=None,
            memo={},
        )

    def half(self) -> Problem:
        """Return the problem of an attacker with the first half of the data, who may look at what this one computed."""
        return replace(self.first((len(self.attacker_targets) + 1) // 2), whole=self)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """An attack's answer: (items, *target shape) float32 in unit scale (tokens: integers), and how it got there.

    ``items`` may be fewer than the held-out ones: the first of them, where each takes an optimisation of its own.
    ``stopped`` says that the time ran out before the training that the budget allows was done.
    """

    heldout: np.ndarray = field(repr=False)
    detail: str
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Guess:
    """The answer of an attack on a private label: (held-out items,) the labels it guesses, and how it got there."""

    attribute: np.ndarray = field(repr=False)
    detail: str
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Transcription:
    """The answer of an attack on what is said or written: a text for each held-out item, and how it got there."""

    texts: tuple[str, ...] = field(repr=False)
    detail: str
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Identification:
    """The answer of an attack that picks the input from a list of candidates.

    A candidate's place is ``matrix`` (k, numbers per target) times the flattened candidate less ``centre``; ``answers``
    (held-out items, k) is where the inputs should lie. Nearest by distance, or by angle with ``cosine``.
    """

    answers: np.ndarray = field(repr=False)
    matrix: np.ndarray = field(repr=False)
    centre: np.ndarray = field(repr=False)
    cosine: bool
    detail: str


Answer = Reconstruction | Guess | Transcription | Identification


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack: ``run(problem, budget, seed)`` reconstructs the held-out inputs from their features.

    ``run`` raises ``InapplicableError`` where the attack cannot be mounted. The same seed gives the same answer.

    Attributes:
        title: what to call it in a report.
        source: the paper it comes from.
        knowledge: its threat model in words: what it knows and has.
        cost: what it takes, for how much data.
        run: the attack.
        kinds: the kinds of data that it reconstructs; at others it is not run.
        trained: whether it trains a network; then it is run at two widths as well as on two amounts of data.
        varies: whether its answer depends on the seed; if not, one run is enough.
        weight: about how long it takes beside the others; the suite begins with the cheap ones.
    """

    title: str
    source: str
    knowledge: str
    cost: str
    run: Callable[[Problem, Budget, int], Answer]
    kinds: tuple[Kind, ...] = ("image", "array")
    trained: bool = False
    varies: bool = True
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ScreenView:
    """What a screen at one cut looks at: the same items as features and as inputs (float32, unit scale).

    ``classify`` is the audited model as a classifier of images, or None where it is none; ``classify_flops`` is what
    it costs per image. ``white_box`` is as in a problem; ``labels`` (N,) are the items' classes, where they are known.
    """

    kind: Kind
    features: FeatureSet
    inputs: np.ndarray = field(repr=False)
    classify: Classifier | None
    classify_flops: int
    white_box: Callable[[], WhiteBox] | None = field(default=None, repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ScreenScore:
    """A screen's score, more for more leakage, and its own figures as its source defines them."""

    score: float
    raw: dict[str, float]


@dataclass(frozen=True, slots=True)
class Screen:
    """A screen: ``score`` returns None where it does not apply; ``pick`` is its own rule for the earliest safe cut.

    ``cost`` says what it takes. ``pick`` gets the scores of the cuts in topological order; it returns an index or None.
    """

    title: str
    source: str
    cost: str
    score: Callable[[ScreenView, Budget, int], ScreenScore | None]
    pick: Callable[[Sequence[ScreenScore]], int | None]


def list_attacks(names: Sequence[str] | None = None) -> dict[str, Attack]:
    """Return the attacks by name, or only those in ``names``, in that order.

    Raises:
        AuditError: if a name is unknown.
    """
    return _select(_found("attacks", "ATTACK", Attack), names, "attack")


def list_screens(names: Sequence[str] | None = None) -> dict[str, Screen]:
    """Return the screens by name, or only those in ``names``, in that order.

    Raises:
        AuditError: if a name is unknown.
    """
    return _select(_found("screens", "SCREEN", Screen), names, "screen")


def _found(folder: str, attribute: str, kind: type[_T]) -> dict[str, _T]:
    package = importlib.import_module(f"siniantrust.leakage.{folder}")
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))
    found = {}
    for name in names:
        plug_in = getattr(importlib.import_module(f"{package.__name__}.{name}"), attribute, None)
        if not isinstance(plug_in, kind):
            raise TypeError(f"{package.__name__}.{name} must define {attribute}, a {kind.__name__}")
        found[name] = plug_in
    return found


def _select(found: Mapping[str, _T], names: Sequence[str] | None, what: str) -> dict[str, _T]:
    if names is None:
        return dict(found)
    if unknown := [name for name in names if name not in found]:
        raise AuditError(f"{what} {unknown[0]!r} is unknown; there are {', '.join(found)}")
    return {name: found[name] for name in names}
