"""The passes of exact masks in numpy, compiled from C, and, where it is installed, compiled by numba."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from results_file import Outcome
from timing import in_turns, median_ms

from siniantrust.masking.exact import best_passes
from siniantrust.masking.exact._field import PRIME
from siniantrust.masking.exact._passes import NumpyPasses, Passes

# A layer of VGG-16 that is large, and one of ResNet-50 that is small: channels, height, width.
_SIZES = ((64, 224, 224), (256, 14, 14))
_QUICK_SIZES = ((8, 16, 16),)
_KERNEL_WEIGHTS = 9
_STEP = 0.03


@dataclass(frozen=True)
class _Work:
    """Arrays of one layer, for every pass."""

    floats: np.ndarray
    words: np.ndarray
    steps: np.ndarray
    corrections: np.ndarray
    scale: np.ndarray
    across: np.ndarray
    taps: np.ndarray
    ones: np.ndarray

    @classmethod
    def of(cls, channels: int, height: int, width: int) -> _Work:
        """Draw the arrays of one layer whose images are one row of positions."""
        generator = np.random.default_rng(0)
        count, positions = channels * height * width, height * width
        return cls(
            floats=generator.normal(size=count).astype(np.float32),
            words=generator.integers(0, 1 << 32, count, dtype=np.uint32),
            steps=generator.integers(-127, 128, (channels, 1, positions)).astype(np.int8),
            corrections=generator.integers(0, PRIME, (channels, 1, positions)).astype(np.uint32),
            scale=generator.normal(size=channels).astype(np.float32),
            across=generator.integers(0, 1 << 21, (2, positions)).astype(np.int32),
            taps=generator.integers(0, 1 << 21, (2, _KERNEL_WEIGHTS, positions)).astype(np.int32),
            ones=np.ones((2, 1), np.int64),
        )

    def passes(self, passes: Passes) -> dict[str, Callable[[], tuple[Any, ...]]]:
        """Return each pass, ready to run; what it returns is all that it computed."""
        sent, steps = np.empty_like(self.words), np.empty(len(self.words), np.int8)
        values = np.empty(self.corrections.shape, np.float32)
        answers = self.words.reshape(values.shape)
        mask = passes.masker(self.floats, _STEP, sent, steps)
        unmask = passes.unmasker(self.scale, self.scale, by_column=False, relu=True, across=self.across, down=self.ones)
        weigh = passes.weigher(self.taps, self.ones[:, None])
        return {
            "mask": lambda: (mask(slice(0, len(sent)), self.words), sent, steps),
            "unmask": lambda: (unmask(answers, self.corrections, None, values), values),
            "weigh, 3 x 3": lambda: (weigh(self.steps),),
        }


def run(*, quick: bool) -> Outcome:
    """Time every pass in every form, in turns."""
    forms: dict[str, Passes] = {"numpy": NumpyPasses()}
    if best_passes().name != "numpy":
        forms[best_passes().name] = best_passes()
    if importlib.util.find_spec("numba") is not None:
        import _numba_passes

        forms["numba"] = _numba_passes.NumbaPasses()
    rows: list[dict[str, Any]] = []
    for size in _QUICK_SIZES if quick else _SIZES:
        work = _Work.of(*size)
        ready = {name: work.passes(form) for name, form in forms.items()}
        for kind in ready["numpy"]:
            for other in ready.values():
                for computed, wanted in zip(other[kind](), ready["numpy"][kind](), strict=True):
                    np.testing.assert_array_equal(computed, wanted)
            found = in_turns({name: ready[name][kind] for name in forms}, turns=3 if quick else 25)
            numbers = len(work.words)
            per_number = {f"{name}, ns a number": median_ms(found[name]) * 1e6 / numbers for name in forms}
            rows.append({"pass": kind, "numbers": " x ".join(map(str, size)), **per_number})
    return Outcome(
        title="Passes of exact masks",
        method=(
            "One thread each. *mask*: quantise and add pads. *unmask*: take corrections off, add up two comparisons, "
            "make floats, zero what is below zero. *weigh*: the input's side of two comparisons of a 3 x 3 convolution."
        ),
        rows=rows,
        bars=[],
        remarks=["All give the same results to the bit, which is checked before they are timed."],
    )
