"""The properties of the verb and the messages of the protocol, as their users see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pylisten.config import load_config
from pylisten.session import Session
from tests.contract.backends import RATE_HZ, Backend, Caller, simulator_backend
from tests.support import tones
from tests.support.freeswitch import ESL_PASSWORD
from tests.support.tones import Pcm
from tests.support.waiting import eventually
from tests.support.wsserver import CERTIFICATE, ListenServer, Stream

SAMPLES_PER_MS = RATE_HZ // 1000
STREAMING = {"enabled": True, "streaming": True}
HUM_DBFS = -50


def quiet() -> Pcm:
    return tones.silence(20, RATE_HZ)


def hum(ms: float, level_dbfs: float = HUM_DBFS) -> Pcm:
    """The noise of a room; its RMS is so far below the largest sample there is."""
    rng = np.random.default_rng(11)
    wave = rng.standard_normal(tones.samples(ms, RATE_HZ)) * tones.FULL_SCALE
    return np.rint(wave * 10 ** (level_dbfs / 20)).astype(np.int16)


def level(value: int, ms: float) -> Pcm:
    """Audio that is known by each of its samples, however little of it is heard."""
    return np.full(tones.samples(ms, RATE_HZ), value, np.int16)


def runs(pcm: Pcm) -> list[tuple[int, int]]:
    """The constant pieces of audio but for silence: their value and how many samples they have."""
    edges = np.concatenate(([0], np.flatnonzero(np.diff(pcm)) + 1, [pcm.size]))
    return [(int(pcm[a]), int(b - a)) for a, b in pairwise(edges) if b > a and pcm[a]]


async def later(stream: Stream, ms: float = 100) -> None:
    """Waits for that much more audio: what is on its way to the caller has arrived then."""
    await stream.audio(stream.seconds + ms / 1000)


# -- killAudio -----------------------------------------------------------------------------------

NEW_MS = 60


async def kill_clips(stream: Stream, turns: Sequence[int]) -> None:
    """In each turn a clip of ten seconds is killed, and another one sent right behind the kill."""
    for turn in turns:
        await stream.play(level(2 * turn + 1, 10_000), RATE_HZ, f"old-{turn}")
        await stream.audio(stream.seconds + 0.02 * (turn % 4))
        await stream.kill()
        await stream.play(level(2 * turn + 2, NEW_MS), RATE_HZ, f"new-{turn}")
        done = (await stream.text("playDone", 2 * (turn - turns[0]) + 2))["data"]
        assert (done["id"], done["reason"]) == (f"new-{turn}", "done")
        assert done["playbackMilliseconds"] == str(NEW_MS)


async def kill_streamed(stream: Stream, turns: Sequence[int]) -> None:
    """The same with binary audio, whose end a mark tells."""
    for turn in turns:
        await stream.send_audio(level(2 * turn + 1, 10_000))
        await stream.audio(stream.seconds + 0.02 * (turn % 4))
        await stream.kill()
        await stream.send_audio(level(2 * turn + 2, NEW_MS))
        await stream.mark(f"new-{turn}")
        mark = (await stream.text("mark", turn - turns[0] + 1))["data"]
        assert mark == {"name": f"new-{turn}", "event": "playout"}


def assert_killed(pcm: Pcm, turns: Sequence[int]) -> int:
    """Each new clip is whole, and nothing of an old one comes behind it. Returns how many old ones
    were heard at all."""
    found = runs(pcm)
    values = [value for value, _ in found]
    assert values == sorted(set(values)), "in order, each in one piece"
    new = {value: count for value, count in found if value % 2 == 0}
    assert new == {2 * turn + 2: tones.samples(NEW_MS, RATE_HZ) for turn in turns}
    return len(found) - len(new)


def assert_told(stream: Stream, pcm: Pcm, turns: Sequence[int]) -> None:
    """What playDone says of a killed clip is what was heard of it."""
    lengths = dict(runs(pcm))
    told = {text["data"]["id"]: text["data"] for text in stream.of_type("playDone")}
    for turn in turns:
        old = told[f"old-{turn}"]
        assert old["reason"] == "killed"
        heard_ms = lengths.get(2 * turn + 1, 0) / SAMPLES_PER_MS
        assert int(old["playbackMilliseconds"]) == pytest.approx(heard_ms, abs=1)


async def kill_on_one_call(
    backend: Backend, server: ListenServer, turns: Sequence[int], *, streaming: bool
) -> int:
    caller = await backend.new_call(quiet())
    audio = {"bidirectionalAudio": STREAMING} if streaming else {}
    await backend.start(caller, server.url, **audio)
    stream = await server.stream_of(caller.uuid)
    await (kill_streamed if streaming else kill_clips)(stream, turns)
    await later(stream)
    pcm = caller.heard()
    if not streaming:
        assert_told(stream, pcm, turns)
    return assert_killed(pcm, turns)


async def test_a_thousand_kills_leave_nothing_behind() -> None:
    """killAudio followed at once by the next clip, in 25 calls at a time."""
    async with (
        simulator_backend(max_listens=30) as backend,
        backend.worker("a"),
        backend.worker("b"),
        ListenServer() as server,
    ):
        turns = range(40)
        heard = await asyncio.gather(
            *(kill_on_one_call(backend, server, turns, streaming=n >= 25) for n in range(30))
        )
    assert sum(heard) > 500, "most of the clips sounded when they were killed"


async def test_kills_on_a_call(backend: Backend, server: ListenServer) -> None:
    """Fifty of fifty, on a real call as well."""
    async with backend.worker():
        heard = await asyncio.gather(
            *(
                kill_on_one_call(backend, server, range(10), streaming=streaming)
                for streaming in (False, False, False, False, False, True)
            )
        )
    assert sum(heard) > 25


# -- the queue, marks ----------------------------------------------------------------------------


async def test_a_clip_waits_or_interrupts(backend: Backend, server: ListenServer) -> None:
    """queuePlay says which; where it is left out the configuration does."""
    async with ListenServer() as other_server:
        async with backend.worker("queue"):
            caller = await backend.new_call(quiet())
            listen_id = await backend.start(caller, server.url)
            stream = await server.stream_of(caller.uuid)
            for number, queue in enumerate((True, None, False, True), 1):
                data = {"queuePlay": queue}
                await stream.play(level(number, 300), RATE_HZ, f"clip-{number}", **data)
                if number == 2:
                    await eventually(lambda: _has_heard(caller, 1), 5, "the first clip")
            await stream.text("playDone", 4)
            await later(stream)
            found = runs(caller.heard())
            await backend.api(f"uuid_listen {caller.uuid} stop")
            await stream.wait_closed()
        async with backend.worker("interrupt", playback={"default": "interrupt"}):
            caller = await backend.new_call(quiet())
            await backend.start(caller, other_server.url)
            other = await other_server.stream_of(caller.uuid)
            for number in (1, 2):
                await other.play(level(number, 300), RATE_HZ, f"clip-{number}", queuePlay=None)
            await other.text("playDone", 2)
    told = [(t["data"]["id"], t["data"]["reason"]) for t in stream.of_type("playDone")]
    assert told == [
        ("clip-1", "killed"),
        ("clip-2", "killed"),
        ("clip-3", "done"),
        ("clip-4", "done"),
    ]
    assert [value for value, _ in found] == [1, 3, 4]
    assert [count for _, count in found][1:] == [2400, 2400]
    first_ms = int(stream.of_type("playDone")[0]["data"]["playbackMilliseconds"])
    assert first_ms == pytest.approx(found[0][1] / SAMPLES_PER_MS, abs=1)
    started = backend.events.of("listen::play_start", Listen_ID=listen_id)
    assert [event["Listen-Play-ID"] for event in started] == ["clip-1", "clip-3", "clip-4"]
    reasons = [text["data"]["reason"] for text in other.of_type("playDone")]
    assert reasons == ["killed", "done"]


async def _has_heard(caller: Caller, value: int) -> bool:
    return value in dict(runs(caller.heard()))


async def test_marks_are_cleared_and_the_audio_plays_on(
    backend: Backend, server: ListenServer
) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url, bidirectionalAudio=STREAMING)
        stream = await server.stream_of(caller.uuid)
        for number in (1, 2):
            await stream.send_audio(level(number, 300))
            await stream.mark(f"mark-{number}")
        await eventually(lambda: _has_heard(caller, 1), 5, "the first audio")
        await stream.send({"type": "clearMarks"})
        await stream.mark("after")
        await stream.text("mark", 3)
        await later(stream)
    assert [text["data"] for text in stream.of_type("mark")] == [
        {"name": "mark-1", "event": "cleared"},
        {"name": "mark-2", "event": "cleared"},
        {"name": "after", "event": "playout"},
    ]
    assert runs(caller.heard()) == [(1, 2400), (2, 2400)]


async def test_a_server_that_sends_too_fast_is_slowed_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TCP holds it back while more than is reasonable waits to be played; nothing is lost, and its
    silence meanwhile, as its pongs wait behind its audio, does not make it a lost server."""
    monkeypatch.setattr("pylisten.listen.Session", partial(Session, backlog_max_bytes=32_000))
    pings = {"ping_interval_s": 0.3, "ping_timeout_s": 0.3}
    rng = np.random.default_rng(5)
    said = (rng.integers(1, 8000, 3 * RATE_HZ)).astype(np.int16)
    async with (
        simulator_backend() as backend,
        backend.worker(websocket=pings),
        ListenServer() as server,
    ):
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url, bidirectionalAudio=STREAMING, reconnect=False)
        stream = await server.stream_of(caller.uuid)
        for frame in np.array_split(said, 150):
            await stream.send_audio(frame)
        await stream.mark("all")
        sent_s = stream.seconds
        assert (await stream.text("mark"))["data"] == {"name": "all", "event": "playout"}
        assert stream.seconds - sent_s == pytest.approx(3, abs=0.5)
        await later(stream)
        pcm = caller.heard()
        begin = int(np.flatnonzero(pcm)[0])
        assert np.array_equal(pcm[begin : begin + said.size], said)

        async def flood() -> None:
            for _ in range(64):
                await stream.send_audio(level(1, 60_000))

        flooding = asyncio.create_task(flood())
        await stream.audio(stream.seconds + 1.5)
        assert not flooding.done(), "61 MB cannot be sent at once"
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        assert not stream.closed.is_set()
        stream.abort()  # it would close only when all has been sent
        await backend.slots_are_free()


