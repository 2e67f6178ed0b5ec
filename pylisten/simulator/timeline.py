"""What happened in a simulated listen, and when: from its events and from the audio itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pylisten import shm
from pylisten.simulator.call import SimulatedCall
from pylisten.simulator.recording import TICKS_HZ
from pylisten.simulator.switch import SimulatedSwitch

__all__ = ["Moment", "Timeline"]

# Pauses of the bot that are shorter do not make a new moment: a stream has many.
_PAUSE_TICKS: Final = TICKS_HZ * 4 // 10


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened, milliseconds after the call began; ``label`` is short."""

    at_ms: int
    label: str
    text: str


class Timeline:
    """Collects the moments of one call and tells each to ``say`` as it comes.

    To be made, in the event loop, together with the call. ``end`` has the headers of
    ``listen::end`` once that was fired.
    """

    def __init__(
        self, switch: SimulatedSwitch, call: SimulatedCall, say: Callable[[Moment], None]
    ) -> None:
        self.moments: list[Moment] = []
        self.end: Mapping[str, str] | None = None
        self.ended = asyncio.Event()
        self._switch = switch
        self._call = call
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._begin_ns = switch.clock.now_ns
        self._slot: int | None = None
        self._sent = False
        self._heard_until = -_PAUSE_TICKS
        switch.watch(self._on_event)

    def follow(self, slot: int) -> None:
        """Watches the audio of the listen in this slot, from now on."""
        self._slot = slot
        self._switch.clock.add(self._on_tick)

    def close(self) -> None:
        """Watches no more."""
        self._switch.clock.remove(self._on_tick)

    def note(self, at_ns: int, label: str, text: str) -> None:
        """Adds a moment."""
        moment = Moment(max(0, (at_ns - self._begin_ns) // 1_000_000), label, text)
        self.moments.append(moment)
        self._say(moment)

    def _on_event(self, name: str, headers: Mapping[str, str]) -> None:
        if headers["Unique-ID"] != self._call.uuid:
            return
        now_ns = shm.now_ns()
        if name == "listen::end":
            self.end = headers
            text = f"end: {headers['Listen-Reason']}"
            if "Listen-Error" in headers:
                text += f" ({headers['Listen-Error']})"
            self.note(now_ns, "end", text)
            self.ended.set()
        elif (told := _told(name, headers)) is not None:
            self.note(now_ns, *told)

    def _on_tick(self, now_ns: int) -> None:
        """In the clock's thread: the audio is looked at where it passes."""
        if self._slot is None:
            return
        if not self._sent and self._switch.arena.counters(self._slot)["sent"]:
            self._sent = True
            self._from_clock(now_ns, "first audio", "first audio sent to the server")
        last = self._call.heard.last
        if last is None:
            return
        begin, end = last
        if begin - self._heard_until >= _PAUSE_TICKS:
            at_ns = self._begin_ns + begin * 1_000_000_000 // TICKS_HZ
            self._from_clock(at_ns, "bot heard", "the caller hears the bot")
        self._heard_until = end

    def _from_clock(self, at_ns: int, label: str, text: str) -> None:
        self._loop.call_soon_threadsafe(self.note, at_ns, label, text)


def _told(name: str, headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Label and text for an event, or None for those that say nothing new."""
    clip = headers.get("Listen-Play-ID", "")
    match name:
        case "listen::connect":
            return "connected", f"connected to {headers.get('Listen-Url', 'the server')}"
        case "listen::reconnect":
            return "reconnect", f"connection lost, try {headers.get('Listen-Attempt', '')}"
        case "listen::play_start":
            return "playAudio", f"playAudio begins{f': {clip}' if clip else ''}"
        case "listen::play_done":
            reason = headers.get("Listen-Play-Reason", "done")
            played_ms = headers.get("Listen-Playback-Ms", "?")
            which = f": {clip}" if clip else ""
            return "playDone", f"playDone{which}, {reason} after {played_ms} ms"
        case "listen::message":
            return "message", f"message of type {headers.get('Listen-Message-Type', '?')}"
        case "listen::dtmf":
            return "key", f"key {headers.get('Listen-Digit', '?')}"
    return None
