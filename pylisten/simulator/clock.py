"""The media clock: one thread that gives every call of the simulator its 20 ms.

A thread and not a task, as the media threads of a switch are: an event loop that is busy for a
moment must not disturb the audio. Deadlines are absolute, so that the clock never drifts; a tick
that comes late is made up for, and carries the time at which it should have come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from pylisten import shm

__all__ = ["TICK_NS", "TICKS_PER_S", "MediaClock"]

TICKS_PER_S: Final = 50
TICK_NS: Final = 1_000_000_000 // TICKS_PER_S

Ticker = Callable[[int], None]


class MediaClock:
    """Calls each of its tickers every 20 ms with the nominal time of the tick.

    ``lock`` is held while tickers run: whoever changes what they use takes it first. ``now_ns`` is
    the nominal time of the last tick (CLOCK_MONOTONIC), the time by which a simulated switch lives.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.now_ns = shm.now_ns()
        self._tickers: list[Ticker] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulator-clock", daemon=True)

    def start(self) -> None:
        """Begins to tick, 20 ms from now."""
        self.now_ns = shm.now_ns()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; no ticker runs after this."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, ticker: Ticker) -> None:
        """Has ``ticker`` called from the next tick on."""
        with self.lock:
            self._tickers = [*self._tickers, ticker]

    def remove(self, ticker: Ticker) -> None:
        """Has ``ticker`` called no more; unknown ones are let be."""
        with self.lock:
            self._tickers = [other for other in self._tickers if other != ticker]

    def _run(self) -> None:
        deadline_ns = self.now_ns + TICK_NS
        while not self._stopped.wait(max(0, deadline_ns - shm.now_ns()) / 1e9):
            self._tick(deadline_ns)
            deadline_ns += TICK_NS

    def _tick(self, now_ns: int) -> None:
        with self.lock:
            self.now_ns = now_ns
            for ticker in self._tickers:
                ticker(now_ns)