# -- silence and length --------------------------------------------------------------------------


async def ends_by_silence(backend: Backend, server: ListenServer) -> None:
    """Two words, 2.9 s apart, in a room that is not silent."""
    word = tones.tone(600, 300, RATE_HZ)
    said = hum(12_000)
    for start_ms in (1000, 4200):
        place = tones.samples(start_ms, RATE_HZ)
        said[place : place + word.size] += word
    caller = await backend.new_call(said)
    listen_id = await backend.start(caller, server.url, timeout=3)
    stream = await server.stream_of(caller.uuid)
    await stream.wait_closed(20)
    end = await backend.events.wait("listen::end", Listen_ID=listen_id)
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("silence", "ok")
    assert (stream.close_code, stream.close_reason) == (1000, "silence")
    words = tones.bursts(stream.pcm(), RATE_HZ)
    assert len(words) == 2, "nobody who pauses for 2.9 s is cut off"
    silence_ms = (stream.pcm().size - words[-1].stop) / SAMPLES_PER_MS
    assert silence_ms == pytest.approx(3000, abs=40 if backend.exact else 100)


async def listens_while_it_plays(backend: Backend, server: ListenServer) -> None:
    """What is played to the caller is no silence."""
    caller = await backend.new_call(hum(12_000))
    listen_id = await backend.start(caller, server.url, timeout=2)
    stream = await server.stream_of(caller.uuid)
    await stream.audio(1)
    await stream.play(tones.tone(800, 2500, RATE_HZ), RATE_HZ)
    await stream.text("playDone")
    over_s = stream.seconds
    await stream.wait_closed(20)
    end = await backend.events.wait("listen::end", Listen_ID=listen_id)
    assert end["Listen-Reason"] == "silence"
    assert over_s > 3.4
    assert stream.seconds - over_s == pytest.approx(2, abs=0.1 if backend.exact else 0.2)


