"""An unchanged application, made with the SDK of jambonz, on each switch in turn."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from pydantic.alias_generators import to_camel

from pylisten.verb import Verb
from tests.conformance.sdk import Application, Sdk, Stream, running_application
from tests.contract.backends import RATE_HZ, Backend, Caller
from tests.support import tones
from tests.support.tones import Pcm
from tests.support.waiting import eventually
from tests.support.wsserver import wav

CLIPS: dict[str, Any] = {}
STREAMING: dict[str, Any] = {
    "bidirectionalAudio": {"enabled": True, "streaming": True, "sampleRate": 16000}
}
STREAM_HZ = 16000

# Tones that are told apart in blocks of 10 ms; those of the tests have -12 dBFS.
TONES_HZ = LOW_HZ, MIDDLE_HZ, HIGH_HZ = [500.0, 700.0, 1000.0]
BLOCK_MS = 10
LOUD = tones.FULL_SCALE * 10 ** (-18 / 20)

both_modes = pytest.mark.parametrize("mode", [CLIPS, STREAMING], ids=["clips", "streaming"])


class Scene:
    """A switch with a worker, and the application that it is to serve."""

    def __init__(self, application: Application, backend: Backend) -> None:
        self.application = application
        self.backend = backend

    async def call(
        self, said: Pcm | None = None, url: str | None = None, **properties: object
    ) -> tuple[Caller, Stream]:
        """A call, and its stream; the verb is what the SDK makes of the properties."""
        verb = await self.application.verb(url=url or self.application.audio_url, **properties)
        caller = await self.backend.new_call(tones.silence(20, RATE_HZ) if said is None else said)
        await self.backend.start(caller, **verb)
        return caller, await self.application.stream(caller.uuid)

    async def end_reason(self, caller: Caller) -> str:
        event = await self.backend.events.wait("listen::end", Unique_ID=caller.uuid)
        return event["Listen-Reason"]


@pytest_asyncio.fixture
async def scene(application: Application, backend: Backend) -> AsyncIterator[Scene]:
    """Ready for calls. Afterwards the SDK must have understood all that it was sent."""
    async with backend.worker():
        yield Scene(application, backend)
    assert not application.events("error")
    assert not [log for log in application.events("log") if log["level"] != "debug"]


@dataclass
class Sound:
    """A tone, and how much of it there was; ``stop_ms`` is where it ended."""

    freq_hz: float
    ms: int
    stop_ms: int


def sounds(pcm: Pcm, rate_hz: int = RATE_HZ) -> list[Sound]:
    """The tones in ``pcm``, which may follow each other without a break.

    A hole within a tone, as a busy machine may leave, does not make two of it.
    """
    size = tones.samples(BLOCK_MS, rate_hz)
    blocks = pcm[: pcm.size // size * size].reshape(-1, size).astype(np.float64)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(size), TONES_HZ) / rate_hz)
    levels = 2 * np.abs(blocks @ waves) / size
    found: list[Sound] = []
    for block in np.flatnonzero(levels.max(axis=1, initial=0.0) >= LOUD):
        freq_hz = TONES_HZ[int(levels[block].argmax())]
        if not found or freq_hz != found[-1].freq_hz:
            found.append(Sound(freq_hz, 0, 0))
        found[-1].ms += BLOCK_MS
        found[-1].stop_ms = (int(block) + 1) * BLOCK_MS
    return found


def order(found: list[Sound]) -> list[float]:
    return [sound.freq_hz for sound in found]


async def heard(caller: Caller, freq_hz: float, ms: float, *, over: bool = True) -> Sound:
    """Waits until the caller has heard that much of a tone, and, if ``over``, its end."""

    async def sound() -> Sound | None:
        pcm = caller.heard()
        until_ms = pcm.size * 1000 / RATE_HZ - (100 if over else 0)
        found = [s for s in sounds(pcm) if s.freq_hz == freq_hz]
        return next((s for s in found if s.ms >= 0.9 * ms and s.stop_ms <= until_ms), None)

    found = await eventually(sound, 10, f"{freq_hz} Hz heard for {ms} ms")
    assert found is not None
    return found


async def all_said(stream: Stream, count: int, rate_hz: int, tracks: int = 1) -> Pcm:
    """Waits until so many tones have come on the first track, and the end of the last; then
    returns all tracks, one a row."""
    for frames in range(100, 1000, 20):
        await stream.audio(frames)
        pcm = stream.pcm.reshape(-1, tracks).T
        found = sounds(pcm[0], rate_hz)
        if len(found) == count and found[-1].stop_ms <= pcm.shape[1] * 1000 / rate_hz - 60:
            return pcm
    raise AssertionError(f"heard {found}, expected {count} tones")


def later(said: Pcm) -> Pcm:
    """What a caller says who waits until the application is there."""
    return np.concatenate((tones.silence(2000, RATE_HZ), said))


def raw(pcm: Pcm) -> bytes:
    return pcm.astype("<i2").tobytes()


# -- the connection ------------------------------------------------------------------------------


@both_modes
async def test_the_stream_is_that_of_the_call(scene: Scene, mode: dict[str, Any]) -> None:
    metadata = {"customer": "Jürgen", "tags": ["a", {"b": None}], "path": 'C:\\new "x"'}
    caller, stream = await scene.call(sampleRate=16000, metadata=metadata, **mode)
    first = stream.metadata
    assert {key: first[key] for key in metadata} == metadata
    assert first["callSid"] == caller.uuid
    assert (first["sampleRate"], first["mixType"]) == (16000, "mono")
    assert first["direction"] == "inbound"
    for key in ("from", "to", "callId"):
        assert isinstance(first[key], str), key
        assert first[key], key


async def test_the_application_sees_the_request(scene: Scene) -> None:
    url = scene.application.audio_url + "?tenant=7"
    _, stream = await scene.call(url=url, wsAuth={"username": "bot", "password": "pass:word"})
    assert stream.url == "/audio?tenant=7"
    assert stream.headers["authorization"] == "Basic Ym90OnBhc3M6d29yZA=="
    offered = stream.headers["sec-websocket-protocol"].replace(" ", "").split(",")
    assert "audio.drachtio.org" in offered
    assert "sec-websocket-extensions" not in stream.headers


# -- from the call to the application ------------------------------------------------------------


@both_modes
async def test_the_application_hears_the_caller(scene: Scene, mode: dict[str, Any]) -> None:
    said = tones.staircase(TONES_HZ, 200, 100, RATE_HZ)
    _, stream = await scene.call(later(said), sampleRate=16000, **mode)
    (pcm,) = await all_said(stream, 3, 16000)
    found = sounds(pcm, 16000)
    assert order(found) == TONES_HZ
    for sound in found:
        assert sound.ms == pytest.approx(200, abs=25)
    assert {len(frame) for frame in stream.frames} == {640}


async def test_stereo_is_interleaved(scene: Scene) -> None:
    said = tones.tone(LOW_HZ, 400, RATE_HZ)
    _, stream = await scene.call(later(said), mixType="stereo")
    left, right = await all_said(stream, 1, RATE_HZ, tracks=2)
    assert order(sounds(left)) == [LOW_HZ]
    assert tones.level_dbfs(right) < -50
    assert {len(frame) for frame in stream.frames} == {640}


@both_modes
async def test_the_application_is_told_of_keys(scene: Scene, mode: dict[str, Any]) -> None:
    caller, stream = await scene.call(passDtmf=True, finishOnKey="#", **mode)
    await caller.press("5")
    assert await stream.event("dtmf") == {"digit": "5", "duration": "800"}
    await caller.press("#")
    assert (await stream.event("close"))["code"] == 1000
    assert await scene.end_reason(caller) == "finish-key"


# -- clips ---------------------------------------------------------------------------------------


async def test_a_clip_at_the_rate_of_the_stream_is_heard(scene: Scene) -> None:
    """Left to itself the SDK says that raw audio has the rate of the stream."""
    caller, stream = await scene.call(sampleRate=16000)
    await stream.play(raw(tones.tone(MIDDLE_HZ, 400, 16000)), id="hello")
    done = await stream.event("playDone")
    sound = await heard(caller, MIDDLE_HZ, 400)
    assert done["id"] == "hello"
    assert done["playbackMilliseconds"] == "400"
    assert sound.ms == pytest.approx(400, abs=25)


async def test_a_clip_at_its_own_rate_is_heard(scene: Scene) -> None:
    caller, stream = await scene.call()
    await stream.play(raw(tones.tone(MIDDLE_HZ, 400, 24000)), sampleRate=24000, id="hello")
    assert (await stream.event("playDone"))["id"] == "hello"
    await heard(caller, MIDDLE_HZ, 400)


async def test_a_wav_file_knows_its_rate(scene: Scene) -> None:
    """The SDK sends the rate of the stream with it, which is another one."""
    caller, stream = await scene.call()
    content = wav(tones.tone(MIDDLE_HZ, 400, 16000), 16000)
    await stream.play(content, audioContentType="wav")
    done = await stream.event("playDone")
    assert "id" not in done
    await heard(caller, MIDDLE_HZ, 400)


async def test_clips_queue_up(scene: Scene) -> None:
    caller, stream = await scene.call()
    for freq_hz in TONES_HZ:
        clip = np.concatenate((tones.tone(freq_hz, 300, RATE_HZ), tones.silence(60, RATE_HZ)))
        await stream.play(raw(clip), id=str(freq_hz), queuePlay=True)
    await heard(caller, HIGH_HZ, 300)
    assert order(sounds(caller.heard())) == TONES_HZ
    await stream.event("playDone", 3)
    assert [done["id"] for done in stream.events("playDone")] == ["500.0", "700.0", "1000.0"]


async def test_a_clip_interrupts(scene: Scene) -> None:
    caller, stream = await scene.call()
    await stream.play(raw(tones.tone(LOW_HZ, 8000, RATE_HZ)), id="long")
    await heard(caller, LOW_HZ, 300, over=False)
    await stream.play(raw(tones.tone(HIGH_HZ, 300, RATE_HZ)), id="short", queuePlay=False)
    await heard(caller, HIGH_HZ, 280)
    await stream.event("playDone", 2)
    first, second = stream.events("playDone")
    assert (first["id"], second["id"]) == ("long", "short")
    assert 250 <= int(first["playbackMilliseconds"]) < 7000
    assert second["playbackMilliseconds"] == "300"


async def test_a_clip_is_killed(scene: Scene) -> None:
    caller, stream = await scene.call()
    await stream.play(raw(tones.tone(LOW_HZ, 8000, RATE_HZ)), id="long")
    await heard(caller, LOW_HZ, 300, over=False)
    await stream.kill_audio()
    killed = await stream.event("playDone")
    await stream.play(raw(tones.tone(HIGH_HZ, 300, RATE_HZ)), id="next")
    await heard(caller, HIGH_HZ, 300)
    found = sounds(caller.heard())
    assert killed["id"] == "long"
    assert order(found) == [LOW_HZ, HIGH_HZ]
    assert int(killed["playbackMilliseconds"]) == pytest.approx(found[0].ms, abs=40)


async def test_binary_audio_without_streaming_does_no_harm(scene: Scene) -> None:
    """The SDK has no event for what pylisten answers, and logs it; the stream goes on."""
    caller, stream = await scene.call()
    await stream.send_audio(tones.tone(HIGH_HZ, 100, RATE_HZ))
    logged = (await scene.application.event("log"))["what"][0]["msg"]
    assert (logged["type"], logged["data"]["code"]) == ("error", "not-streaming")
    await stream.play(raw(tones.tone(LOW_HZ, 300, RATE_HZ)), id="clip")
    await stream.event("playDone")
    await heard(caller, LOW_HZ, 300)
    assert order(sounds(caller.heard())) == [LOW_HZ]


# -- streaming -----------------------------------------------------------------------------------


async def test_streamed_audio_is_heard_and_marked(scene: Scene) -> None:
    caller, stream = await scene.call(**STREAMING)
    for freq_hz, name in ((LOW_HZ, "first"), (HIGH_HZ, "second")):
        pcm = tones.tone(freq_hz, 400, STREAM_HZ)
        for at in range(0, pcm.size, 320):
            await stream.send_audio(pcm[at : at + 320])
        await stream.send_mark(name)
    assert await stream.event("mark") == {"name": "first", "event": "playout"}
    await heard(caller, LOW_HZ, 400, over=False)
    assert await stream.event("mark", 2) == {"name": "second", "event": "playout"}
    await heard(caller, HIGH_HZ, 400)


async def test_marks_are_cleared_and_the_audio_plays_on(scene: Scene) -> None:
    caller, stream = await scene.call(**STREAMING)
    await stream.send_audio(tones.tone(LOW_HZ, 3000, STREAM_HZ))
    await stream.send_mark("a")
    await stream.send_mark("b")
    await stream.clear_marks()
    cleared = [await stream.event("mark", count) for count in (1, 2)]
    assert cleared == [{"name": "a", "event": "cleared"}, {"name": "b", "event": "cleared"}]
    await stream.send_mark("c")
    assert await stream.event("mark", 3) == {"name": "c", "event": "playout"}
    await heard(caller, LOW_HZ, 3000)


async def test_streamed_audio_is_killed(scene: Scene) -> None:
    caller, stream = await scene.call(**STREAMING)
    await stream.send_audio(tones.tone(LOW_HZ, 8000, STREAM_HZ))
    await stream.send_mark("never")
    await heard(caller, LOW_HZ, 300, over=False)
    await stream.kill_audio()
    assert await stream.event("mark") == {"name": "never", "event": "cleared"}
    await stream.send_audio(tones.tone(HIGH_HZ, 300, STREAM_HZ))
    await stream.send_mark("after")
    assert await stream.event("mark", 2) == {"name": "after", "event": "playout"}
    await heard(caller, HIGH_HZ, 300)
    found = sounds(caller.heard())
    assert order(found) == [LOW_HZ, HIGH_HZ]
    assert found[0].ms < 7000


async def test_an_echo_is_heard(scene: Scene) -> None:
    """The smallest application there is; it leaves the rate of playback out."""
    caller, _ = await scene.call(
        later(tones.tone(MIDDLE_HZ, 500, RATE_HZ)),
        url=scene.application.echo_url,
        sampleRate=16000,
        bidirectionalAudio={"enabled": True, "streaming": True},
    )
    sound = await heard(caller, MIDDLE_HZ, 500)
    assert sound.ms == pytest.approx(500, abs=25)


# -- ends ----------------------------------------------------------------------------------------


@both_modes
async def test_the_application_disconnects(scene: Scene, mode: dict[str, Any]) -> None:
    caller, stream = await scene.call(**mode)
    await stream.audio(10)
    await stream.disconnect()
    assert await stream.event("close") == {"code": 1000, "reason": "disconnect"}
    assert await scene.end_reason(caller) == "disconnect"


@both_modes
async def test_the_application_closes(scene: Scene, mode: dict[str, Any]) -> None:
    """The SDK closes without a status code, and means it: it does not want to be called again."""
    caller, stream = await scene.call(**mode)
    await stream.audio(10)
    await stream.close()
    await stream.event("close")
    assert await scene.end_reason(caller) == "closed"
    assert len(scene.application.events("connection")) == 1


async def test_the_application_is_restarted(scene: Scene, sdk: Sdk) -> None:
    """It is a new connection to the SDK; the frame that it does not know does no harm."""
    caller, stream = await scene.call(reconnect={"attempts": 30, "maxDelay": 30})
    await stream.audio(50)
    await scene.application.end()
    async with running_application(sdk, scene.application.audio_port) as restarted:
        again = await restarted.stream(caller.uuid)
        assert again.metadata == {**stream.metadata, "resumed": True}
        logged = (await restarted.event("log"))["what"][0]["msg"]
        assert logged["type"] == "resumed"
        await again.audio(50)
        await again.disconnect()
        assert await scene.end_reason(caller) == "disconnect"


async def test_the_caller_hangs_up(scene: Scene) -> None:
    caller, stream = await scene.call()
    await stream.audio(10)
    await caller.hang_up()
    assert (await stream.event("close"))["code"] == 1000


# -- the verb ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["listen", "stream"])
def test_every_property_of_the_verb_is_known(sdk: Sdk, name: str) -> None:
    path = sdk.package("@jambonz/schema") / "verbs" / f"{name}.schema.json"
    properties = json.loads(path.read_text())["properties"]
    assert set(properties) <= {to_camel(field) for field in Verb.model_fields}
