"""``pylisten simulate`` and ``pylisten demo``: what they print, write, and return."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from pylisten.simulator.demo import caller_audio, demo
from pylisten.simulator.echo import EchoBot, jingle
from pylisten.simulator.simulate import AudioFileError, read_audio, simulate
from pylisten.websocket import SUBPROTOCOLS
from tests.support.tones import bursts, dominant_hz, level_dbfs, tone
from tests.support.wsserver import unused_port

Serve = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def server(behaviour: Serve) -> AsyncIterator[str]:
    """A WebSocket server on a free port; yields its URL."""
    async with serve(behaviour, "127.0.0.1", 0, compression=None) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/bot?token=secret"


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A caller's second, as a stereo file at an odd rate."""
    mono = tone(440, 1000, 44100)
    soundfile.write(tmp_path / "speech.flac", np.column_stack((mono, mono)), 44100)
    return tmp_path / "speech.flac"


async def test_a_silent_server_gets_all_of_the_file(
    speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[str | bytes] = []

    async def listen(socket: ServerConnection) -> None:
        got.extend([message async for message in socket])

    async with server(listen) as url:
        code = await simulate(speech, url, verb={"sampleRate": 16000, "metadata": {"a": 1}})
    said = capsys.readouterr().out
    assert code == 0, said
    assert isinstance(got[0], str)
    first = json.loads(got[0])
    assert (first["sampleRate"], first["a"]) == (16000, 1)
    pcm = np.frombuffer(b"".join(m for m in got if isinstance(m, bytes)), np.int16)
    assert len(pcm) == pytest.approx(16000, abs=320)
    assert dominant_hz(pcm, 16000) == pytest.approx(440, rel=0.01)
    assert "connected to" in said
    assert "first audio sent" in said
    assert "end: hangup" in said
    assert "all went well" in said
    assert "secret" not in said, "the query of a URL may hold a token"


async def test_the_recording_has_both_on_one_clock(speech: Path, tmp_path: Path) -> None:
    async def repeat(socket: ServerConnection) -> None:
        async for message in socket:
            if isinstance(message, bytes):
                await socket.send(message)

    verb: dict[str, object] = {"bidirectionalAudio": {"streaming": True, "sampleRate": 8000}}
    async with server(repeat) as url:
        assert await simulate(speech, url, verb=verb, out=tmp_path / "out") == 0
    audio, rate_hz = soundfile.read(tmp_path / "out" / "call.wav", dtype="int16")
    assert rate_hz == 44100
    assert len(audio) == 44100
    caller, bot = audio.T
    (said,) = bursts(caller, rate_hz)
    heard = bursts(bot, rate_hz, join_ms=200)[0]
    assert said.start < rate_hz * 0.01
    assert heard.start > said.start, "nobody is answered before he spoke"
    assert dominant_hz(bot[heard.start + 4000 : heard.stop], rate_hz) == pytest.approx(
        440, rel=0.01
    )
    with Image.open(tmp_path / "out" / "call.png") as image:
        assert image.size[0] == 1600


async def test_nobody_listens_there(speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = await simulate(speech, f"ws://127.0.0.1:{unused_port()}/")
    said = capsys.readouterr().out
    assert code == 1
    assert "connect-failed" in said
    assert "connection refused" in said


async def test_a_server_that_breaks_off_is_a_failure(
    speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def vanish(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    async with server(vanish) as url:
        code = await simulate(speech, url, verb={"reconnect": False})
    assert code == 1
    assert "FAILED: the listen did not end well" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ({"colour": "red"}, "colour: unknown property"),
        ({"sampleRate": 11025}, "sampleRate: found 11025"),
    ],
)
async def test_a_bad_verb_is_named(
    speech: Path, capsys: pytest.CaptureFixture[str], verb: dict[str, object], words: str
) -> None:
    code = await simulate(speech, "ws://127.0.0.1:1/", verb=verb)
    said = capsys.readouterr().out
    assert code == 1
    assert f"FAILED: the listen did not start: {words}" in said


async def test_a_place_that_cannot_be_written_to_is_named(
    speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def listen(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with server(listen) as url:
        assert await simulate(speech, url, out=speech / "below") == 1
    assert f"FAILED: nothing could be written to {speech / 'below'}" in capsys.readouterr().out


async def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert await simulate(tmp_path / "none.wav", "ws://127.0.0.1:1/") == 1
    assert "none.wav: no such file" in capsys.readouterr().out


def test_a_file_that_is_no_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(AudioFileError, match="not audio"):
        read_audio(tmp_path / "notes.txt")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.int16), 8000)
    with pytest.raises(AudioFileError, match="no audio in it"):
        read_audio(tmp_path / "empty.wav")
    with pytest.raises(AudioFileError, match="not audio"):
        read_audio(tmp_path)


def test_a_float_file_is_scaled_and_saturated(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.array([0.5, 2.0, -2.0]), 8000, subtype="FLOAT")
    samples, rate_hz = read_audio(tmp_path / "loud.wav")
    assert rate_hz == 8000
    assert samples.tolist() == [16384, 32767, -32768]


async def test_the_demo_shows_a_conversation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await demo(out=tmp_path) == 0
    said = capsys.readouterr().out
    for words in (
        "connected to ws://",
        "first audio sent",
        "playAudio begins: welcome",
        "playDone: welcome, done after 900 ms",
        "playDone: echo-3",
        "end: disconnect",
    ):
        assert words in said
    audio, rate_hz = soundfile.read(tmp_path / "call.wav", dtype="int16")
    caller, bot = audio.T
    assert 6 < len(audio) / rate_hz < 12
    sentences = bursts(caller, rate_hz, join_ms=150)
    answers = bursts(bot, rate_hz, join_ms=250)
    assert len(sentences) == 3
    assert len(answers) == 4, "the jingle and three echoes"
    for sentence, answer in zip(sentences, answers[1:], strict=True):
        assert 0.2 < (answer.start - sentence.stop) / rate_hz < 1.0
        assert answer.length == pytest.approx(sentence.length, abs=rate_hz * 0.06)
    with Image.open(tmp_path / "call.png") as image:
        assert image.size[0] == 1600


async def test_the_echo_bot_needs_no_id_to_go_on() -> None:
    """Text that is not its own playDone, a digit for example, does not confuse it."""
    async with EchoBot(utterances=1) as bot, connect(bot.url, subprotocols=SUBPROTOCOLS) as socket:
        await socket.send(json.dumps({"sampleRate": 8000}))
        welcome = json.loads(await socket.recv())
        assert welcome["data"]["audioContentType"] == "wav"
        await socket.send(json.dumps({"event": "dtmf", "dtmf": "1", "duration": "800"}))
        await socket.send(json.dumps({"type": "playDone", "data": {"id": "welcome"}}))
        word = tone(300, 200, 8000)
        for n in range(0, len(word), 160):
            await socket.send(word[n : n + 160].tobytes())
        for _ in range(15):
            await socket.send(bytes(320))
        async with asyncio.timeout(5):
            echo = json.loads(await socket.recv())
            assert echo["data"]["id"] == "echo-1"
            await socket.send(json.dumps({"type": "playDone", "data": {"id": "echo-1"}}))
            assert json.loads(await socket.recv()) == {"type": "disconnect"}


def test_the_voices_of_the_demo_are_loud_enough_and_do_not_clip() -> None:
    for samples in (caller_audio(), jingle()):
        assert -20 < level_dbfs(samples[np.abs(samples) > 500]) < 0
        assert np.abs(samples.astype(int)).max() < 32000
