"""The passes of exact masks in numpy, compiled from C, and, where it is installed, compiled by numba."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from results_file import Outcome
from timing import in_turns, median_ms

from siniantrust.masking.exact import best_passes
from siniantrust.masking.exact._field import PRIME
from siniantrust.masking.exact._passes import NumpyPasses, Passes, Results, Unmasking
from siniantrust.masking.exact._ring import NARROW, NARROW_MOST

# A layer of VGG-16 that is large, and one of ResNet-50 that is small: channels, height, width.
_SIZES = ((64, 224, 224), (256, 14, 14))
_QUICK_SIZES = ((8, 16, 16),)
_KERNEL_WEIGHTS = 9


@dataclass(frozen=True)
class _Work:
    """Arrays of one layer, for every pass."""

    answers: np.ndarray
    pads: np.ndarray
    steps: np.ndarray
    form: Unmasking
    taps: np.ndarray
    factors: np.ndarray

    @classmethod
    def of(cls, channels: int, height: int, width: int) -> _Work:
        """Draw the arrays of one layer whose images are one row of positions."""
        generator = np.random.default_rng(0)
        shape = channels, 1, height * width
        scale, bias = generator.normal(size=(2, channels)).astype(np.float32)
        form = Unmasking(
            scale=scale,
            bias=bias,
            by_column=False,
            across=generator.integers(0, 1 << 21, (2, shape[2])).astype(np.int32),
            down=np.ones((2, 1), np.int64),
            gather=generator.integers(0, PRIME, (2, channels)),
            limbs=NARROW,
            most=NARROW_MOST,
            relu=True,
            inverse=1e-7,
        )
        return cls(
            answers=generator.integers(0, 256, (NARROW, *shape), dtype=np.uint8),
            pads=generator.integers(0, 256, (NARROW, math.prod(shape)), dtype=np.uint8),
            steps=generator.integers(-127, 128, shape).astype(np.int8),
            form=form,
            taps=generator.integers(0, 1 << 21, (2, _KERNEL_WEIGHTS, shape[2])).astype(np.int32),
            factors=generator.integers(0, PRIME, (channels, 2, 1, _KERNEL_WEIGHTS)),
        )

    def passes(self, passes: Passes) -> dict[str, Callable[[], tuple[Any, ...]]]:
        """Return each pass, ready to run; what it returns is all that it computed."""
        sent, made, sums = np.empty_like(self.pads), np.empty_like(self.steps), np.zeros((1, 1, 2), np.int64)
        mask = passes.masker(self.steps.reshape(1, -1), sent[None])
        unmask = passes.unmasker(self.form)(Results(self.answers[None], sums, steps=made[None]))
        weigh = passes.weigher(self.taps, self.form.down[:, None], self.factors)

        def unmasked() -> tuple[Any, ...]:
            sums[:] = 0
            return unmask(0, 0, self.pads), sums, made

        return {
            "mask": lambda: (mask(0, 0, self.pads), sent)[1:],
            "unmask": unmasked,
            "weigh, 3 x 3": lambda: (weigh(self.steps[None]),),
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
            numbers = work.steps.size
            per_number = {f"{name}, ns a number": median_ms(found[name]) * 1e6 / numbers for name in forms}
            rows.append({"pass": kind, "numbers": " x ".join(map(str, size)), **per_number})
    return Outcome(
        title="Passes of exact masks",
        method=(
            "One thread each, three bytes a number, without drawing pads. *mask*: add pads to steps. *unmask*: take "
            "pads off, add up two comparisons, scale, zero what is below zero, "
            "quantise. *weigh*: the input's side of two comparisons of a 3 x 3 convolution."
        ),
        rows=rows,
        bars=[],
        remarks=["All give the same results to the bit, which is checked before they are timed."],
    )
