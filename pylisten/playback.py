"""The book-keeping over the playback ring: what is queued, what was heard, what to report.

The ring is written by a worker and read by the switch. Its read position *is* the playback
position, counted in ticks of 1/192000 s so that it is a whole number at each of the six sample
rates. All that a server wants to know (when a clip began and ended, how much of it was heard,
whether the call has reached a mark) is arithmetic on that one number, and this module does the
arithmetic. It performs no input or output and has no clock.

What is queued stands in two lists. ``_unwritten`` holds audio, and the marks behind it, until the
ring has taken it; ``_entries`` holds clips and marks until they have been reported. Reports come in
the order of the queue, always: whatever ends an entry, it is reported after those before it.

A clip takes its place in the queue before it has been decoded (`Playback.reserve`), so that
decoding may take its time elsewhere while the server's next messages find the queue in order.

A kill is a position too. Audio that was not written yet is forgotten; audio in the ring is
discarded by a flush, which the caller carries out (`Flush`) before it writes anything else. How
much of it was heard is known once the switch has done so, and is reported then. What is added after
a kill lies behind its position, where no flush of that kill reaches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pylisten.errors import WireError

if TYPE_CHECKING:
    from pylisten.audio import Clip
    from pylisten.shm import PlayStatus
    from pylisten.wire import ClipId

__all__ = [
    "ClipDone",
    "ClipStarted",
    "Flush",
    "MarkReached",
    "Out",
    "Playback",
    "QueueFull",
    "Samples",
    "ToneDone",
    "beep",
]

Samples = npt.NDArray[np.int16]

TICKS_HZ = 192_000
_TICKS_PER_MS = TICKS_HZ // 1000

# Clips and marks that wait for their report. A server that works as intended stays far below;
# one that sends marks in a loop while nothing is played must not fill our memory.
_ENTRIES_MAX = 1000

_BEEP_RATE_HZ = 8000
_BEEP_MS = 500
_BEEP_HZ = 1500
_BEEP_DBFS = -12  # RMS
_BEEP_RAMP_MS = 5  # at both ends, or it would click

# What a piece of streamed audio costs in memory beside its samples: counted into the backlog, so
# that a server which sends two bytes a frame is held back as well.
_PIECE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Flush:
    """The audio in the ring must be discarded, now: before anything else is written to it."""


@dataclass(frozen=True, slots=True)
class ClipStarted:
    """The first sample of a clip has been written to the call."""

    id: ClipId | None


@dataclass(frozen=True, slots=True)
class ClipDone:
    """A clip is over: ``killed`` if part of it was never heard. ``milliseconds`` were heard."""

    id: ClipId | None
    milliseconds: int
    reason: Literal["done", "killed"]


@dataclass(frozen=True, slots=True)
class MarkReached:
    """All audio before a mark was written to the call (``playout``), or never will be."""

    name: str
    event: Literal["playout", "cleared"]


@dataclass(frozen=True, slots=True)
class ToneDone:
    """A tone of our own is over, played or killed."""


Out = Flush | ClipStarted | ClipDone | MarkReached | ToneDone


class QueueFull(WireError):
    """Too much waits already; the clip or mark was not added."""

    def __init__(self, message: str, id: ClipId | None = None) -> None:
        super().__init__("queue-full", message, id)


@dataclass(slots=True, eq=False)
class _Entry:
    """A clip or a mark that has not been reported yet."""

    start: int | None = None  # ticks at its first sample; None until that is written
    end: int | None = None  # ticks behind its last sample; None while more is to be written
    killed: bool = False
    cut: bool = False  # audio of it, or before it, will never be written

    def heard_until(self, flushes: Iterable[tuple[int, int]]) -> tuple[int, bool]:
        """Ticks up to which the audio before ``end`` was heard, and whether that is all of it."""
        assert self.end is not None
        for began, upto in flushes:
            if self.killed and began < self.end <= upto:
                return began, False
        return self.end, not self.cut


@dataclass(slots=True, eq=False)
class _Clip(_Entry):
    id: ClipId | None = None
    announced: bool = False

    def started(self) -> list[Out]:
        if self.announced:
            return []
        self.announced = True
        return [ClipStarted(self.id)]

    def report(self, flushes: Iterable[tuple[int, int]]) -> list[Out]:
        until, whole = self.heard_until(flushes)
        assert self.start is not None
        heard = max(0, until - self.start)
        out = self.started() if heard or whole else []
        milliseconds = (heard + _TICKS_PER_MS // 2) // _TICKS_PER_MS
        return [*out, ClipDone(self.id, milliseconds, "done" if whole else "killed")]


@dataclass(slots=True, eq=False)
class _Tone(_Clip):
    """Ours, not the server's: nothing but its end is reported."""

    def started(self) -> list[Out]:
        return []

    def report(self, flushes: Iterable[tuple[int, int]]) -> list[Out]:
        return [ToneDone()]


