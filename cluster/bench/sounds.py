"""Noises for `parley bench turns`: coloured noise, a knock, a cough; the same ones for the same seed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from cluster.robot import RATE, Samples

Noise = Literal["white", "pink", "brown", "knock", "cough"]

_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}
"""By how much amplitude falls with frequency: 1 / f ** slope."""

_FULL = 32767


def noise(kind: Noise, *, level: float, seconds: float = 1.0, seed: int = 0) -> Samples:
    """Return a noise: pcm16 mono at the robot's rate.

    Args:
        kind: Coloured noise that goes on for `seconds`; a knock on wood, twice; or a cough, two bursts of breath.
        level: Of its peak; 1.0 is full scale.
        seconds: How long coloured noise lasts.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    if kind == "knock":
        sound = np.concatenate([_burst(random, 0.25, decay=0.03, cutoff=800) for _ in range(2)])
    elif kind == "cough":
        sound = np.concatenate([_burst(random, 0.35, decay=0.12, cutoff=cutoff) for cutoff in (2500, 1800)])
    else:
        sound = _coloured(random, seconds, _SLOPES[kind])
    return (sound / np.abs(sound).max() * level * _FULL).astype(np.int16)


def _coloured(random: np.random.Generator, seconds: float, slope: float) -> npt.NDArray[np.float64]:
    size = int(seconds * RATE)
    spectrum = np.fft.rfft(random.standard_normal(size))
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    frequencies[0] = frequencies[1]
    return np.fft.irfft(spectrum / frequencies**slope, size)


def _burst(random: np.random.Generator, seconds: float, *, decay: float, cutoff: float) -> npt.NDArray[np.float64]:
    """Return noise that starts at once and dies away with a time constant, dull above a frequency in Hz."""
    size = int(seconds * RATE)
    spectrum = np.fft.rfft(random.standard_normal(size))
    spectrum /= 1 + (np.fft.rfftfreq(size, 1 / RATE) / cutoff) ** 4
    burst = np.fft.irfft(spectrum, size) * np.exp(-np.arange(size) / RATE / decay)
    return burst / np.abs(burst).max()
