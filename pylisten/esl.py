"""The event socket of FreeSWITCH: commands and events, for asyncio.

greenswitch speaks the protocol (see pylisten.esl_link). It lives in one thread of its own with its
own gevent hub; nothing is monkey-patched, and nothing but that thread touches its objects.
:class:`Esl` is the bridge::

    esl = Esl("127.0.0.1", 8021, "ClueCon", events=["listen::start"], on_event=print)
    await esl.start()
    await esl.wait_connected(5)
    reply = await esl.api("listen status json")
    await esl.close()

It keeps one connection for events and one for commands, so that a slow command holds back no
event. Each is made again, with growing and jittered pauses, whenever it is lost. Events that fall
into such a gap are gone: ``on_state(True)`` is the moment to ask the switch how things stand.

What is raised::

    EslError (a PylistenError)
    ├── EslLost       there is no connection, or it ended before the reply came
    ├── EslTimeout    no reply, or no connection, in time
    ├── EslAuthError  the switch refused the password
    ├── EslDenied     the switch refused the address that we come from
    └── EslRefused    a command that may not be sent, or that the switch does not permit
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import gevent
import gevent.event
import gevent.pool

from pylisten.esl_link import (
    EslAuthError,
    EslDenied,
    EslError,
    EslLost,
    EslRefused,
    EslTimeout,
    Event,
    Link,
    Supervisor,
    Timing,
    json_argument,
    log_death,
    subscription,
)

__all__ = [
    "Esl",
    "EslAuthError",
    "EslDenied",
    "EslError",
    "EslLost",
    "EslRefused",
    "EslTimeout",
    "Event",
    "Timing",
    "json_argument",
    "one_shot",
]

log = logging.getLogger(__name__)

MAX_EVENTS_WAITING = 10_000
MAX_COMMANDS_WAITING = 1_000
EVENTS_PER_TURN = 100
CLOSE_S = 2.0


class Esl:
    """A supervised pair of connections to one switch, used from one asyncio loop.

    *events* are event names (``CHANNEL_HANGUP``) and subclasses of CUSTOM (``listen::start``);
    without any there is only the connection for commands. *filters* are header names and the value
    that an event must have there.

    *on_event* gets each event, *on_state* True when all connections are up and subscribed, and
    False when one is lost; both are called in the loop and must return at once. Start, use and
    close it in one process: its thread does not survive a fork.
    """

    def __init__(
        self,
        host: str,
        port: int,
        password: str,
        *,
        events: Sequence[str] = (),
        filters: Mapping[str, str] | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_state: Callable[[bool], None] | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._where = f"FreeSWITCH at {host}:{port}"
        self._address = (host, port)
        self._password = password
        self._timing = timing or Timing()
        self._preambles = {"commands": list[str]()}
        if events:
            self._preambles["events"] = subscription(events, filters or {})
        self._on_event = on_event
        self._on_state = on_state
        self._up = asyncio.Event()
        self._last_error: EslError | None = None
        self._waiting = 0
        self._hub: _HubThread | None = None

    @property
    def connected(self) -> bool:
        """Whether all connections are up and events are subscribed."""
        return self._up.is_set()

    @property
    def last_error(self) -> EslError | None:
        """Why it is not connected, as far as that is known; None while it is."""
        return self._last_error

    async def start(self) -> None:
        """Begin to connect, in a thread of its own; returns without waiting for the switch."""
        if self._hub is not None:
            raise RuntimeError("an Esl is started once")
        self._hub = _HubThread(self._make_supervisors, asyncio.get_running_loop(), self._deliver)
        await asyncio.shield(self._hub.started)

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait until all connections are up.

        After *timeout_s* seconds (None: never) raises the reason if it is known, else EslTimeout.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise self._last_error or EslTimeout(f"no connection to {self._where} yet") from None

    async def api(self, command: str, timeout_s: float = 5.0) -> str:
        """Run an API command and return its reply, without the newline at the end.

        A reply that begins with ``-ERR`` is a reply like any other. FreeSWITCH reads commands byte
        by byte: give one of a megabyte some seconds more. Raises EslLost (at once, if there is no
        connection), EslTimeout, or EslRefused.
        """
        if self._hub is None or self._hub.closing:
            raise EslLost(f"there is no connection to {self._where}: not started, or closed")
        if self._waiting >= MAX_COMMANDS_WAITING:
            raise EslRefused(f"{MAX_COMMANDS_WAITING} commands are waiting already")
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(self._hub.submit(f"api {command}", timeout_s))
        except TimeoutError:
            words = " ".join(command[:60].split(None, 2)[:2])
            raise EslTimeout(f"no reply to '{words}' in {timeout_s:g} s") from None
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Close the connections and end the thread; whoever waits gets EslLost."""
        self._up.clear()
        if self._hub is not None:
            self._last_error = EslLost(f"the connection to {self._where} was closed")
            await self._hub.close()

    def _make_supervisors(self, mailbox: _Mailbox) -> list[Supervisor]:
        def make_link() -> Link:
            return Link(self._address, self._password, self._timing, mailbox.put_event)

        def on_change(error: EslError | None) -> None:
            if error is not None or all(one.link is not None for one in supervisors):
                mailbox.put(error)

        supervisors = [
            Supervisor(name, make_link, preamble, self._timing, on_change)
            for name, preamble in self._preambles.items()
        ]
        return supervisors

    def _deliver(self, item: Event | EslError | None) -> None:
        """Hand an event, or a change of state (None: all is up), to whom it concerns."""
        try:
            if isinstance(item, Event):
                if self._on_event is not None:
                    self._on_event(item)
            else:
                self._set_state(item)
        except Exception:
            log.exception("a callback of the event socket failed")

    def _set_state(self, error: EslError | None) -> None:
        was_up = self._up.is_set()
        self._last_error = error
        if error is None:
            self._up.set()
        else:
            self._up.clear()
        if was_up != self._up.is_set() and self._on_state is not None:
            self._on_state(self._up.is_set())


