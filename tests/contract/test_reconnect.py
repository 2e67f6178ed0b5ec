"""A connection that is lost is opened again, and the server gets all that the ring still holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from tests.contract.backends import RATE_HZ, Backend, Caller, simulator_backend
from tests.contract.hooks import HookServer
from tests.contract.proxy import Proxy
from tests.support import tones
from tests.support.tones import Pcm
from tests.support.waiting import eventually
from tests.support.wsserver import ListenServer, Stream

WORDS_HZ = tones.spread_hz(14)
SAMPLES_PER_MS = RATE_HZ // 1000
QUICK_PINGS = {"ping_interval_s": 0.4, "ping_timeout_s": 0.4}


def noise(seconds: float) -> Pcm:
    """Audio of which every piece is known by its samples, none of which is 0."""
    rng = np.random.default_rng(4711)
    count = round(seconds * RATE_HZ)
    wave: Pcm = (rng.integers(1, 8000, count) * rng.choice((-1, 1), count)).astype(np.int16)
    return wave


def words() -> Pcm:
    """3.8 s of different tones, that a telephone line carries."""
    speech = tones.staircase(WORDS_HZ, 120, 130, RATE_HZ)
    return np.concatenate((tones.silence(300, RATE_HZ), speech))


@dataclass(frozen=True)
class Recording:
    """What a server makes of a listen with several connections, by `positionMilliseconds`."""

    whole: Pcm
    known: npt.NDArray[np.bool_]  # of each sample: it came

    @classmethod
    def of(cls, streams: list[Stream]) -> Recording:
        recording = cls(streams[0].pcm(), np.ones(streams[0].pcm().size, bool))
        for stream in streams[1:]:
            position_ms = stream.of_type("resumed")[0]["data"]["positionMilliseconds"]
            recording = recording._overwrite(position_ms * SAMPLES_PER_MS, stream.pcm())
        return recording

    def _overwrite(self, place: int, pcm: Pcm) -> Recording:
        missing = max(0, place - self.whole.size)
        whole = np.concatenate((self.whole[:place], np.zeros(missing, np.int16), pcm))
        known = np.concatenate(
            (self.known[:place], np.zeros(missing, bool), np.ones(pcm.size, bool))
        )
        return Recording(whole, known)


def assert_said(recording: Recording, said: Pcm, gap_ms: int) -> None:
    """All that came is what was said, sample by sample, each in its place.

    A machine that stands still for long makes the ring fill silence in; `gap_ms` covers that.
    """
    start = _find(said, recording.whole[:160])
    rest = said[start : start + recording.whole.size]
    expected = np.concatenate((rest, np.zeros(recording.whole.size - rest.size, np.int16)))
    wrong = recording.known & (recording.whole != expected)
    assert not recording.whole[wrong].any(), "what was not said as it came is silence"
    silent_ms = int(wrong.sum()) // SAMPLES_PER_MS
    assert silent_ms <= gap_ms, f"{silent_ms} ms of silence were put in, {gap_ms} ms are told of"


def _find(said: Pcm, piece: Pcm) -> int:
    for start in np.flatnonzero(said == piece[0]):
        if np.array_equal(said[start : start + piece.size], piece):
            return int(start)
    raise AssertionError("the first frame is nothing that was said")


def resumed(stream: Stream) -> tuple[int, int]:
    """gapMilliseconds and positionMilliseconds, from the text that comes right behind the first."""
    assert stream.first["resumed"] is True
    assert stream.texts[0]["type"] == "resumed"
    data = stream.texts[0]["data"]
    assert set(data) == {"gapMilliseconds", "positionMilliseconds"}
    return data["gapMilliseconds"], data["positionMilliseconds"]


# -- losses that the ring outlasts ---------------------------------------------------------------


async def abort(_: Proxy, stream: Stream) -> None:
    stream.abort()


async def close_1011(_: Proxy, stream: Stream) -> None:
    await stream.websocket.close(1011, "out of memory")


async def close_1001(_: Proxy, stream: Stream) -> None:
    await stream.websocket.close(1001, "a new release")


async def rubbish(_: Proxy, stream: Stream) -> None:
    stream.send_rubbish(b"\xff\xff\xff\xff" * 64)


async def half_open(proxy: Proxy, _: Stream) -> None:
    proxy.freeze()


async def away_for_a_second(proxy: Proxy, stream: Stream) -> None:
    """What is played meanwhile is heard, and its end is told afterwards."""
    await stream.play(tones.tone(700, 200, RATE_HZ), RATE_HZ, "meanwhile")
    await asyncio.sleep(0.1)  # on its way, and not over
    proxy.refuse()
    proxy.cut()
    await asyncio.sleep(1)
    proxy.refuse(False)


Loss = Callable[[Proxy, Stream], Awaitable[None]]
LOSSES: list[Loss] = [abort, close_1011, close_1001, rubbish, half_open, away_for_a_second]


async def survive(backend: Backend, loss: Loss) -> None:
    """One call whose server is lost in the middle of what the caller says."""
    said = noise(5) if backend.exact else words()
    async with ListenServer() as server, Proxy(server.port) as proxy, HookServer() as application:
        caller = await backend.new_call(said)
        listen_id = await backend.start(caller, proxy.url, actionHook=application.url)
        first = await server.stream(0)
        await first.audio(1)
        await loss(proxy, first)
        await backend.events.wait("listen::reconnect", Listen_ID=listen_id)
        second = await server.stream(1)
        # What was said is over; the telephone's words take 3.8 s, and begin before the listen.
        await second.until(lambda s: Recording.of([first, s]).whole.size > 4.5 * RATE_HZ)
        assert (await backend.api(f"uuid_listen {caller.uuid} stop")).startswith("+OK")
        await second.wait_closed()
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
        hook = (await application.hook()).body
    assert resumed(second)[0] == 0
    recording = Recording.of([first, second])
    if backend.exact:
        assert_said(recording, said, hook["gap_ms"])
        assert hook["bytes_sent"] <= recording.whole.nbytes, "what comes twice counts once"
    else:
        # A machine that stands still for a moment stretches a word, whatever the connection does.
        found = tones.bursts(recording.whole, RATE_HZ, join_ms=100)
        assert tones.order(found, WORDS_HZ) == WORDS_HZ
        for burst in found[1:]:
            assert burst.length == pytest.approx(tones.samples(120, RATE_HZ), abs=480)
    for duration_ms in (int(end["Listen-Duration-Ms"]), hook["listen_duration_ms"]):
        assert recording.whole.size / SAMPLES_PER_MS == pytest.approx(duration_ms, abs=40)
    assert (second.close_code, second.close_reason) == (1000, "stopped")
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("stopped", "ok")
    connects = backend.events.of("listen::connect", Listen_ID=listen_id)
    assert [event.get("Listen-Resumed") for event in connects] == [None, "true"]
    assert connects[1]["Listen-Gap-Ms"] == "0"
    if loss is away_for_a_second:
        done = second.of_type("playDone")[0]["data"]
        assert (done["id"], done["reason"]) == ("meanwhile", "done")
        assert not first.of_type("playDone")
        assert [b.length for b in tones.bursts(caller.heard(), RATE_HZ)] == [
            pytest.approx(tones.samples(200, RATE_HZ), abs=160)
        ]


async def test_a_loss_that_the_ring_outlasts_is_not_heard(backend: Backend) -> None:
    """Joined by their positions, the two recordings are what the caller said."""
    async with backend.worker(websocket=QUICK_PINGS):
        results = await asyncio.gather(
            *(survive(backend, loss) for loss in LOSSES), return_exceptions=True
        )
    failed = {
        loss.__name__: found
        for loss, found in zip(LOSSES, results, strict=True)
        if isinstance(found, BaseException)
    }
    if failed:
        raise BaseExceptionGroup(", ".join(failed), list(failed.values()))


# -- losses that it does not ---------------------------------------------------------------------


async def test_what_a_long_loss_costs_is_told_exactly() -> None:
    """Two losses of one call; before each gap there is what arrived, and after it the rest."""
    said = noise(8)
    async with (
        simulator_backend(ring_ms=1500) as backend,
        backend.worker(),
        ListenServer() as server,
        Proxy(server.port) as proxy,
        HookServer() as application,
    ):
        caller = await backend.new_call(said)
        listen_id = await backend.start(
            caller,
            proxy.url,
            reconnect={"attempts": 40, "maxDelay": 8},
            actionHook=application.url,
        )
        streams = [await server.stream(0)]
        await streams[0].play(tones.tone(700, 2400, RATE_HZ), RATE_HZ, "one")
        for number in (1, 2):
            await streams[-1].audio(1.7)
            proxy.refuse()
            proxy.cut()
            await asyncio.sleep(1.6)
            proxy.refuse(False)
            streams.append(await server.stream(number))
        await streams[-1].audio(2)
        await backend.api(f"uuid_listen {caller.uuid} stop")
        await streams[-1].wait_closed()
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
        hook = (await application.hook()).body
    gaps_ms, places = zip(*(resumed(stream) for stream in streams[1:]), strict=True)
    lengths_ms = [int(stream.seconds * 1000) for stream in streams]
    place_ms = 0
    for number, gap_ms in enumerate(gaps_ms):
        assert gap_ms >= 500, "the ring keeps a second of a loss that is longer"
        known_to_have_come_ms = places[number] - gap_ms
        come_ms = place_ms + lengths_ms[number]
        # Between two answers of the server half a second is on its way, and may arrive.
        assert known_to_have_come_ms <= come_ms <= known_to_have_come_ms + 700
        place_ms = places[number]
    recording = Recording.of(streams)
    assert_said(recording, said, hook["gap_ms"] - sum(gaps_ms))
    assert recording.whole.size / SAMPLES_PER_MS == pytest.approx(
        hook["listen_duration_ms"], abs=40
    )
    assert end["Listen-Dropped-Near"] == "0"
    assert streams[1].of_type("playDone")[0]["data"]["id"] == "one"


@pytest.mark.timeout(180)
async def test_a_minute_with_ten_seconds_of_loss() -> None:
    """A call of one minute whose server is away for ten seconds; and at the same time a call whose
    server is there but cannot be reached, which is found with pings as they are by default."""
    async with simulator_backend() as backend, backend.worker():
        await asyncio.gather(_a_minute(backend), _unreachable(backend))


async def _a_minute(backend: Backend) -> None:
    said = noise(62)
    async with ListenServer() as server, Proxy(server.port) as proxy:
        caller = await backend.new_call(said)
        listen_id = await backend.start(
            caller, proxy.url, reconnect={"attempts": 20, "maxDelay": 30}, maxLength=60
        )
        first = await server.stream(0)
        await first.audio(20)
        proxy.refuse()
        proxy.cut()
        await asyncio.sleep(10)
        proxy.refuse(False)
        second = await server.stream(1)
        await second.wait_closed(60)
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
    assert end["Listen-Reason"] == "max-length"
    gap_ms, place_ms = resumed(second)
    # Ten seconds, what was on its way, and at most one pause between two tries; of it the ring has
    # nine and a half.
    assert 500 <= gap_ms <= 3500
    assert place_ms - gap_ms <= first.seconds * 1000 <= place_ms - gap_ms + 700
    recording = Recording.of([first, second])
    assert recording.whole.size == pytest.approx(60 * RATE_HZ, abs=160)
    assert_said(recording, said, int(end["Listen-Gap-Ms"]) - gap_ms)
    assert end["Listen-Dropped-Near"] == "0"


async def _unreachable(backend: Backend) -> None:
    said = noise(25)
    async with ListenServer() as server, Proxy(server.port) as proxy, HookServer() as application:
        caller = await backend.new_call(said)
        listen_id = await backend.start(caller, proxy.url, actionHook=application.url)
        first = await server.stream(0)
        await first.audio(3)
        proxy.freeze()
        began_s = time.monotonic()
        await backend.events.wait("listen::reconnect", 15, Listen_ID=listen_id)
        assert time.monotonic() - began_s <= 10.5, "found within ten seconds"
        second = await server.stream(1)
        await second.audio(12)
        await backend.api(f"uuid_listen {caller.uuid} stop")
        await second.wait_closed()
        hook = (await application.hook()).body
    gap_ms, _ = resumed(second)
    assert gap_ms <= 1500
    assert_said(Recording.of([first, second]), said, hook["gap_ms"] - gap_ms)


# -- a server that takes nothing any more --------------------------------------------------------


async def stuff(backend: Backend, caller: Caller, texts: int) -> None:
    """More text than the buffers on the way to a server hold."""
    for number in range(texts):
        text = f'{{"type":"stuff","number":{number},"text":"{"x" * 500_000}"}}'
        assert (await backend.api(f"uuid_listen {caller.uuid} send {text}")).startswith("+OK")


async def test_a_server_that_takes_nothing_any_more_is_lost() -> None:
    """Its pings are never even sent: they wait behind what it does not take."""
    async with (
        simulator_backend() as backend,
        backend.worker(websocket=QUICK_PINGS) as worker,
        ListenServer() as server,
        Proxy(server.port) as proxy,
    ):
        caller = await backend.new_call(noise(5))
        listen_id = await backend.start(caller, proxy.url)
        await (await server.stream(0)).audio(0.5)
        proxy.freeze()
        await stuff(backend, caller, 16)
        await backend.events.wait("listen::reconnect", Listen_ID=listen_id)
        second = await server.stream(1)
        await second.until(lambda s: len(s.of_type("stuff")) == 16)
        assert [text["number"] for text in second.of_type("stuff")] == list(range(16))
        await second.audio(1)
        # Again; this time the caller hangs up meanwhile.
        proxy.freeze()
        await stuff(backend, caller, 16)
        await caller.hang_up()
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
        assert end["Listen-Reason"] == "hangup"
        await backend.slots_are_free()

        async def served() -> bool:
            return worker.live == 0

        await eventually(served, 10, "the worker has done with the listen")


# -- a call that ends meanwhile -------------------------------------------------------------------


@pytest.mark.parametrize("returns", [True, False], ids=["returns", "stays away"])
async def test_a_caller_hangs_up_while_the_server_is_away(backend: Backend, returns: bool) -> None:
    """A server that returns in time hears the rest; the hook tells of the hang-up in any case."""
    async with (
        backend.worker() as worker,
        ListenServer() as server,
        Proxy(server.port) as proxy,
        HookServer() as application,
    ):
        caller = await backend.new_call(noise(3) if backend.exact else words())
        await backend.start(
            caller,
            proxy.url,
            reconnect={"attempts": 10, "maxDelay": 2},
            actionHook=application.url,
        )
        first = await server.stream(0)
        await first.audio(0.6)
        proxy.refuse()
        proxy.cut()
        await asyncio.sleep(0.6)
        await caller.hang_up()
        end = await backend.events.wait("listen::end")
        assert end["Listen-Reason"] == "hangup"
        proxy.refuse(not returns)
        hook = await application.hook()
        await backend.slots_are_free()
        assert worker.hooks.counters.delivered == 1
        if returns:
            second = await server.stream(1)
            await second.wait_closed()
            assert (second.close_code, second.close_reason) == (1000, "hangup")
            assert resumed(second)[0] == 0
            whole_ms = Recording.of([first, second]).whole.size / SAMPLES_PER_MS
            assert whole_ms == pytest.approx(int(end["Listen-Duration-Ms"]), abs=40)
            assert hook.body["bytes_sent"] == pytest.approx(whole_ms * SAMPLES_PER_MS * 2, abs=640)
    assert hook.faults() == []
    assert hook.body["reason"] == "hangup"
    assert hook.body["ws_close_code"] == (1000 if returns else 1006)
    assert hook.body["listen_duration_ms"] >= int(end["Listen-Duration-Ms"]) - 60
    assert len(application.hooks) == 1


# -- when not to ---------------------------------------------------------------------------------


async def test_a_server_that_says_good_bye_is_not_called_again(
    backend: Backend, server: ListenServer
) -> None:
    async with backend.worker():
        caller = await backend.new_call(tones.silence(20, RATE_HZ))
        listen_id = await backend.start(caller, server.url)
        await (await server.stream_of(caller.uuid)).websocket.close(1000, "done")
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
        await backend.slots_are_free()
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("closed", "ok")
    assert server.attempts == 1
    assert not backend.events.of("listen::reconnect")


async def test_a_listen_may_ask_for_no_reconnect(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(tones.silence(20, RATE_HZ))
        listen_id = await backend.start(caller, server.url, reconnect=False)
        stream = await server.stream_of(caller.uuid)
        await stream.audio(0.2)
        stream.abort()
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
        await backend.slots_are_free()
    assert end["Listen-Reason"] == "closed"
    assert end["Listen-Error"] == "the connection broke"
    assert server.attempts == 1
    assert not backend.events.of("listen::reconnect")


async def test_a_server_that_stays_away_is_given_up(backend: Backend) -> None:
    """So many tries and no more; then the listen ends, and the hook says why."""
    async with (
        backend.worker() as worker,
        ListenServer() as server,
        Proxy(server.port) as proxy,
        HookServer() as application,
    ):
        caller = await backend.new_call(tones.silence(20, RATE_HZ))
        listen_id = await backend.start(
            caller,
            proxy.url,
            reconnect={"attempts": 3, "maxDelay": 2},
            actionHook=application.url,
        )
        await (await server.stream(0)).audio(0.3)
        proxy.refuse()
        proxy.cut()
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
        hook = await application.hook()
        await backend.slots_are_free()
        assert worker.hooks.counters.delivered == 1
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("connect-failed", "failed")
    assert "3 tries to connect again failed" in end["Listen-Error"]
    assert proxy.attempts == 1 + 3
    attempts = backend.events.of("listen::reconnect", Listen_ID=listen_id)
    assert [event["Listen-Attempt"] for event in attempts] == ["1", "2", "3"]
    assert hook.faults() == []
    assert (hook.body["reason"], hook.body["listen_id"]) == ("connect-failed", listen_id)
    assert hook.body["ws_close_code"] == 1006
    assert len(application.hooks) == 1