async def is_never_silent(backend: Backend, server: ListenServer) -> None:
    """A room that is as loud as speech keeps a listen alive until its greatest length."""
    caller = await backend.new_call(hum(12_000, -35))
    listen_id = await backend.start(caller, server.url, timeout=3, maxLength=6.5)
    stream = await server.stream_of(caller.uuid)
    await stream.wait_closed(20)
    end = await backend.events.wait("listen::end", Listen_ID=listen_id)
    assert (end["Listen-Reason"], stream.close_reason) == ("max-length", "max-length")
    assert stream.seconds == pytest.approx(6.5, abs=0.02)
    assert int(end["Listen-Duration-Ms"]) == pytest.approx(6500, abs=60)


async def test_silence_ends_a_listen_and_nothing_else_does(
    backend: Backend, server: ListenServer
) -> None:
    async with backend.worker():
        await asyncio.gather(
            ends_by_silence(backend, server),
            listens_while_it_plays(backend, server),
            is_never_silent(backend, server),
        )


# -- beep, pause ---------------------------------------------------------------------------------


async def test_a_beep_comes_first(backend: Backend, server: ListenServer) -> None:
    """The caller hears 500 ms of 1500 Hz; the server is sent what is said from its end on."""
    said = tones.staircase([440, 560, 700, 900, 1150, 1450, 1850, 2350], 100, 100, RATE_HZ)
    said = np.concatenate((tones.silence(40, RATE_HZ), said, said))
    async with backend.worker():
        caller = await backend.new_call(said)
        await backend.start(caller, server.url, playBeep=True)
        stream = await server.stream_of(caller.uuid)
        assert not stream.frames, "the first frame comes while the beep is played"
        await stream.until(lambda s: bool(s.frames))
        heard = tones.bursts(caller.heard(), RATE_HZ)
        await stream.audio(0.6)
        (beep,) = tones.bursts(caller.heard(), RATE_HZ, join_ms=100)
        await backend.api(f"uuid_listen {caller.uuid} stop")
        await stream.wait_closed()
    assert beep.freq_hz == pytest.approx(1500, rel=0.01)
    assert beep.length == pytest.approx(tones.samples(500, RATE_HZ), abs=160)
    assert heard, "the beep is heard before the server is sent anything"
    assert heard[0].length >= tones.samples(440 if backend.exact else 300, RATE_HZ)
    first = tones.bursts(stream.pcm(), RATE_HZ)[0]
    assert not tones.nearest(first.freq_hz, [440]), "what was said before the beep is not sent"
    assert not any(tones.nearest(b.freq_hz, [1500], 0.01) for b in tones.bursts(stream.pcm(), 8000))


