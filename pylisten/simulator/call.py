"""A call without a switch: a channel whose caller is an audio file.

The caller's audio is resampled up front to the rate of every listen; nothing is resampled while the
call runs, except what one listen plays and another one, of a different rate, hears.
"""

from __future__ import annotations

import asyncio
import socket
import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from pylisten import shm
from pylisten.simulator.clock import TICKS_PER_S, MediaClock
from pylisten.simulator.recording import TICKS_HZ, Recording, Samples, mix, resample

__all__ = ["Line", "SimulatedCall", "Tap"]

TICKS_PER_FRAME: Final = TICKS_HZ // TICKS_PER_S
DTMF_UNITS_PER_MS: Final = 8  # RFC 4733 durations at 8 kHz

Played = list[tuple[int, Samples]]


@dataclass(frozen=True, slots=True)
class Tap:
    """One listen's hold on a call.

    It writes ``slot``, takes the caller's audio from ``source`` at ``rate_hz``, what the caller
    hears too if ``far``, and may play if ``plays``. What it plays itself is part of what it hears
    only with ``hears_itself``.
    """

    slot: int
    source: Samples
    rate_hz: int
    far: bool
    plays: bool
    hears_itself: bool


@dataclass(frozen=True, slots=True)
class Line:
    """What connects a call with a switch.

    ``ring`` wakes a worker by its index. ``at_end`` is called, in the clock's thread and under its
    lock, when the source is over and the call is to hang up.
    """

    arena: shm.Arena
    clock: MediaClock
    ring: Callable[[int], None]
    at_end: Callable[[], None]


