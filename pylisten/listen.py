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
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed

from pylisten import actions as do
from pylisten import shm
from pylisten.actions import hook_body
from pylisten.audio import Clip, decode_clip
from pylisten.config import Config
from pylisten.delivery import Delivery
from pylisten.errors import PylistenError, ShmError, VerbError, WireError
from pylisten.esl import EslError, json_argument
from pylisten.playback import Samples
from pylisten.session import Session, State
from pylisten.verb import ActionHook, Verb, hook_of, parse_verb
from pylisten.webhook import Webhooks
from pylisten.websocket import ConnectError, Connection, open_websocket
from pylisten.wire import PlayAudio

__all__ = ["Listen", "ListenGone", "Switch"]

log = logging.getLogger(__name__)

# Frames of 20 ms that may wait in the outbox: half a second closes the flow, a tenth opens it.
_OUTBOX_HIGH = 25
_OUTBOX_LOW = 5

# Events that may wait for the switch. Beyond it a chatty server's messages are dropped, counted.
_EVENTS_MAX = 500
# mod_event_socket reads some 500 kB/s: so much may stand in the way of an `end`, half a second.
_EVENTS_MAX_BYTES = 256 * 1024

# The switch reads commands byte by byte, all of a worker's from one connection: what a server may
# have passed on as `listen::message` without slowing the ends and starts of others.
_MESSAGE_BYTES_PER_S = 16 * 1024
_MESSAGE_BURST_BYTES = 64 * 1024

# How long the switch may take to say why it ended a listen, after the last frame.
_REASON_WAIT_NS = 1_000_000_000

_END_RETRY_S = 0.5

