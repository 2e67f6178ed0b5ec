"""What the tests on a real switch do again and again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.support import tones
from tests.support.freeswitch import PrivateSwitch
from tests.support.rtp import Codec, Track
from tests.support.sip import Call, SipAgent
from tests.support.waiting import eventually
from tests.support.wsserver import ListenServer, Stream

STREAMING = {"enabled": True, "streaming": True, "sampleRate": 8000}


def verb(server: ListenServer | str, **properties: object) -> str:
    """A listen verb as one line of JSON, for a server or a URL."""
    url = server if isinstance(server, str) else server.url
    return json.dumps({"url": url, **properties})


async def call_listen(
    agent: SipAgent,
    switch: PrivateSwitch,
    argument: str,
    extension: str = "t-listen",
    *,
    codec: Codec | None = None,
    display_name: str = "Tests",
    before_answer: Callable[[Call], None] | None = None,
    **headers: str,
) -> Call:
    """Calls an extension of extensions.xml that runs a listen with this argument."""
    named = {f"X-{name.replace('_', '-').title()}": value for name, value in headers.items()}
    return await agent.call(
        switch.sip_port,
        extension,
        headers={"X-Listen": argument, **named},
        codec=codec,
        display_name=display_name,
        before_answer=before_answer,
    )


async def connected(
    agent: SipAgent,
    switch: PrivateSwitch,
    server: ListenServer,
    extension: str = "t-listen",
    *,
    codec: Codec | None = None,
    **properties: object,
) -> tuple[Call, Stream]:
    """A call with a listen whose server has got the first frame."""
    call = await call_listen(agent, switch, verb(server, **properties), extension, codec=codec)
    return call, await server.stream_of(call.uuid)


async def assert_echo(call: Call, freq_hz: float = 1130.0) -> None:
    """The call is alive: FreeSWITCH's echo gives back what is said."""
    since_ns = time.monotonic_ns()
    rate_hz = call.rtp.codec.rate_hz

    def is_back(track: Track) -> bool:
        line = track.timeline(since_ns)
        over = line.size - tones.samples(60, rate_hz)
        found = tones.bursts(line, rate_hz, min_ms=100)
        return any(b.stop <= over and tones.nearest(b.freq_hz, [freq_hz]) for b in found)

    # Over and over: FreeSWITCH may still be on the way from the application before.
    for _ in range(10):
        call.rtp.say(tones.staircase([freq_hz], 200, 100, rate_hz))
        try:
            await call.rtp.hear(is_back, 1.0)
        except AssertionError:
            continue
        return
    raise AssertionError(f"no echo from the call {call.uuid}: {call.end_reason or 'it is up'}")


def finished(stream: Stream) -> list[tones.Burst]:
    """The sounds that a server heard and that were over 60 ms before the newest audio."""
    pcm = stream.pcm()
    over = pcm.size - tones.samples(60, stream.rate_hz)
    return [burst for burst in tones.bursts(pcm, stream.rate_hz, join_ms=30) if burst.stop <= over]


async def listens(switch: PrivateSwitch) -> list[dict[str, Any]]:
    """The live listens of a switch."""
    answer = await switch.json("listen list json")
    return list(answer["listens"])


async def result(switch: PrivateSwitch, call: Call, timeout_s: float = 10.0) -> dict[str, str]:
    """The variables that the end of a listen leaves on the channel, waited for."""

    async def ended() -> str:
        return await switch.variable(call.uuid, "listen_reason")

    await eventually(ended, timeout_s, "listen_reason")
    names = ("id", "status", "reason", "digits", "duration_ms")
    return {name: await switch.variable(call.uuid, f"listen_{name}") for name in names}


async def assert_reason(
    switch: PrivateSwitch, call: Call, reason: str, status: str | None = None
) -> None:
    """The listen ended for that reason, and the dialplan went on to the echo."""
    found = await result(switch, call)
    assert found["reason"] == reason
    assert status in (None, found["status"])
    await assert_echo(call)


async def assert_nothing_left(switch: PrivateSwitch, timeout_s: float = 15.0) -> None:
    """No channel and no listen is left, and all slots are free again."""

    async def no_channels() -> bool:
        return await switch.channels() == 0

    async def no_slots() -> bool:
        status = await switch.json("listen status json")
        used = sum(count for state, count in status["slots"].items() if state != "free")
        return bool(status["live"] == 0 and used == 0)

    await eventually(no_channels, timeout_s, "no channels left")
    if await _has_module(switch):
        await eventually(no_slots, timeout_s, "no listens and no slots left")


async def _has_module(switch: PrivateSwitch) -> bool:
    return await switch.api("module_exists mod_listen") == "true"
