"""One listen, as a state machine: what happened goes in, what is to be done comes out.

A worker owns the sockets, the rings and the clock. It tells a `Session` what happened, by the
methods under "Inputs", and carries out the actions they return, in order and at once. Nothing in
here waits, reads a clock or performs input or output, so that every rule of the verb is a function
call away from its test. Each input takes the time first, in milliseconds of any steady clock.

Rules of the worker:

- While `wants_play_status` is true, `Session.play_status` is called every 20 ms or so and before
  `text`, `command` and `ended`: a kill is exact only if what was played before it is known.
- Each `Write` is carried out and answered by `wrote` (with 0 if it failed) before any other input;
  each `Trim` by `trimmed`, likewise.
- `tick` is called every 20 ms or so.
- `closed` hands back what the connection has not delivered, so that the next one can.
- `Decode` may be done elsewhere, in a thread, several at a time and in any order.
- While `may_read` is false nothing more is read from the server.

A listen ends in two ways. Either the switch ends it (hang-up, stop, transfer), which shows as
`ended` after the last frame. Or the session ends it, by an `End` to the switch; what the switch
says then is the same `ended`. So there is one way out, and one reason per listen.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from pylisten import wire
from pylisten.actions import (
    Action,
    Close,
    CloseFlow,
    Connect,
    Counters,
    Decode,
    Discard,
    Emit,
    End,
    Flush,
    Hook,
    Log,
    OpenFlow,
    Release,
    SendBinary,
    SendText,
    Trim,
    Write,
    hook_body,
)
from pylisten.errors import WireError
from pylisten.playback import ClipDone, ClipStarted, MarkReached, Out, Playback, ToneDone, beep
from pylisten.reconnect import Kept, Tries
from pylisten.silence import SilenceDetector
from pylisten.timeline import Frame, Pauses, Sent

if TYPE_CHECKING:
    from pylisten.audio import Clip
    from pylisten.shm import PlayStatus
    from pylisten.verb import Verb

__all__ = [
    "TRANSITIONS",
    "Action",
    "Close",
    "CloseFlow",
    "Connect",
    "Counters",
    "Decode",
    "Discard",
    "Emit",
    "End",
    "Event",
    "Flush",
    "Hook",
    "Log",
    "OpenFlow",
    "Release",
    "SendBinary",
    "SendText",
    "Session",
    "State",
    "Trim",
    "Write",
    "hook_body",
    "mermaid",
]


class State(enum.Enum):
    """Where a listen is in its life, seen from its worker."""

    NEW = "new"
    CONNECTING = "connecting"
    STREAMING = "streaming"
    RECONNECTING = "reconnecting"
    ENDING = "ending"
    CLOSED = "closed"


class Event(enum.Enum):
    """What moves a listen from one state to the next."""

    START = "start"
    CONNECTED = "connected"
    CONNECT_FAILED = "connect failed"
    SERVER_CLOSED = "server closed"
    DROPPED = "dropped"
    FINISH = "finish"  # disconnect, finish key, maximum length, silence, stop
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
    (State.STREAMING, Event.DROPPED): State.RECONNECTING,
    (State.STREAMING, Event.FINISH): State.ENDING,
    (State.STREAMING, Event.ENDED): State.CLOSED,
    (State.STREAMING, Event.LOST): State.CLOSED,
    (State.RECONNECTING, Event.CONNECTED): State.STREAMING,
    (State.RECONNECTING, Event.CONNECT_FAILED): State.ENDING,
    (State.RECONNECTING, Event.FINISH): State.ENDING,
    (State.RECONNECTING, Event.ENDED): State.CLOSED,
    (State.RECONNECTING, Event.LOST): State.CLOSED,
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


# The server's wish to end: 1000, or no code at all, as the jambonz SDK's close() sends (1005 stands
# for that, RFC 6455 section 7.4.1). Everything else is a loss.
_CLEAN = (1000, 1005)

# The switch confirms an end within one frame, if it is there. Its own patience is 30 s.
_END_TIMEOUT_MS = 10_000

# A server that sends what is refused does so 50 times a second; it is told once.
_REFUSALS_MS = 1000

# An event header is no place for a document.
_MESSAGE_MAX_BYTES = 8 * 1024
_TYPE_MAX_CHARACTERS = 256


# A switch whose media does not run plays no beep; the server must not wait for it.
_BEEP_MAX_MS = 3000

# While the server is away the ring is kept from filling up: what it drops would be the newest.
_RING_SPARE_MS = 500

# The listen is being served: the switch has not ended it, and neither have we.
_SERVING = frozenset({State.CONNECTING, State.STREAMING, State.RECONNECTING})


class Session:
    """One listen, from its start to the release of its slot.

    ``attributes`` are the call attributes of the first text frame that the switch knows.
    ``interrupt`` is what a ``playAudio`` without ``queuePlay`` does; ``queue_limit`` clips may wait
    behind the one being played. ``resumed`` tells the server that another worker has served this
    listen before. Reading from the server stops while more than ``backlog_max_bytes`` of its audio
    wait. ``ring_ms`` is what the capture ring holds. ``jitter`` gives random numbers from 0 to 1,
    for the pauses between tries to reconnect. What counts as silence is said by
    ``silence_threshold_dbfs``, ``silence_attack_ms`` and ``silence_hangover_ms``: see
    `SilenceDetector`.
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
        ring_ms: int = 10_000,
        jitter: Callable[[], float] = random.random,
        silence_threshold_dbfs: float = -40.0,
        silence_attack_ms: int = 40,
        silence_hangover_ms: int = 200,
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
        self._keep_ms = max(ring_ms - _RING_SPARE_MS, ring_ms // 2)
        self._max_samples = math.inf
        if verb.max_length is not None:
            self._max_samples = round(verb.max_length * verb.sample_rate)
        self._silence_max_s = math.inf if verb.timeout is None else verb.timeout
        self._detector = SilenceDetector(
            verb.sample_rate, silence_threshold_dbfs, silence_attack_ms, silence_hangover_ms
        )
        self._bytes_per_sample = 4 if verb.mix_type == "stereo" else 2
        self._stream_rate_hz = verb.bidirectional_audio.sample_rate or verb.sample_rate
        # The connection.
        self._link: Literal["none", "opening", "open"] = "none"
        self._ws_close: tuple[int | None, str] = None, ""  # code and reason of the last close
        self._tries = Tries(verb.reconnect, jitter) if verb.reconnect else None
        self._loss = ""  # how the connection was lost, for people
        self._kept = Kept()  # for when the connection stands
        self._dropping = False  # texts are being dropped, and it has been said
        self._hello: list[str] = []  # the text frames that opened this connection
        self._gap_samples = 0  # given up, and the server does not know it
        # The time-line.
        self._started_ms = self._began_ms = 0.0
        self._next_pos: int | None = None if resumed else 0  # of the next frame, samples
        self._sent = Sent()
        self._pauses = Pauses()
        # Playback.
        self._playback = Playback(queue_limit)
        self._room_bytes: int | None = None  # free in the playback ring, at least; None: unknown
        self._offered = 0  # samples of the Write that has not been answered yet
        self._decoding: dict[int, int] = {}  # size of the content by ticket, bytes
        self._refused: dict[str, tuple[float, int]] = {}  # by code: last told at, refused since
        self._sounded_ms = -math.inf  # when the call was last known to hear something of ours
        self._beeping = False  # nothing flows before the beep is over
        self._trims_beep = False  # the next answer to `Trim` is about the beep
        # The end.
        self._ending_since_ms = 0.0
        self._digits = ""

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

    @property
    def _flowing(self) -> bool:
        """Whether frames come; until they do, and while they do not, a clock must stand in."""
        return self.state is State.STREAMING and not self._beeping

    # Inputs: the worker.

    def start(self, now_ms: float, began_ms: float | None = None) -> list[Action]:
        """The listen is ours to serve.

        ``began_ms`` is when its time-line began, position 0, on the same clock: earlier than now
        if another worker served it before. None stands for now.
        """
        if not self._step(Event.START):
            return []
        self._started_ms = now_ms
        self._began_ms = now_ms if began_ms is None else began_ms
        if self._verb.play_beep and not self._resumed:
            self._beeping = True
            self._playback.add_tone(*beep())
        return [self._connect()]

    def tick(self, now_ms: float) -> list[Action]:
        """Time has passed; to be called every 20 ms or so."""
        if self.state is State.ENDING:
            return self._check_confirmed(now_ms)
        if self.state not in _SERVING:
            return []
        out: list[Action] = []
        elapsed_ms = now_ms - self._began_ms
        if self._beeping and now_ms - self._started_ms >= _BEEP_MAX_MS:
            log = Log("warning", f"the beep was not played within {_BEEP_MAX_MS} ms")
            out += [log, *self._beep_over()]
        if not self._flowing and elapsed_ms * self._verb.sample_rate >= self._max_samples * 1000:
            return [*out, *self._finish(now_ms, Event.FINISH, "max-length")]
        if self.state is State.RECONNECTING:
            out += self._reconnect(now_ms)
        return out

    def trimmed(self, now_ms: float, samples: int) -> list[Action]:
        """The answer to `Trim`: ``samples`` per track were given up."""
        if self._next_pos is not None:
            self._next_pos += samples
        if self._trims_beep:
            self._trims_beep = False
        elif samples and self.state is State.RECONNECTING:
            self._give_up_frames()  # they are older still
            self._give_up(samples)
        return []

    # Inputs: the WebSocket.

    def connected(self, now_ms: float) -> list[Action]:
        """The WebSocket is open."""
        again = self.state is State.RECONNECTING
        if self._link != "opening" or not self._step(Event.CONNECTED):
            return []
        self._link = "open"
        self._dropping = False
        if self._tries:
            self._tries.opened(now_ms)
        out, headers = self._greet(again)
        out += self._replay(again)
        if not self._beeping:
            out.append(OpenFlow())
        return [*out, Emit("connect", headers)]

    def connect_failed(self, now_ms: float, error: str) -> list[Action]:
        """The WebSocket could not be opened; ``error`` says why, for people."""
        self._link = "none"
        if self.state is not State.RECONNECTING:
            return self._finish(now_ms, Event.CONNECT_FAILED, "connect-failed", error=error)
        assert self._tries
        if self._tries.failed(now_ms, error):
            return [self._announce(error)]
        return self._not_reached(now_ms)

    def closed(
        self,
        now_ms: float,
        code: int | None,
        reason: str,
        undelivered: Sequence[str | bytes] = (),
    ) -> list[Action]:
        """The server closed the WebSocket, or it broke (``code`` None or 1006).

        ``undelivered`` is what was to be sent and did not, or may not have, arrived, in order.
        """
        self._link = "none"
        if self.state is not State.STREAMING:
            return []
        self._ws_close = code, reason
        broken = code is None or code == 1006
        if code in _CLEAN or self._tries is None:
            error = "the connection broke" if broken else ""
            return self._finish(now_ms, Event.SERVER_CLOSED, "closed", error=error)
        because = f" ({reason})" if reason else ""
        how = "broke" if broken else f"was closed with {code}"
        self._loss = f"the connection {how}{because}"
        self._step(Event.DROPPED)
        out = self._take_back(undelivered)
        if not self._tries.lost(now_ms, self._loss):
            return [*out, *self._not_reached(now_ms)]
        return [CloseFlow(), self._announce(self._loss), *out]

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
            if not self._playback.holds(ticket):
                return []  # killed meanwhile, and reported as such
            out = self._report(self._playback.drop(ticket))
            return [*out, *self._error(result), *self._pump()]
        return [*self._report(self._playback.fill(ticket, result)), *self._pump()]

    # Inputs: the switch.

    def frame(self, now_ms: float, data: bytes, level: int, silence: int, pos: int) -> list[Action]:
        """20 ms of audio to send.

        ``level`` is the RMS of the near track (0 … 32767), ``silence`` the number of its samples
        that were filled in, ``pos`` the position of the first one on the time-line, in samples.
        """
        if self.state not in (State.STREAMING, State.RECONNECTING):
            self.counters.frames_discarded += 1
            return []
        samples = len(data) // self._bytes_per_sample
        self._next_pos = pos + samples
        self.counters.samples_silent += silence
        self.counters.peak_level = max(self.counters.peak_level, level)
        out = self._pass_on(data, pos, samples)
        if self.state is not State.STREAMING:
            return out
        if pos + samples >= self._max_samples:
            out += self._finish(now_ms, Event.FINISH, "max-length")
        elif self._silence_s(pos, samples, level) >= self._silence_max_s:
            out += self._finish(now_ms, Event.FINISH, "silence")
        return out

    def digit(self, now_ms: float, digit: str, duration: int, far: bool) -> list[Action]:
        """A key was pressed, for ``duration`` units of 1/8000 s, on this leg or the far one."""
        if self.state not in _SERVING:
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
        sounding = self._playback.sounding
        reports = self._playback.progress(status)
        if sounding or self._playback.sounding:
            self._sounded_ms = now_ms
        return [*self._report(reports), *self._pump()]

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
        if self.state not in _SERVING:
            return []
        match name:
            case "stop":
                return self._finish(now_ms, Event.FINISH, "stopped")
            case "kill":
                return self._report(self._playback.kill())
            case "send":
                return self._send(argument)
            case "pause":
                return self._pause(now_ms, argument or "silence")
            case "resume":
                return self._resume(now_ms)
        return [Log("warning", f"unknown command {name!r}")]

    def ended(self, now_ms: float, reason: str) -> list[Action]:
        """The listen is over on the switch's side, and its last frame has been handed in.

        ``reason`` is the switch's, or empty where it gave none.
        """
        duration_ms = self._duration_ms(now_ms)
        if not self._step(Event.ENDED):
            return []
        self.reason = reason or self.reason or "hangup"
        return self._leave(1000, self.reason, duration_ms)

    def lost(self, now_ms: float, adopted: bool) -> list[Action]:
        """The switch has gone, or the worker must: the listen is no longer served here.

        ``adopted``: another worker may go on with it. Then ``reason`` stays empty if it was, and
        the hook is that worker's to run; else the call has gone with the switch.
        """
        duration_ms = self._duration_ms(now_ms)
        if not self._step(Event.LOST):
            return []
        if adopted:
            return self._leave(1001, "going away", None)
        self.reason = self.reason or "hangup"
        return self._leave(1001, "going away", duration_ms)

    # Ends.

    def _step(self, event: Event) -> bool:
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            return False
        self.state = target
        return True

    def _finish(
        self, now_ms: float, event: Event, reason: str, *, error: str = "", digits: str = ""
    ) -> list[Action]:
        """Asks the switch to end the listen, unless that has been done."""
        if not self._step(event):
            return []
        self.reason = reason
        self._digits = digits
        self._ending_since_ms = now_ms
        self._drop_kept()
        if self._link == "open":  # it is us who will close it
            self._ws_close = 1000, reason
        sent = self.counters.bytes_sent
        end = End(reason, error, digits, *self._ws_close, sent, self._gap_ms())
        return [end, Discard()]

    def _check_confirmed(self, now_ms: float) -> list[Action]:
        if now_ms - self._ending_since_ms < _END_TIMEOUT_MS:
            return []
        duration_ms = self._duration_ms(now_ms)
        self._step(Event.OVERDUE)
        log = Log("warning", f"the switch did not confirm the end within {_END_TIMEOUT_MS} ms")
        return [log, *self._leave(1000, self.reason, duration_ms)]

    def _leave(self, code: int, reason: str, duration_ms: int | None) -> list[Action]:
        """The last actions of every listen; no hook where there is no duration to tell."""
        out = self._report(self._playback.close())
        self._drop_kept()
        if self._link != "none":
            out.append(Close(code, reason))
        if self._link == "open":
            self._ws_close = code, reason
        self._link = "none"
        if duration_ms is not None and self._verb.action_hook:
            out.append(self._hook(duration_ms))
        return [*out, Release()]

    def _hook(self, duration_ms: int) -> Hook:
        close_code, close_reason = self._ws_close
        attributes = dict(self._attributes)
        if self.reason == "hangup":
            attributes["callStatus"] = "completed"  # they are those of the start
        body = hook_body(
            self._listen_id,
            attributes,
            name=self._verb.name,
            verb_id=self._verb.id,
            reason=self.reason,
            duration_ms=duration_ms,
            digits=self._digits,
            close_code=close_code,
            close_reason=close_reason,
            bytes_sent=self.counters.bytes_sent,
            gap_ms=self._gap_ms(),
        )
        return Hook(body)

    def _duration_ms(self, now_ms: float) -> int:
        """How long the listen has lasted, or did until its end was decided.

        Where frames flow the last of them says it best: they may come long after a hang-up.
        """
        end_ms = self._ending_since_ms if self.state is State.ENDING else now_ms
        if self._flowing and self._next_pos is not None:
            end_ms = self._time_ms(self._next_pos)
        return max(0, round(end_ms - self._began_ms))

    def _gap_ms(self) -> int:
        """Audio that the server did not get as it was said."""
        missed = self.counters.samples_silent + self.counters.samples_given_up
        return missed * 1000 // self._verb.sample_rate

    # The connection.

    def _connect(self) -> Connect:
        self._link = "opening"
        headers = self._verb.upgrade_headers()
        return Connect(self._verb.ws_url, self._attributes.get("callSid") or "", headers)

    def _greet(self, again: bool) -> tuple[list[Action], dict[str, str]]:
        """The text frames that open a connection, and the headers of the event that tells of it."""
        first = wire.first_frame(
            self._verb,
            self._attributes,
            listen_id=self._listen_id,
            resumed=self._resumed or again,
        )
        self._hello = [first]
        # The query of a URL may hold a token; events are read by many.
        headers = {"Listen-Url": self._verb.ws_url.partition("?")[0]}
        if again:
            self.counters.reconnects += 1
            gap_ms = self._gap_samples * 1000 // self._verb.sample_rate
            position_ms = self._position_ms()
            if position_ms is not None:
                self._hello.append(wire.resumed(gap_ms, position_ms))
            headers |= {"Listen-Resumed": "true", "Listen-Gap-Ms": str(gap_ms)}
        return [action for text in self._hello for action in self._send(text)], headers

    def _position_ms(self) -> int | None:
        """Where on the time-line the audio goes on; None if another worker sent all so far."""
        first = self._kept.first
        pos = first.pos if first else self._next_pos
        return None if pos is None else pos * 1000 // self._verb.sample_rate

    def _replay(self, again: bool) -> list[Action]:
        """Sends what was kept."""
        out: list[Action] = []
        for item in self._kept.take():
            if isinstance(item, str):
                out += self._send(item)
            else:
                self.counters.frames_replayed += again
                out.append(self._send_frame(item))
        return out

    def _reconnect(self, now_ms: float) -> list[Action]:
        """Tries when it is time to, and keeps the ring from filling up."""
        assert self._tries
        out: list[Action] = []
        if self._tries.begin(now_ms):
            out.append(self._connect())
        elif self._tries.overdue(now_ms):
            return self._not_reached(now_ms)
        if not self._beeping:
            out.append(Trim(self._keep_ms))
        return out

    def _announce(self, error: str) -> Emit:
        """Tells of the next try, and of what made it necessary."""
        assert self._tries
        headers = {"Listen-Attempt": str(self._tries.made + 1), "Listen-Error": error}
        return Emit("reconnect", headers)

    def _not_reached(self, now_ms: float) -> list[Action]:
        assert self._tries
        error = f"{self._loss}; {self._tries.describe()}"
        return self._finish(now_ms, Event.CONNECT_FAILED, "connect-failed", error=error)

    def _take_back(self, undelivered: Sequence[str | bytes]) -> list[Action]:
        """Keeps what did not arrive; what opened the connection will be made anew."""
        greeted = 0
        while greeted < len(undelivered) and undelivered[greeted] in self._hello:
            greeted += 1
        if not greeted:
            self._gap_samples = 0  # the server knows of it
        self.counters.texts_sent -= greeted
        items: list[str | Frame] = []
        for item in reversed(undelivered[greeted:]):
            if isinstance(item, str):
                self.counters.texts_sent -= 1
                items.append(item)
            else:
                items.append(self._take_back_frame(item))
        return [action for item in reversed(items) for action in self._keep(item)]

    def _take_back_frame(self, data: bytes) -> Frame:
        samples = len(data) // self._bytes_per_sample
        self.counters.frames_sent -= 1
        self.counters.bytes_sent -= len(data)
        self.counters.samples_sent -= samples
        return Frame(data, self._sent.take_back(samples))

    def _keep(self, item: str | Frame) -> list[Action]:
        """Keeps it until the connection stands."""
        if self._kept.add(item):
            return []
        self.counters.texts_dropped += 1
        if self._dropping:
            return []
        self._dropping = True
        return [Log("warning", "too many text frames wait for the server; the oldest are dropped")]

    def _drop_kept(self) -> None:
        """There will be no connection to send it on."""
        self._give_up_frames()
        self.counters.texts_dropped += len(self._kept.take())

    def _give_up_frames(self) -> None:
        frames = self._kept.take_frames()
        self.counters.frames_given_up += len(frames)
        self._give_up(sum(len(frame.data) for frame in frames) // self._bytes_per_sample)

    def _give_up(self, samples: int) -> None:
        self.counters.samples_given_up += samples
        self._gap_samples += samples

    # Audio to the server.

    def _time_ms(self, pos: int) -> float:
        """When the sample at ``pos`` was heard, on our clock."""
        return self._began_ms + pos * 1000 / self._verb.sample_rate

    def _pass_on(self, data: bytes, pos: int, samples: int) -> list[Action]:
        """Sends a frame, as far as no operator is against it."""
        mode = self._pauses.at(self._time_ms(pos), self._time_ms(pos + samples))
        if mode:
            self.counters.frames_paused += 1
            data = bytes(len(data))
        if mode == "drop":
            return []
        frame = Frame(data, pos)
        return [self._send_frame(frame)] if self._link == "open" else self._keep(frame)

    def _send_frame(self, frame: Frame) -> SendBinary:
        samples = len(frame.data) // self._bytes_per_sample
        self.counters.frames_sent += 1
        self.counters.bytes_sent += len(frame.data)
        self.counters.samples_sent += samples
        if frame.pos is not None:
            self._sent.add(frame.pos, samples)
        return SendBinary(frame.data)

    def _silence_s(self, pos: int, samples: int, level: int) -> float:
        """Seconds of silence up to the end of a frame.

        What the call hears of us is no silence. A frame may come late; what was heard after it
        tells just as well that the silence did not last.
        """
        if self._time_ms(pos) <= self._sounded_ms:
            self._detector.restart()
            return 0.0
        return self._detector.feed(samples, level)

    def _pause(self, now_ms: float, mode: str) -> list[Action]:
        match mode:
            case "silence" | "drop":
                self._pauses.begin(now_ms, mode)
                return []
        return [Log("warning", f"pause: found {mode!r}, expected silence or drop")]

    def _resume(self, now_ms: float) -> list[Action]:
        paused = self._pauses.end(now_ms)
        return [] if paused else [Log("warning", "resume: the listen is not paused")]

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
        if self._link != "open" and self.state is not State.RECONNECTING:
            return []
        self.counters.errors_sent += 1
        return self._send(wire.error(error.code, error.message, error.id))

    def _send(self, text: str) -> list[Action]:
        """Sends a text frame, or keeps it until the connection stands."""
        if self._link == "open":
            self.counters.texts_sent += 1
            return [SendText(text)]
        return self._keep(text) if self.state in _SERVING else []

    # Playback.

    def _pump(self) -> list[Action]:
        """Offers the ring the next piece, one at a time."""
        if self.state not in _SERVING or self._offered:
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
                case ToneDone():
                    out += self._beep_over()
        if self.state in _SERVING:
            return out
        # The switch has ended the listen, or will: its ring and its events are out of reach.
        return [action for action in out if isinstance(action, SendText)]

    def _beep_over(self) -> list[Action]:
        """The server hears what was said after the beep."""
        if not self._beeping:
            return []
        self._beeping = False
        self._trims_beep = True
        trim = Trim(0)
        return [trim, OpenFlow()] if self.state is State.STREAMING else [trim]

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
