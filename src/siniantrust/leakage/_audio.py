"""Sounds as pictures and back: log-mel spectrograms and Griffin-Lim."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from siniantrust.errors import AuditError

if TYPE_CHECKING:
    import torch

_SIDE = 64
_STEP = 4
_LEAST_SAMPLES = 64
_RANGE_DB = 80.0
_ITERATIONS = 60
_MOMENTUM = 0.99
_CHUNK_ITEMS = 128


@dataclass(frozen=True, slots=True)
class Spectrograms:
    """Log-mel power spectra, and what is needed to hear them again.

    Attributes:
        values: float32 (N, 1, mels, frames), decibels relative to ``reference``, from -80 to 0.
        n_fft: samples of one window (Hann).
        hop: samples between two windows.
        filters: the mel filter bank, float32 (mels, n_fft / 2 + 1).
        reference: the power that is 0 dB, the greatest over all items.
        samples: length of the waves.
    """

    values: np.ndarray = field(repr=False)
    n_fft: int
    hop: int
    filters: np.ndarray = field(repr=False)
    reference: float
    samples: int


def spectrogram(waves: np.ndarray, sample_rate: int) -> Spectrograms:
    """Return the log-mel spectrograms of ``waves`` (N, samples), float32, at ``sample_rate`` in Hz.

    Frames and mel bands are multiples of 4 and at most 64; windows overlap by three quarters or a little more. Mel
    scale: O'Shaughnessy 1987, 2595 log10(1 + f / 700).

    Raises:
        AuditError: if a wave has fewer than 64 samples.
    """
    if waves.ndim != 2 or waves.shape[1] < _LEAST_SAMPLES:  # noqa: PLR2004 - (items, samples)
        raise AuditError(f"sounds have shape {waves.shape}; expected (items, samples) with {_LEAST_SAMPLES} or more")
    samples = waves.shape[1]
    frames = min(_SIDE, samples // _STEP // _STEP * _STEP)
    # The first window is centred on the first sample, the last one on the last or just behind it.
    hop = math.ceil((samples - 1) / (frames - 1))
    n_fft = 2 ** math.ceil(math.log2(4 * hop))
    filters = _mel_filters(n_fft, sample_rate)
    padded = np.pad(waves.astype(np.float32), ((0, 0), (0, (frames - 1) * hop - samples + 1)))
    power = np.concatenate(
        [_mel_power(padded[start : start + _CHUNK_ITEMS], n_fft, hop, filters) for start in _starts(len(padded))]
    )
    reference = float(power.max()) or 1.0
    decibels = 10 * np.log10(np.maximum(power / reference, 10 ** (-_RANGE_DB / 10)))
    return Spectrograms(
        values=decibels[:, None, :, :frames].astype(np.float32),
        n_fft=n_fft,
        hop=hop,
        filters=filters,
        reference=reference,
        samples=samples,
    )


def waves_from(spectrograms: Spectrograms, *, seed: int = 0) -> np.ndarray:
    """Return waves (N, samples), float32, whose spectrograms are near to those given.

    The mel bands are spread back by the pseudo-inverse of the filters, without negative powers; phases are found by
    Griffin and Lim's iterations (1984) with the momentum of Perraudin, Balazs and Søndergaard (2013).
    """
    spread = np.linalg.pinv(spectrograms.filters)
    power = 10 ** (spectrograms.values[:, 0].astype(np.float64) / 10) * spectrograms.reference
    magnitude = np.sqrt(np.maximum(spread @ power, 0)).astype(np.float32)
    waves = [
        _griffin_lim(magnitude[start : start + _CHUNK_ITEMS], spectrograms, seed + start)
        for start in _starts(len(magnitude))
    ]
    return np.concatenate(waves)


def _starts(items: int) -> range:
    return range(0, items, _CHUNK_ITEMS)


def _mel_filters(n_fft: int, sample_rate: int) -> np.ndarray:
    """Return triangular filters (mels, n_fft / 2 + 1): as many, up to 64, as none is empty."""
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    for mels in range(_SIDE, 0, -_STEP):
        edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
        rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
        falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
        filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
        if (filters.max(axis=1) > 0).all() or mels == _STEP:
            return filters
    raise ValueError("there is always a number of bands")


def _window(n_fft: int) -> torch.Tensor:
    import torch

    return torch.hann_window(n_fft)


def _mel_power(waves: np.ndarray, n_fft: int, hop: int, filters: np.ndarray) -> np.ndarray:
    from siniantrust.leakage._torch import array, tensor

    spectra = _spectra(tensor(waves), n_fft, hop)
    return array(tensor(filters) @ spectra.abs().square())


def _spectra(waves: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    import torch

    # Zeros beside the wave: a mirror image would need waves longer than half a window.
    return torch.stft(waves, n_fft, hop, window=_window(n_fft), center=True, pad_mode="constant", return_complex=True)


def _griffin_lim(magnitude: np.ndarray, spectrograms: Spectrograms, seed: int) -> np.ndarray:
    import torch

    from siniantrust.leakage._torch import array, generator, tensor

    wanted = tensor(magnitude)
    n_fft, hop = spectrograms.n_fft, spectrograms.hop
    length = (wanted.shape[2] - 1) * hop + 1
    phases = torch.polar(torch.ones_like(wanted), 2 * math.pi * torch.rand(wanted.shape, generator=generator(seed)))
    before = torch.zeros_like(phases)

    def sound(phases: torch.Tensor) -> torch.Tensor:
        return torch.istft(wanted * phases, n_fft, hop, window=_window(n_fft), center=True, length=length)

    for _ in range(_ITERATIONS):
        consistent = _spectra(sound(phases), n_fft, hop)[:, :, : wanted.shape[2]]
        ahead = consistent + _MOMENTUM * (consistent - before)
        before = consistent
        phases = ahead / ahead.abs().clamp_min(1e-12)
    return array(sound(phases))[:, : spectrograms.samples]
