"""Sounds as pictures and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust.errors import AuditError
from siniantrust.leakage._audio import spectrogram, waves_from

RATE = 8000


def _chirps(samples: int) -> np.ndarray:
    """Return four tones that rise, float32 (4, samples)."""
    time_s = np.arange(samples) / RATE
    return np.stack([np.sin(2 * np.pi * (pitch + 300 * time_s) * time_s) for pitch in (200, 440, 800, 1500)]).astype(
        np.float32
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(64, 30_000), st.sampled_from([8000, 16_000, 44_100]))
def test_a_spectrogram_is_a_picture_of_at_most_64_by_64(samples: int, rate: int) -> None:
    """Bands and frames are multiples of four up to 64 for waves of any length; values lie within 80 decibels."""
    found = spectrogram(np.random.default_rng(0).normal(size=(2, samples)).astype(np.float32), rate)
    count, channels, mels, frames = found.values.shape
    assert (count, channels) == (2, 1)
    assert 4 <= mels <= 64
    assert 4 <= frames <= 64
    assert mels % 4 == frames % 4 == 0
    assert found.values.dtype == np.float32
    assert -80 <= found.values.min() <= found.values.max() <= 0
    assert found.filters.shape == (mels, found.n_fft // 2 + 1)
    assert (found.filters.max(axis=1) > 0).all()
    assert (frames - 1) * found.hop + 1 >= samples


@pytest.mark.parametrize("samples", [500, 8000])
def test_waves_come_back_from_their_spectrograms(samples: int) -> None:
    """What Griffin-Lim makes of a spectrogram has that spectrogram, within a few decibels of the loud parts."""
    found = spectrogram(_chirps(samples), RATE)
    waves = waves_from(found)
    assert waves.shape == (4, samples)
    again = spectrogram(waves, RATE)
    decibels = again.values + 10 * np.log10(again.reference / found.reference)
    loud = found.values > -20
    assert np.abs(decibels - found.values)[loud].mean() < 2.5


def test_a_pure_tone_lights_its_own_band() -> None:
    """A tone's energy stands in the mel band around its frequency, and returns as a wave of that frequency."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)[None]
    found = spectrogram(tone, RATE)
    bins = np.linspace(0, RATE / 2, found.filters.shape[1])
    band = int(found.values[0, 0, :, 20].argmax())
    assert abs(bins[found.filters[band].argmax()] - 1000) < 100
    spectrum = np.abs(np.fft.rfft(waves_from(found)[0]))
    assert abs(int(spectrum.argmax()) - 1000) < 50


def test_silence_is_no_error() -> None:
    """A wave of zeros has a spectrogram, and zeros come back."""
    found = spectrogram(np.zeros((2, 1000), np.float32), RATE)
    assert np.isfinite(found.values).all()
    assert np.abs(waves_from(found)).max() < 1e-3


def test_the_same_seed_gives_the_same_wave() -> None:
    """Griffin-Lim's first phases come from the seed alone."""
    found = spectrogram(_chirps(2000), RATE)
    np.testing.assert_allclose(waves_from(found, seed=1), waves_from(found, seed=1), atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 63), (3, 1, 100), (100,)])
def test_what_is_no_row_of_samples_is_refused(shape: tuple[int, ...]) -> None:
    """Too short waves and other shapes are named with what was expected."""
    with pytest.raises(AuditError, match=r"expected \(items, samples\)"):
        spectrogram(np.zeros(shape, np.float32), RATE)
