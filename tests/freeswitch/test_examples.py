"""The dialplan examples of freeswitch-conf/ do what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support import tones
from tests.support.freeswitch import Installation, PrivateSwitch
from tests.support.rtp import Track
from tests.support.sip import SipAgent
from tests.support.waiting import eventually
from tests.support.worker import Worker
from tests.support.wsserver import ListenServer, unused_port

pytestmark = pytest.mark.freeswitch

SERVER_PORT = unused_port()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def example_switch(
    freeswitch_installation: Installation, module_path: object
) -> AsyncIterator[PrivateSwitch]:
    """The minimal configuration with nothing but its variables changed."""
    switch = PrivateSwitch(
        freeswitch_installation,
        variables={
            "listen_url": f"ws://127.0.0.1:{SERVER_PORT}/",
            "listen_bridge_to": "loopback/9197/default",
        },
        sql=True,
    )
    try:
        await switch.start()
        yield switch
        await switch.stop()
    finally:
        await switch.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def example_worker(example_switch: PrivateSwitch) -> AsyncIterator[Worker]:
    worker = Worker(example_switch)
    try:
        await worker.start()
        yield worker
        await worker.stop()
    finally:
        await worker.remove()


@pytest_asyncio.fixture
async def phone() -> AsyncIterator[SipAgent]:
    async with SipAgent() as agent:
        yield agent


@pytest_asyncio.fixture
async def bot(example_worker: Worker) -> AsyncIterator[ListenServer]:
    """The server that listen_url names."""
    async with ListenServer(port=SERVER_PORT) as server:
        yield server


def heard_freqs(track: Track) -> list[int]:
    """The tones that were heard, to 10 Hz."""
    found = tones.bursts(track.timeline(), track.rate_hz, min_ms=60)
    return [round(burst.freq_hz / 10) * 10 for burst in found]


async def test_blocking(example_switch: PrivateSwitch, phone: SipAgent, bot: ListenServer) -> None:
    """7001: the caller talks with the server, "#" ends it, and says so by a tone."""
    call = await phone.call(example_switch.sip_port, "7001")
    stream = await bot.stream()
    await stream.send_audio(tones.tone(600, 300, 16000))
    await call.rtp.hear(lambda track: 600 in heard_freqs(track))
    await call.rtp.digit("#")
    await call.rtp.hear(lambda track: heard_freqs(track)[-1:] in ([1170], [1180]))
    await call.wait_ended()


async def test_blocking_without_a_server(
    example_switch: PrivateSwitch, example_worker: Worker, phone: SipAgent
) -> None:
    """7001: a failure sounds different."""
    call = await phone.call(example_switch.sip_port, "7001")
    await call.rtp.hear(lambda track: heard_freqs(track)[-1:] == [260])
    await call.wait_ended()


async def test_bridge(example_switch: PrivateSwitch, phone: SipAgent, bot: ListenServer) -> None:
    """7002: both sides of a bridge on two channels."""
    call = await phone.call(example_switch.sip_port, "7002")
    stream = await bot.stream()
    await stream.audio(0.5)
    call.rtp.say(tones.tone(600, 1500, 8000))
    await stream.audio(2)
    tail = slice(-8000, None)
    assert tones.dominant_hz(stream.pcm(0)[tail], 16000) == pytest.approx(600, abs=5)
    assert tones.dominant_hz(stream.pcm(1)[tail], 16000) == pytest.approx(1000, abs=5)
    await call.hangup()
    await stream.wait_closed()


async def test_json(example_switch: PrivateSwitch, phone: SipAgent, bot: ListenServer) -> None:
    """7003: the verb as JSON."""
    call = await phone.call(example_switch.sip_port, "7003")
    stream = await bot.stream()
    assert stream.first["customer"] == "4711"
    await stream.disconnect()
    await call.wait_ended()


async def test_park(example_switch: PrivateSwitch, phone: SipAgent, bot: ListenServer) -> None:
    """7004: started and stopped from outside."""
    call = await phone.call(example_switch.sip_port, "7004")
    start = f"uuid_listen {call.uuid} start {bot.url} name=bot"
    assert (await example_switch.api(start)).startswith("+OK")
    stream = await bot.stream()
    await stream.audio(0.2)
    assert (await example_switch.api(f"uuid_listen {call.uuid} stop bot")).startswith("+OK")
    await stream.wait_closed()
    assert call.is_up


async def test_part_of_a_call(
    example_switch: PrivateSwitch, phone: SipAgent, bot: ListenServer
) -> None:
    """7005: the listen is over before the PIN is asked for."""
    call = await phone.call(example_switch.sip_port, "7005")
    stream = await bot.stream()
    assert stream.first["name"] == "menu"
    await stream.wait_closed()
    await call.rtp.hear(lambda track: heard_freqs(track)[-1:] == [800])
    assert stream.seconds == pytest.approx(4.5, abs=0.5)


async def test_tab_completes(example_switch: PrivateSwitch, phone: SipAgent) -> None:
    """The console knows the commands and the uuids."""
    call = await phone.call(example_switch.sip_port, "7004")

    async def knows_the_call() -> bool:
        return call.uuid in await example_switch.api("console_complete c=12;uuid_listen ")

    await eventually(knows_the_call, what="the uuid is offered")
    shown = await example_switch.api("console_complete c=7;listen ")
    for word in ("status", "list", "workers", "reload", "drain"):
        assert word in shown
