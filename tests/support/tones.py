"""Tones to send, and the measurements that find them again. Audio is int16 mono throughout.

Levels are dBFS relative to a full-scale sine: a sine with a peak of 32767 has 0 dBFS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]

FULL_SCALE = 32767.0
SILENT_DBFS = -120.0


def samples(ms: float, rate_hz: int) -> int:
    """How many samples a time in milliseconds is."""
    return round(ms * rate_hz / 1000)


def silence(ms: float, rate_hz: int) -> Pcm:
    return np.zeros(samples(ms, rate_hz), np.int16)


def tone(
    freq_hz: float, ms: float, rate_hz: int, level_dbfs: float = -12.0, fade_ms: float = 2.0
) -> Pcm:
    """A sine with short fades, so that its edges do not click."""
    count = samples(ms, rate_hz)
    wave = np.sin(2 * np.pi * freq_hz / rate_hz * np.arange(count))
    fade = min(samples(fade_ms, rate_hz), count // 2)
    if fade:
        ramp = np.linspace(0, 1, fade, endpoint=False)
        wave[:fade] *= ramp
        wave[count - fade :] *= ramp[::-1]
    return np.asarray(np.rint(wave * FULL_SCALE * 10 ** (level_dbfs / 20)), np.int16)


def staircase(
    freqs_hz: Sequence[float],
    burst_ms: float,
    gap_ms: float,
    rate_hz: int,
    level_dbfs: float = -12.0,
) -> Pcm:
    """Bursts of different tones, each followed by silence."""
    parts = []
    for freq_hz in freqs_hz:
        parts.append(tone(freq_hz, burst_ms, rate_hz, level_dbfs))
        parts.append(silence(gap_ms, rate_hz))
    return np.concatenate(parts) if parts else silence(0, rate_hz)


def level_dbfs(pcm: Pcm) -> float:
    """The RMS level, of all frequencies together."""
    if pcm.size == 0:
        return SILENT_DBFS
    rms = float(np.sqrt(np.mean(np.square(pcm.astype(np.float64)))))
    return _dbfs(rms * np.sqrt(2))


def goertzel_dbfs(pcm: Pcm, freq_hz: float, rate_hz: int) -> float:
    """The level of one frequency."""
    if pcm.size == 0:
        return SILENT_DBFS
    phase = np.exp(-2j * np.pi * freq_hz / rate_hz * np.arange(pcm.size))
    return _dbfs(2 * float(abs(np.dot(pcm.astype(np.float64), phase))) / pcm.size)


def dominant_hz(pcm: Pcm, rate_hz: int) -> float:
    """The strongest frequency, to a fraction of the resolution of an FFT; 0 for silence."""
    if pcm.size < 8 or not pcm.any():
        return 0.0
    size = 1 << (max(pcm.size, 4096) - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size), size))
    spectrum[0] = 0.0
    peak = int(np.argmax(spectrum[:-1]))
    left, middle, right = (float(np.log(spectrum[peak + k] + 1e-9)) for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend else 0.0
    return (peak + shift) * rate_hz / size


@dataclass(frozen=True)
class Burst:
    """A sound between silences; `start` and `stop` are samples."""

    start: int
    stop: int
    freq_hz: float
    level_dbfs: float

    @property
    def length(self) -> int:
        return self.stop - self.start


def bursts(
    pcm: Pcm,
    rate_hz: int,
    floor_dbfs: float = -40.0,
    min_ms: float = 10.0,
    join_ms: float = 10.0,
) -> list[Burst]:
    """Finds all sounds above `floor_dbfs`; shorter breaks than `join_ms` do not split one."""
    limit = FULL_SCALE * 10 ** (floor_dbfs / 20)
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) >= limit)
    if loud.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(loud) > samples(join_ms, rate_hz))
    starts = loud[np.concatenate(([0], breaks + 1))]
    stops = loud[np.concatenate((breaks, [loud.size - 1]))] + 1
    return [
        _burst(pcm, int(start), int(stop), rate_hz)
        for start, stop in zip(starts, stops, strict=True)
        if stop - start >= samples(min_ms, rate_hz)
    ]


def sections(pcm: Pcm, rate_hz: int, freqs_hz: Sequence[float], hop_ms: float = 5.0) -> list[Burst]:
    """Splits sound that has no breaks in it at the changes between the given tones."""
    hop = samples(hop_ms, rate_hz)
    runs: list[tuple[float, int, int]] = []
    for start in range(0, pcm.size - 2 * hop + 1, hop):
        part = pcm[start : start + 2 * hop]
        levels = [goertzel_dbfs(part, freq_hz, rate_hz) for freq_hz in freqs_hz]
        best = int(np.argmax(levels))
        freq_hz = freqs_hz[best] if levels[best] > -40.0 else 0.0
        if runs and runs[-1][0] == freq_hz:
            runs[-1] = (freq_hz, runs[-1][1], start + 2 * hop)
        else:
            runs.append((freq_hz, start + (hop if runs else 0), start + 2 * hop))
    return [_burst(pcm, start, stop, rate_hz) for freq, start, stop in runs if freq]


def nearest(freq_hz: float, freqs_hz: Sequence[float], tolerance: float = 0.02) -> float | None:
    """The frequency of the list that is meant, or None if none is within the tolerance."""
    best = min(freqs_hz, key=lambda known: abs(known - freq_hz))
    return best if abs(best - freq_hz) <= tolerance * best else None


def order(found: Sequence[Burst], freqs_hz: Sequence[float]) -> list[float | None]:
    """The known frequencies in the order in which they were heard (None: an unknown sound)."""
    return [nearest(burst.freq_hz, freqs_hz) for burst in found]


def spread_hz(count: int, low_hz: float = 400.0, high_hz: float = 3200.0) -> list[float]:
    """Tones that fit a telephone line and differ clearly, in equal musical steps."""
    ratio = (high_hz / low_hz) ** (1 / max(count - 1, 1))
    return [low_hz * ratio**step for step in range(count)]


def _burst(pcm: Pcm, start: int, stop: int, rate_hz: int) -> Burst:
    edge = min((stop - start) // 5, samples(10, rate_hz))
    middle = pcm[start + edge : stop - edge]
    return Burst(start, stop, dominant_hz(middle, rate_hz), level_dbfs(middle))


def _dbfs(peak: float) -> float:
    if peak <= 0:
        return SILENT_DBFS
    return max(SILENT_DBFS, 20 * float(np.log10(peak / FULL_SCALE)))
