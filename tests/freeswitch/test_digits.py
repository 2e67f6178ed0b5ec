"""Keys, however a telephone sends them: each reaches the server once, with its length."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.freeswitch.scene import assert_echo, call_listen, connected, result, verb
from tests.support import tones
from tests.support.freeswitch import PrivateSwitch
from tests.support.rtp import PCMU, SILENT_OPUS, Codec
from tests.support.sip import SipAgent
from tests.support.worker import Worker
from tests.support.wsserver import ListenServer, Stream

pytestmark = [pytest.mark.freeswitch, pytest.mark.usefixtures("worker")]

ALL_KEYS = "0123456789*#ABCD"
ROWS_HZ, COLUMNS_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
KEYPAD = "123A456B789C*0#D"


def told(stream: Stream) -> list[tuple[str, int]]:
    """The keys that a server was told of, and their length in ms."""
    return [(text["dtmf"], int(text["duration"]) // 8) for text in stream.of_type("dtmf")]


def dual_tone(digit: str, ms: float = 100) -> tones.Pcm:
    """The tones of a key (ITU-T Q.23), and as much silence."""
    row, column = divmod(KEYPAD.index(digit), 4)
    low = tones.tone(ROWS_HZ[row], ms, 8000, -13)
    high = tones.tone(COLUMNS_HZ[column], ms, 8000, -12)
    return np.concatenate((low + high, tones.silence(ms, 8000)))


@pytest.mark.parametrize("codec", [PCMU, SILENT_OPUS], ids=["8000", "48000"])
async def test_events_of_rtp(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer, codec: Codec
) -> None:
    """RFC 4733: a length is in units of the events' clock, which beside Opus is 48 kHz."""
    async with switch.events("CUSTOM listen::dtmf") as events:
        call, stream = await connected(agent, switch, server, codec=codec, passDtmf=True)
        await stream.audio(0.2)
        for digit, duration_ms in (("1", 100), ("2", 200), ("A", 500)):
            await call.rtp.digit(digit, duration_ms)
        await stream.text("dtmf", 3)
        event = await events.wait_event("listen::dtmf", Unique_ID=call.uuid)
    assert told(stream) == [("1", 100), ("2", 200), ("A", 500)]
    assert stream.of_type("dtmf")[0] == {"event": "dtmf", "dtmf": "1", "duration": "800"}
    assert (event["Listen-Digit"], event["Listen-Digit-Duration"]) == ("1", "800")
    assert event["Listen-Digit-Leg"] == "near"


async def test_every_key_is_told_once_and_in_order(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    call, stream = await connected(agent, switch, server, passDtmf=True)
    await stream.audio(0.2)
    for digit in ALL_KEYS:
        await call.rtp.digit(digit, 60)
    await stream.text("dtmf", len(ALL_KEYS))
    await stream.audio(stream.seconds + 0.2)
    assert "".join(digit for digit, _ in told(stream)) == ALL_KEYS


async def test_keys_by_sip_info(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    call, stream = await connected(agent, switch, server, "t-start-info", passDtmf=True)
    for digit, duration_ms in (("5", 160), ("#", 250)):
        await call.info_digit(digit, duration_ms)
    await stream.text("dtmf", 2)
    assert told(stream) == [("5", 160), ("#", 250)]


async def test_keys_as_tones(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """FreeSWITCH hears them, where start_dtmf asks it to."""
    call, stream = await connected(agent, switch, server, "t-start-inband", passDtmf=True)
    await stream.audio(0.3)
    for digit in "159*0#":
        call.rtp.say(dual_tone(digit))
    await stream.text("dtmf", 6)
    await stream.audio(stream.seconds + 0.2)
    assert "".join(digit for digit, _ in told(stream)) == "159*0#"
    for _, duration_ms in told(stream):
        assert 40 <= duration_ms <= 400


async def test_keys_of_the_far_end(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """In a bridge those of either party, told apart; only those of this leg end the listen."""
    async with switch.events("CUSTOM listen::dtmf listen::end") as events:
        call = await call_listen(
            agent,
            switch,
            verb(server, passDtmf=True, finishOnKey="#"),
            "t-start-bridge",
            bridge=f"sofia/internal/sip:bob@127.0.0.1:{agent.port}",
        )
        bob = await agent.incoming.get()
        stream = await server.stream_of(call.uuid)
        await stream.audio(0.4)
        await bob.rtp.digit("4", 200)
        await bob.rtp.digit("#", 100)
        await stream.text("dtmf", 2)
        await call.rtp.digit("5", 100)
        await stream.text("dtmf", 3)
        legs = []
        for _ in range(3):
            event = await events.wait_event("listen::dtmf", Unique_ID=call.uuid)
            legs.append((event["Listen-Digit"], event["Listen-Digit-Leg"]))
        assert not stream.closed.is_set()
        await call.rtp.digit("#", 100)
        end = await events.wait_event("listen::end", Unique_ID=call.uuid)
    assert [digit for digit, _ in told(stream)][:3] == ["4", "#", "5"]
    assert told(stream)[0] == ("4", 200)
    assert legs == [("4", "far"), ("#", "far"), ("5", "near")]
    assert (end["Listen-Reason"], end["Listen-Digits"]) == ("finish-key", "#")


async def test_secret_keys_are_told_to_nobody(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """While sensitive_dtmf is set, a card number goes by without a trace."""
    async with switch.events("CUSTOM listen::dtmf listen::end") as events:
        call, stream = await connected(agent, switch, server, passDtmf=True, finishOnKey="#")
        await stream.audio(0.2)
        await call.rtp.digit("1")
        await stream.text("dtmf")
        reply = await switch.api(f"uuid_setvar {call.uuid} sensitive_dtmf true")
        assert reply.startswith("+OK")
        for digit in "4711#":
            await call.rtp.digit(digit)
        await switch.api(f"uuid_setvar {call.uuid} sensitive_dtmf")
        await call.rtp.digit("9")
        await stream.text("dtmf", 2)
        await call.rtp.digit("#")
        told_by_events = []
        while True:
            event = await events.events.get()
            assert event is not None
            if event["Event-Subclass"] == "listen::end":
                break
            told_by_events.append(event["Listen-Digit"])
    assert [digit for digit, _ in told(stream)] == ["1", "9", "#"]
    assert told_by_events[:2] == ["1", "9"]
    assert set(told_by_events) <= {"1", "9", "#"}
    assert all(text["dtmf"] not in "47" for text in stream.of_type("dtmf"))


@pytest.mark.parametrize("key", ["*", "7", "D"])
async def test_any_key_of_the_set_ends_it(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer, key: str
) -> None:
    """finishOnKey is a set; other keys pass, and the variables tell which it was."""
    call, stream = await connected(agent, switch, server, finishOnKey="*7D")
    await stream.audio(0.2)
    await asyncio.gather(*(call.rtp.digit(other, 60) for other in ("1", "#", key)))
    found = await result(switch, call)
    await stream.wait_closed()
    assert (found["reason"], found["digits"], found["status"]) == ("finish-key", key, "ok")
    assert not stream.of_type("dtmf"), "passDtmf was not asked for"
    await assert_echo(call)
