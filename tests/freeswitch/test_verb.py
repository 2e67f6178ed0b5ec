"""The verb on real calls: what needs a telephone line, a dialplan or a clock to be seen."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tests.contract.hooks import HookServer
from tests.freeswitch.scene import assert_echo, call_listen, connected, result, verb
from tests.support import tones
from tests.support.freeswitch import PrivateSwitch
from tests.support.rtp import L16_8K, Track
from tests.support.sip import Call, CallFailed, SipAgent
from tests.support.worker import Worker
from tests.support.wsserver import ListenServer, Stream

pytestmark = [pytest.mark.freeswitch, pytest.mark.usefixtures("worker")]

FRAME_MS = 20.0
PIECE_MS = 170  # ends in the middle of a frame
LEVELS = [6000, -6000, 12000, -12000, 3000, -3000, 9000, -9000, 6000, -6000]


def level(value: int, ms: float, rate_hz: int) -> tones.Pcm:
    return np.full(tones.samples(ms, rate_hz), value, np.int16)


def left_ns(track: Track) -> list[int]:
    """When the last packet came that holds a piece of each of `LEVELS`, one after the other."""
    times: list[int] = []
    values = iter(LEVELS)
    value = next(values)
    for before, packet in zip(track.packets, track.packets[1:], strict=False):
        holds = (abs(packet.pcm.astype(int) - value) < 600).any()
        held = (abs(before.pcm.astype(int) - value) < 600).any()
        if held and not holds:
            times.append(before.time_ns)
            value = next(values, 0)
            if not value:
                break
    return times


def lateness_ms(times_ns: list[int]) -> float:
    """How late what comes every 20 ms comes at times: the 95th percentile."""
    late = np.array(times_ns) / 1e6 - np.arange(len(times_ns)) * FRAME_MS
    return float(np.percentile(late - np.percentile(late, 5), 95))


async def marks_of(
    agent: SipAgent, switch: PrivateSwitch, server: ListenServer, rate_hz: int
) -> tuple[list[float], float]:
    """How much later marks are reported than their audio came, ms; and how late frames come."""
    audio = {"enabled": True, "streaming": True, "sampleRate": rate_hz}
    call, stream = await connected(
        agent, switch, server, codec=L16_8K, bidirectionalAudio=audio, sampleRate=8000
    )
    await stream.audio(0.3)
    for number, value in enumerate(LEVELS):
        await stream.send_audio(level(value, PIECE_MS, rate_hz))
        await stream.mark(f"mark-{number}")
    await stream.text("mark", len(LEVELS))
    await stream.audio(stream.seconds + 0.2)
    assert [text["data"] for text in stream.of_type("mark")] == [
        {"name": f"mark-{number}", "event": "playout"} for number in range(len(LEVELS))
    ]
    left = left_ns(call.rtp.received)
    assert len(left) == len(LEVELS), "each piece was heard, in order"
    delays = [(told - gone) / 1e6 for told, gone in zip(stream.text_times_ns, left, strict=True)]
    jitter_ms = lateness_ms([frame.time_ns for frame in stream.frames[5:]])
    first = next(n for n, packet in enumerate(call.rtp.received.packets) if packet.loud)
    heard = [packet.time_ns for packet in call.rtp.received.packets[first : first + 80]]
    return delays, jitter_ms + lateness_ms(heard)


async def test_marks_are_reported_as_their_audio_leaves(
    switch: PrivateSwitch,
    worker: Worker,
    agent: SipAgent,
    server: ListenServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Within a frame, and what this machine adds to that, at every rate of the server's audio."""
    rates_hz = (8000, 16000, 24000, 48000)
    found = await asyncio.gather(*(marks_of(agent, switch, server, rate) for rate in rates_hz))
    with capsys.disabled():
        print()
        for rate_hz, (delays, jitter_ms) in zip(rates_hz, found, strict=True):
            print(
                f"marks at {rate_hz} Hz: {min(delays):.1f} to {max(delays):.1f} ms, median "
                f"{np.median(delays):.1f} ms after their audio; jitter {jitter_ms:.1f} ms"
            )
    for rate_hz, (delays, jitter_ms) in zip(rates_hz, found, strict=True):
        tolerance_ms = FRAME_MS + jitter_ms
        assert abs(np.median(delays)) <= tolerance_ms, (rate_hz, delays)
        assert np.percentile(np.abs(delays), 90) <= tolerance_ms, (rate_hz, delays)