async def test_a_listen_is_paused_and_goes_on(backend: Backend, server: ListenServer) -> None:
    """As silence of the same length, or not at all; what was said meanwhile is never sent."""
    async with backend.worker(), ListenServer() as drop_server:
        caller = await backend.new_call(hum(8000, -20))
        silent_id = await backend.start(caller, server.url, name="silent")
        drop_id = await backend.start(caller, drop_server.url, name="drop")
        silent = await server.stream_of(caller.uuid)
        drop = await drop_server.stream_of(caller.uuid)
        await silent.audio(0.6)
        await drop.audio(0.6)
        assert (await backend.api(f"uuid_listen {caller.uuid} pause silent")).startswith("+OK")
        assert (await backend.api(f"uuid_listen {caller.uuid} pause drop drop")).startswith("+OK")
        for listen_id in (silent_id, drop_id):
            paused = await backend.events.wait("listen::command", Listen_ID=listen_id)
            assert paused["Listen-Command"] == "pause"
        await silent.until(lambda s: tones.level_dbfs(s.pcm()[-800:]) < -90)
        dropped_at_s = drop.seconds
        await silent.audio(silent.seconds + 1)
        assert drop.seconds == dropped_at_s
        for name in ("silent", "drop"):
            reply = await backend.api(f"uuid_listen {caller.uuid} resume {name}")
            assert reply.startswith("+OK")
        await silent.until(lambda s: tones.level_dbfs(s.pcm()[-800:]) > -30)
        await silent.audio(silent.seconds + 0.5)
        await drop.audio(dropped_at_s + 0.5)
        rows = (await backend.json("listen list json"))["listens"]
        elapsed_s = {row["id"]: row["duration_ms"] / 1000 for row in rows}
        again = await backend.api(f"uuid_listen {caller.uuid} pause silent loudly")
    assert again.startswith("-")
    # A telephone may begin a little later than its call.
    loud = np.abs(silent.pcm().astype(np.int32)).reshape(-1, 160).max(axis=1) > 200
    loud[:10] = True
    edges = np.flatnonzero(np.diff(loud.astype(int)))
    assert len(edges) == 2, "loud, silent, loud"
    assert 50 <= edges[1] - edges[0] <= 75
    assert not silent.pcm()[(edges[0] + 1) * 160 : (edges[1] + 1) * 160].any()
    assert silent.seconds == pytest.approx(elapsed_s[silent_id], abs=0.4)
    missing_s = elapsed_s[drop_id] - drop.seconds
    assert 1 <= missing_s <= 1.9
    assert (np.abs(drop.pcm().astype(np.int32)).reshape(-1, 160).max(axis=1) > 200)[10:].all()


