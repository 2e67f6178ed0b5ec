"""Calls of the simulator, seen from a worker's end of the shared memory and by the caller."""

import asyncio

import numpy as np
import pytest

from pylisten import shm
from pylisten.simulator import SimulatedCall, SimulatedSwitch
from tests.support.tones import bursts, dominant_hz, level_dbfs, silence, tone
from tests.unit.simulator_hand import audio, hand, until

URL = "ws://127.0.0.1:1/"


def counted(ms: int, rate_hz: int = 8000) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """Audio in which every sample tells its place."""
    return (np.arange(ms * rate_hz // 1000) % 30000).astype(np.int16)


async def test_the_audio_arrives_whole_and_in_time() -> None:
    source = counted(1000)
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = SimulatedCall(source, 8000)
        taken = asyncio.create_task(worker.take())
        switch.add(call)
        reply = await switch.api(f"uuid_listen {call.uuid} start {URL}")
        listen = await taken
        assert reply == f"+OK {listen['id']}\n"
        items = await worker.drain_to_end(listen["slot"])
        await call.ended.wait()
        counters = switch.arena.counters(listen["slot"])
    got = audio(items)
    assert np.array_equal(got, source[len(source) - len(got) :]), "nothing lost, nothing invented"
    assert items[-1].pos == len(got), "the listen is as long as its audio"
    assert len(got) >= len(source) - 10 * 160
    assert counters["filled"] == counters["dropped_near"] == counters["late_near"] == 0


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 32000, 48000, 64000])
async def test_each_listen_gets_its_rate(rate_hz: int) -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = SimulatedCall(tone(440, 500, 44100), 44100)
        taken = asyncio.create_task(worker.take())
        switch.add(call)
        await switch.api(f"uuid_listen {call.uuid} start {URL} sampleRate={rate_hz}")
        items = await worker.drain_to_end((await taken)["slot"])
    got = audio(items)
    assert dominant_hz(got[len(got) // 4 : -len(got) // 4], rate_hz) == pytest.approx(440, rel=0.01)
    assert {len(item.data) for item in items[:-1]} == {rate_hz // 50 * 2}


async def test_the_caller_hears_what_is_played_at_any_rate() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = SimulatedCall(silence(1500, 8000), 8000)
        taken = asyncio.create_task(worker.take())
        switch.add(call)
        await switch.api(f"uuid_listen {call.uuid} start {URL}")
        listen = await taken
        await worker.say(listen, 24000, tone(700, 300, 24000))
        await worker.say(listen, 8000, tone(1100, 300, 8000))
        await worker.drain_to_end(listen["slot"])
        status = worker.handoff.arena.play_status(listen["slot"], listen["generation"])
        await call.ended.wait()
    heard = call.what_was_heard(16000)
    assert len(heard) == len(call.said(16000)) == 24000
    assert status.written == status.played == shm.TICKS_HZ * 6 // 10
    begin = min(burst.start for burst in bursts(heard, 16000))
    assert dominant_hz(heard[begin + 800 : begin + 4000], 16000) == pytest.approx(700, rel=0.01)
    later = heard[begin + 5600 : begin + 8800]
    assert dominant_hz(later, 16000) == pytest.approx(1100, rel=0.01)
    assert level_dbfs(heard[begin + 9800 :]) < -80


async def test_what_one_listen_plays_the_other_hears() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = SimulatedCall(silence(1500, 8000), 8000)
        switch.add(call)
        taken = asyncio.create_task(worker.take())
        await switch.api(f"uuid_listen {call.uuid} start {URL} name=bot")
        bot = await taken
        listeners = {}
        for name, more in (("left", ""), ("right", " sampleRate=16000 includePlayback=true")):
            taken = asyncio.create_task(worker.take())
            command = f"uuid_listen {call.uuid} start {URL} name={name} mixType=stereo{more}"
            await switch.api(command)
            listeners[name] = await taken
        await worker.say(bot, 16000, tone(700, 300, 16000))
        await worker.say(listeners["right"], 16000, tone(1300, 300, 16000))
        both = {
            name: audio(await worker.drain_to_end(listen["slot"])).reshape(-1, 2)
            for name, listen in listeners.items()
        }
        mono = audio(await worker.drain_to_end(bot["slot"]))
    for name, rate_hz in (("left", 8000), ("right", 16000)):
        near, far = both[name].T
        assert not near.any()
        (heard,) = bursts(far, rate_hz)
        middle = far[heard.start : heard.stop]
        assert heard.length == pytest.approx(rate_hz * 0.3, rel=0.2)
        spectrum = np.abs(np.fft.rfft(middle))
        for hz in (700, 1300):
            assert spectrum[round(hz * len(middle) / rate_hz)] > spectrum.max() / 10, (name, hz)
    assert not mono.any(), "a mono listen is given the caller alone"


async def test_a_listen_does_not_hear_itself_unless_it_asks_to() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = SimulatedCall(silence(600, 8000), 8000)
        switch.add(call)
        taken = asyncio.create_task(worker.take())
        await switch.api(f"uuid_listen {call.uuid} start {URL} mixType=mixed")
        listen = await taken
        await worker.say(listen, 8000, tone(700, 200, 8000))
        got = audio(await worker.drain_to_end(listen["slot"]))
    assert len(got)
    assert not got.any()


async def test_keys_come_with_their_duration_and_from_either_end() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = SimulatedCall(silence(10_000, 8000), 8000)
        switch.add(call)
        taken = asyncio.create_task(worker.take())
        await switch.api(f"uuid_listen {call.uuid} start {URL}")
        listen = await taken
        call.press("5", duration_ms=200)
        call.press("#", far=True)
        switch.hang_up(call)
        items = await worker.drain_to_end(listen["slot"])
    keys = [item for item in items if item.kind is shm.Kind.DIGIT]
    assert [(key.digit, key.duration, key.far) for key in keys] == [
        ("5", 1600, False),
        ("#", 800, True),
    ]


async def test_a_call_goes_on_in_silence_if_it_shall() -> None:
    async with SimulatedSwitch() as switch, hand(switch) as worker:
        call = SimulatedCall(tone(440, 100, 8000), 8000, hang_up_at_end=False)
        switch.add(call)
        taken = asyncio.create_task(worker.take())
        await switch.api(f"uuid_listen {call.uuid} start {URL}")
        listen = await taken
        await until(lambda: call.duration_s >= 0.5)
        assert not call.ended.is_set()
        switch.hang_up(call)
        got = audio(await worker.drain_to_end(listen["slot"]))
    assert not got[-1600:].any()


async def test_a_call_that_is_on_no_switch_says_so() -> None:
    with pytest.raises(RuntimeError, match="on no switch"):
        SimulatedCall(silence(20, 8000), 8000).press("1")
