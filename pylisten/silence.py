"""Silence of the caller, from the level of each frame.

The levels come with the frames, so nothing here looks at audio. Two times keep single frames from
deciding: a click in silence is no speech, and the pause between two words is no silence.
"""

from __future__ import annotations

__all__ = ["SilenceDetector"]

#: The level of the loudest frame there can be: 0 dBFS.
FULL_SCALE = 32767


class SilenceDetector:
    """Tells how long it has been silent; counts samples, and needs no clock.

    A frame is loud from ``threshold_dbfs`` up. In silence, ``attack_ms`` of loud frames in a row
    become speech; in speech, ``hangover_ms`` of quiet frames in a row become silence.
    """

    def __init__(
        self,
        rate_hz: int,
        threshold_dbfs: float = -40.0,
        attack_ms: int = 40,
        hangover_ms: int = 200,
    ) -> None:
        self._rate_hz = rate_hz
        self._threshold = FULL_SCALE * 10 ** (threshold_dbfs / 20)
        self._attack = attack_ms * rate_hz // 1000
        self._hangover = hangover_ms * rate_hz // 1000
        self._speaking = False
        self._loud = 0  # samples of loud frames in a row
        self._silent = 0  # samples since the last loud frame of speech, or since the first frame

    def feed(self, samples: int, level: int) -> float:
        """Takes note of a frame of ``samples`` and its RMS ``level`` (0 … 32767).

        Returns the seconds of silence so far, 0 in speech. They count from the last loud frame of
        the speech, or from the first frame.
        """
        self._silent += samples
        if level >= self._threshold:
            self._loud += samples
            self._speaking = self._speaking or self._loud >= self._attack
            if self._speaking:
                self._silent = 0
        else:
            self._loud = 0
            self._speaking = self._speaking and self._silent < self._hangover
        return 0.0 if self._speaking else self._silent / self._rate_hz

    def restart(self) -> None:
        """It is not silent for another reason; silence counts from the next frame on."""
        self._speaking = False
        self._loud = self._silent = 0