async def test_a_pause_outlives_its_worker(backend: Backend, server: ListenServer) -> None:
    """Who serves a listen next hears from the switch that it is paused."""
    async with backend.worker("old"):
        caller = await backend.new_call(hum(8000, -20))
        listen_id = await backend.start(caller, server.url)
        await (await server.stream(0)).audio(0.4)
        assert (await backend.api(f"uuid_listen {caller.uuid} pause")).startswith("+OK")
        async with backend.worker("new"):
            assert (await backend.api("listen drain old")).startswith("+OK")
            stream = await server.stream(1)
            await stream.audio(0.6)
            described = json.loads((await backend.api(f"listen_ctl describe {listen_id}"))[4:])
            assert (described["worker"], described["paused"]) == ("new", "silence")
            # What was captured before the new worker came may have been said before the pause.
            assert not stream.pcm()[-1600:].any()
            assert (await backend.api(f"uuid_listen {caller.uuid} resume")).startswith("+OK")
            await stream.until(lambda s: tones.level_dbfs(s.pcm()[-800:]) > -30)
            described = json.loads((await backend.api(f"listen_ctl describe {listen_id}"))[4:])
            assert described["paused"] == ""
            await caller.hang_up()


# -- the upgrade ---------------------------------------------------------------------------------


async def connect_error(backend: Backend, url: str, **properties: object) -> str:
    """Why a listen to that URL could not connect."""
    caller = await backend.new_call(quiet())
    listen_id = await backend.start(caller, url, **properties)
    end = await backend.events.wait("listen::end", Listen_ID=listen_id)
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("connect-failed", "failed")
    return end["Listen-Error"]


async def test_the_upgrade_says_who_calls(backend: Backend, server: ListenServer) -> None:
    long_password = "p" * 300
    async with backend.worker():
        caller = await backend.new_call(quiet())
        await backend.start(
            caller,
            server.url,
            wsAuth={"username": "jo", "password": long_password},
            headers={"X-Tenant": "blue", "x-empty": ""},
        )
        stream = await server.stream_of(caller.uuid)
    headers = stream.request_headers
    assert stream.offered_subprotocols == ["audio.jambonz.org", "audio.drachtio.org"]
    assert stream.websocket.subprotocol == "audio.jambonz.org"
    assert headers["X-Call-Id"] == caller.uuid
    assert headers["User-Agent"].startswith("pylisten/")
    assert (headers["X-Tenant"], headers["X-Empty"]) == ("blue", "")
    assert len(headers["Authorization"]) > 400
    assert "Sec-WebSocket-Extensions" not in headers


@pytest.mark.parametrize("subprotocol", ["audio.drachtio.org", None])
async def test_a_server_may_choose_either_subprotocol_or_none(
    backend: Backend, subprotocol: str | None
) -> None:
    async with backend.worker(), ListenServer(subprotocol=subprotocol) as server:
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        await stream.audio(0.1)
    assert stream.websocket.subprotocol == subprotocol


async def test_a_server_may_have_an_ipv6_address(backend: Backend) -> None:
    async with backend.worker(), ListenServer(host="::1") as server:
        assert server.url.startswith("ws://[::1]:")
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url)
        await (await server.stream_of(caller.uuid)).audio(0.1)


async def test_redirects_are_not_followed(backend: Backend, server: ListenServer) -> None:
    """Neither audio nor a password goes where the verb did not say."""
    secret = {"username": "u", "password": "p"}
    async with backend.worker(), ListenServer(answer_status=302, location=server.url) as web:
        error = await connect_error(backend, web.url, wsAuth=secret)
    assert "redirects (HTTP 302)" in error
    assert server.attempts == 0


async def test_wss_with_an_authority_of_ones_own(backend: Backend) -> None:
    """The server's certificate is checked; ours is shown to a server that asks for it."""
    trusting = {"ca_file": CERTIFICATE}
    known = {**trusting, "client_cert": CERTIFICATE}
    async with (
        ListenServer(tls=True) as server,
        ListenServer(tls=True, client_ca=CERTIFICATE) as strict,
    ):
        for config, url in ((trusting, server.url), (known, strict.url)):
            async with backend.worker(websocket=config):
                caller = await backend.new_call(quiet())
                listen_id = await backend.start(caller, url.replace("wss:", "https:"))
                connect = await backend.events.wait("listen::connect", Listen_ID=listen_id)
                assert connect["Listen-Url"] == url
                await backend.api(f"uuid_listen {caller.uuid} stop")
        async with backend.worker():
            assert "ca_file" in await connect_error(backend, server.url)
        async with backend.worker(websocket=trusting):
            await connect_error(backend, strict.url)
    assert len(strict.streams) == 1