async def test_a_server_speaks_before_the_call_is_answered(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """earlyMedia: the caller hears a clip though the call is never answered."""

    async def greet() -> None:
        stream = await server.stream()
        assert stream.first["callStatus"] != "in-progress"
        await stream.play(tones.tone(1234, 400, 8000), 8000, "greeting")
        done = (await stream.text("playDone"))["data"]
        assert (done["reason"], done["playbackMilliseconds"]) == ("done", "400")
        await stream.audio(stream.seconds + 0.1)
        await stream.disconnect()

    calls: list[Call] = []
    greeting = asyncio.create_task(greet())
    with pytest.raises(CallFailed, match="603"):
        await agent.call(
            switch.sip_port,
            "t-listen-unanswered",
            headers={"X-Listen": verb(server, earlyMedia=True)},
            before_answer=calls.append,
        )
    await greeting
    assert not calls[0].is_up
    (heard,) = tones.bursts(calls[0].rtp.received.timeline(), 8000, join_ms=30)
    assert heard.freq_hz == pytest.approx(1234, rel=0.01)
    assert heard.length == pytest.approx(tones.samples(400, 8000), abs=160)


async def test_a_beep_before_a_message(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """A voice mailbox: beep, message, the key that ends it; and the dialplan goes on."""
    async with HookServer() as application:
        call, stream = await connected(
            agent,
            switch,
            server,
            playBeep=True,
            finishOnKey="#",
            actionHook=application.url,
            maxLength=30,
        )
        assert not stream.frames
        await stream.until(lambda s: bool(s.frames))
        assert tones.bursts(call.rtp.received.timeline(), 8000), "the beep came first"
        call.rtp.say(tones.tone(700, 400, 8000))
        await call.rtp.said()
        await call.rtp.digit("#")
        found = await result(switch, call)
        hook = (await application.hook()).body
        await stream.wait_closed()
        (beep,) = tones.bursts(call.rtp.received.timeline(), 8000, join_ms=30)
        await assert_echo(call)
    assert beep.freq_hz == pytest.approx(1500, rel=0.01)
    assert beep.length == pytest.approx(tones.samples(500, 8000), abs=160)
    (message,) = tones.bursts(stream.pcm(), 8000, join_ms=30)
    assert message.freq_hz == pytest.approx(700, rel=0.01)
    assert (found["reason"], found["digits"], found["status"]) == ("finish-key", "#", "ok")
    assert (hook["reason"], hook["digits"], hook["listen_id"]) == ("finish-key", "#", found["id"])
    assert hook["listen_duration_ms"] == pytest.approx(int(found["duration_ms"]), abs=60)


@pytest.mark.parametrize(
    ("command", "reason"),
    [("uuid_break {}", "break"), ("uuid_transfer {} echo", "transfer"), ("uuid_kill {}", "hangup")],
)
async def test_what_the_switch_does_to_a_call_is_told_once(
    switch: PrivateSwitch,
    worker: Worker,
    agent: SipAgent,
    server: ListenServer,
    command: str,
    reason: str,
) -> None:
    """The reasons that only a switch has, in the hook."""
    async with HookServer() as application:
        call, stream = await connected(agent, switch, server, actionHook=application.url)
        await stream.audio(0.2)
        assert (await switch.api(command.format(call.uuid))).startswith("+OK")
        hook = await application.hook()
        await stream.wait_closed()
        await stream_has_ended(switch, stream)
        assert len(application.hooks) == 1
    assert hook.faults() == []
    assert (hook.body["reason"], hook.body["call_sid"]) == (reason, call.uuid)
    assert (stream.close_code, stream.close_reason) == (1000, reason)


async def stream_has_ended(switch: PrivateSwitch, stream: Stream) -> None:
    """All is told of it by then: the switch has forgotten it."""
    gone = await switch.api(f"listen_ctl describe {stream.first['listenId']}")
    assert gone.startswith("-ERR GONE")


async def test_a_server_is_lost_and_the_dialplan_waits(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """A blocking listen outlives its connection; the variables tell of its real end."""
    call, first = await connected(agent, switch, server, name="kept")
    await first.audio(0.3)
    async with switch.events("CUSTOM listen::reconnect listen::connect") as events:
        first.abort()
        lost = await events.wait_event("listen::reconnect", Unique_ID=call.uuid)
        back = await events.wait_event("listen::connect", Unique_ID=call.uuid)
    assert (lost["Listen-Attempt"], lost["Listen-Error"]) == ("1", "the connection broke")
    assert (back["Listen-Resumed"], back["Listen-Gap-Ms"]) == ("true", "0")
    second = await server.stream(1)
    data: dict[str, Any] = second.texts[0]["data"]
    assert (second.first["resumed"], second.first["name"], data["gapMilliseconds"]) == (
        True,
        "kept",
        0,
    )
    assert await switch.variable(call.uuid, "listen_reason") == ""
    await second.audio(0.5)
    await second.play(tones.tone(900, 200, 8000), 8000, "still here")
    assert (await second.text("playDone"))["data"]["reason"] == "done"
    await second.disconnect()
    found = await result(switch, call)
    assert (found["reason"], found["status"]) == ("disconnect", "ok")
    await second.wait_closed()
    whole_ms = data["positionMilliseconds"] + second.seconds * 1000
    assert whole_ms == pytest.approx(int(found["duration_ms"]), abs=60)


async def test_a_profile_that_is_not_there(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent
) -> None:
    """The fault stands in the reply and on the event; the call goes on."""
    async with switch.events("CUSTOM listen::end") as events:
        call = await call_listen(agent, switch, '{"profile":"nobody"}')
        event = await events.wait_event("listen::end", Unique_ID=call.uuid)
    assert event["Listen-Reason"] == "bad-request"
    assert event["Listen-Error"].startswith('profile: found "nobody"')
    await assert_echo(call)