async def one_shot(host: str, port: int, password: str, command: str, timeout_s: float) -> str:
    """Connect, run one API command, close; returns the reply without the newline at the end.

    *timeout_s* holds for all of it. Raises every kind of EslError; EslLost if nobody answers there.
    """
    return await asyncio.to_thread(_one_shot, (host, port), password, f"api {command}", timeout_s)


def _one_shot(address: tuple[str, int], password: str, command: str, timeout_s: float) -> str:
    hub = gevent.get_hub()
    hub.exception_stream = None
    timing = Timing(connect_s=timeout_s, silence_s=timeout_s)
    link = Link(address, password, timing, lambda event: True)
    try:
        with gevent.Timeout(timeout_s, EslTimeout(f"{link.where}: no reply in {timeout_s:g} s")):
            link.connect()
            return link.send(command, timeout_s)
    finally:
        link.stop()
        hub.destroy(destroy_loop=True)


class _Mailbox:
    """Carries items from the gevent thread to the asyncio loop: in order, and only so many."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Event | EslError | None], None]
    ) -> None:
        self._loop = loop
        self._deliver = deliver
        self._lock = threading.Lock()
        self._items: deque[Event | EslError | None] = deque()
        self._scheduled = False
        self._closed = False

    def put_event(self, event: Event) -> bool:
        """Queue an event; False if too many are waiting."""
        if len(self._items) >= MAX_EVENTS_WAITING:
            return False
        self.put(event)
        return True

    def put(self, item: Event | EslError | None) -> None:
        """Queue an item, however many are waiting."""
        with self._lock:
            self._items.append(item)
            if self._scheduled:
                return
            self._scheduled = True
        call_in_loop(self._loop, self._drain)

    def close(self) -> None:
        """Deliver nothing any more (called in the loop)."""
        self._closed = True

    def _drain(self) -> None:
        for _ in range(EVENTS_PER_TURN):
            with self._lock:
                if not self._items or self._closed:
                    self._scheduled = False
                    return
                item = self._items.popleft()
            self._deliver(item)
        self._loop.call_soon(self._drain)  # so that a burst of events holds up nothing else


class _HubThread:
    """The thread that greenswitch lives in, with its hub, and the ways in and out of it."""

    def __init__(
        self,
        make_supervisors: Callable[[_Mailbox], list[Supervisor]],
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[Event | EslError | None], None],
    ) -> None:
        self.started: asyncio.Future[None] = loop.create_future()
        self.closing = False
        self._ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._mailbox = _Mailbox(loop, deliver)
        self._supervisors = make_supervisors(self._mailbox)
        # These three are made, and but for run_callback_threadsafe used, in the thread.
        self._hub_loop: Any = None
        self._stop: Any = None
        self._commands: Any = None
        threading.Thread(target=self._run, name="pylisten-esl", daemon=True).start()

    # Called in the asyncio loop.

    def submit(self, command: str, timeout_s: float) -> Future[str]:
        """Let the thread run a command on the connection for commands."""
        answer: Future[str] = Future()
        self._hub_loop.run_callback_threadsafe(
            self._commands.spawn, self._execute, answer, command, timeout_s
        )
        return answer

    async def close(self) -> None:
        """End the thread and wait for its end."""
        self._mailbox.close()
        if not self.closing:
            self.closing = True
            self._hub_loop.run_callback_threadsafe(self._stop.set)
        await asyncio.shield(self._ended)

    # Run in the thread.

    def _run(self) -> None:
        hub = gevent.get_hub()
        hub.exception_stream = None  # deaths are logged; the hub would write them to stderr
        # Without a watcher that is always there, a hub with no sockets left ends its thread.
        keep_alive = hub.loop.async_()
        keep_alive.start(lambda: None)
        self._hub_loop = hub.loop
        self._stop = gevent.event.Event()
        self._commands = gevent.pool.Group()
        call_in_loop(self._loop, self.started.set_result, None)
        try:
            self._supervise()
        finally:
            keep_alive.close()
            hub.destroy(destroy_loop=True)
            call_in_loop(self._loop, self._ended.set_result, None)

    def _supervise(self) -> None:
        greenlets = [gevent.spawn(supervisor.run) for supervisor in self._supervisors]
        for greenlet in greenlets:
            greenlet.link_exception(log_death)
        self._stop.wait()
        gevent.killall(greenlets, timeout=CLOSE_S)
        self._commands.join(timeout=CLOSE_S)  # who waited for a reply passes on that none comes

    def _execute(self, answer: Future[str], command: str, timeout_s: float) -> None:
        """Run one command (a greenlet); the caller may have given up in the meantime."""
        if not answer.set_running_or_notify_cancel():
            return
        link = self._supervisors[0].link
        try:
            if link is None:
                raise EslLost("there is no connection to FreeSWITCH")
            answer.set_result(link.send(command, timeout_s))
        except EslError as error:
            answer.set_exception(error)
        except BaseException as error:  # gevent's own ways to end a greenlet are no Exceptions
            answer.set_exception(EslLost(repr(error)))
            raise


def call_in_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object
) -> None:
    """Call *function* in *loop*, from another thread; nothing if the loop is closed by then."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)