async def test_audio_goes_only_where_the_operator_allows(
    backend: Backend, server: ListenServer
) -> None:
    async with backend.worker(websocket={"allowed_hosts": ["*.example.com"]}):
        error = await connect_error(backend, server.url)
        assert "127.0.0.1 is none of those that are allowed: *.example.com" in error
    async with backend.worker(websocket={"allowed_hosts": ["127.0.0.*"]}):
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url)
        await (await server.stream_of(caller.uuid)).disconnect()
        await backend.slots_are_free()
    async with backend.worker():
        for url in ("ws://169.254.169.254/", "ws://[fe80::1]/"):
            assert "a link-local address" in await connect_error(backend, url)
    assert server.attempts == 1


async def test_a_profile_comes_from_the_configuration(
    backend: Backend, server: ListenServer, tmp_path: Path
) -> None:
    """The password is in the worker's file, and nowhere else."""
    file = tmp_path / "pylisten.toml"
    file.write_text(
        f"""
        handoff_socket = "{backend.handoff_socket}"
        [esl]
        port = {backend.esl_port}
        password = "{ESL_PASSWORD}"
        [profiles.bot]
        url = "{server.url}"
        passDtmf = true
        [profiles.bot.wsAuth]
        username = "u"
        password = "a-secret-password"
        [profiles.bot.metadata]
        customer = "none"
        tenant = "blue"
        """,
        encoding="utf-8",
    )
    config = load_config(file)
    sections = {name: getattr(config, name) for name in ("profiles", "esl", "handoff_socket")}
    async with backend.worker(**sections):
        caller = await backend.new_call(quiet())
        verb = json.dumps({"profile": "bot", "metadata": {"customer": "4711"}})
        reply = await backend.api(f"uuid_listen {caller.uuid} start {verb}")
        assert reply.startswith("+OK "), reply
        stream = await server.stream_of(caller.uuid)
        await caller.press("7")
        assert (await stream.text("dtmf"))["dtmf"] == "7"
        unknown = await backend.api(f'uuid_listen {caller.uuid} start {{"profile":"bto"}}')
    assert (stream.first["customer"], stream.first["tenant"]) == ("4711", "blue")
    assert stream.request_headers["Authorization"].startswith("Basic ")
    assert 'profile: found "bto"' in unknown or "NAME_IN_USE" in unknown
    assert "a-secret-password" not in json.dumps(backend.events.all)


# -- the first frame, messages -------------------------------------------------------------------


def odd_metadata() -> dict[str, Any]:
    """Just under 1 MiB of JSON, with what breaks those who escape, split or count."""
    odd = {
        "quotes": "'\"`\\ $(id) ${caller} %7B &amp; | ^ ; # / //",
        "lines": "a\nb\r\nc\td\u2028e\x7f\x01",
        "words": "grüß 日本語 العربية \N{GRINNING FACE}\N{MUSICAL SYMBOL G CLEF}",
        "like a header": "Content-Length: 0\n\n",
        "like a command": "\n\nexit\n\n",
        "": {"": [None, True, 0.1, -0.0, 1e300, 9007199254740991, [], {}]},
        "callStatus": "mine",
    }
    filler = "ü" * ((1024 * 1024 - len(json.dumps(odd, ensure_ascii=False).encode()) - 200) // 2)
    return {**odd, "filler": filler}


async def test_a_megabyte_of_metadata_arrives_unchanged(
    backend: Backend, server: ListenServer
) -> None:
    metadata = odd_metadata()
    async with backend.worker():
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url, metadata=metadata)
        stream = await server.stream_of(caller.uuid)
        await stream.audio(0.1)
        first = stream.first
    assert {key: first[key] for key in metadata} == metadata
    assert (first["sampleRate"], first["callSid"]) == (8000, caller.uuid)


async def test_what_is_not_of_the_protocol_is_passed_on(
    backend: Backend, server: ListenServer
) -> None:
    """Both ways: an event for what the server says, a text frame for what an operator does."""
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        said = '{"type":"transfer","data":{"to":"1234","words":"grüß\\n","list":[1,{"a":null}]}}'
        await stream.send(said)
        event = await backend.events.wait("listen::message", Listen_ID=listen_id)
        assert (event["Listen-Message-Type"], event["Listen-Message"]) == ("transfer", said)
        reply = await backend.api(f"uuid_listen {caller.uuid} send listen {said}")
        assert reply.startswith("+OK")
        assert (await stream.text("transfer")) == json.loads(said)
