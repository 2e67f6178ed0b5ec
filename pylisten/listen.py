"""One listen in a worker: carries out what its `Session` decides.

Here are the socket, the ring and the clock that the session does without. Audio leaves through a
short outbox; what a slow server does not take stays in the shared ring, where it is bounded and
counted, and comes later.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from pylisten import session as do
from pylisten import shm
from pylisten.audio import Clip, decode_clip
from pylisten.config import Config
from pylisten.errors import PylistenError, ShmError, VerbError, WireError
from pylisten.esl import EslError, json_argument
from pylisten.playback import Samples
from pylisten.session import Session
from pylisten.verb import Verb, parse_verb
from pylisten.websocket import ConnectError, open_websocket
from pylisten.wire import PlayAudio

__all__ = ["Listen", "ListenGone", "Switch"]

log = logging.getLogger(__name__)

# Frames of 20 ms that may wait in the outbox: half a second closes the flow, a tenth opens it.
_OUTBOX_HIGH = 25
_OUTBOX_LOW = 5

# Events that may wait for the switch. Beyond it a chatty server's messages are dropped, counted.
_EVENTS_MAX = 500

# How long the switch may take to say why it ended a listen, after the last frame.
_REASON_WAIT_NS = 1_000_000_000

_END_RETRY_S = 0.5

# A worker that gives a listen away detaches within a frame; longer means that it hangs.
_PREDECESSOR_S = 2.0
_ATTACH_RETRY_S = 0.01


class ListenGone(PylistenError):
    """The listen ended before it could be served."""


@dataclass(frozen=True)
class Switch:
    """What a listen needs of the switch it belongs to."""

    arena: shm.Arena
    worker: int
    kick: Callable[[], None]
    api: Callable[[str], Awaitable[str]]


class Listen:
    """Serves one listen: `attach`, then `run` until its slot is released."""

    def __init__(self, listen_id: str, switch: Switch, config: Config, tls: ssl.SSLContext) -> None:
        self.id = listen_id
        self.events_dropped = 0
        self._switch = switch
        self._config = config
        self._tls = tls
        self._slot = self._gen = -1
        self._session: Session | None = None
        self._refusal = ""
        self._outbox: deque[str | bytes] = deque()
        self._wake = asyncio.Event()  # the outbox has something, or the end has come
        self._may_read = asyncio.Event()
        self._close: tuple[int, str] | None = None
        self._flow_wanted = False
        self._flow_open = False
        self._commands: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self._end_ns = 0  # when the last frame had come; 0 before
        self._end_reason = ""
        self._released = asyncio.Event()
        self._running: asyncio.Task[object] | None = None
        self._conversation: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # Life.

    async def attach(self) -> int:
        """Learns what the listen wants and takes its slot; returns the slot.

        Raises ListenGone or ShmError (it ended meanwhile), or EslError.
        """
        reply = await self._switch.api(f"listen_ctl describe {self.id}")
        if not reply.startswith("+OK "):
            raise ListenGone(reply)
        described = json.loads(reply[len("+OK ") :])
        self._slot, self._gen = described["slot"], described["generation"]
        await self._attach_slot()
        try:
            verb = parse_verb(described["verb"])
        except VerbError as exc:
            self._refusal = str(exc)
        else:
            self._session = self._make_session(verb, described)
        return self._slot

    async def _attach_slot(self) -> None:
        """Attaches, as soon as the worker that had the listen before has detached."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _PREDECESSOR_S
        while True:
            try:
                self._switch.arena.attach(self._slot, self._gen, self._switch.worker)
                return
            except ShmError as exc:
                if exc.errno != errno.EBUSY or loop.time() > give_up_at:
                    raise
            await asyncio.sleep(_ATTACH_RETRY_S)

    def _make_session(self, verb: Verb, described: dict[str, object]) -> Session:
        attributes = described.get("attributes")
        return Session(
            self.id,
            verb,
            attributes if isinstance(attributes, dict) else {},
            interrupt=self._config.playback.default == "interrupt",
            queue_limit=self._config.playback.queue_limit,
            resumed=described.get("adopted") is True,
        )

    async def run(self) -> None:
        """Serves until the slot is released. Cancelled, it closes the WebSocket and leaves the
        slot to another worker."""
        commands = self._spawn(self._send_commands())
        self._running = asyncio.current_task()
        try:
            if self._session is None:
                await self._refuse()
                return
            self._command("accept")
            self._do(self._session.start(_ms(shm.now_ns())))
            await self._released.wait()
            if self._conversation:
                await self._conversation
            await self._commands.join()
        except asyncio.CancelledError:
            if self._session:
                self._do(self._session.lost(_ms(shm.now_ns())))
            if self._conversation:
                await self._conversation
            raise
        finally:
            commands.cancel()
            for task in self._tasks:
                task.cancel()

    async def _refuse(self) -> None:
        """The verb is bad: says so, and gives the slot back."""
        log.warning("listen %s refused: %s", self.id, self._refusal)
        self._command("end", {"reason": "bad-request", "error": self._refusal}, must=True)
        await self._commands.join()
        self._release()

    # Inputs: the worker.

    def item(self, now_ns: int, item: shm.Item) -> None:
        """Something that was drained from this listen's slot."""
        if self._session is None or item.gen != self._gen:
            return
        now_ms = _ms(now_ns)
        match item.kind:
            case shm.Kind.AUDIO:
                self._do(self._session.frame(now_ms, item.data, item.level, item.silence))
            case shm.Kind.DIGIT:
                self._do(self._session.digit(now_ms, item.digit, item.duration, item.far))
            case shm.Kind.END:
                self._end_ns = now_ns
                self._check_end(now_ns)
            case shm.Kind.MOVED:
                self._give_away()

    def _give_away(self) -> None:
        """The switch gave the listen to another worker, which waits until we have detached."""
        with suppress(ShmError):
            self._switch.arena.detach(self._slot, self._gen)
        if self._running:
            self._running.cancel()

    def tick(self, now_ns: int) -> None:
        """Time has passed: once a frame at least."""
        if self._session is None:
            return
        self._progress(now_ns)
        self._do(self._session.tick(_ms(now_ns)))
        if self._end_ns:
            self._check_end(now_ns)
        self._let_read()

    def command(self, name: str, argument: str) -> None:
        """An operator asks."""
        if self._session:
            self._progress(shm.now_ns())
            self._do(self._session.command(_ms(shm.now_ns()), name, argument))

    def switch_ended(self, reason: str) -> None:
        """The switch says why the listen ended; its last frames may still be in the ring."""
        self._end_reason = reason
        if self._end_ns:
            self._check_end(shm.now_ns())

    def _check_end(self, now_ns: int) -> None:
        """Ends the session once the reason is known: its own, the switch's, or none in time."""
        assert self._session
        known = self._end_reason or self._session.reason
        if known or now_ns - self._end_ns > _REASON_WAIT_NS:
            self._progress(now_ns)
            self._do(self._session.ended(_ms(now_ns), self._end_reason))

    def _progress(self, now_ns: int) -> None:
        assert self._session
        if self._session.wants_play_status:
            with suppress(ShmError):  # the switch took the slot back: END tells
                status = self._switch.arena.play_status(self._slot, self._gen)
                self._do(self._session.play_status(_ms(now_ns), status))

    # Actions.

    def _do(self, actions: Iterable[do.Action]) -> None:
        """Carries actions out, in order; what one leads to comes before the next."""
        todo = deque(actions)
        while todo:
            action = todo.popleft()
            match action:
                case do.SendBinary(data):
                    self._send(data)
                case do.SendText(text):
                    self._send(text)
                case do.Write(rate_hz, samples):
                    todo.extendleft(reversed(self._write(rate_hz, samples)))
                case do.Connect():
                    self._conversation = self._spawn(self._converse(action))
                case do.Close(code, reason):
                    self._hang_up(code, reason)
                case do.Decode(ticket, play):
                    self._spawn(self._decode(ticket, play))
                case do.Emit(event, headers):
                    self._emit(event, dict(headers))
                case do.End():
                    self._command("end", {k: v for k, v in asdict(action).items() if v}, must=True)
                case do.Log(level, text):
                    log.log(logging.getLevelNamesMapping()[level.upper()], "%s: %s", self.id, text)
                case _:
                    self._act_on_slot(action)

    def _act_on_slot(self, action: do.Action) -> None:
        arena = self._switch.arena
        with suppress(ShmError):  # the switch took the slot back: END tells
            match action:
                case do.OpenFlow():
                    self._flow_wanted = True
                    self._set_flow(len(self._outbox) < _OUTBOX_HIGH)
                case do.Discard():
                    arena.discard(self._slot, self._gen, shm.now_ns())
                case do.Flush():
                    arena.play_flush(self._slot, self._gen)
                case do.Release():
                    self._release()

    def _write(self, rate_hz: int, samples: Samples) -> list[do.Action]:
        assert self._session
        taken = 0
        with suppress(ShmError):
            taken, kick = self._switch.arena.play_write(self._slot, self._gen, rate_hz, samples)
            if kick:
                self._switch.kick()
        return self._session.wrote(_ms(shm.now_ns()), taken)

    def _release(self) -> None:
        self._released.set()
        with suppress(ShmError):  # a switch that waited too long has reclaimed it
            self._switch.arena.release(self._slot, self._gen)

    def _set_flow(self, is_open: bool) -> None:
        if self._flow_open != is_open:
            self._flow_open = is_open
            with suppress(ShmError):
                self._switch.arena.flow(self._slot, self._gen, is_open)

    # The WebSocket.

    def _send(self, data: str | bytes) -> None:
        self._outbox.append(data)
        self._wake.set()
        if len(self._outbox) >= _OUTBOX_HIGH:
            self._set_flow(False)

    def _hang_up(self, code: int, reason: str) -> None:
        self._close = code, reason
        self._wake.set()
        self._may_read.set()

    async def _converse(self, connect: do.Connect) -> None:
        """Opens the WebSocket, reads it until it closes, and tells the session of both."""
        assert self._session
        opening = asyncio.create_task(self._open(connect))
        closing = asyncio.create_task(self._closed_early())
        await asyncio.wait({opening, closing}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        opening.cancel()
        try:
            ws = await opening
        except ConnectError as exc:
            self._do(self._session.connect_failed(_ms(shm.now_ns()), str(exc)))
            return
        except asyncio.CancelledError:
            return  # the listen ended first
        sender = self._spawn(self._pump_outbox(ws))
        self._do(self._session.connected(_ms(shm.now_ns())))
        await self._read(ws)
        await ws.wait_closed()
        sender.cancel()
        self._do(self._session.closed(_ms(shm.now_ns()), ws.close_code, ws.close_reason or ""))

    async def _open(self, connect: do.Connect) -> ClientConnection:
        return await open_websocket(
            connect.url,
            self._config.websocket,
            self._tls,
            call_sid=connect.call_sid,
            headers=connect.headers,
        )

    async def _closed_early(self) -> None:
        while self._close is None:
            self._wake.clear()
            await self._wake.wait()

    async def _read(self, ws: ClientConnection) -> None:
        assert self._session
        with suppress(ConnectionClosed):
            async for message in ws:
                self._progress(shm.now_ns())
                now_ms = _ms(shm.now_ns())
                if isinstance(message, str):
                    self._do(self._session.text(now_ms, message))
                else:
                    self._do(self._session.binary(now_ms, message))
                self._let_read()
                await self._may_read.wait()

    def _let_read(self) -> None:
        """Lets TCP slow a server down that sends more than can be played, or does not read."""
        assert self._session
        may = self._session.may_read and len(self._outbox) < _OUTBOX_HIGH
        if may or self._close:
            self._may_read.set()
        else:
            self._may_read.clear()

    async def _pump_outbox(self, ws: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                while self._outbox:
                    await ws.send(self._outbox.popleft())
                    if self._flow_wanted and len(self._outbox) <= _OUTBOX_LOW:
                        self._set_flow(True)
                if self._close:
                    await ws.close(*self._close)
                    return
                self._wake.clear()
                await self._wake.wait()

    async def _decode(self, ticket: int, play: PlayAudio) -> None:
        assert self._session
        result: Clip | WireError
        try:
            result = await asyncio.to_thread(decode_clip, play)
        except WireError as exc:
            result = exc
        self._do(self._session.clip_decoded(_ms(shm.now_ns()), ticket, result))

    # The event socket.

    def _emit(self, event: str, headers: dict[str, str]) -> None:
        if self._commands.qsize() < _EVENTS_MAX:
            self._command("event", {"event": event, "headers": headers})
            return
        if not self.events_dropped:
            log.warning("%s: events come faster than the switch takes them", self.id)
        self.events_dropped += 1

    def _command(self, verb: str, argument: object = None, *, must: bool = False) -> None:
        text = f"listen_ctl {verb} {self.id}"
        if argument is not None:
            text = f"{text} {json_argument(argument)}"
        self._commands.put_nowait((text, must))

    async def _send_commands(self) -> None:
        """Commands go one after another, so that the switch sees them in order."""
        while True:
            command, must = await self._commands.get()
            try:
                await self._send_command(command, must)
            finally:
                self._commands.task_done()

    async def _send_command(self, command: str, must: bool) -> None:
        while True:
            try:
                reply = await self._switch.api(command)
            except EslError as exc:
                if not must:
                    log.warning("%s: not told to the switch: %s", self.id, exc)
                    return
                await asyncio.sleep(_END_RETRY_S)
                continue
            if reply.startswith("-ERR") and not reply.startswith("-ERR GONE"):
                log.warning("%s: the switch refused: %s", self.id, reply)
            return

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _ms(ns: int) -> float:
    return ns / 1e6
