"""One listen, as a state machine: what happened goes in, what is to be done comes out.

A worker owns the sockets, the rings and the clock. It tells a `Session` what happened, by the
methods under "Inputs", and carries out the actions they return, in order and at once. Nothing in
here waits, reads a clock or performs input or output, so that every rule of the verb is a function
call away from its test. Each input takes the time first, in milliseconds of any steady clock.

Rules of the worker:

- While `wants_play_status` is true, `Session.play_status` is called every 20 ms or so and before
  `text`, `command` and `ended`: a kill is exact only if what was played before it is known.
- Each `Write` is carried out and answered by `wrote` (with 0 if it failed) before any other input.
- `Decode` may be done elsewhere, in a thread, several at a time and in any order.
- While `may_read` is false nothing more is read from the server.

A listen ends in two ways. Either the switch ends it (hang-up, stop, transfer), which shows as
`ended` after the last frame. Or the session ends it, by an `End` to the switch; what the switch
says then is the same `ended`. So there is one way out, and one reason per listen.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from pylisten import wire
from pylisten.errors import WireError
from pylisten.playback import ClipDone, ClipStarted, Flush, MarkReached, Out, Playback, Samples

if TYPE_CHECKING:
    from pylisten.audio import Clip
    from pylisten.shm import PlayStatus
    from pylisten.verb import Verb

__all__ = [
    "TRANSITIONS",
    "Action",
    "Close",
    "Connect",
    "Counters",
    "Decode",
    "Discard",
    "Emit",
    "End",
    "Event",
    "Flush",
    "Log",
    "OpenFlow",
    "Release",
    "SendBinary",
    "SendText",
    "Session",
    "State",
    "Write",
    "mermaid",
]


class State(enum.Enum):
    """Where a listen is in its life, seen from its worker."""

    NEW = "new"
    CONNECTING = "connecting"
    STREAMING = "streaming"
    ENDING = "ending"
    CLOSED = "closed"


class Event(enum.Enum):
    """What moves a listen from one state to the next."""

    START = "start"
    CONNECTED = "connected"
    CONNECT_FAILED = "connect failed"
    SERVER_CLOSED = "server closed"
    FINISH = "finish"  # disconnect, finish key, maximum length, stop
    ENDED = "ended"
    LOST = "lost"
    OVERDUE = "overdue"


#: Every transition there is. An event that has none in a state changes nothing there.
TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.NEW, Event.START): State.CONNECTING,
    (State.CONNECTING, Event.CONNECTED): State.STREAMING,
    (State.CONNECTING, Event.CONNECT_FAILED): State.ENDING,
    (State.CONNECTING, Event.FINISH): State.ENDING,
    (State.CONNECTING, Event.ENDED): State.CLOSED,
    (State.CONNECTING, Event.LOST): State.CLOSED,
    (State.STREAMING, Event.SERVER_CLOSED): State.ENDING,
    (State.STREAMING, Event.FINISH): State.ENDING,
    (State.STREAMING, Event.ENDED): State.CLOSED,
    (State.STREAMING, Event.LOST): State.CLOSED,
    (State.ENDING, Event.ENDED): State.CLOSED,
    (State.ENDING, Event.LOST): State.CLOSED,
    (State.ENDING, Event.OVERDUE): State.CLOSED,
}


def mermaid() -> str:
    """The state diagram in `docs/explanation/session.md`, drawn from `TRANSITIONS`."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), target in TRANSITIONS.items():
        arrows.setdefault((state, target), []).append(event.value)
    lines = [f"{a.value} --> {b.value}: {', '.join(events)}" for (a, b), events in arrows.items()]
    every = [f"[*] --> {State.NEW.value}", *lines, f"{State.CLOSED.value} --> [*]"]
    return "\n    ".join(["stateDiagram-v2", *every])


# The switch confirms an end within one frame, if it is there. Its own patience is 30 s.
_END_TIMEOUT_MS = 10_000

# A server that sends what is refused does so 50 times a second; it is told once.
_REFUSALS_MS = 1000

