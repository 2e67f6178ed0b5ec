"""One suite, two switches: what differs between them is a bug in the simulator."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import numpy as np
import pytest

from tests.contract.backends import MAX_LISTENS, RATE_HZ, Backend, Caller
from tests.support import tones
from tests.support.tones import Pcm
from tests.support.waiting import eventually
from tests.support.wsserver import ListenServer, unused_port, wav

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
GAP_MS = 100
FREQS_HZ = [440.0, 640.0, 930.0, 1350.0]
COMMON = {"Listen-Version", "Listen-ID", "Listen-Name", "Listen-Worker", "Unique-ID"}
ENDED = {
    "Listen-Reason",
    "Listen-Status",
    "Listen-Duration-Ms",
    "Listen-Bytes-Sent",
    "Listen-Gap-Ms",
    "Listen-Close-Code",
    "Listen-Captured-Near",
    "Listen-Captured-Far",
    "Listen-Dropped-Near",
    "Listen-Dropped-Far",
    "Listen-Trimmed-Near",
    "Listen-Trimmed-Far",
    "Listen-Digits-Dropped",
    "Listen-Played-Ms",
    "Listen-Flushed-Ms",
    "Listen-Corrupt",
}
# A header without a value is not in the event.
IF_THERE_IS_ONE = {"Listen-Error", "Listen-Digits", "Listen-Close-Reason", "Listen-Worker"}

PAIR = {"near": int, "far": int}
COUNTERS = {
    "captured": PAIR,
    "dropped": PAIR,
    "trimmed": PAIR,
    "late": PAIR,
    "filled": int,
    "sent": int,
    "played_ms": int,
    "flushed_ms": int,
    "digits_dropped": int,
    "corrupt": int,
}
ROW = {
    "id": str,
    "uuid": str,
    "name": str,
    "worker": str,
    "slot": int,
    "generation": int,
    "state": str,
    "sample_rate": int,
    "mix_type": str,
    "duration_ms": int,
    "counters": COUNTERS,
}
WORKER = {"name": str, "index": int, "pid": int, "listens": int, "state": str}
STATUS = {
    "version": str,
    "abi": str,
    "handoff_socket": str,
    "max_listens": int,
    "ring_ms": int,
    "adopt_timeout_ms": int,
    "idle_writer": bool,
    "live": int,
    "workers": int,
    "channels": int,
    "idle_writers": int,
    "started": int,
    "ended": int,
    "refused": int,
    "adopted": int,
    "reasons": dict.fromkeys(
        (
            "disconnect",
            "closed",
            "finish-key",
            "max-length",
            "silence",
            "stopped",
            "break",
            "hangup",
            "transfer",
            "connect-failed",
            "bad-request",
            "no-worker",
            "worker-lost",
            "unsupported-media",
        ),
        int,
    ),
    "dropped": dict.fromkeys(("near_samples", "far_samples", "digits", "corrupt_records"), int),
    "audio": COUNTERS,
    "slots": {"free": int, "live": int, "ended": int},
}


def shape(document: Any) -> Any:
    """The keys of a document, with the types of their values."""
    if isinstance(document, dict):
        return {key: shape(value) for key, value in document.items()}
    return type(document)


def quiet() -> Pcm:
    return tones.silence(20, RATE_HZ)


def own(event: dict[str, str]) -> set[str]:
    """The headers of an event that are ours."""
    return {name for name in event if name.startswith("Listen-") or name == "Unique-ID"}


def sounds(pcm: Pcm) -> list[tones.Burst]:
    """What was heard. On a busy machine a telephone's packets come late: gaps are not a new sound,
    and how exact playing is in time is tested elsewhere."""
    return tones.bursts(pcm, RATE_HZ, join_ms=GAP_MS)


async def heard(caller: Caller, freq_hz: float, ms: float, *, over: bool = True) -> tones.Burst:
    """Waits until the caller has heard that much of a tone, and, if `over`, silence after it."""

    async def burst() -> tones.Burst | None:
        pcm = caller.heard()
        found = [b for b in sounds(pcm) if tones.nearest(b.freq_hz, [freq_hz])]
        until = pcm.size - (tones.samples(40, RATE_HZ) if over else 0)
        wanted = tones.samples(ms, RATE_HZ) * 0.9
        long_enough = [b for b in found if b.length >= wanted and b.stop <= until]
        return long_enough[0] if long_enough else None

    found = await eventually(burst, 10, f"{freq_hz} Hz heard for {ms} ms")
    assert found is not None
    return found


# -- start and first frame -----------------------------------------------------------------------


async def test_a_start_is_answered_announced_and_connected(
    backend: Backend, server: ListenServer
) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        verb = json.dumps({"url": server.url, "metadata": {"say": "grüß|dich^"}, "id": "v1"})
        reply = await backend.api(f"uuid_listen {caller.uuid} start {verb}")
        listen_id = reply.removeprefix("+OK ")
        assert UUID.fullmatch(listen_id), reply
        start = await backend.events.wait("listen::start", Listen_ID=listen_id)
        connect = await backend.events.wait("listen::connect", Listen_ID=listen_id)
        stream = await server.stream_of(caller.uuid)
    assert own(start) == COMMON | {"Listen-Sample-Rate", "Listen-Mix-Type"}
    assert start["Listen-Version"] == "1"
    assert (start["Listen-Name"], start["Listen-Worker"]) == ("listen", "w1")
    assert (start["Listen-Sample-Rate"], start["Listen-Mix-Type"]) == ("8000", "mono")
    assert start["Unique-ID"] == connect["Unique-ID"] == caller.uuid
    assert own(connect) == COMMON | {"Listen-Url"}
    first = stream.first
    assert (first["sampleRate"], first["mixType"]) == (8000, "mono")
    assert first["say"] == "grüß|dich^"
    assert first["listenId"] == listen_id
    assert (first["direction"], first["callStatus"], first["sipStatus"]) == (
        "inbound",
        "in-progress",
        200,
    )
    for key in ("from", "to", "callerId", "callerName", "callId", "fsHost"):
        assert isinstance(first[key], str), key
        assert first[key], key


async def test_words_are_as_good_as_json(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        words = f"{server.url} name=bot sampleRate=16000 metadata.customer=4711 metadata.vip=true"
        reply = await backend.api(f"uuid_listen {caller.uuid} start {words}")
        assert reply.startswith("+OK ")
        stream = await server.stream_of(caller.uuid)
        assert (stream.first["sampleRate"], stream.first["name"]) == (16000, "bot")
        assert (stream.first["customer"], stream.first["vip"]) == (4711, True)


async def test_describe_tells_a_worker_all(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        verb = {"mixType": "stereo", "sampleRate": 16000, "name": "bot"}
        listen_id = await backend.start(caller, server.url, **verb)
        reply = await backend.api(f"listen_ctl describe {listen_id}")
        assert reply.startswith("+OK {")
        described = json.loads(reply[4:])
    kinds = {key: type(value) for key, value in described.items()}
    assert kinds == {
        "id": str,
        "uuid": str,
        "name": str,
        "slot": int,
        "generation": int,
        "worker": str,
        "verb": str,
        "attributes": dict,
        "sample_rate": int,
        "mix_type": str,
        "adopted": bool,
        "blocking": bool,
        "paused": str,
        "start_epoch_ms": int,
    }
    assert (described["id"], described["uuid"]) == (listen_id, caller.uuid)
    assert (described["name"], described["worker"]) == ("bot", "w1")
    assert (described["sample_rate"], described["mix_type"]) == (16000, "stereo")
    assert (described["adopted"], described["blocking"]) == (False, False)
    assert described["paused"] == ""
    assert json.loads(described["verb"]) == {"url": server.url, **verb}
    assert described["attributes"]["callSid"] == caller.uuid


# -- audio ---------------------------------------------------------------------------------------


async def test_the_audio_is_whole_in_order_and_in_time(
    backend: Backend, server: ListenServer
) -> None:
    said = tones.staircase(FREQS_HZ, 200, 100, RATE_HZ)
    async with backend.worker():
        caller = await backend.new_call(np.concatenate((tones.silence(1500, RATE_HZ), said)))
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        await stream.until(
            lambda s: (
                len(tones.bursts(s.pcm(), RATE_HZ)) == 4 and tones.level_dbfs(s.pcm()[-400:]) < -50
            )
        )
        await backend.api(f"uuid_listen {caller.uuid} stop")
        await stream.wait_closed()
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
    found = tones.bursts(stream.pcm(), RATE_HZ)
    assert tones.order(found, FREQS_HZ) == FREQS_HZ
    for burst in found:
        assert burst.length == pytest.approx(tones.samples(200, RATE_HZ), abs=80)
        assert burst.level_dbfs == pytest.approx(-12, abs=1)
    assert {len(frame.data) for frame in stream.frames} == {320}
    duration_ms = int(end["Listen-Duration-Ms"])
    assert stream.seconds * 1000 == pytest.approx(duration_ms, abs=40)
    assert end["Listen-Dropped-Near"] == end["Listen-Corrupt"] == "0"


@pytest.mark.parametrize("mix", ["stereo", "mixed"])
async def test_the_far_side_has_its_place(backend: Backend, server: ListenServer, mix: str) -> None:
    """What one listen plays, another one hears as the far end; its own playback it does not."""
    async with backend.worker(), ListenServer() as bot_server:
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url, name="recorder", mixType=mix)
        await backend.start(caller, bot_server.url, name="bot", mixType=mix)
        recorder = await server.stream_of(caller.uuid)
        bot = await bot_server.stream_of(caller.uuid)
        await bot.play(tones.tone(900, 400, RATE_HZ), RATE_HZ, "clip")
        await bot.text("playDone")
        far = recorder.channels - 1
        await recorder.until(lambda s: bool(tones.bursts(s.pcm(far), RATE_HZ)[:1]))
        await recorder.audio(recorder.seconds + 0.6)
        (burst,) = tones.bursts(recorder.pcm(far), RATE_HZ)
        assert burst.freq_hz == pytest.approx(900, rel=0.01)
        assert burst.length == pytest.approx(tones.samples(400, RATE_HZ), abs=160)
        assert not tones.bursts(bot.pcm(far), RATE_HZ)
        if mix == "stereo":
            assert not tones.bursts(recorder.pcm(0), RATE_HZ)


# -- playback ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8000, 24000, 64000])
async def test_a_clip_is_heard_and_its_end_is_told(
    backend: Backend, server: ListenServer, rate_hz: int
) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        await stream.play_wav(wav(tones.tone(700, 400, rate_hz), rate_hz), "hello")
        done = (await stream.text("playDone"))["data"]
        burst = await heard(caller, 700, 400)
        started = await backend.events.wait("listen::play_start", Listen_ID=listen_id)
        ended = await backend.events.wait("listen::play_done", Listen_ID=listen_id)
    assert (done["id"], done["reason"]) == ("hello", "done")
    assert int(done["playbackMilliseconds"]) == 400
    assert 0 <= burst.length * 1000 / RATE_HZ - 380 <= 40 + GAP_MS
    assert own(started) == COMMON | {"Listen-Play-ID"}
    assert own(ended) == COMMON | {"Listen-Play-ID", "Listen-Playback-Ms", "Listen-Play-Reason"}
    assert ended["Listen-Playback-Ms"] == "400"


async def test_a_kill_is_silence_and_says_how_much_was_heard(
    backend: Backend, server: ListenServer
) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        await stream.play(tones.tone(700, 5000, RATE_HZ), RATE_HZ, "long")
        await stream.play(tones.tone(1100, 500, RATE_HZ), RATE_HZ, "next")
        await heard(caller, 700, 300, over=False)
        await stream.kill()
        first = (await stream.text("playDone", 1))["data"]
        second = (await stream.text("playDone", 2))["data"]
        await stream.audio(stream.seconds + 0.4)
        await stream.play(tones.tone(1600, 300, RATE_HZ), RATE_HZ, "after")
        await stream.text("playDone", 3)
        await heard(caller, 1600, 300)
        bursts = sounds(caller.heard())
        await backend.api(f"uuid_listen {caller.uuid} stop")
        end = await backend.events.wait("listen::end", Listen_ID=listen_id)
    assert (first["id"], first["reason"]) == ("long", "killed")
    assert (second["id"], second["reason"]) == ("next", "killed")
    assert second["playbackMilliseconds"] == "0"
    heard_ms = bursts[0].length * 1000 / RATE_HZ
    assert 200 <= heard_ms < 3000
    played_ms = int(first["playbackMilliseconds"])
    assert played_ms - 40 <= heard_ms <= played_ms + 40 + GAP_MS
    assert tones.order(bursts, [700, 1100, 1600]) == [700, 1600]
    assert int(end["Listen-Played-Ms"]) == pytest.approx(played_ms + 300, abs=1)
    assert int(end["Listen-Flushed-Ms"]) > 0


async def test_streamed_audio_is_heard_and_a_mark_tells_when(
    backend: Backend, server: ListenServer
) -> None:
    streaming = {"enabled": True, "streaming": True, "sampleRate": 16000}
    async with backend.worker():
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url, bidirectionalAudio=streaming)
        stream = await server.stream_of(caller.uuid)
        await stream.send_audio(tones.tone(700, 400, 16000))
        await stream.mark("said")
        mark = (await stream.text("mark"))["data"]
        await heard(caller, 700, 400)
    assert mark == {"name": "said", "event": "playout"}


async def test_nothing_is_played_where_playback_is_off(
    backend: Backend, server: ListenServer
) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        await backend.start(caller, server.url, bidirectionalAudio={"enabled": False})
        stream = await server.stream_of(caller.uuid)
        await stream.play(tones.tone(700, 200, RATE_HZ), RATE_HZ, "clip")
        assert (await stream.text("error"))["data"]["id"] == "clip"
        await stream.audio(stream.seconds + 0.5)
        assert not tones.bursts(caller.heard(), RATE_HZ)


# -- ends ----------------------------------------------------------------------------------------


async def ended(backend: Backend, listen_id: str) -> dict[str, str]:
    """The end of a listen, checked for what is common to all."""
    event = await backend.events.wait("listen::end", 15, Listen_ID=listen_id)
    assert own(event) - IF_THERE_IS_ONE == (COMMON | ENDED) - IF_THERE_IS_ONE
    await backend.slots_are_free()
    assert len(backend.events.of("listen::end", Listen_ID=listen_id)) == 1
    gone = await backend.api(f"listen_ctl describe {listen_id}")
    assert gone.startswith("-ERR GONE ")
    return event


async def test_a_stop_ends_it(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        assert (await backend.api(f"uuid_listen {caller.uuid} stop")).startswith("+OK")
        await stream.wait_closed()
        end = await ended(backend, listen_id)
    assert stream.close_code == 1000
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("stopped", "ok")


async def test_the_server_disconnects(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        await stream.audio(0.2)
        await stream.disconnect()
        await stream.wait_closed()
        end = await ended(backend, listen_id)
    assert stream.close_code == 1000
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("disconnect", "ok")
    assert int(end["Listen-Bytes-Sent"]) >= 3200


async def test_the_server_closes(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        await stream.websocket.close(1000, "good-bye, caller")
        end = await ended(backend, listen_id)
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("closed", "ok")
    assert (end["Listen-Close-Code"], end["Listen-Close-Reason"]) == ("1000", "good-bye, caller")


async def test_nobody_is_there(backend: Backend) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, f"ws://127.0.0.1:{unused_port()}/")
        end = await ended(backend, listen_id)
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("connect-failed", "failed")
    assert "refused" in end["Listen-Error"]


async def test_the_caller_hangs_up(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        await stream.audio(0.2)
        await caller.hang_up()
        await stream.wait_closed()
        end = await ended(backend, listen_id)
    assert stream.close_code == 1000
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("hangup", "ok")


async def test_the_switch_hangs_up(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        await server.stream_of(caller.uuid)
        assert (await backend.api(f"uuid_kill {caller.uuid}")).startswith("+OK")
        end = await ended(backend, listen_id)
        gone = await backend.api(f"uuid_listen {caller.uuid} stop")
    assert end["Listen-Reason"] == "hangup"
    assert gone.startswith("-ERR NO_SUCH_CHANNEL ")


async def test_keys_are_told_and_one_of_them_ends_it(
    backend: Backend, server: ListenServer
) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url, passDtmf=True, finishOnKey="*#")
        stream = await server.stream_of(caller.uuid)
        await caller.press("5")
        key = await stream.text("dtmf")
        assert (key["dtmf"], key["duration"]) == ("5", "800")
        told = await backend.events.wait("listen::dtmf", Listen_ID=listen_id)
        assert told["Listen-Digit"] == "5"
        await caller.press("#")
        end = await ended(backend, listen_id)
    assert (end["Listen-Reason"], end["Listen-Digits"]) == ("finish-key", "#")


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        (
            "sampleRate=11025",
            "sampleRate: found 11025, expected 8000, 16000, 24000, 32000, 48000 or 64000",
        ),
        ("mixType=both", 'mixType: found "both", expected "mono", "stereo" or "mixed"'),
        ("name=a,b", 'name: found "a,b", expected 1 to 64 characters of A-Z a-z 0-9 . _ -'),
        ("earlyMedia=soon", 'earlyMedia: found "soon", expected true or false'),
        ("bidirectionalAudio=x", 'bidirectionalAudio: found "x", expected an object'),
        ("url=ws://y", "url: given twice, or as a value and as an object"),
        ("nonsense", 'found "nonsense", expected key=value'),
        ("name='a", 'name: found "\'a", expected a word, a quoted text or JSON'),
        ("name='a'b", 'name: found "b" after the value, expected a space'),
    ],
)
async def test_what_the_switch_refuses(backend: Backend, verb: str, reply: str) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        said = await backend.api(f"uuid_listen {caller.uuid} start ws://127.0.0.1:1/ {verb}")
        assert said == f"-ERR BAD_REQUEST {reply}"
        assert backend.events.all == []


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("ftp://host", "url: found another kind of URL, expected ws, wss, http or https"),
        ('{"name":"x"}', "url: found nothing, expected a ws, wss, http or https URL, or a profile"),
        ("ws://me:secret@host/", "url: found user-info, expected credentials in wsAuth or"),
        ('{"url":}', "the verb is not JSON: fault near character "),
        ('{"verb":"dial","url":"ws://h/"}', 'verb: found "dial", expected "listen"'),
    ],
)
async def test_what_is_no_verb_at_all(backend: Backend, verb: str, reply: str) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        said = await backend.api(f"uuid_listen {caller.uuid} start {verb}")
        assert said.startswith(f"-ERR BAD_REQUEST {reply}")
        assert "secret" not in said


async def test_what_the_worker_refuses(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        said = await backend.api(f"uuid_listen {caller.uuid} start {server.url} colour=red")
        assert said.startswith("-ERR BAD_REQUEST colour: unknown property")
        start = await backend.events.wait("listen::start")
        end = await ended(backend, start["Listen-ID"])
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("bad-request", "failed")
    assert end["Listen-Error"].startswith("colour: unknown property")
    assert server.attempts == 0


async def test_nobody_serves(backend: Backend) -> None:
    caller = await backend.new_call(quiet())
    await backend.workers_are()
    said = await backend.api(f"uuid_listen {caller.uuid} start ws://127.0.0.1:1/")
    assert said == "-ERR NO_WORKER no worker is attached: start one with `pylisten serve`"


async def test_there_is_no_such_channel(backend: Backend) -> None:
    nowhere = "00000000-0000-0000-0000-000000000000"
    for action in ("start ws://127.0.0.1:1/", "stop", "kill", "send hello"):
        said = await backend.api(f"uuid_listen {nowhere} {action}")
        assert said == f"-ERR NO_SUCH_CHANNEL {nowhere}", action
    assert await backend.api(f"uuid_listen {nowhere} list") == "+OK 0 listens"


@pytest.mark.parametrize("command", ["uuid_listen", "uuid_listen x", "uuid_listen x dance"])
async def test_misuse_is_answered_by_the_usage(backend: Backend, command: str) -> None:
    assert (await backend.api(command)).startswith("-USAGE: ")


@pytest.mark.parametrize("command", ["listen dance", "listen drain", "listen_ctl dance"])
async def test_misuse_by_operators_too(backend: Backend, command: str) -> None:
    assert (await backend.api(command)).startswith("-USAGE: ")


async def test_there_is_a_limit(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        callers = [await backend.new_call(quiet()) for _ in range(MAX_LISTENS + 1)]
        for caller in callers[:-1]:
            await backend.start(caller, server.url)
        said = await backend.api(f"uuid_listen {callers[-1].uuid} start {server.url}")
        assert said.startswith("-ERR TOO_MANY_LISTENS ")


# -- several listens on a channel ----------------------------------------------------------------


async def test_two_listens_go_by_their_names(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        first = await backend.start(caller, server.url)
        second = await backend.start(caller, server.url, name="bot")
        again = await backend.api(f"uuid_listen {caller.uuid} start {server.url} name=bot")
        assert again == (
            "-ERR NAME_IN_USE a listen named bot runs on this channel: choose another name"
        )
        other = await backend.api(f"uuid_listen {caller.uuid} stop other")
        assert other.startswith("-ERR NO_SUCH_LISTEN ")
        rows = (await backend.json("listen list json"))["listens"]
        assert {row["name"]: row["id"] for row in rows} == {"listen": first, "bot": second}
        listed = await backend.api(f"uuid_listen {caller.uuid} list")
        assert first in listed
        assert second in listed
        assert (await backend.api(f"uuid_listen {caller.uuid} stop bot")).startswith("+OK")
        assert (await backend.events.wait("listen::end"))["Listen-ID"] == second
        rows = (await backend.json("listen list json"))["listens"]
        assert [row["id"] for row in rows] == [first]


async def test_operators_commands_reach_the_worker(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        stream = await server.stream_of(caller.uuid)
        assert (await backend.api(f'uuid_listen {caller.uuid} send {{"a": 1}}')).startswith("+OK")
        await stream.until(lambda s: {"a": 1} in s.texts)
        await stream.play(tones.tone(700, 5000, RATE_HZ), RATE_HZ, "long")
        await heard(caller, 700, 200, over=False)
        assert (await backend.api(f"uuid_listen {caller.uuid} kill")).startswith("+OK")
        done = (await stream.text("playDone"))["data"]
        assert (done["id"], done["reason"]) == ("long", "killed")
        await backend.events.wait("listen::command", Listen_Command="kill")
        commands = backend.events.of("listen::command", Listen_ID=listen_id)
    assert [own(event) for event in commands] == [
        COMMON | {"Listen-Command", "Listen-Argument"},
        COMMON | {"Listen-Command"},
    ]
    assert [event["Listen-Command"] for event in commands] == ["send", "kill"]
    assert commands[0]["Listen-Argument"] == '{"a": 1}'


# -- for operators -------------------------------------------------------------------------------


async def test_operators_see_what_runs(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        await (await server.stream_of(caller.uuid)).audio(0.2)
        status = await backend.json("listen status json")
        (worker,) = (await backend.json("listen workers json"))["workers"]
        (row,) = (await backend.json("listen list json"))["listens"]
        text = await backend.api("listen list")
        assert listen_id in text
        assert "w1" in await backend.api("listen workers")
        assert (await backend.api("listen status")).strip()
    assert shape(status) == STATUS
    assert shape(worker) == WORKER
    assert shape(row) == ROW
    assert (status["live"], status["workers"], status["max_listens"]) == (1, 1, MAX_LISTENS)
    assert status["handoff_socket"] == str(backend.handoff_socket)
    assert status["slots"] == {"free": MAX_LISTENS - 1, "live": 1, "ended": 0}
    assert (worker["name"], worker["listens"], worker["state"]) == ("w1", 1, "attached")
    assert (row["id"], row["uuid"], row["worker"]) == (listen_id, caller.uuid, "w1")
    assert row["state"] == "live"
    assert 0 < row["duration_ms"] < 60_000
    assert row["counters"]["captured"]["near"] >= 1600


async def test_status_counts_ends_by_their_reason(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        before = await backend.json("listen status json")
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        await backend.api(f"uuid_listen {caller.uuid} stop")
        await ended(backend, listen_id)
        after = await backend.json("listen status json")
    assert after["started"] == before["started"] + 1
    assert after["ended"] == before["ended"] + 1
    assert after["reasons"]["stopped"] == before["reasons"].get("stopped", 0) + 1


# -- workers that come and go --------------------------------------------------------------------


async def test_another_worker_takes_over(backend: Backend, server: ListenServer) -> None:
    said = tones.staircase(FREQS_HZ, 200, 100, RATE_HZ)
    async with backend.worker("heir"):
        async with backend.worker("first"):
            parked = await backend.new_call(quiet())
            await backend.start(parked, server.url)
            caller = await backend.new_call(np.concatenate((tones.silence(1500, RATE_HZ), said)))
            listen_id = await backend.start(caller, server.url)
            start = await backend.events.wait("listen::start", Listen_ID=listen_id)
            lost = start["Listen-Worker"]
            await server.stream_of(caller.uuid)
        survivors = [row["worker"] for row in (await backend.json("listen list json"))["listens"]]
        assert set(survivors) <= {"heir", lost}
        adopted = await backend.events.wait("listen::adopt")
        assert own(adopted) == COMMON | {"Listen-From"}
        assert (adopted["Listen-Worker"], adopted["Listen-From"]) == ("heir", "first")
        moved = adopted["Listen-ID"]
        described = json.loads((await backend.api(f"listen_ctl describe {moved}"))[4:])
        assert (described["worker"], described["adopted"]) == ("heir", True)
        resumed = await server.stream(2, 15)
        assert resumed.first["resumed"] is True
        await resumed.audio(0.3)


async def test_a_listen_waits_for_a_worker(backend: Backend, server: ListenServer) -> None:
    async with backend.worker("first"):
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        await server.stream_of(caller.uuid)
    await backend.workers_are()
    (row,) = (await backend.json("listen list json"))["listens"]
    assert (row["id"], row["worker"]) == (listen_id, "")
    async with backend.worker("second"):
        adopted = await backend.events.wait("listen::adopt", Listen_ID=listen_id)
        assert (adopted["Listen-Worker"], adopted["Listen-From"]) == ("second", "first")
        resumed = await server.stream(1)
        assert resumed.first["resumed"] is True
        await caller.hang_up()
        end = await ended(backend, listen_id)
    assert end["Listen-Reason"] == "hangup"


async def test_a_listen_for_which_nobody_comes_ends(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        await server.stream_of(caller.uuid)
    end = await ended(backend, listen_id)
    assert (end["Listen-Reason"], end["Listen-Status"]) == ("worker-lost", "failed")
    assert "Listen-Worker" not in end


async def test_draining_gives_the_listens_to_others(backend: Backend, server: ListenServer) -> None:
    async with backend.worker("old"):
        caller = await backend.new_call(quiet())
        listen_id = await backend.start(caller, server.url)
        await server.stream_of(caller.uuid)
        async with backend.worker("new"):
            assert (await backend.api("listen drain old")).startswith("+OK")
            adopted = await backend.events.wait("listen::adopt", Listen_ID=listen_id)
            assert (adopted["Listen-Worker"], adopted["Listen-From"]) == ("new", "old")
            rows = (await backend.json("listen workers json"))["workers"]
            assert {row["name"]: row["listens"] for row in rows} == {"old": 0, "new": 1}
            assert (await server.stream(1)).first["resumed"] is True
            other = await backend.new_call(quiet())
            other_id = await backend.start(other, server.url)
            start = await backend.events.wait("listen::start", Listen_ID=other_id)
            assert start["Listen-Worker"] == "new"
    assert (await backend.api("listen drain nobody")).startswith("-ERR NO_SUCH_WORKER ")


async def test_slots_are_used_again(backend: Backend, server: ListenServer) -> None:
    async with backend.worker():
        caller = await backend.new_call(quiet())
        seen: set[tuple[int, int]] = set()
        for _ in range(MAX_LISTENS + 2):
            listen_id = await backend.start(caller, server.url)
            described = json.loads((await backend.api(f"listen_ctl describe {listen_id}"))[4:])
            seen.add((described["slot"], described["generation"]))
            await backend.api(f"uuid_listen {caller.uuid} stop")
            await ended(backend, listen_id)
    assert len(seen) == MAX_LISTENS + 2, "no listen can be taken for another one"


async def test_many_listens_start_at_once(backend: Backend, server: ListenServer) -> None:
    async with backend.worker("a"), backend.worker("b"):
        callers = [await backend.new_call(quiet()) for _ in range(MAX_LISTENS)]
        for caller in callers:
            await backend.start(caller, server.url)
        await asyncio.gather(*(server.stream_of(caller.uuid) for caller in callers))
        rows = (await backend.json("listen workers json"))["workers"]
        assert {row["listens"] for row in rows} == {MAX_LISTENS // 2}