# How long a worker that gives a listen away may take to tell the switch that it is over.
_HAND_OVER_S = 10.0

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

    def __init__(
        self,
        listen_id: str,
        switch: Switch,
        config: Config,
        tls: ssl.SSLContext,
        hooks: Webhooks,
    ) -> None:
        self.id = listen_id
        self.events_dropped = 0
        self.switch_gone = False
        """Set before `run` is cancelled because the switch has gone, and the calls with it."""
        self._switch = switch
        self._config = config
        self._tls = tls
        self._hooks = hooks
        self._hook: ActionHook | None = None
        self._described: dict[str, Any] = {}
        self._slot = self._gen = -1
        self._session: Session | None = None
        self._refusal = ""
        self._outbox: deque[str | bytes] = deque()
        self._wake = asyncio.Event()  # the outbox has something, or the end has come
        self._may_read = asyncio.Event()
        self._held_back_s = 0.0  # when the server was last held back, on the loop's clock
        self._close: tuple[int, str] | None = None
        self._flow_wanted = False
        self._flow_open = False
        self._commands: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self._commands_bytes = 0  # of those that wait
        self._messages_left = _MESSAGE_BURST_BYTES
        self._messages_ns = 0
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
        self._described = described = json.loads(reply[len("+OK ") :])
        self._slot, self._gen = described["slot"], described["generation"]
        await self._attach_slot()
        try:
            verb = parse_verb(described["verb"], self._config.profiles)
        except VerbError as exc:
            self._refusal = str(exc)
            self._hook = hook_of(described["verb"], self._config.profiles)
        else:
            self._hook = verb.action_hook
            self._session = self._make_session(verb)
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

    def _make_session(self, verb: Verb) -> Session:
        silence = self._config.silence
        return Session(
            self.id,
            verb,
            self._described["attributes"],
            interrupt=self._config.playback.default == "interrupt",
            queue_limit=self._config.playback.queue_limit,
            resumed=self._described["adopted"],
            ring_ms=self._switch.arena.ring_ms,
            silence_threshold_dbfs=silence.threshold_dbfs,
            silence_attack_ms=silence.attack_ms,
            silence_hangover_ms=silence.hangover_ms,
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
            began_ms = _ms(self._switch.arena.info(self._slot).start_ns)
            self._do(self._session.start(_ms(shm.now_ns()), began_ms))
            if paused := self._described["paused"]:
                self.command("pause", paused)
            await self._released.wait()
            if self._conversation:
                await self._conversation
            await self._commands.join()
        except asyncio.CancelledError:
            if self._session:
                adopted = not self.switch_gone
                self._do(self._session.lost(_ms(shm.now_ns()), adopted))
            if self._conversation:
                await self._conversation
            raise
        finally:
            if self.events_dropped:
                log.warning("%s: %d events were dropped", self.id, self.events_dropped)
            commands.cancel()
            for task in self._tasks:
                task.cancel()

    async def _refuse(self) -> None:
        """The verb is bad: says so, and gives the slot back."""
        log.warning("listen %s refused: %s", self.id, self._refusal)
        self._command("end", {"reason": "bad-request", "error": self._refusal}, must=True)
        await self._commands.join()
        self._release()
        body = hook_body(
            self.id,
            self._described["attributes"],
            name=self._described["name"],
            reason="bad-request",
        )
        self._tell_hook(body)

    # Inputs: the worker.

    def item(self, now_ns: int, item: shm.Item) -> None:
        """Something that was drained from this listen's slot."""
        if self._session is None or item.gen != self._gen:
            return
        now_ms = _ms(now_ns)
        match item.kind:
            case shm.Kind.AUDIO:
                self._do(self._frame(now_ms, item))
            case shm.Kind.DIGIT:
                self._do(self._session.digit(now_ms, item.digit, item.duration, item.far))
            case shm.Kind.END:
                self._end_ns = now_ns
                self._check_end(now_ns)
            case shm.Kind.MOVED:
                self._give_away()

    def _frame(self, now_ms: float, item: shm.Item) -> list[do.Action]:
        assert self._session
        return self._session.frame(now_ms, item.data, item.level, item.silence, item.pos)

    def _give_away(self) -> None:
        """The switch gave the listen to another worker, which waits until we have detached."""
        with suppress(ShmError):
            self._switch.arena.detach(self._slot, self._gen)
        self._spawn(self._leave_to_another())

    def fail(self, error: Exception) -> None:
        """Something in here went wrong that must not: ends this listen, and harms no other."""
        log.error("listen %s failed", self.id, exc_info=error)
        if self._released.is_set():
            return
        why = "an error in the worker, whose log says more"
        self._command("end", {"reason": "worker-lost", "error": why}, must=True)
        self._hang_up(1011, "internal error")
        self._release()

    async def _leave_to_another(self) -> None:
        """An end that was decided here is told to the switch first: the other knows of none."""
        assert self._session
        if self._session.state is State.ENDING:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HAND_OVER_S):
                    await self._commands.join()
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
                case do.Trim(keep_ms):
                    todo.extendleft(reversed(self._trim(keep_ms)))
                case do.Hook(body):
                    self._tell_hook(body)
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
                case do.CloseFlow():
                    self._flow_wanted = False
                    self._set_flow(False)
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

    def _trim(self, keep_ms: int) -> list[do.Action]:
        assert self._session
        given_up = 0
        with suppress(ShmError):
            given_up = self._switch.arena.trim(self._slot, self._gen, shm.now_ns(), keep_ms)
        return self._session.trimmed(_ms(shm.now_ns()), given_up)

    def _tell_hook(self, body: Mapping[str, object]) -> None:
        if self._hook:
            self._hooks.send(self._hook, body, listen_id=self.id)

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
        delivery = Delivery(ws)
        sender = self._spawn(self._pump_outbox(ws, delivery))
        watch = self._spawn(self._watch(ws))
        self._do(self._session.connected(_ms(shm.now_ns())))
        await self._read(ws)
        await ws.wait_closed()
        watch.cancel()
        sender.cancel()
        undelivered = [*delivery.undelivered(), *self._outbox]
        self._outbox.clear()
        now_ms = _ms(shm.now_ns())
        reason = ws.close_reason or ""
        if not reason and ws.protocol.close_sent:  # why we gave the connection up
            reason = ws.protocol.close_sent.reason
        self._do(self._session.closed(now_ms, ws.close_code, reason, undelivered))

    async def _open(self, connect: do.Connect) -> Connection:
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

    async def _watch(self, ws: Connection) -> None:
        """Breaks a connection on which nothing comes any more, though pings ask for answers."""
        config = self._config.websocket
        patience_s = config.ping_interval_s + config.ping_timeout_s
        loop = asyncio.get_running_loop()
        while True:
            left_s = max(ws.heard_s, self._held_back_s) + patience_s - loop.time()
            if left_s <= 0:
                break
            await asyncio.sleep(left_s)
        log.warning("%s: nothing has come from the server for %g s", self.id, patience_s)
        ws.transport.abort()

    async def _read(self, ws: Connection) -> None:
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
                if not self._may_read.is_set():
                    await self._hold_back(ws)

    async def _hold_back(self, ws: Connection) -> None:
        """Reads no more until that is wanted again, or the connection has gone."""
        held = asyncio.create_task(self._may_read.wait())
        gone = asyncio.create_task(ws.wait_closed())
        try:
            await asyncio.wait({held, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            held.cancel()
            gone.cancel()

    def _let_read(self) -> None:
        """Lets TCP slow a server down that sends more than can be played, or does not read."""
        assert self._session
        may = self._session.may_read
        if not may:  # its pong waits behind what we do not read
            self._held_back_s = asyncio.get_running_loop().time()
        if self._close or (may and len(self._outbox) < _OUTBOX_HIGH):
            self._may_read.set()
        else:
            self._may_read.clear()

    async def _pump_outbox(self, ws: Connection, delivery: Delivery) -> None:
        with suppress(ConnectionClosed):
            while True:
                while self._outbox:
                    await delivery.send(self._outbox.popleft())
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
        if event == "message" and not self._may_pass_on(headers):
            self._drop_event()
        elif self._commands.qsize() < _EVENTS_MAX and self._commands_bytes < _EVENTS_MAX_BYTES:
            self._command("event", {"event": event, "headers": headers})
        else:
            self._drop_event()

    def _may_pass_on(self, headers: Mapping[str, str]) -> bool:
        """Whether another message of the server may go to the switch now (a token bucket)."""
        now_ns = shm.now_ns()
        earned = (now_ns - self._messages_ns) * _MESSAGE_BYTES_PER_S // 1_000_000_000
        self._messages_ns = now_ns
        self._messages_left = min(self._messages_left + earned, _MESSAGE_BURST_BYTES)
        if self._messages_left <= 0:
            return False
        self._messages_left -= sum(map(len, headers.values()))
        return True

    def _drop_event(self) -> None:
        if not self.events_dropped:
            log.warning("%s: events come faster than the switch takes them", self.id)
        self.events_dropped += 1

    def _command(self, verb: str, argument: object = None, *, must: bool = False) -> None:
        text = f"listen_ctl {verb} {self.id}"
        if argument is not None:
            text = f"{text} {json_argument(argument)}"
        self._commands.put_nowait((text, must))
        self._commands_bytes += len(text)

    async def _send_commands(self) -> None:
        """Commands go one after another, so that the switch sees them in order."""
        while True:
            command, must = await self._commands.get()
            try:
                await self._send_command(command, must)
            finally:
                self._commands_bytes -= len(command)
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
        task.add_done_callback(self._check_done)
        return task

    def _check_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.fail(error)


def _ms(ns: int) -> float:
    return ns / 1e6