# An event header is no place for a document.
_MESSAGE_MAX_BYTES = 64 * 1024
_TYPE_MAX_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the WebSocket; answered by `connected` or `connect_failed`. Headers hold secrets."""

    url: str
    call_sid: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendText:
    """Send a text frame to the server."""

    text: str


@dataclass(frozen=True, slots=True)
class SendBinary:
    """Send a binary frame to the server: 20 ms of audio."""

    data: bytes


@dataclass(frozen=True, slots=True)
class OpenFlow:
    """Let frames come; until now they gathered in the ring."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Give up what the ring still holds: it will not be sent."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the WebSocket with this code and reason, or give up opening it."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode a clip; answered by `clip_decoded` with the same ticket."""

    ticket: int
    play: wire.PlayAudio


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """Write samples (int16, mono) to the playback ring; answered by `wrote`."""

    rate_hz: int
    samples: Samples


@dataclass(frozen=True, slots=True)
class Emit:
    """Fire `listen::<event>`, with flat headers."""

    event: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class End:
    """Tell the switch that the listen is over; once at most, answered by `ended`.

    ``close_code`` is None where no connection was closed. ``bytes_sent`` counts audio; ``gap_ms``
    is the silence that stood in for audio which never came.
    """

    reason: str
    error: str
    digits: str
    close_code: int | None
    close_reason: str
    bytes_sent: int
    gap_ms: int


@dataclass(frozen=True, slots=True)
class Release:
    """Give the slot back; the last action of a listen."""


@dataclass(frozen=True, slots=True)
class Log:
    """Something an operator should be able to read."""

    level: Literal["info", "warning"]
    text: str


Action = (
    Connect
    | SendText
    | SendBinary
    | OpenFlow
    | Discard
    | Close
    | Decode
    | Write
    | Flush
    | Emit
    | End
    | Release
    | Log
)


@dataclass(slots=True)
class Counters:
    """What a listen has done so far. Samples are per track, at the rate of the listen."""

    frames_sent: int = 0
    bytes_sent: int = 0
    samples_sent: int = 0
    samples_silent: int = 0  # filled in for audio that never came
    frames_discarded: int = 0  # came after the end was decided
    peak_level: int = 0  # of the near track, 0 … 32768
    texts_in: int = 0
    texts_sent: int = 0
    binaries_in: int = 0
    binaries_refused: int = 0
    errors_sent: int = 0
    clips_queued: int = 0
    clips_done: int = 0
    clips_killed: int = 0


