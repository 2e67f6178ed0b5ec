"""One connection to the event socket, in gevent: greenswitch, hardened. Used through pylisten.esl.

greenswitch's own reader undoes the quoting of a message before it splits it into headers, so that
a caller's display name can forge headers; it spins or waits for ever when a connection ends at the
wrong moment, and sends long commands by half. :class:`Link` keeps its shape and replaces its
reading, writing and ending. Nothing here may be touched from another thread than the hub's.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import gevent
import gevent.event
import gevent.lock
import gevent.socket
import greenswitch

from pylisten.errors import PylistenError

__all__ = [
    "EslAuthError",
    "EslDenied",
    "EslError",
    "EslLost",
    "EslRefused",
    "EslTimeout",
    "Event",
    "Link",
    "Supervisor",
    "Timing",
    "json_argument",
    "subscription",
]

log = logging.getLogger("pylisten.esl")

MAX_COMMAND_BYTES = 8 * 1024 * 1024  # mod_event_socket cuts at 10 MiB
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_HEADERS_BYTES = 1024 * 1024
# mod_event_socket reads commands byte by byte; a long one takes it seconds.
SLOWEST_READ_BYTES_PER_S = 100_000
PING = "api status"

_FORBIDDEN = {"\n": "a newline", "\r": "a carriage return", "\0": "a NUL"}
_OWN_NAME = re.compile("(mod)_(event)_(socket)", re.IGNORECASE)
_OWN_LOAD = re.compile("reload|unload", re.IGNORECASE)


class EslError(PylistenError):
    """Something about the event socket."""


class EslLost(EslError):
    """There is no connection, or it ended before the reply came."""


class EslTimeout(EslError):
    """No reply, or no connection, in time."""


class EslAuthError(EslError):
    """The switch refused the password."""


class EslDenied(EslError):
    """The switch refused the address that we come from."""


class EslRefused(EslError):
    """A command that may not be sent, or that the switch does not permit."""


@dataclass(frozen=True)
class Event:
    """One event; ``name`` is the subclass of a CUSTOM event, else the event's name."""

    name: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Timing:
    """How patient a connection is, in seconds."""

    connect_s: float = 5.0
    """From the first packet to the accepted password."""
    ping_s: float = 10.0
    """A connection without a command for so long is tried with a light one."""
    silence_s: float = 10.0
    """A command without a reply for so long (or its own time-out, if longer) means a dead peer."""
    retry_min_s: float = 0.2
    retry_max_s: float = 5.0
    retry_refused_s: float = 15.0
    """After a refused password or address: more tries will not help before somebody mends it."""

    def pause_s(self, failures: int, error: EslError) -> float:
        """Return the seconds to wait before the next try, after *failures* in a row (from 1)."""
        if isinstance(error, EslAuthError | EslDenied | EslRefused):
            longest_s = self.retry_refused_s
        else:
            longest_s = min(self.retry_min_s * 2.0 ** min(failures - 1, 16), self.retry_max_s)
        return longest_s * random.uniform(0.5, 1.0)


# -- the wire ------------------------------------------------------------------------------------


def json_argument(value: object) -> str:
    """Return *value* as JSON that is safe at the end of a command: one line of ASCII.

    mod_event_socket looks for "reload" or "unload" and its own name anywhere in a command, and then
    reloads itself; text that comes from outside must not be able to say that.
    """
    text = json.dumps(value, separators=(",", ":"))
    return _OWN_NAME.sub(r"\1\\u005f\2\\u005f\3", text)


def encode_command(command: str) -> bytes:
    """Return the bytes of a command; raises EslRefused for what would be read as another one."""
    found = [name for char, name in _FORBIDDEN.items() if char in command]
    if found:
        raise EslRefused(f"a command must be one line, this one contains {' and '.join(found)}")
    if _OWN_NAME.search(command) and _OWN_LOAD.search(command):
        raise EslRefused("mod_event_socket would take this command for its own reload")
    try:
        raw = command.encode()
    except UnicodeEncodeError as error:
        raise EslRefused(f"a command must be valid Unicode: {error.reason}") from None
    if len(raw) > MAX_COMMAND_BYTES:
        raise EslRefused(f"a command of {len(raw)} bytes: the most is {MAX_COMMAND_BYTES}")
    return raw + b"\n\n"


