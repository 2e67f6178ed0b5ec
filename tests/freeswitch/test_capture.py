"""What the server hears: everything, from the first word on, as fast as time passes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tests.freeswitch.scene import assert_echo, call_listen, connected, finished, result, verb
from tests.support import tones
from tests.support.freeswitch import PrivateSwitch
from tests.support.rtp import L16_8K, L16_16K
from tests.support.sip import Call, SipAgent
from tests.support.worker import Worker
from tests.support.wsserver import ListenServer, Stream

pytestmark = [pytest.mark.freeswitch, pytest.mark.usefixtures("worker")]

WORDS = tones.spread_hz(16)
WORD_MS, PAUSE_MS = 60, 60
LONG_S = 10.0


def drift_ms(stream: Stream, first_s: float, last_s: float) -> float:
    """How much later audio came at the end than at the beginning, beyond what time explains.

    Of the first and the last three seconds the earliest frame counts: a machine that stalls for a
    moment makes some audio late, but not all that follows. `first_s` and `last_s` are places in
    the audio.
    """
    window = 150
    frame_ns = 20_000_000
    late_ns = np.array([frame.time_ns - n * frame_ns for n, frame in enumerate(stream.frames)])
    first, last = int(first_s * 50), int(last_s * 50)
    early, end = late_ns[first : first + window].min(), late_ns[last - window : last].min()
    return float(end - early) / 1e6


async def test_the_first_word_is_not_lost(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent
) -> None:
    """The server hears the caller from the start though its handshake takes 500 ms."""
    speech = tones.staircase(WORDS, WORD_MS, PAUSE_MS, 8000)
    async with ListenServer(handshake_delay_ms=500) as server:
        call = await call_listen(
            agent, switch, verb(server), before_answer=lambda call: call.rtp.say(speech)
        )
        stream = await server.stream()
        await stream.audio(2.2)
        pcm = stream.pcm()
        await call.hangup()
        await stream.wait_closed()
    found = tones.bursts(pcm, 8000, join_ms=30)
    assert tones.order(found, WORDS) == WORDS, "all words, in order, each once"
    # The first packets may reach FreeSWITCH before the listen stands; the first word is there.
    assert found[0].start < tones.samples(100, 8000)
    for burst in found[1:]:
        assert burst.length == pytest.approx(tones.samples(WORD_MS, 8000), abs=80)
    steps = np.diff([burst.stop for burst in found])
    assert steps.sum() == pytest.approx(15 * tones.samples(WORD_MS + PAUSE_MS, 8000), abs=320)


async def test_nothing_is_lost_at_the_end(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """What was said just before hanging up reaches the server before the socket closes."""
    call, stream = await connected(agent, switch, server)
    await stream.audio(0.4)
    call.rtp.say(tones.staircase(WORDS[:4], WORD_MS, PAUSE_MS, 8000))
    await call.rtp.said()
    await call.hangup()
    await stream.wait_closed()
    found = tones.bursts(stream.pcm(), 8000, join_ms=30)
    assert tones.order(found, WORDS) == WORDS[:4]
    assert stream.close_code == 1000
    assert all(len(frame.data) == 320 for frame in stream.frames)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 32000, 48000, 64000])
async def test_pitch_and_level_at_every_rate(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer, rate_hz: int
) -> None:
    """The sample rate of the server is not that of the call, and its audio is the same."""
    call, stream = await connected(agent, switch, server, sampleRate=rate_hz)
    assert stream.rate_hz == rate_hz
    await stream.audio(0.2)  # FreeSWITCH itself drops the first packets of a call
    call.rtp.say(tones.tone(1000, 500, 8000))
    await stream.until(lambda s: len(finished(s)) == 1)
    burst = finished(stream)[0]
    assert burst.freq_hz == pytest.approx(1000, rel=0.01)
    assert burst.level_dbfs == pytest.approx(-12, abs=1)
    assert burst.length == pytest.approx(tones.samples(500, rate_hz), abs=rate_hz // 50)


async def test_stereo_and_mixed_hear_both_sides_of_a_bridge(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """Left is this leg, right what it hears; mixed is the sum."""
    bridge = f"sofia/internal/sip:bob@127.0.0.1:{agent.port}"
    for mix in ("stereo", "mixed"):
        call = await call_listen(
            agent, switch, verb(server, mixType=mix), "t-start-bridge", bridge=bridge
        )
        bob = await agent.incoming.get()
        stream = await server.stream_of(call.uuid)
        await stream.audio(0.5)
        call.rtp.say(tones.tone(600, 1500, 8000))
        bob.rtp.say(tones.tone(1700, 1500, 8000))
        before_s = stream.seconds
        await stream.audio(before_s + 1.2)
        window = slice(int((before_s + 0.5) * 8000), int((before_s + 1.1) * 8000))
        left, right = stream.pcm()[window], stream.pcm(stream.channels - 1)[window]
        await call.hangup()
        await bob.wait_ended()
        hears_caller = tones.goertzel_dbfs(left, 600, 8000)
        hears_bob = tones.goertzel_dbfs(right, 1700, 8000)
        assert hears_caller == pytest.approx(-12, abs=1)
        assert hears_bob == pytest.approx(-12, abs=1)
        if mix == "stereo":
            assert tones.goertzel_dbfs(left, 1700, 8000) < -50
            assert tones.goertzel_dbfs(right, 600, 8000) < -50


async def mute_for_three_seconds(call: Call, stream: Stream) -> None:
    """A phone with silence suppression: 3 s without a packet in the middle of the call."""
    await stream.audio(3)
    call.rtp.muted = True
    await stream.audio(6)
    call.rtp.muted = False


async def test_audio_is_as_long_as_time(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """10 s of audio take 10 s: parked, stereo, mixed, and with a phone that is silent for 3 s."""
    scenes: list[tuple[str, dict[str, Any]]] = [
        ("t-start-park", {"mixType": "mono"}),
        ("t-start-echo", {"mixType": "stereo"}),
        ("t-start-echo", {"mixType": "mixed", "sampleRate": 16000}),
        ("t-start-park", {"mixType": "stereo"}),
        ("t-listen", {"mixType": "mono"}),
    ]
    calls = [
        await connected(agent, switch, server, extension, **properties)
        for extension, properties in scenes
    ]
    silent = asyncio.create_task(mute_for_three_seconds(*calls[-1]))
    for _, stream in calls:
        await stream.audio(1 + LONG_S)
    await silent
    for (extension, properties), (_, stream) in zip(scenes, calls, strict=True):
        drifted_ms = drift_ms(stream, 1, 1 + LONG_S)
        assert abs(drifted_ms) <= 40, f"{extension} {properties} drifted by {drifted_ms:.0f} ms"


async def test_the_length_of_the_listen_is_that_of_its_audio(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent
) -> None:
    """listen_duration_ms and the audio sent agree to 40 ms, hold and resumption included."""
    async with ListenServer() as server:
        call, stream = await connected(agent, switch, server)
        await stream.audio(0.5)
        await call.reinvite("sendonly")
        await stream.audio(1.5)
        await call.reinvite("sendrecv")
        await stream.audio(2.5)
        await stream.websocket.send('{"type": "disconnect"}')
        found = await result(switch, call)
        await stream.wait_closed()
        assert found["reason"] == "disconnect"
        assert stream.seconds * 1000 == pytest.approx(float(found["duration_ms"]), abs=40)
        await assert_echo(call)


async def test_a_codec_change_keeps_pitch_and_time(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> None:
    """A re-INVITE from 16 to 8 kHz is not heard by the server.

    Both are L16: from and to another codec FreeSWITCH 1.10.12 itself swaps the bytes wrongly.
    """
    call, stream = await connected(agent, switch, server, codec=L16_16K, sampleRate=16000)
    await stream.audio(0.2)
    for freq_hz, codec in ((700, None), (1900, L16_8K)):
        if codec is not None:
            await call.reinvite("sendrecv", codec)
            await stream.audio(stream.seconds + 0.3)
        start = stream.pcm().size
        call.rtp.say(tones.tone(freq_hz, 500, call.rtp.codec.rate_hz))
        await stream.audio(stream.seconds + 0.9)
        found = tones.bursts(stream.pcm()[start:], 16000)
        assert [round(burst.freq_hz / 10) * 10 for burst in found] == [freq_hz]
        assert found[0].length == pytest.approx(8000, abs=400)
    await stream.audio(6)
    assert abs(drift_ms(stream, 0, 6)) <= 40