class Session:
    """One listen, from its start to the release of its slot.

    ``attributes`` are the call attributes of the first text frame that the switch knows.
    ``interrupt`` is what a ``playAudio`` without ``queuePlay`` does; ``queue_limit`` clips may wait
    behind the one being played. ``resumed`` tells the server that another worker has served this
    listen before. Reading from the server stops while more than ``backlog_max_bytes`` of its audio
    wait.
    """

    def __init__(
        self,
        listen_id: str,
        verb: Verb,
        attributes: Mapping[str, str | None],
        *,
        interrupt: bool = False,
        queue_limit: int = 10,
        resumed: bool = False,
        backlog_max_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self.state = State.NEW
        self.reason = ""  # why the listen ended; empty while it has not
        self.counters = Counters()
        self._listen_id = listen_id
        self._verb = verb
        self._attributes = attributes
        self._interrupt = interrupt
        self._resumed = resumed
        self._backlog_max_bytes = backlog_max_bytes
        self._max_samples = math.inf
        if verb.max_length is not None:
            self._max_samples = verb.max_length * verb.sample_rate
        self._bytes_per_sample = 4 if verb.mix_type == "stereo" else 2
        self._stream_rate_hz = verb.bidirectional_audio.sample_rate or verb.sample_rate
        self._link: Literal["none", "opening", "open"] = "none"
        self._early: list[str] = []  # text frames for when the connection stands
        self._playback = Playback(queue_limit)
        self._room_bytes: int | None = None  # free in the playback ring, at least; None: unknown
        self._offered = 0  # samples of the Write that has not been answered yet
        self._decoding: dict[int, int] = {}  # size of the content by ticket, bytes
        self._refused: dict[str, tuple[float, int]] = {}  # by code: last told at, refused since
        self._ending_since_ms = 0.0

    @property
    def wants_play_status(self) -> bool:
        """Whether anything is being played, or waits to be; or nothing is known of the ring yet."""
        if self.state in (State.NEW, State.CLOSED):
            return False
        return self._room_bytes is None or not self._playback.idle

    @property
    def may_read(self) -> bool:
        """False while the server has sent more audio than is reasonable to keep."""
        backlog_bytes = self._playback.backlog_bytes + sum(self._decoding.values())
        return backlog_bytes <= self._backlog_max_bytes

    # Inputs: the worker.

    def start(self, now_ms: float) -> list[Action]:
        """The listen is ours to serve."""
        if not self._step(Event.START):
            return []
        self._link = "opening"
        headers = self._verb.upgrade_headers()
        return [Connect(self._verb.ws_url, self._attributes.get("callSid") or "", headers)]

    def tick(self, now_ms: float) -> list[Action]:
        """Time has passed; to be called about once a second."""
        if self.state is not State.ENDING or now_ms - self._ending_since_ms < _END_TIMEOUT_MS:
            return []
        self._step(Event.OVERDUE)
        log = Log("warning", f"the switch did not confirm the end within {_END_TIMEOUT_MS} ms")
        return [log, *self._leave(1000, self.reason)]

    # Inputs: the WebSocket.

    def connected(self, now_ms: float) -> list[Action]:
        """The WebSocket is open."""
        if not self._step(Event.CONNECTED):
            return []
        self._link = "open"
        first = wire.first_frame(
            self._verb, self._attributes, listen_id=self._listen_id, resumed=self._resumed
        )
        out: list[Action] = []
        for text in [first, *self._early]:
            out += self._send(text)
        # The query of a URL may hold a token; events are read by many.
        url = self._verb.ws_url.partition("?")[0]
        return [*out, OpenFlow(), Emit("connect", {"Listen-Url": url})]

    def connect_failed(self, now_ms: float, error: str) -> list[Action]:
        """The WebSocket could not be opened; ``error`` says why, for people."""
        self._link = "none"
        return self._finish(now_ms, Event.CONNECT_FAILED, "connect-failed", error=error)

    def closed(self, now_ms: float, code: int | None, reason: str) -> list[Action]:
        """The server closed the WebSocket, or it broke (``code`` None or 1006)."""
        self._link = "none"
        broken = code is None or code == 1006
        error = "the connection broke" if broken else ""
        return self._finish(
            now_ms,
            Event.SERVER_CLOSED,
            "closed",
            error=error,
            close_code=code,
            close_reason=reason,
        )

    def text(self, now_ms: float, text: str) -> list[Action]:
        """The server sent a text frame."""
        if self.state is not State.STREAMING:
            return []
        self.counters.texts_in += 1
        try:
            message = wire.decode_text(text)
            return self._message(now_ms, message)
        except WireError as error:
            return self._error(error)

    def binary(self, now_ms: float, data: bytes) -> list[Action]:
        """The server sent a binary frame: L16 to play, in streaming mode."""
        if self.state is not State.STREAMING or not data:
            return []
        self.counters.binaries_in += 1
        audio = self._verb.bidirectional_audio
        if not audio.enabled:
            return self._refuse(now_ms, "not-bidirectional", "bidirectionalAudio is disabled")
        if not audio.streaming:
            return self._refuse(now_ms, "not-streaming", "bidirectionalAudio.streaming is not set")
        if len(data) > wire.MAX_TEXT_BYTES:
            limit = f"a frame is larger than {wire.MAX_TEXT_BYTES} bytes"
            return self._refuse(now_ms, "too-large", limit)
        if len(data) % 2:
            return self._refuse(now_ms, "bad-audio", "a frame holds an odd number of bytes")
        self._playback.add_stream(self._stream_rate_hz, np.frombuffer(data, dtype="<i2"))
        return self._pump()

    def clip_decoded(self, now_ms: float, ticket: int, result: Clip | WireError) -> list[Action]:
        """The answer to `Decode`."""
        self._decoding.pop(ticket, None)
        if isinstance(result, WireError):
            out = self._report(self._playback.drop(ticket))
            return [*out, *self._error(result), *self._pump()]
        return [*self._report(self._playback.fill(ticket, result)), *self._pump()]

    # Inputs: the switch.

    def frame(self, now_ms: float, data: bytes, level: int, silence: int) -> list[Action]:
        """20 ms of audio to send: its peak level, and how many samples of it were filled in."""
        counters = self.counters
        if self.state is not State.STREAMING:
            counters.frames_discarded += 1
            return []
        counters.frames_sent += 1
        counters.bytes_sent += len(data)
        counters.samples_sent += len(data) // self._bytes_per_sample
        counters.samples_silent += silence
        counters.peak_level = max(counters.peak_level, level)
        out: list[Action] = [SendBinary(data)]
        if counters.samples_sent >= self._max_samples:
            out += self._finish(now_ms, Event.FINISH, "max-length")
        return out

    def digit(self, now_ms: float, digit: str, duration: int, far: bool) -> list[Action]:
        """A key was pressed, for ``duration`` units of 1/8000 s, on this leg or the far one."""
        if self.state not in (State.CONNECTING, State.STREAMING):
            return []
        out: list[Action] = []
        if self._verb.pass_dtmf:
            out += self._send(wire.dtmf(digit, duration))
            whose = "far" if far else "near"
            headers = {"Listen-Digit": digit, "Listen-Digit-Duration": str(duration)}
            out.append(Emit("dtmf", {**headers, "Listen-Digit-Leg": whose}))
        # The far end may press keys of its own accord; only this leg ends its listen.
        if not far and digit in self._verb.finish_on_key:
            out += self._finish(now_ms, Event.FINISH, "finish-key", digits=digit)
        return out

    def play_status(self, now_ms: float, status: PlayStatus) -> list[Action]:
        """How far the call has played what was written to the ring."""
        self._room_bytes = status.room_bytes
        return [*self._report(self._playback.progress(status)), *self._pump()]

    def wrote(self, now_ms: float, taken: int) -> list[Action]:
        """The ring took ``taken`` samples of the last `Write`; fewer than offered: it is full."""
        offered, self._offered = self._offered, 0
        self._playback.wrote(taken)
        if taken == offered and self._room_bytes is not None:
            self._room_bytes = max(0, self._room_bytes - taken * 2)
        else:
            self._room_bytes = 0
        return self._pump()

    def command(self, now_ms: float, name: str, argument: str) -> list[Action]:
        """An operator asks."""
        if self.state not in (State.CONNECTING, State.STREAMING):
            return []
        match name:
            case "stop":
                return self._finish(now_ms, Event.FINISH, "stopped")
            case "kill":
                return self._report(self._playback.kill())
            case "send":
                return self._send(argument)
        return [Log("warning", f"unknown command {name!r}")]

    def ended(self, now_ms: float, reason: str) -> list[Action]:
        """The listen is over on the switch's side, and its last frame has been handed in.

        ``reason`` is the switch's, or empty where it gave none.
        """
        if not self._step(Event.ENDED):
            return []
        self.reason = reason or self.reason or "hangup"
        return self._leave(1000, self.reason)

    def lost(self, now_ms: float) -> list[Action]:
        """The switch has gone, or the worker must: the listen is no longer served here.

        ``reason`` stays empty if it was: another worker may go on with the listen.
        """
        return self._leave(1001, "going away") if self._step(Event.LOST) else []

    # Ends.

    def _step(self, event: Event) -> bool:
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            return False
        self.state = target
        return True

    def _finish(
        self,
        now_ms: float,
        event: Event,
        reason: str,
        *,
        error: str = "",
        digits: str = "",
        close_code: int | None = None,
        close_reason: str = "",
    ) -> list[Action]:
        """Asks the switch to end the listen, unless that has been done."""
        if not self._step(event):
            return []
        self.reason = reason
        self._ending_since_ms = now_ms
        if self._link == "open":  # it is us who will close it
            close_code, close_reason = 1000, reason
        gap_ms = self.counters.samples_silent * 1000 // self._verb.sample_rate
        sent = self.counters.bytes_sent
        end = End(reason, error, digits, close_code, close_reason, sent, gap_ms)
        return [end, Discard()]

    def _leave(self, code: int, reason: str) -> list[Action]:
        """The last actions of every listen."""
        out = self._report(self._playback.close())
        if self._link != "none":
            out.append(Close(code, reason))
            self._link = "none"
        return [*out, Release()]

    # The server's messages.

    def _message(self, now_ms: float, message: wire.Message) -> list[Action]:
        match message:
            case wire.PlayAudio():
                return self._play(message)
            case wire.KillAudio():
                return self._report(self._playback.kill())
            case wire.Disconnect():
                return self._finish(now_ms, Event.FINISH, "disconnect")
            case wire.Mark(name):
                return self._report(self._playback.add_mark(name))
            case wire.ClearMarks():
                return self._report(self._playback.clear_marks())
            case wire.Other(type, raw):
                return [_other(type, raw)]

    def _play(self, play: wire.PlayAudio) -> list[Action]:
        if not self._verb.bidirectional_audio.enabled:
            raise WireError("not-bidirectional", "bidirectionalAudio is disabled", play.id)
        interrupt = self._interrupt if play.queue_play is None else not play.queue_play
        ticket, out = self._playback.reserve(play.id, interrupt)
        self._decoding[ticket] = len(play.content)
        self.counters.clips_queued += 1
        return [*self._report(out), Decode(ticket, play)]

    def _refuse(self, now_ms: float, code: str, message: str) -> list[Action]:
        self.counters.binaries_refused += 1
        told_ms, count = self._refused.get(code, (-math.inf, 0))
        if now_ms - told_ms < _REFUSALS_MS:
            self._refused[code] = told_ms, count + 1
            return []
        self._refused[code] = now_ms, 0
        return self._error(WireError(code, f"binary frames refused: {count + 1}; {message}"))

    def _error(self, error: WireError) -> list[Action]:
        if self._link != "open":
            return []
        self.counters.errors_sent += 1
        return self._send(wire.error(error.code, error.message, error.id))

    def _send(self, text: str) -> list[Action]:
        """Sends a text frame, or keeps it until the connection stands."""
        if self._link == "opening":
            self._early.append(text)
        if self._link != "open":
            return []
        self.counters.texts_sent += 1
        return [SendText(text)]

    # Playback.

    def _pump(self) -> list[Action]:
        """Offers the ring the next piece, one at a time."""
        if self.state is not State.STREAMING or self._offered:
            return []
        piece = self._playback.next_write(self._room_bytes or 0)
        if piece is None:
            return []
        rate_hz, samples = piece
        self._offered = len(samples)
        return [Write(rate_hz, samples)]

    def _report(self, reports: list[Out]) -> list[Action]:
        out: list[Action] = []
        for report in reports:
            match report:
                case Flush():
                    out.append(report)
                case ClipStarted(id):
                    out.append(Emit("play_start", _play_headers(id)))
                case ClipDone():
                    out += self._clip_done(report)
                case MarkReached(name, event):
                    out += self._send(wire.mark(name, event))
        if self.state is State.STREAMING:
            return out
        # The switch has ended the listen, or will: its ring and its events are out of reach.
        return [action for action in out if isinstance(action, SendText)]

    def _clip_done(self, done: ClipDone) -> list[Action]:
        if done.reason == "killed":
            self.counters.clips_killed += 1
        else:
            self.counters.clips_done += 1
        headers = {
            **_play_headers(done.id),
            "Listen-Playback-Ms": str(done.milliseconds),
            "Listen-Play-Reason": done.reason,
        }
        text = wire.play_done(done.id, done.milliseconds, done.reason)
        return [*self._send(text), Emit("play_done", headers)]


def _play_headers(id: wire.ClipId | None) -> dict[str, str]:
    return {} if id is None else {"Listen-Play-ID": str(id)}


def _other(type: str, raw: str) -> Emit:
    data = raw.encode("utf-8", "replace")
    headers = {
        "Listen-Message-Type": type[:_TYPE_MAX_CHARACTERS],
        "Listen-Message": data[:_MESSAGE_MAX_BYTES].decode("utf-8", "ignore"),
    }
    if len(data) > _MESSAGE_MAX_BYTES:
        headers["Listen-Message-Bytes"] = str(len(data))  # so that it shows: this is not all
    return Emit("message", headers)
