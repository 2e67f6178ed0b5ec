"""Many calls, begun and ended at random moments: nothing may be left of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.freeswitch.conftest import EXTENSIONS
from tests.freeswitch.scene import assert_echo, assert_nothing_left, call_listen, connected, verb
from tests.support import tones
from tests.support.eslclient import EslClient
from tests.support.freeswitch import Installation, PrivateSwitch
from tests.support.sip import CallFailed, SipAgent
from tests.support.waiting import eventually
from tests.support.worker import Worker
from tests.support.wsserver import ListenServer, Stream, unused_port

pytestmark = [pytest.mark.freeswitch, pytest.mark.timeout(180)]

CALLS = 200
PARALLEL = 20
SIP_SHARE = 4  # one call in so many is a SIP call, the others are made inside the switch


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy_switch(
    freeswitch_installation: Installation, module_path: Path
) -> AsyncIterator[PrivateSwitch]:
    """A switch of its own with one worker: its threads and descriptors are counted."""
    switch = PrivateSwitch(freeswitch_installation, module=module_path, extensions=(EXTENSIONS,))
    worker = Worker(switch)
    try:
        await switch.start()
        await worker.start()
        yield switch
        await worker.stop()
        await switch.stop()
    finally:
        await worker.remove()
        await switch.remove()


async def play_on(stream: Stream) -> None:
    """Clips without an end."""
    while True:
        await stream.play(tones.tone(440, 400, 16000), 16000, "clip")
        await stream.text("playDone", count=len(stream.of_type("playDone")) + 1, timeout_s=60)


class Crowd:
    """Callers that come and go, some while connecting, some while they hear a clip."""

    def __init__(self, switch: PrivateSwitch, urls: list[str]) -> None:
        self._switch = switch
        self._urls = urls
        self._random = random.Random(20250101)
        self._room = asyncio.Semaphore(PARALLEL)

    async def caller(self, number: int, esl: EslClient, lock: asyncio.Lock) -> None:
        argument = verb(self._random.choice(self._urls), sampleRate=16000)
        stay_s = self._random.choice((0.0, 0.02, 0.1, 0.3, 0.6, 1.2))
        async with self._room:
            if number % SIP_SHARE == 0:
                await self._sip_caller(argument, stay_s)
            else:
                await self._inner_caller(f"inner-{number}", argument, stay_s, esl, lock)

    async def _sip_caller(self, argument: str, stay_s: float) -> None:
        async with SipAgent() as agent:
            extension = self._random.choice(("t-listen", "t-start-echo", "t-start-park"))
            with contextlib.suppress(CallFailed):
                call = await call_listen(agent, self._switch, argument, extension)
                await asyncio.sleep(stay_s)
                await call.hangup()

    async def _inner_caller(
        self, uuid: str, argument: str, stay_s: float, esl: EslClient, lock: asyncio.Lock
    ) -> None:
        where = self._random.choice(("null/1 &park()", "loopback/tone/default &park()"))
        options = f"{{origination_uuid={uuid},loopback_bowout=false}}"
        async with lock:
            assert (await esl.api(f"originate {options}{where}")).startswith("+OK")
        await asyncio.gather(self._start(uuid, argument), self._kill_after(uuid, stay_s))

    async def _start(self, uuid: str, argument: str) -> None:
        reply = await self._switch.api(f"uuid_listen {uuid} start {argument}")
        assert reply.startswith(("+OK", "-ERR")), reply

    async def _kill_after(self, uuid: str, stay_s: float) -> None:
        await asyncio.sleep(stay_s)
        await self._switch.api(f"uuid_kill {uuid}")


async def count_resources(switch: PrivateSwitch) -> tuple[int, int]:
    """Threads and descriptors, without those of this very question's connection."""
    return switch.child.threads(), len(switch.child.fds())


async def test_two_hundred_calls_leave_nothing(busy_switch: PrivateSwitch) -> None:
    """No listen, no slot, no thread and no descriptor is left."""
    switch = busy_switch
    async with (
        ListenServer(play_on) as playing,
        ListenServer(handshake_delay_ms=400) as slow,
        SipAgent() as agent,
    ):
        call, _ = await connected(agent, switch, playing)  # whatever is made once is made now
        await call.hangup()
        await assert_nothing_left(switch)
        await eventually(lambda: settled(switch), 30, "threads of the warm-up gone")
        threads, descriptors = await count_resources(switch)

        urls = [playing.url, playing.url, slow.url, f"ws://127.0.0.1:{unused_port()}/"]
        crowd, lock = Crowd(switch, urls), asyncio.Lock()
        async with switch.esl() as esl:
            await asyncio.gather(*(crowd.caller(number, esl, lock) for number in range(CALLS)))
        await assert_nothing_left(switch, 45)

        async def as_before() -> bool:
            now_threads, now_descriptors = await count_resources(switch)
            return now_threads <= threads and now_descriptors <= descriptors

        await eventually(as_before, 30, f"{threads} threads, {descriptors} descriptors as before")
        call, stream = await connected(agent, switch, playing)
        await stream.audio(0.2)
        await call.hangup()
        await assert_nothing_left(switch)
    status = await switch.json("listen status json")
    assert status["started"] == status["ended"] > CALLS // 2


async def settled(switch: PrivateSwitch) -> bool:
    """FreeSWITCH lets idle session threads end after some seconds; that has happened."""
    before = switch.child.threads()
    for _ in range(12):
        await asyncio.sleep(0.5)
        if switch.child.threads() != before:
            return False
    return True


async def test_hang_up_at_the_very_moment_of_the_start(busy_switch: PrivateSwitch) -> None:
    """Start and hang-up at once, again and again: one of them wins, nothing is left."""
    switch = busy_switch
    async with ListenServer() as server, switch.esl() as starter, switch.esl() as killer:
        for turn in range(40):
            reply = await starter.api(f"originate {{origination_uuid=race-{turn}}}null/1 &park()")
            assert reply.startswith("+OK")
            await asyncio.gather(
                starter.api(f"uuid_listen race-{turn} start {verb(server)}"),
                killer.api(f"uuid_kill race-{turn}"),
            )
        await assert_nothing_left(switch, 45)
    async with SipAgent() as agent:
        await assert_echo(await agent.call(switch.sip_port, "echo"))


async def test_after_all_that_the_module_can_be_unloaded(busy_switch: PrivateSwitch) -> None:
    """No call of the tests above holds on to the module."""
    assert (await busy_switch.unload_module()).startswith("+OK")
    assert (await busy_switch.load_module()).startswith("+OK")
