"""The time-line of a listen: which audio was sent, and which part of it nobody is to hear.

Positions are samples since the listen began. A frame may come long after it was said, because the
server was away or slow; what becomes of it depends on when it was said.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

__all__ = ["Frame", "PauseMode", "Pauses", "Sent"]

PauseMode = Literal["silence", "drop"]

# Gaps within the audio of one connection that are remembered, each left by a pause.
_RUNS_MAX = 64


@dataclass(frozen=True, slots=True)
class Frame:
    """Audio, and its position on the time-line in samples; None where that is not known."""

    data: bytes
    pos: int | None


class Sent:
    """Where the audio stood on the time-line that was sent last."""

    def __init__(self) -> None:
        self._runs: deque[list[int]] = deque(maxlen=_RUNS_MAX)  # start and end, in samples

    def add(self, pos: int, samples: int) -> None:
        """``samples`` were sent that begin at ``pos``."""
        if self._runs and self._runs[-1][1] == pos:
            self._runs[-1][1] += samples
        else:
            self._runs.append([pos, pos + samples])

    def take_back(self, samples: int) -> int | None:
        """The last ``samples`` were not delivered; returns where they begin, None if unknown."""
        if not self._runs:
            return None
        run = self._runs[-1]
        run[1] -= samples
        if run[1] <= run[0]:
            self._runs.pop()
        return run[1]


@dataclass(slots=True)
class _Pause:
    mode: PauseMode
    from_ms: float
    to_ms: float = math.inf


class Pauses:
    """The parts of a time-line that an operator keeps from the server, in ms of any clock."""

    def __init__(self) -> None:
        self._pauses: deque[_Pause] = deque()

    def begin(self, now_ms: float, mode: PauseMode) -> None:
        """From now on; a pause of the other kind ends for it."""
        if self._pauses and self._pauses[-1].to_ms == math.inf:
            if self._pauses[-1].mode == mode:
                return
            self._pauses[-1].to_ms = now_ms
        self._pauses.append(_Pause(mode, now_ms))

    def end(self, now_ms: float) -> bool:
        """Until now; returns False if there is no pause."""
        if not self._pauses or self._pauses[-1].to_ms < math.inf:
            return False
        self._pauses[-1].to_ms = now_ms
        return True

    def at(self, start_ms: float, end_ms: float) -> PauseMode | None:
        """What to do with audio said from ``start_ms`` to ``end_ms``; None: send it.

        Said in part during a pause, it belongs to the pause. To be asked in order of time.
        """
        while self._pauses and self._pauses[0].to_ms <= start_ms:
            self._pauses.popleft()
        if self._pauses and self._pauses[0].from_ms < end_ms:
            return self._pauses[0].mode
        return None