class SimulatedCall:
    """A channel with a uuid and call attributes; ``source`` (int16, mono) is what the caller says.

    The call runs from the moment it is added to a switch. It hangs up at the end of the source, or
    goes on in silence with ``hang_up_at_end=False``. ``ended`` is set when it is over.
    """

    def __init__(
        self,
        source: Samples,
        rate_hz: int,
        *,
        uuid: str | None = None,
        attributes: Mapping[str, object] | None = None,
        hang_up_at_end: bool = True,
    ) -> None:
        self.uuid = uuid or str(uuids.uuid4())
        self.attributes = {**_default_attributes(self.uuid), **(attributes or {})}
        self.ended = asyncio.Event()
        self.heard = Recording()
        self.rate_hz = rate_hz
        self.frames = 0
        self.hang_up_at_end = hang_up_at_end
        self._by_rate = {rate_hz: source}
        self._taps: tuple[Tap, ...] = ()
        self._connected: Line | None = None

    @property
    def duration_s(self) -> float:
        """How long the call has lasted so far, seconds; a multiple of 20 ms."""
        return self.frames / TICKS_PER_S

    @property
    def source_s(self) -> float:
        """Length of what the caller says, seconds."""
        return len(self._by_rate[self.rate_hz]) / self.rate_hz

    async def prepare(self, rate_hz: int) -> Samples:
        """The caller's audio at ``rate_hz``, resampled once and kept."""
        if rate_hz not in self._by_rate:
            own = self._by_rate[self.rate_hz]
            self._by_rate[rate_hz] = await asyncio.to_thread(resample, own, self.rate_hz, rate_hz)
        return self._by_rate[rate_hz]

    def said(self, rate_hz: int) -> Samples:
        """What the caller said until now, at ``rate_hz``; silence after the end of the source."""
        own = resample(self._by_rate[self.rate_hz], self.rate_hz, rate_hz)
        return mix([own[: self._samples(rate_hz)]], self._samples(rate_hz))

    def what_was_heard(self, rate_hz: int) -> Samples:
        """What the caller heard until now, at ``rate_hz``; on one clock with ``said``."""
        return self.heard.render(rate_hz, self.frames * TICKS_PER_FRAME)

    def press(self, digit: str, *, duration_ms: int = 100, far: bool = False) -> None:
        """Presses a key: the caller's, or with ``far`` the other party's."""
        line = self._line
        with line.clock.lock:
            for tap in self._taps:
                units = duration_ms * DTMF_UNITS_PER_MS
                line.arena.digit(tap.slot, line.clock.now_ns, digit, units, far)
                self._bell(tap.slot)

    def connect(self, line: Line) -> None:
        """Puts the call on a switch's clock."""
        self._connected = line
        line.clock.add(self._tick)

    def disconnect(self) -> None:
        """Takes the call off the clock; it neither says nor hears anything more."""
        self._line.clock.remove(self._tick)
        self._taps = ()
        self.ended.set()

    def attach(self, tap: Tap) -> None:
        """Begins to feed a tap, from the next frame on. The clock's lock is held by the caller."""
        self._taps = (*self._taps, tap)

    def detach(self, slot: int) -> None:
        """Ends what ``attach`` began. The clock's lock is held by the caller."""
        self._taps = tuple(tap for tap in self._taps if tap.slot != slot)

    @property
    def _line(self) -> Line:
        if self._connected is None:
            raise RuntimeError(f"call {self.uuid} is on no switch yet")
        return self._connected

    def _samples(self, rate_hz: int) -> int:
        return self.frames * rate_hz // TICKS_PER_S

    def _tick(self, now_ns: int) -> None:
        """One frame: what the listens play is heard, what the parties say is captured."""
        played = {tap.slot: self._play(tap) for tap in self._taps if tap.plays}
        for tap in self._taps:
            self._capture(tap, now_ns, played)
        self.frames += 1
        if self.hang_up_at_end and self.duration_s >= self.source_s:
            self._line.clock.remove(self._tick)
            self._line.at_end()

    def _play(self, tap: Tap) -> Played:
        """Reads one frame's worth of playback, as somebody who writes a frame would.

        What was said in a frame is known at its end; what is written then is heard in the next.
        """
        arena = self._line.arena
        position = (self.frames + 1) * TICKS_PER_FRAME
        end = position + TICKS_PER_FRAME
        played: Played = []
        while position < end and (rate_hz := arena.play_rate(tap.slot)):
            samples = arena.play_read(tap.slot, (end - position) * rate_hz // TICKS_HZ)
            if not len(samples):
                break
            self.heard.add(tap.slot, position, rate_hz, samples)
            played.append((rate_hz, samples))
            position += len(samples) * TICKS_HZ // rate_hz
        return played

    def _capture(self, tap: Tap, now_ns: int, played: Mapping[int, Played]) -> None:
        arena = self._line.arena
        length = tap.rate_hz // TICKS_PER_S
        begin = self.frames * length
        near = mix([tap.source[begin : begin + length]], length)
        arena.capture(tap.slot, shm.NEAR, now_ns, near)
        if tap.far:
            heard = [
                _at_rate(frame, tap.rate_hz)
                for slot, frame in played.items()
                if slot != tap.slot or tap.hears_itself
            ]
            arena.capture(tap.slot, shm.FAR, now_ns, mix(heard, length))
        self._bell(tap.slot)

    def _bell(self, slot: int) -> None:
        worker = self._line.arena.bell(slot)
        if worker is not None:
            self._line.ring(worker)


def _at_rate(played: Played, rate_hz: int) -> Samples:
    """One frame of playback at another rate, by straight lines between its samples.

    A resampler would have to be kept per pair of listens; that one hears the other's clips slightly
    dulled is good enough for a party who only stands in for a far end.
    """
    parts = [
        samples if hz == rate_hz else _interpolated(samples, hz, rate_hz) for hz, samples in played
    ]
    return np.concatenate(parts)[: rate_hz // TICKS_PER_S] if parts else np.zeros(0, np.int16)


def _interpolated(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    length = len(samples) * to_hz // from_hz
    at = np.arange(length) * (from_hz / to_hz)
    between: Samples = np.interp(at, np.arange(len(samples)), samples).astype(np.int16)
    return between


def _default_attributes(uuid: str) -> dict[str, object]:
    return {
        "callSid": uuid,
        "direction": "inbound",
        "from": "+15550100",
        "to": "+15550199",
        "callerId": "+15550100",
        "callerName": "Simulated Caller",
        "callId": f"{uuid}@simulator",
        "callStatus": "in-progress",
        "sipStatus": 200,
        "fsHost": socket.gethostname(),
    }
