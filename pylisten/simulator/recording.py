"""What a party of a simulated call hears, kept as it was played and rendered when it is over.

Clips arrive at any of six sample rates. They are kept at their own rate, together with the moment
at which they were heard, and resampled only when the recording is rendered: whole passages in one
pass, so that no seam can be heard.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

__all__ = ["TICKS_HZ", "Recording", "Samples", "mix", "resample"]

Samples = npt.NDArray[np.int16]

TICKS_HZ: Final = 192_000  # the least common multiple of the sample rates
_FULL_SCALE: Final = 32_767


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Resamples finished mono audio; the result has ``len * to_hz / from_hz`` samples, rounded."""
    if from_hz == to_hz or not len(samples):
        return samples
    length = round(len(samples) * to_hz / from_hz)
    # Filters ring above full scale: float until the very end, then saturate.
    wide = soxr.resample(samples.astype(np.float32), from_hz, to_hz)
    out = np.zeros(length, np.float32)
    out[: min(length, len(wide))] = wide[:length]
    return _saturated(out)


def mix(tracks: list[Samples], length: int) -> Samples:
    """Adds tracks of up to ``length`` samples, saturated."""
    total = np.zeros(length, np.int32)
    for track in tracks:
        total[: len(track)] += track
    return _saturated(total)


def _saturated(wide: npt.NDArray[np.float32] | npt.NDArray[np.int32]) -> Samples:
    return np.clip(np.rint(wide), -_FULL_SCALE - 1, _FULL_SCALE).astype(np.int16)


class _Passage:
    """Audio of one rate without a gap, beginning at ``start`` ticks."""

    def __init__(self, start: int, rate_hz: int) -> None:
        self.start = start
        self.rate_hz = rate_hz
        self.end = start
        self.parts: list[Samples] = []

    def append(self, samples: Samples) -> None:
        self.parts.append(samples)
        self.end += len(samples) * TICKS_HZ // self.rate_hz


class Recording:
    """Audio by time; several sources may sound at once, each is appended to in order."""

    def __init__(self) -> None:
        self._passages: list[_Passage] = []
        self._last: dict[Hashable, _Passage] = {}

    def add(self, source: Hashable, at_ticks: int, rate_hz: int, samples: Samples) -> None:
        """Notes that ``samples`` of ``source`` were heard from ``at_ticks`` (of 1/192000 s) on."""
        passage = self._last.get(source)
        if passage is None or passage.rate_hz != rate_hz or passage.end != at_ticks:
            passage = self._last[source] = _Passage(at_ticks, rate_hz)
            self._passages.append(passage)
        passage.append(samples)

    @property
    def passages(self) -> list[tuple[float, float]]:
        """Beginning and end of each passage without a gap, seconds."""
        return [(each.start / TICKS_HZ, each.end / TICKS_HZ) for each in self._passages]

    @property
    def last(self) -> tuple[int, int] | None:
        """Beginning and end of the passage that began last, ticks; None if nothing was heard."""
        return (self._passages[-1].start, self._passages[-1].end) if self._passages else None

    @property
    def highest_rate_hz(self) -> int:
        """The highest rate of anything that was heard, 0 if nothing was."""
        return max((each.rate_hz for each in self._passages), default=0)

    def render(self, rate_hz: int, duration_ticks: int) -> Samples:
        """All of it as one track of ``duration_ticks``, silence where nothing was heard."""
        length = duration_ticks * rate_hz // TICKS_HZ
        total = np.zeros(length, np.int32)
        for passage in self._passages:
            samples = resample(np.concatenate(passage.parts), passage.rate_hz, rate_hz)
            begin = passage.start * rate_hz // TICKS_HZ
            end = min(length, begin + len(samples))
            if begin < end:
                total[begin:end] += samples[: end - begin]
        return _saturated(total)
