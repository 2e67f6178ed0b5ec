"""The event socket against a server that behaves like FreeSWITCH, and one that does not."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylisten import esl as esl_module
from pylisten import esl_link
from pylisten.esl import (
    Esl,
    EslAuthError,
    EslDenied,
    EslError,
    EslLost,
    EslRefused,
    EslTimeout,
    Event,
    Timing,
    json_argument,
    one_shot,
)
from tests.support.esl_server import EslServer, api_response, plain_event

EVENTS = ["listen::start", "listen::end"]
QUICK = Timing(retry_min_s=0.02, retry_max_s=0.1, retry_refused_s=0.1)
IMPATIENT = Timing(
    connect_s=0.5, ping_s=0.2, silence_s=0.4, retry_min_s=0.02, retry_max_s=0.1, retry_refused_s=0.1
)


class Seen:
    """What an Esl told its owner, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.states: list[bool] = []
        self._changed = asyncio.Event()

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def on_state(self, up: bool) -> None:
        self.states.append(up)
        self._changed.set()

    async def until(self, holds: Callable[[Seen], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds(self):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def client(
    server: EslServer, timing: Timing = QUICK, **options: Any
) -> AsyncIterator[tuple[Esl, Seen]]:
    """A connected Esl with events, and what it has told so far."""
    seen = Seen()
    options = {"events": EVENTS, "on_event": seen.on_event, "on_state": seen.on_state, **options}
    esl = Esl("127.0.0.1", server.port, "ClueCon", timing=timing, **options)
    await esl.start()
    try:
        await esl.wait_connected(20)
        yield esl, seen
    finally:
        await esl.close()


@asynccontextmanager
async def started(
    port: int, password: str = "ClueCon", timing: Timing = QUICK
) -> AsyncIterator[Esl]:
    """An Esl that has been started and need not be connected."""
    esl = Esl("127.0.0.1", port, password, timing=timing)
    await esl.start()
    try:
        yield esl
    finally:
        await esl.close()


def echo(command: str) -> str:
    return f"+OK {command}\n"


# -- events --------------------------------------------------------------------------------------


async def test_events_arrive_in_order_with_their_headers() -> None:
    """Events come with decoded values, in the order in which they were fired."""
    async with EslServer() as server, client(server) as (_, seen):
        for number in range(300):
            server.fire("listen::start", {"Listen-ID": str(number), "Name": "Müller: 100 %"})
        await seen.until(lambda seen: len(seen.events) == 300)
    assert [event.headers["Listen-ID"] for event in seen.events] == [str(n) for n in range(300)]
    assert {event.name for event in seen.events} == {"listen::start"}
    assert seen.events[0].headers["Name"] == "Müller: 100 %"


async def test_subscribes_narrowly_and_filters_first() -> None:
    """Filters are set before the subscription, so that no unwanted event slips through."""
    filters = {"Listen-Worker": "w1"}
    async with EslServer() as server, client(server, filters=filters) as (_, seen):
        assert [c for c in server.commands if c.startswith(("filter", "event"))] == [
            "filter Listen-Worker w1",
            "event plain CUSTOM listen::start listen::end",
        ]
        assert server.fire("listen::start", {"Listen-Worker": "w2"}) == 0
        assert server.fire("listen::start", {"Listen-Worker": "w1"}) == 1
        await seen.until(lambda seen: bool(seen.events))


async def test_plain_event_names_come_before_custom() -> None:
    """Everything after CUSTOM is a subclass to FreeSWITCH, so other names must come first."""
    async with (
        EslServer() as server,
        client(server, events=["listen::start", "CHANNEL_HANGUP"]) as (_, seen),
    ):
        assert "event plain CHANNEL_HANGUP CUSTOM listen::start" in server.commands
        server.fire("CHANNEL_HANGUP", {"Unique-ID": "u"})
        await seen.until(lambda seen: bool(seen.events))
        assert seen.events[0].name == "CHANNEL_HANGUP"


async def test_without_events_there_is_one_connection() -> None:
    """An Esl that wants no events makes only the connection for commands."""
    async with EslServer(api=echo) as server, started(server.port) as esl:
        await esl.wait_connected(20)
        assert await esl.api("x") == "+OK x"
        assert server.connections == 1


async def test_a_callers_name_cannot_forge_headers() -> None:
    """A quoted newline in a value stays inside that value."""
    async with EslServer() as server, client(server) as (_, seen):
        name = "Bob\nUnique-ID: forged\nEvent-Subclass: listen::end"
        server.fire("listen::start", {"Caller-Caller-ID-Name": name, "Unique-ID": "real"})
        await seen.until(lambda seen: bool(seen.events))
    assert seen.events[0].name == "listen::start"
    assert seen.events[0].headers["Unique-ID"] == "real"
    assert seen.events[0].headers["Caller-Caller-ID-Name"] == name


async def test_the_first_of_two_equal_headers_holds() -> None:
    """A repeated header does not overwrite what the switch put first."""
    async with EslServer() as server, client(server) as (_, seen):
        inner = b"Event-Name: CUSTOM\nEvent-Subclass: listen::end\nA: 1\nA: 2\nB: _undef_\n\n"
        server.send_raw(
            b"Content-Length: %d\nContent-Type: text/event-plain\n\n%s" % (len(inner), inner)
        )
        await seen.until(lambda seen: bool(seen.events))
    assert seen.events[0].headers["A"] == "1"
    assert seen.events[0].headers["B"] == ""


async def test_a_body_is_not_read_as_headers() -> None:
    """The JSON body of somebody else's event leaves its headers alone."""
    async with EslServer() as server, client(server) as (_, seen):
        server.fire("listen::end", {"Listen-ID": "1"}, b'{"type": "x",\n"Listen-ID": "2"}\n\nA: b')
        await seen.until(lambda seen: bool(seen.events))
    assert seen.events[0].headers["Listen-ID"] == "1"
    assert set(seen.events[0].headers) == {
        "Event-Name",
        "Event-Subclass",
        "Listen-ID",
        "Content-Length",
    }


async def test_bytes_that_are_no_utf8_end_nothing() -> None:
    """A bad byte becomes a replacement character; the events after it still come."""
    async with EslServer() as server, client(server) as (_, seen):
        bad = b"Event-Name: CUSTOM\nEvent-Subclass: listen::start\nA: \xff%FE\n\n"
        server.send_raw(
            b"Content-Length: %d\nContent-Type: text/event-plain\n\n%s" % (len(bad), bad),
            lambda one: bool(one.events),
        )
        server.fire("listen::end")
        await seen.until(lambda seen: len(seen.events) == 2)
    assert seen.events[0].headers["A"] == "\ufffd\ufffd"
    assert seen.states == [True]


async def test_messages_of_other_kinds_are_passed_over() -> None:
    """Log lines, JSON and XML events, and messages without a type harm nothing."""
    async with EslServer(api=echo) as server, client(server) as (esl, seen):
        for kind in (b"Content-Type: log/data\nLog-Level: 7", b"Content-Type: text/event-json"):
            server.send_raw(kind + b"\nContent-Length: 9\n\n{'a': 1}\n")
        server.send_raw(b"no colon at all\n\n\n\n")
        server.fire("listen::end")
        await seen.until(lambda seen: bool(seen.events))
        assert await esl.api("x") == "+OK x"
    assert seen.states == [True]


async def test_an_event_in_pieces() -> None:
    """A message may arrive byte by byte."""
    async with EslServer() as server, client(server) as (_, seen):
        headers = {"Event-Name": "CUSTOM", "Event-Subclass": "listen::end", "A": "ü"}
        for byte in plain_event(headers):
            server.send_raw(bytes([byte]))
            await asyncio.sleep(0)
        await seen.until(lambda seen: bool(seen.events))
    assert seen.events[0].headers["A"] == "ü"


async def test_a_failing_callback_loses_no_further_event(caplog: pytest.LogCaptureFixture) -> None:
    """What a callback raises is logged, and the next event is delivered."""
    seen = Seen()

    def fail_once(event: Event) -> None:
        seen.on_event(event)
        if len(seen.events) == 1:
            raise ValueError("of the callback")

    async with EslServer() as server, client(server, on_event=fail_once):
        server.fire("listen::start")
        server.fire("listen::end")
        await seen.until(lambda seen: len(seen.events) == 2)
    assert "of the callback" in caplog.text


async def test_too_many_events_are_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that cannot keep up is told so: down, and up again with a fresh connection."""
    monkeypatch.setattr(esl_module, "MAX_EVENTS_WAITING", 10)

    def burst_into_a_busy_loop(server: EslServer) -> None:
        for _ in range(100):
            server.fire("listen::start")
        time.sleep(0.5)

    async with EslServer() as server, client(server) as (esl, seen):
        burst_into_a_busy_loop(server)
        await seen.until(lambda seen: seen.states == [True, False, True])
        assert len(seen.events) < 100
        server.fire("listen::end")
        await seen.until(lambda seen: seen.events[-1].name == "listen::end")
        assert esl.connected


# -- commands ------------------------------------------------------------------------------------


async def test_a_reply_that_is_an_error_is_a_reply() -> None:
    """-ERR of an API is its business: the caller reads it."""
    api = {"b": "-ERR GONE no such listen\n"}
    async with EslServer(api=api) as server, client(server) as (esl, _):
        assert await esl.api("b") == "-ERR GONE no such listen"
        assert await esl.api("c") == "-ERR c Command not found!"


async def test_a_command_that_is_not_permitted() -> None:
    """A switch that denies the command itself is told apart from an API that fails."""
    async with EslServer() as server, client(server) as (esl, _):
        server.deny = True
        with pytest.raises(EslRefused, match="permission denied"):
            await esl.api("status")


async def test_two_megabytes_go_out_whole() -> None:
    """A command and a reply of 2 MiB arrive unchanged, whatever the sockets hold at a time."""
    text = "äö" * (512 * 1024)
    async with EslServer(api=echo) as server, client(server) as (esl, _):
        assert await esl.api(f"x {text}", timeout_s=30) == f"+OK x {text}"


async def test_replies_go_to_those_who_asked() -> None:
    """Of 500 commands at once each gets its own reply."""
    async with EslServer(api=echo) as server, client(server) as (esl, _):
        replies = await asyncio.gather(*(esl.api(f"n {n}", 20) for n in range(500)))
    assert replies == [f"+OK n {n}" for n in range(500)]


async def test_a_late_reply_goes_to_nobody() -> None:
    """After a time-out the late reply is not taken for that of the next command."""
    async with EslServer(api={"slow": None, "fast": None}) as server, started(server.port) as esl:
        await esl.wait_connected(20)
        with pytest.raises(EslTimeout, match=r"no reply to 'slow' in 0\.05 s"):
            await esl.api("slow", timeout_s=0.05)
        fast = asyncio.create_task(esl.api("fast", timeout_s=20))
        await server.until(lambda: "api fast" in server.commands)
        server.send_raw(api_response("+OK slow") + api_response("+OK fast"))
        assert await fast == "+OK fast"


async def test_a_cancelled_command_disturbs_no_other() -> None:
    """Cancelling one command leaves the next one its own reply."""
    async with EslServer(api=echo) as server, client(server) as (esl, _):
        task = asyncio.create_task(esl.api("first"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await esl.api("second") == "+OK second"


@pytest.mark.parametrize("bad", ["a\n\napi fsctl shutdown", "a\nb: c", "a\rb", "a\0b", "a\ud800"])
async def test_a_command_that_could_be_read_as_another(bad: str) -> None:
    """Line breaks, NUL and halves of characters are refused before anything is sent."""
    async with EslServer(api=echo) as server, client(server) as (esl, _):
        before = list(server.commands)
        with pytest.raises(EslRefused, match="a command must be"):
            await esl.api(bad)
        assert server.commands == before
        assert await esl.api("good") == "+OK good"


async def test_text_cannot_make_the_event_socket_reload_itself() -> None:
    """mod_event_socket obeys these words wherever they stand, so they are never sent."""
    text = {"say": "please ReLoad mod_Event_socket"}
    async with EslServer(api=echo) as server, client(server) as (esl, _):
        with pytest.raises(EslRefused, match="its own reload"):
            await esl.api(f"listen_ctl event 1 {json.dumps(text)}")
        assert await esl.api(f"x {json_argument(text)}") == f"+OK x {json_argument(text)}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.just("reload mod_event_socket"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_argument_means_the_same_and_is_always_sendable(value: object) -> None:
    """Whatever the value, the argument is one line that reads as the value."""
    argument = json_argument(value)
    assert json.loads(argument) == value
    assert esl_link.encode_command(f"api x {argument}").count(b"\n") == 2


async def test_a_command_that_is_too_long() -> None:
    """What FreeSWITCH would cut is refused."""
    async with EslServer(api=echo) as server, client(server) as (esl, _):
        with pytest.raises(EslRefused, match="the most is"):
            await esl.api("x" * (esl_link.MAX_COMMAND_BYTES + 1))


async def test_too_many_commands_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue of commands has an end."""
    monkeypatch.setattr(esl_module, "MAX_COMMANDS_WAITING", 1)
    async with EslServer(api={"slow": None}) as server, client(server) as (esl, _):
        slow = asyncio.create_task(esl.api("slow"))
        await server.until(lambda: "api slow" in server.commands)
        with pytest.raises(EslRefused, match="waiting already"):
            await esl.api("next")
        server.send_raw(api_response("+OK"), lambda one: not one.events)
        await slow


# -- loss and return -----------------------------------------------------------------------------


async def test_a_loss_ends_waiting_and_is_mended() -> None:
    """A waiting command fails at once; state goes down and up; events flow again."""
    async with EslServer(api={"slow": None}) as server, client(server) as (esl, seen):
        slow = asyncio.create_task(esl.api("slow", timeout_s=60))
        await server.until(lambda: "api slow" in server.commands)
        server.drop()
        with pytest.raises(EslLost):
            await slow
        await seen.until(lambda seen: seen.states == [True, False, True])
        server.fire("listen::start")
        await seen.until(lambda seen: bool(seen.events))


@pytest.mark.parametrize("which", ["events", "commands"])
async def test_the_loss_of_either_connection_is_a_loss(which: str) -> None:
    """The owner hears of it whichever of the two connections ends."""
    async with EslServer() as server, client(server) as (_, seen):
        for one in server.clients:
            if bool(one.events) == (which == "events"):
                one.writer.transport.abort()
        await seen.until(lambda seen: seen.states == [True, False, True])


@pytest.mark.parametrize(
    "garbage",
    [
        b"Content-Length: 100\nContent-Type: api/response\n\nhalf",
        b"Content-Length: 100\nContent-Type: text/event-plain\n\nEvent-Name: CUS",
        b"Content-Type: api/res",
        b"",
    ],
)
async def test_an_end_in_the_middle_of_a_message(garbage: bytes) -> None:
    """Whatever was being sent when the switch went, the connection is made again."""
    async with EslServer(api=echo) as server, client(server) as (esl, seen):
        server.send_raw(garbage)
        server.finish()
        await seen.until(lambda seen: seen.states == [True, False, True])
        assert await esl.api("x") == "+OK x"


@pytest.mark.parametrize(
    "garbage",
    [
        b"Content-Length: -5\nContent-Type: api/response\n\n",
        b"Content-Length: many\nContent-Type: text/event-plain\n\n",
        b"Content-Length: 99999999999\nContent-Type: text/event-plain\n\n",
        b"Content-Type: command/reply\nReply-Text: +OK nobody asked\n\n",
        b"Content-Type: text/disconnect-notice\nContent-Length: 4\n\nbye\n",
        b"a" * (esl_link.MAX_HEADERS_BYTES + 1),
        b"a: b\n" * (esl_link.MAX_HEADERS_BYTES // 5 + 1),
    ],
    ids=["negative", "no-number", "huge", "unasked", "notice", "endless-line", "endless-headers"],
)
async def test_what_cannot_be_understood_ends_the_connection(garbage: bytes) -> None:
    """After nonsense the stream cannot be trusted: a new connection is made."""
    async with EslServer(api=echo) as server, client(server) as (esl, seen):
        server.send_raw(garbage)
        await seen.until(lambda seen: seen.states == [True, False, True])
        assert await esl.api("x") == "+OK x"


async def test_a_silent_peer_is_noticed() -> None:
    """A switch that has stopped without closing its sockets is found out by a ping."""
    async with EslServer() as server, client(server, IMPATIENT) as (esl, seen):
        server.mute = True
        await seen.until(lambda seen: seen.states == [True, False])
        with pytest.raises(EslError, match="answer"):
            await esl.wait_connected(2)
        server.mute = False
        await seen.until(lambda seen: seen.states == [True, False, True])


async def test_both_connections_are_tried() -> None:
    """A connection that has nothing to say is pinged, that for events too."""
    async with EslServer(api={"status": "UP"}) as server, client(server, IMPATIENT) as (_, seen):
        await server.until(lambda: server.commands.count("api status") >= 4)
        assert seen.states == [True]


async def test_a_slow_command_is_no_dead_peer() -> None:
    """A command that was given more time than a ping gets that time."""
    async with (
        EslServer(api={"slow": None}) as server,
        started(server.port, timing=IMPATIENT) as esl,
    ):
        await esl.wait_connected(20)
        slow = asyncio.create_task(esl.api("slow", timeout_s=20))
        await asyncio.sleep(3 * IMPATIENT.silence_s)
        server.send_raw(api_response("+OK"))
        assert await slow == "+OK"
        assert server.connections == 1


async def test_a_peer_that_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that takes no more bytes is given up, and made again."""
    monkeypatch.setattr(esl_link, "SLOWEST_READ_BYTES_PER_S", 1e9)
    async with EslServer(api=echo) as server, started(server.port, timing=IMPATIENT) as esl:
        await esl.wait_connected(20)
        server.deaf = True
        assert await esl.api("x") == "+OK x"  # the last that it reads
        with pytest.raises((EslLost, EslTimeout)):
            await esl.api("x" * (esl_link.MAX_COMMAND_BYTES - 4), timeout_s=0.3)
        server.deaf = False
        await server.until(lambda: server.connections == 2)
        await esl.wait_connected(20)


async def test_no_switch_yet() -> None:
    """Commands fail at once while there is no switch; it is found when it comes."""
    async with EslServer(api=echo) as server:
        await server.close()
        async with started(server.port) as esl:
            with pytest.raises(EslLost, match="cannot be reached: .*refused"):
                await esl.wait_connected(0.3)
            with pytest.raises(EslLost):
                await esl.api("x", timeout_s=60)
            assert not esl.connected
            await server.listen(server.port)
            await esl.wait_connected(20)
            assert await esl.api("x") == "+OK x"


async def test_a_host_that_does_not_exist() -> None:
    """A name that cannot be looked up is reported, and looked up again later."""
    esl = Esl("no such host\u2026" + "x" * 80, 8021, "ClueCon", timing=QUICK)
    await esl.start()
    try:
        with pytest.raises(EslLost, match="cannot be reached"):
            await esl.wait_connected(0.3)
    finally:
        await esl.close()


async def test_a_wrong_password() -> None:
    """The error names the setting; tries go on, slowly, until it is mended."""
    async with EslServer(password="right") as server:
        async with started(server.port, "wrong", Timing(retry_min_s=0, retry_refused_s=60)) as esl:
            with pytest.raises(EslAuthError, match="PYLISTEN_ESL_PASSWORD"):
                await esl.wait_connected(1)
            assert server.connections == 1
        async with started(server.port, "wrong") as esl:
            await server.until(lambda: server.connections >= 4)
            server.password = "wrong"
            await esl.wait_connected(20)


async def test_a_password_with_a_line_break() -> None:
    """A password cannot carry a command."""
    async with EslServer() as server, started(server.port, "ClueCon\n\napi x") as esl:
        with pytest.raises(EslAuthError, match="newline"):
            await esl.wait_connected(0.5)
        assert server.commands == []


async def test_an_address_that_is_refused() -> None:
    """The error names the access list."""
    async with EslServer() as server:
        server.reject_address = True
        async with started(server.port) as esl:
            with pytest.raises(EslDenied, match=r"Access Denied.*apply-inbound-acl"):
                await esl.wait_connected(0.5)
            server.reject_address = False
            await esl.wait_connected(20)


@pytest.mark.parametrize("fault", ["silent", "hang_up_at_once", "mute"])
async def test_a_log_in_that_leads_nowhere(fault: str) -> None:
    """Neither a missing greeting, nor an early end, nor a missing reply holds it for ever."""
    async with EslServer() as server:
        setattr(server, fault, True)
        async with started(server.port, timing=IMPATIENT) as esl:
            await server.until(lambda: server.connections >= 3)
            assert isinstance(esl.last_error, EslLost | EslTimeout)
            setattr(server, fault, False)
            await esl.wait_connected(20)


async def test_an_unexpected_fault_is_logged_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever ends the reader, the log says so and the connection is made again."""
    faults = [RuntimeError("a fault of ours")]
    sound = esl_link.decode_event

    def decode(body: bytes) -> Event:
        if faults:
            raise faults.pop()
        return sound(body)

    monkeypatch.setattr(esl_link, "decode_event", decode)
    async with EslServer() as server, client(server) as (_, seen):
        server.fire("listen::start")
        await seen.until(lambda seen: seen.states == [True, False, True])
        server.fire("listen::end")
        await seen.until(lambda seen: bool(seen.events))
    assert "a fault of ours" in caplog.text


async def test_the_log_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is one line; nothing goes to the root logger, and no caller's data anywhere."""
    caplog.set_level(logging.INFO)
    async with EslServer() as server, client(server, events=()) as (esl, seen):
        await server.close()
        await asyncio.sleep(0.5)
        await server.listen(server.port)
        await seen.until(lambda seen: seen.states == [True, False, True])
    ours = [record for record in caplog.records if record.name.startswith("pylisten")]
    assert len([record for record in ours if record.levelno == logging.WARNING]) <= 3
    assert [record for record in caplog.records if record.name == "root"] == []


def test_pauses_grow_up_to_a_limit_and_differ() -> None:
    """Pauses double up to the longest, with jitter; a refusal waits longest."""
    timing = Timing()
    pauses = [timing.pause_s(failures, EslLost("")) for failures in range(1, 2000)]
    assert 0.1 <= pauses[0] <= 0.2
    assert 0.4 <= pauses[2] <= 0.8
    assert all(2.5 <= pause <= 5 for pause in pauses[6:])
    assert len(set(pauses)) > 1900
    assert timing.pause_s(1, EslAuthError("")) >= 7.5


# -- the end -------------------------------------------------------------------------------------


async def test_close_ends_everything() -> None:
    """Waiting commands fail, the thread ends, nothing is called back, and closing twice is fine."""
    async with EslServer(api={"slow": None}) as server, client(server) as (esl, seen):
        slow = asyncio.create_task(esl.api("slow", timeout_s=60))
        await server.until(lambda: "api slow" in server.commands)
        await asyncio.gather(esl.close(), esl.close())
        with pytest.raises(EslLost):
            await slow
        with pytest.raises(EslLost, match="closed"):
            await esl.api("x")
        with pytest.raises(EslLost, match="closed"):
            await esl.wait_connected(0.01)
        await server.until(lambda: not server.clients)
        assert not esl.connected
        assert seen.states == [True]
    await asyncio.sleep(0.05)
    assert "pylisten-esl" not in [thread.name for thread in threading.enumerate()]


async def test_close_while_connecting() -> None:
    """A log-in that hangs does not hold the close."""
    async with EslServer() as server:
        server.silent = True
        async with asyncio.timeout(5), started(server.port, timing=Timing(connect_s=600)):
            await server.until(lambda: server.connections == 1)


async def test_before_the_start() -> None:
    """An Esl that was never started can be closed, and says what it is."""
    esl = Esl("127.0.0.1", 1, "x")
    with pytest.raises(EslLost, match="not started"):
        await esl.api("x")
    await esl.close()
    await esl.close()


# -- one command ---------------------------------------------------------------------------------


async def test_one_shot() -> None:
    """One command on a connection of its own."""
    async with EslServer(api=echo) as server:
        assert await one_shot("localhost", server.port, "ClueCon", "x 1", 20) == "+OK x 1"
        await server.until(lambda: not server.clients)


async def test_one_shot_says_what_is_wrong() -> None:
    """Each failure has its own error, and none takes longer than the time-out."""

    async def fails(kind: type[EslError], password: str = "ClueCon", timeout_s: float = 20) -> None:
        with pytest.raises(kind):
            await one_shot("127.0.0.1", server.port, password, "slow", timeout_s)

    async with EslServer(api={"slow": None}) as server:
        await fails(EslAuthError, password="wrong")
        await fails(EslTimeout, timeout_s=0.2)
        server.silent = True
        await fails(EslTimeout, timeout_s=0.2)
        server.reject_address = True
        await fails(EslDenied)
        await server.close()
        await fails(EslLost)
        await server.listen(server.port)
