"""Which inputs a trusted application is given, and which it draws."""

from __future__ import annotations

import dataclasses

import pytest

from siniantrust.errors import EnclaveError
from siniantrust.lowering import Slot
from siniantrust.trust.optee._build import _definitions
from siniantrust.trust.optee._host import _NO_PART
from siniantrust.trust.optee._inputs import inputs_of
from siniantrust.trust.process._noise import PREFIX, Law

X, Y = Slot("x", "float32", (1, 3), 0, 12), Slot("y", "float32", (1, 2), 12, 8)
NOISE = Slot(f"{PREFIX}laplace:0.5:2.0:n", "float32", (1, 5), 20, 20)


def test_noise_lies_behind_what_is_given() -> None:
    """The host gives the bytes before the first noise, and no others; the rest has its law by its name."""
    found = inputs_of(dataclasses.replace(_NO_PART, inputs=(X, Y, NOISE), input_bytes=40))
    assert (found.given, found.given_bytes) == ((X, Y), 20)
    assert [(noise.slot, noise.law) for noise in found.noise] == [(NOISE, Law("laplace", 0.5, 2.0))]
    assert inputs_of(dataclasses.replace(_NO_PART, inputs=(X, Y), input_bytes=20)).given_bytes == 20


def test_the_application_is_told_laws_and_places() -> None:
    """Its source has the law's number, the place, how many numbers, and what they are shifted and scaled by."""
    lowered = dataclasses.replace(_NO_PART, inputs=(X, Y, NOISE), input_bytes=40)
    source = _definitions(lowered, skeleton=b"", plain_bytes=0)
    assert "part_noise[] = {{2, 20, 5, 0.5, 2.0}};" in source
    assert "part_noise_count = 1, part_given_bytes = 20;" in source


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ((NOISE, X), "expected noise behind the other inputs"),
        ((X, dataclasses.replace(NOISE, dtype="float64")), "is float64, it draws float32"),
        ((X, dataclasses.replace(NOISE, name=f"{PREFIX}cauchy:0:1:n")), "says no law"),
    ],
)
def test_noise_that_cannot_be_drawn_is_refused(slots: tuple[Slot, ...], message: str) -> None:
    """Noise before what is given, of another type or of no law is refused by name."""
    with pytest.raises(EnclaveError, match=message):
        inputs_of(dataclasses.replace(_NO_PART, inputs=slots, input_bytes=40))
