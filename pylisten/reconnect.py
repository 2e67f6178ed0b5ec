"""What a session needs when its connection is lost: tries, and what waits for one that succeeds.

`Tries` says when the next try is due and when it is enough. `Kept` holds what was not delivered,
in order. Neither has a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from pylisten.timeline import Frame

if TYPE_CHECKING:
    from pylisten.verb import Reconnect

__all__ = ["Kept", "Tries"]

# The pause before the first try; each further one is twice as long.
_FIRST_PAUSE_MS = 250

# Of an equal part of the time that is left: the last try is not made at its very end.
_PART = 0.95

# A connection that stood this long was a good one: what is lost then is a new loss. One that did
# not was another failed try, or a server that accepts and closes would be called for ever.
_STOOD_MS = 10_000

# Different errors that are quoted; more would tell nobody more.
_ERRORS_MAX = 3


class Tries:
    """The tries to reach a lost server again, with exponential back-off and jitter.

    ``jitter`` gives random numbers from 0 to 1: a pause is shortened by up to a quarter, so that
    listens which lost one server together do not come back together. No pause is longer than an
    equal part of the time that is left: every try has its turn before that is over.
    """

    def __init__(self, reconnect: Reconnect, jitter: Callable[[], float]) -> None:
        self.made = 0
        self._limit = reconnect.attempts
        self._max_ms = reconnect.max_delay * 1000
        self._jitter = jitter
        self._left_ms = self._max_ms  # of what all tries may take, while a connection stands
        self._deadline_ms = 0.0
        self._due_ms: float | None = None  # None: a try is under way
        self._opened_ms = 0.0
        self._errors: list[str] = []

    def opened(self, now_ms: float) -> None:
        """The connection stands, for the first time or again."""
        self._left_ms = max(0.0, self._deadline_ms - now_ms) if self.made else self._max_ms
        self._opened_ms = now_ms

    def lost(self, now_ms: float, error: str) -> bool:
        """The connection was lost; returns whether there is a try left."""
        if now_ms - self._opened_ms >= _STOOD_MS:
            self.made = 0
            self._left_ms = self._max_ms
            self._errors.clear()
        self._deadline_ms = now_ms + self._left_ms
        return self.failed(now_ms, error) if self.made else self._plan(now_ms)

    def failed(self, now_ms: float, error: str) -> bool:
        """A try failed; returns whether there is one left."""
        self._note(error)
        return self._plan(now_ms)

    def begin(self, now_ms: float) -> bool:
        """Whether a try is due; if so it counts as begun."""
        if self._due_ms is None or now_ms < self._due_ms:
            return False
        self.made += 1
        self._due_ms = None
        return True

    def overdue(self, now_ms: float) -> bool:
        """Whether the time that all tries may take is over."""
        if now_ms < self._deadline_ms:
            return False
        if self._due_ms is None:
            self._note("no answer before the time for tries was over")
        return True

    def describe(self) -> str:
        """What became of the tries, for people."""
        tries = "1 try" if self.made == 1 else f"{self.made} tries"
        return f"{tries} to connect again failed: {'; '.join(self._errors)}"

    def _note(self, error: str) -> None:
        if error not in self._errors and len(self._errors) < _ERRORS_MAX:
            self._errors.append(error)

    def _plan(self, now_ms: float) -> bool:
        if self.made >= self._limit:
            return False
        doubled_ms = _FIRST_PAUSE_MS * 2.0 ** min(self.made, 32)
        part_ms = _PART * (self._deadline_ms - now_ms) / (self._limit - self.made)
        self._due_ms = now_ms + min(doubled_ms, part_ms) * (0.75 + self._jitter() / 4)
        return now_ms < self._due_ms < self._deadline_ms


class Kept:
    """Text frames and audio that wait for a connection, in the order they are to be sent in.

    At most ``texts_max`` texts: beyond them the oldest is dropped. Audio is bounded by whoever
    adds it.
    """

    def __init__(self, texts_max: int = 1000) -> None:
        self._items: deque[str | Frame] = deque()
        self._texts = 0
        self._texts_max = texts_max

    def add(self, item: str | Frame) -> bool:
        """Adds one; returns False if the oldest text was dropped for it."""
        self._items.append(item)
        if not isinstance(item, str):
            return True
        self._texts += 1
        if self._texts <= self._texts_max:
            return True
        oldest = next(n for n, kept in enumerate(self._items) if isinstance(kept, str))
        del self._items[oldest]
        self._texts -= 1
        return False

    def take(self) -> list[str | Frame]:
        """All of it, in order; nothing is kept any more."""
        items, self._items, self._texts = list(self._items), deque(), 0
        return items

    def take_frames(self) -> list[Frame]:
        """The audio alone; the texts stay."""
        frames = [item for item in self._items if isinstance(item, Frame)]
        self._items = deque(item for item in self._items if isinstance(item, str))
        return frames

    @property
    def first(self) -> Frame | None:
        """The oldest audio, if there is any."""
        return next((item for item in self._items if isinstance(item, Frame)), None)