@dataclass(slots=True, eq=False)
class _Mark(_Entry):
    name: str = ""

    def report(self, flushes: Iterable[tuple[int, int]]) -> list[Out]:
        _, whole = self.heard_until(flushes)
        return [MarkReached(self.name, "playout" if whole else "cleared")]


@dataclass(slots=True, eq=False)
class _Audio:
    """Audio that the ring has not taken in full."""

    clip: _Clip | None  # None: streamed
    rate_hz: int = 0
    samples: Samples | None = None  # None: not decoded yet
    taken: int = 0  # samples that are in the ring
    tick: int = field(init=False, default=0)  # ticks per sample

    def fill(self, rate_hz: int, samples: Samples) -> None:
        if rate_hz <= 0 or TICKS_HZ % rate_hz:
            raise ValueError(f"not a sample rate that can be played: {rate_hz} Hz")
        self.rate_hz, self.samples, self.tick = rate_hz, samples, TICKS_HZ // rate_hz

    @property
    def left(self) -> int:
        """Samples still to write; 0 while there are none because decoding is under way."""
        return 0 if self.samples is None else len(self.samples) - self.taken


def beep() -> tuple[int, Samples]:
    """The rate in Hz and the samples of the tone that ``playBeep`` asks for."""
    count = _BEEP_RATE_HZ * _BEEP_MS // 1000
    ramp = np.linspace(0, 1, _BEEP_RATE_HZ * _BEEP_RAMP_MS // 1000, endpoint=False)
    envelope = np.concatenate([ramp, np.ones(count - 2 * len(ramp)), ramp[::-1]])
    peak = 32767 * math.sqrt(2) * 10 ** (_BEEP_DBFS / 20)
    wave = np.sin(2 * np.pi * _BEEP_HZ / _BEEP_RATE_HZ * np.arange(count))
    return _BEEP_RATE_HZ, np.rint(peak * envelope * wave).astype(np.int16)


class Playback:
    """What one listen plays into its call.

    ``limit`` clips may wait behind the one being played. At most ``look_ahead_ms`` of audio are
    kept in the ring: enough to bridge a worker that is busy elsewhere, little enough that the
    rest costs no copying when it is killed. Kills are exact whatever the look-ahead.
    """

    def __init__(self, limit: int = 10, look_ahead_ms: int = 400) -> None:
        self._limit = limit
        self._look_ahead = look_ahead_ms * _TICKS_PER_MS
        self._entries: deque[_Clip | _Mark] = deque()
        self._unwritten: deque[_Audio | _Mark] = deque()
        self._reserved: dict[int, _Audio] = {}
        self._tickets = 0
        self._written = 0  # ticks; as the ring counts
        self._played = 0  # ticks; as of the last status
        self._flushed = 0  # ticks; everything before is played, or killed
        self._backlog_bytes = 0

    # What the server asks for.

    def reserve(self, id: ClipId | None, interrupt: bool) -> tuple[int, list[Out]]:
        """Gives a clip that is yet to be decoded its place, and returns its ticket.

        With ``interrupt`` everything before it is killed first. Raises QueueFull, and changes
        nothing, if too many clips wait.
        """
        waiting = sum(isinstance(e, _Clip) and not e.killed for e in self._entries) - 1
        if waiting >= self._limit and not interrupt:
            raise QueueFull(f"{self._limit} clips are waiting to be played already", id)
        self._check_room(id)
        out = self.kill() if interrupt else []
        piece = _Audio(_Clip(id=id))
        self._append(piece)
        self._tickets += 1
        self._reserved[self._tickets] = piece
        return self._tickets, out

    def holds(self, ticket: int) -> bool:
        """Whether a reserved clip still waits for its audio: it has not been killed."""
        return ticket in self._reserved

    def fill(self, ticket: int, clip: Clip) -> list[Out]:
        """Brings the audio of a reserved clip. One that was killed meanwhile is ignored.

        Raises ValueError for a rate that cannot be played.
        """
        piece = self._reserved.get(ticket)
        if piece is None:
            return []
        piece.fill(clip.rate_hz, clip.samples)
        del self._reserved[ticket]
        return self._settle()

    def drop(self, ticket: int) -> list[Out]:
        """Gives up a reserved clip that cannot be decoded; it will not be reported."""
        piece = self._reserved.pop(ticket, None)
        if piece is None or piece.clip is None:
            return []
        self._unwritten.remove(piece)
        self._entries.remove(piece.clip)
        return self._settle()

    def add_stream(self, rate_hz: int, samples: Samples) -> None:
        """Queues streamed audio. Raises ValueError for a rate that cannot be played."""
        piece = _Audio(None)
        piece.fill(rate_hz, samples)
        if len(samples):
            self._unwritten.append(piece)
            self._backlog_bytes += samples.nbytes + _PIECE_BYTES

    def add_tone(self, rate_hz: int, samples: Samples) -> None:
        """Queues a tone of our own. Raises ValueError for a rate that cannot be played."""
        piece = _Audio(_Tone())
        piece.fill(rate_hz, samples)
        self._append(piece)

    def add_mark(self, name: str) -> list[Out]:
        """Queues a mark; reported at once if no audio waits. Raises QueueFull."""
        self._check_room(None)
        self._append(_Mark(name=name))
        return self._settle()

    def kill(self) -> list[Out]:
        """Ends everything that is queued: see `Flush`. What was never written is reported at
        once if nothing stands before it in the ring, else with the flush's result."""
        out: list[Out] = []
        if self.sounding:
            out.append(Flush())
            self._flushed = self._written
        for item in self._unwritten:
            entry = item if isinstance(item, _Mark) else item.clip
            if entry is not None:
                entry.cut = True
                self._close(entry)
        for entry in self._entries:
            entry.killed = True
        self._unwritten.clear()
        self._reserved.clear()
        self._backlog_bytes = 0
        return out + self._settle()

    def clear_marks(self) -> list[Out]:
        """Takes all marks out of the queue; the audio plays on."""
        marks = [entry for entry in self._entries if isinstance(entry, _Mark)]
        self._entries = deque(e for e in self._entries if isinstance(e, _Clip))
        self._unwritten = deque(item for item in self._unwritten if isinstance(item, _Audio))
        return [MarkReached(mark.name, "cleared") for mark in marks] + self._settle()

    def close(self) -> list[Out]:
        """Reports all that is left when playing is over for good: nothing more will be heard."""
        out = [report for report in self.kill() if not isinstance(report, Flush)]
        unheard = [(self._played, self._written)]
        self._played = self._written
        return out + self._settle(unheard)

    # What goes into the ring, and what came of it.

    def next_write(self, room_bytes: int) -> tuple[int, Samples] | None:
        """The rate in Hz and the samples to write to the ring now, or None.

        ``room_bytes`` is what the ring has free. Each piece must be answered by `wrote`.
        """
        piece = self._head()
        if piece is None or piece.samples is None:
            return None
        ahead = self._look_ahead - (self._written - self._heard_or_killed)
        count = min(piece.left, ahead // piece.tick, room_bytes // piece.samples.itemsize)
        if count <= 0:
            return None
        return piece.rate_hz, piece.samples[piece.taken : piece.taken + count]

    def wrote(self, taken: int) -> None:
        """``taken`` samples of the piece that `next_write` gave are in the ring."""
        piece = self._head()
        if piece is None or not 0 <= taken <= piece.left:
            raise ValueError(f"{taken} samples were not on offer")
        if piece.clip is not None and piece.clip.start is None:
            piece.clip.start = self._written
        piece.taken += taken
        self._written += taken * piece.tick
        if piece.clip is None:
            self._backlog_bytes -= taken * 2 + (0 if piece.left else _PIECE_BYTES)
        self._advance()

    def progress(self, status: PlayStatus) -> list[Out]:
        """Takes note of how far the call has come, and reports what that ended.

        Must be called before every kill: the ring remembers its last four flushes only.
        """
        # An adopted listen's ring does not begin at 0.
        self._written = max(self._written, status.written)
        self._played = status.played
        # A flush may be seen before the position has moved beyond it, never after. One that is
        # being written while it is read shows here as well, by its end.
        flushes = [
            (flush.from_ticks, flush.upto_ticks)
            for flush in status.flush
            if flush.from_ticks < flush.upto_ticks <= status.played
        ]
        return self._settle(flushes)

    @property
    def idle(self) -> bool:
        """Whether all has been played and reported."""
        return not (self._entries or self._unwritten) and self._written <= self._played

    @property
    def sounding(self) -> bool:
        """Whether the ring holds audio that the call is yet to hear."""
        return self._written > self._heard_or_killed

    @property
    def buffered_ms(self) -> int:
        """Audio that is queued and not yet heard, in the ring or before it."""
        ticks = self._written - self._heard_or_killed
        ticks += sum(i.left * i.tick for i in self._unwritten if isinstance(i, _Audio))
        return ticks // _TICKS_PER_MS

    @property
    def backlog_bytes(self) -> int:
        """Memory that streamed audio takes until the ring has room for it."""
        return self._backlog_bytes

    # Private.

    @property
    def _heard_or_killed(self) -> int:
        return max(self._played, self._flushed)

    def _check_room(self, id: ClipId | None) -> None:
        if len(self._entries) >= _ENTRIES_MAX:
            raise QueueFull(f"{_ENTRIES_MAX} clips and marks are waiting already", id)

    def _append(self, item: _Audio | _Mark) -> None:
        self._unwritten.append(item)
        entry = item if isinstance(item, _Mark) else item.clip
        if entry is not None:
            self._entries.append(entry)

    def _close(self, entry: _Entry) -> None:
        """Nothing more of ``entry`` will be written."""
        entry.end = self._written
        if entry.start is None:
            entry.start = self._written

    def _advance(self) -> None:
        """Steps over marks that have come to the front, and over audio that is all written."""
        while self._unwritten:
            item = self._unwritten[0]
            if isinstance(item, _Mark):
                self._close(item)
            elif item.samples is None or item.left:
                return
            elif item.clip is not None:
                self._close(item.clip)
            self._unwritten.popleft()

    def _head(self) -> _Audio | None:
        """What is to be written next; a mark never stands there: see `_advance`."""
        head = self._unwritten[0] if self._unwritten else None
        return head if isinstance(head, _Audio) else None

    def _settle(self, flushes: Iterable[tuple[int, int]] = ()) -> list[Out]:
        """Reports the entries at the front whose end the call has passed."""
        self._advance()
        out: list[Out] = []
        while self._entries:
            entry = self._entries[0]
            if entry.end is None or entry.end > self._played:
                if isinstance(entry, _Clip) and entry.start is not None:
                    out += entry.started() if entry.start < self._played else []
                break
            out += self._entries.popleft().report(flushes)
        return out