def decode_headers(block: bytes, *, quoted: bool) -> dict[str, str]:
    """Split a block into headers, and only then undo the quoting of each value.

    The other way round, a caller named ``Bob%0AUnique-ID: forged`` could write headers. Where a
    name comes twice the first one holds: the switch puts its own headers before data.
    """
    headers: dict[str, str] = {}
    for line in block.split(b"\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            continue
        value = value.strip()
        if quoted:
            value = b"" if value == b"_undef_" else unquote_to_bytes(value)
        headers.setdefault(_text(name.strip()), _text(value))
    return headers


def decode_event(body: bytes) -> Event:
    """Read the body of a ``text/event-plain`` message; what follows its headers is left out."""
    headers = decode_headers(body.partition(b"\n\n")[0], quoted=True)
    name = headers.get("Event-Name", "")
    return Event(headers.get("Event-Subclass", name) if name == "CUSTOM" else name, headers)


def subscription(events: Sequence[str], filters: Mapping[str, str]) -> list[str]:
    """Return the commands that subscribe; filters first, so that nothing slips through between."""
    if not events:
        return []
    plain = [name for name in events if "::" not in name]
    custom = [name for name in events if "::" in name]
    names = [*plain, "CUSTOM", *custom] if custom else plain
    return [
        *(f"filter {name} {value}" for name, value in filters.items()),
        f"event plain {' '.join(names)}",
    ]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


# -- one connection ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pending:
    """A command whose reply has not come."""

    reply: Any  # gevent.event.AsyncResult of str
    patience_s: float


class Link(greenswitch.InboundESL):  # type: ignore[misc]  # greenswitch ships no types
    """A greenswitch connection that survives what a network and a caller can do to it.

    Events go straight to *on_event*, in order; it must return at once, and returns False when it
    cannot keep up. The object serves for one connection: make a new one for the next.
    """

    def __init__(
        self,
        address: tuple[str, int],
        password: str,
        timing: Timing,
        on_event: Callable[[Event], bool],
    ) -> None:
        super().__init__(address[0], address[1], password, timeout=timing.connect_s)
        self.closed = gevent.event.Event()
        self.error: EslError | None = None
        self.sock: Any = None
        self.sock_file: Any = None
        self._timing = timing
        self._on_event = on_event
        self._commands_sent: deque[_Pending] = deque()
        self._writer = gevent.lock.Semaphore()  # one writer at a time keeps replies in order
        self._quiet_since = time.monotonic()  # the last time that the oldest command changed
        self._greenlets: list[Any] = []

    @property
    def where(self) -> str:
        """Whom this is a connection to, for messages."""
        return f"FreeSWITCH at {self.host}:{self.port}"

    # Life.

    def connect(self) -> None:
        """Connect and log in; raises an EslError, and is then closed."""
        late = EslTimeout(f"{self.where} did not answer in {self.timeout:g} s")
        try:
            with gevent.Timeout(self.timeout, late):
                self._open()
                self._auth_request_event.wait()
                self.authenticate()
        except EslError:
            self.stop()
            raise
        except (OSError, UnicodeError) as error:
            self.stop()
            raise EslLost(f"{self.where} cannot be reached: {error}") from None

    def authenticate(self) -> None:
        """Log in; raises EslAuthError if the password is refused."""
        try:
            self.send(f"auth {self.password}")
        except EslRefused as error:
            raise EslAuthError(
                f"{self.where} refused the password ({error}): set PYLISTEN_ESL_PASSWORD to the"
                " one in FreeSWITCH's event_socket.conf.xml"
            ) from None

    def stop(self) -> None:
        """Close; whoever waits for a reply gets EslLost. Must not be called by ``on_event``."""
        self._fail(EslLost(f"the connection to {self.where} was closed"))
        gevent.killall(self._greenlets, timeout=1)
        if self.sock_file is not None:
            self.sock_file.close()
        if self.sock is not None:
            self.sock.close()

    def start_event_handlers(self) -> None:
        """Start the greenlets of this connection."""
        for work in (self.receive_events, self._watch):
            greenlet = gevent.spawn(work)
            greenlet.link_exception(log_death)
            self._greenlets.append(greenlet)

    def _open(self) -> None:
        self.sock = gevent.socket.create_connection((self.host, self.port))
        self.sock.settimeout(None)
        self.sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        self.sock_file = self.sock.makefile("rb")
        self.connected = True
        self.start_event_handlers()

    def _fail(self, error: EslError) -> None:
        """Mark the connection as lost, once, and let nobody wait for it any longer."""
        if self.error is not None:
            return
        self.error = error
        self.connected = False
        while self._commands_sent:
            self._commands_sent.popleft().reply.set_exception(error)
        self._auth_request_event.set()
        self.closed.set()
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(gevent.socket.SHUT_RDWR)  # wakes reader and writer

    # Receiving.

    def receive_events(self) -> None:
        """Read messages until the connection ends (a greenlet)."""
        try:
            while True:
                self.handle_event(decode_headers(self._read_block(), quoted=False))
        except EslError as error:
            self._fail(error)
        except OSError as error:
            self._fail(EslLost(f"{self.where}: {error}"))
        finally:
            self._fail(EslLost(f"{self.where}: reading ended"))

    def _read_block(self) -> bytes:
        block = bytearray()
        while len(block) < MAX_HEADERS_BYTES:
            line = self.sock_file.readline(MAX_HEADERS_BYTES)
            if line == b"\n":
                if block:
                    return bytes(block)
                continue
            block += line
            if not line.endswith(b"\n") and len(line) < MAX_HEADERS_BYTES:
                raise EslLost(f"{self.where} closed the connection")
        raise EslLost(f"{self.where} sent headers of {MAX_HEADERS_BYTES} bytes or more")

    def _read_body(self, headers: Mapping[str, str]) -> bytes:
        announced = headers.get("Content-Length", "0")
        if not re.fullmatch("[0-9]{1,12}", announced):
            raise EslLost(f"{self.where} sent a bad Content-Length: {announced[:40]!r}")
        length = int(announced)
        if length > MAX_BODY_BYTES:
            raise EslLost(f"{self.where} announced {length} bytes, the most is {MAX_BODY_BYTES}")
        body: bytes = self.sock_file.read(length)
        if len(body) < length:
            raise EslLost(f"{self.where} closed the connection in the middle of a message")
        return body

    def handle_event(self, headers: Mapping[str, str]) -> None:
        """Handle one message, whose headers have been read and whose body has not."""
        body = self._read_body(headers)
        match headers.get("Content-Type"):
            case "auth/request":
                self._auth_request_event.set()
            case "command/reply":
                self._answer(headers.get("Reply-Text", "").strip(), is_api=False)
            case "api/response":
                self._answer(_text(body).rstrip("\r\n"), is_api=True)
            case "text/event-plain":
                if not self._on_event(decode_event(body)):
                    raise EslLost("events come faster than they are handled")
            case "text/disconnect-notice":
                raise EslLost(f"{self.where} ended the connection")
            case "text/rude-rejection":
                raise EslDenied(
                    f"{self.where} refuses this address ({_text(body).strip()}): allow it by"
                    " apply-inbound-acl in FreeSWITCH's event_socket.conf.xml"
                )
            case other:
                log.debug("%s sent a message of an unknown kind: %r", self.where, other)

    def _answer(self, text: str, *, is_api: bool) -> None:
        if not self._commands_sent:
            raise EslLost(f"{self.where} answered a command that was never sent")
        pending = self._commands_sent.popleft()
        self._quiet_since = time.monotonic()
        # `api` is answered by api/response; command/reply says -ERR where it is not permitted.
        if not is_api and text.startswith("-ERR"):
            pending.reply.set_exception(EslRefused(text))
        else:
            pending.reply.set(text)

    # Sending.

    def send(self, data: str, timeout_s: float = 0.0) -> str:
        """Send a command and wait for its reply; several greenlets may do so at once.

        *timeout_s* is how long the peer may take before it counts as dead (``silence_s`` at least);
        to give up earlier, put a ``gevent.Timeout`` around the call. Raises EslLost or EslRefused.
        """
        raw = encode_command(data)
        patience_s = max(timeout_s, self._timing.silence_s) + len(raw) / SLOWEST_READ_BYTES_PER_S
        with self._writer:
            reply = self._write(raw, patience_s)
        text: str = reply.get()
        return text

    def _write(self, raw: bytes, patience_s: float) -> Any:
        if self.error is not None:
            raise self.error
        if not self._commands_sent:
            self._quiet_since = time.monotonic()
        pending = _Pending(gevent.event.AsyncResult(), patience_s)
        self._commands_sent.append(pending)
        try:
            self.sock.sendall(raw)
        except OSError as error:
            self._fail(EslLost(f"{self.where}: sending failed: {error}"))  # fails pending as well
        except BaseException:
            # A part of it may have gone out: nothing that follows could be understood.
            self._fail(EslLost(f"{self.where}: sending was broken off"))
            raise
        return pending.reply

    # Watching.

    def _watch(self) -> None:
        """Notice a peer that is silently gone (a greenlet): every wait has its end."""
        tick_s = min(self._timing.ping_s, self._timing.silence_s) / 4
        while not self.closed.wait(tick_s):
            quiet_s = time.monotonic() - self._quiet_since
            if self._commands_sent:
                if quiet_s > self._commands_sent[0].patience_s:
                    self._fail(EslLost(f"{self.where} has not answered for {quiet_s:.1f} s"))
            elif quiet_s > self._timing.ping_s:
                gevent.spawn(self._ping)

    def _ping(self) -> None:
        with suppress(EslError):
            self.send(PING)


def log_death(greenlet: Any) -> None:
    """Log the exception that a greenlet died of; for ``Greenlet.link_exception``."""
    log.error("a part of the event socket's thread died", exc_info=greenlet.exception)


# -- keeping it up -------------------------------------------------------------------------------


class Supervisor:
    """Keeps one connection up, as well as it can.

    ``link`` is set while it is logged in and has said its preamble. *on_change* gets None then, and
    the reason at each loss and each vain try.
    """

    def __init__(
        self,
        name: str,
        make_link: Callable[[], Link],
        preamble: Sequence[str],
        timing: Timing,
        on_change: Callable[[EslError | None], None],
    ) -> None:
        self.link: Link | None = None
        self._name = name
        self._make_link = make_link
        self._preamble = preamble
        self._timing = timing
        self._on_change = on_change

    def run(self) -> None:
        """Connect, wait for the loss, pause, and again, until killed (a greenlet)."""
        failures = 0
        last_text = ""
        while True:
            since = time.monotonic()
            error = self._serve_one_connection()
            lasted = time.monotonic() - since > self._timing.connect_s + self._timing.retry_max_s
            failures = 1 if lasted else failures + 1
            # An outage is one line in the log, not one for every try.
            level = logging.DEBUG if str(error) == last_text else logging.WARNING
            last_text = str(error)
            log.log(level, "event socket (%s): %s; trying again", self._name, error)
            gevent.sleep(self._timing.pause_s(failures, error))

    def _serve_one_connection(self) -> EslError:
        link = self._make_link()
        try:
            link.connect()
            for command in self._preamble:
                link.send(command)
            self.link = link
            log.info("event socket (%s): connected to %s", self._name, link.where)
            self._on_change(None)
            link.closed.wait()
            error = link.error or EslLost("the connection ended")
        except EslError as failure:
            error = failure
        except Exception as failure:  # a fault of ours must not end the supervision
            log.exception("event socket (%s): unexpected", self._name)
            error = EslLost(f"{link.where}: {failure!r}")
        finally:
            self.link = None
            link.stop()
        self._on_change(error)
        return error
