"""Whatever is wrong is answered clearly, harms nothing else, and the call goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.freeswitch.scene import (
    STREAMING,
    assert_echo,
    assert_reason,
    call_listen,
    connected,
    verb,
)
from tests.support import tones
from tests.support.freeswitch import PrivateSwitch
from tests.support.sip import Call, SipAgent
from tests.support.worker import Worker
from tests.support.wsserver import ListenServer, Stream, raw_server, unused_port, wav

pytestmark = [pytest.mark.freeswitch, pytest.mark.usefixtures("worker")]

URL = "ws://127.0.0.1:9/"

# Arguments of `listen`, and what the answer must name.
BAD_VERBS = {
    "unknown-property": (verb(URL, sampelRate=8000), "sampelRate"),
    "unknown-nested-property": (verb(URL, wsAuth={"user": "u"}), "wsAuth.user"),
    "wrong-type": (verb(URL, maxLength="soon"), "maxLength"),
    "wrong-type-of-metadata": (verb(URL, metadata=[1]), "metadata"),
    "missing-url": ('{"sampleRate":8000}', "url"),
    "rate-11025": (verb(URL, sampleRate=11025), "sampleRate"),
    "unknown-mix": (verb(URL, mixType="quadro"), "mixType"),
    "not-a-websocket-url": (verb("ftp://127.0.0.1/"), "url"),
    "password-in-the-url": (verb("ws://user:secret@127.0.0.1/"), "url"),
    "no-password": (verb(URL, wsAuth={"username": "u"}), "wsAuth.password"),
    "not-a-key": (verb(URL, finishOnKey="x"), "finishOnKey"),
    "not-json": ('{"url":', "JSON"),
    "bad-shorthand": ("ws://127.0.0.1:9/ sampleRate=fast", "sampleRate"),
}


@pytest_asyncio.fixture
async def bystander(
    switch: PrivateSwitch, worker: Worker, agent: SipAgent, server: ListenServer
) -> AsyncIterator[Stream]:
    """A second call, streaming all the while; its audio must not falter."""
    _, stream = await connected(agent, switch, server)
    await stream.audio(0.2)
    yield stream
    before_s = stream.seconds
    await stream.audio(before_s + 0.3, timeout_s=2)
    assert not stream.closed.is_set()


@pytest.mark.parametrize("name", BAD_VERBS)
async def test_a_bad_verb_is_refused_with_its_fault(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream, name: str
) -> None:
    """The application ends with bad-request; the API names the property that is wrong."""
    argument, fragment = BAD_VERBS[name]
    call = await call_listen(agent, switch, argument)
    await assert_reason(switch, call, "bad-request", "failed")
    reply = await switch.api(f"uuid_listen {call.uuid} start {argument}")
    assert reply.startswith("-ERR "), reply
    assert fragment in reply
    assert "secret" not in reply


async def assert_connect_failed(
    switch: PrivateSwitch, agent: SipAgent, url: str, fragment: str
) -> None:
    """A listen to this URL fails to connect and says why; the call goes on."""
    async with switch.events("CUSTOM listen::end") as events:
        call = await call_listen(agent, switch, verb(url))
        event = await events.wait_event("listen::end", 15, Unique_ID=call.uuid)
    assert event["Listen-Reason"] == "connect-failed"
    assert fragment in event["Listen-Error"]
    await assert_reason(switch, call, "connect-failed", "failed")


async def test_nobody_listens(switch: PrivateSwitch, agent: SipAgent, bystander: Stream) -> None:
    """A refused connection."""
    url = f"ws://127.0.0.1:{unused_port()}/"
    await assert_connect_failed(switch, agent, url, "refused")


@pytest.mark.parametrize(
    ("status", "fragment"), [(200, "200"), (401, "401"), (404, "404"), (500, "500")]
)
async def test_a_web_server_that_speaks_no_websocket(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream, status: int, fragment: str
) -> None:
    """An HTTP answer is named by its status."""
    async with ListenServer(answer_status=status) as web:
        await assert_connect_failed(switch, agent, web.url.replace("ws:", "http:"), fragment)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", bytes(range(256)) * 8], ids=len)
async def test_a_server_that_speaks_no_http(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream, answer: bytes
) -> None:
    """Neither silence nor rubbish in place of the handshake."""
    async with raw_server(answer) as port:
        await assert_connect_failed(switch, agent, f"ws://127.0.0.1:{port}/", "WebSocket")


async def test_a_certificate_that_nobody_vouches_for(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream
) -> None:
    """TLS with a wrong certificate is refused."""
    async with ListenServer(tls=True) as secure:
        await assert_connect_failed(switch, agent, secure.url, "certificate")
        assert not secure.streams


async def test_tls_to_a_server_without_it(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream
) -> None:
    """wss:// to a plain web server."""
    async with raw_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        await assert_connect_failed(switch, agent, f"wss://127.0.0.1:{port}/", "TLS")


async def test_rubbish_on_the_wire(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream
) -> None:
    """Bytes that are no frame end the listen, not the call."""
    async with ListenServer() as server:
        call, stream = await connected(agent, switch, server, reconnect=False)
        stream.send_rubbish(b"\xff\xff\xff\xff" * 64)
        await assert_reason(switch, call, "closed")
        assert await switch.variable(call.uuid, "listen_status") == "ok"


async def test_a_server_that_dies(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream
) -> None:
    """A connection that breaks ends the listen, not the call."""
    async with ListenServer() as server:
        call, stream = await connected(agent, switch, server, reconnect=False)
        stream.abort()
        await assert_reason(switch, call, "closed")


def play_audio(**data: object) -> str:
    return json.dumps({"type": "playAudio", "data": data})


CLIP = tones.tone(800, 200, 8000)
WAV = base64.b64encode(wav(CLIP, 8000)).decode()
RAW = base64.b64encode(CLIP.astype("<i2").tobytes()).decode()

# Text frames of a server, and a word that the error frame must hold.
BAD_FRAMES = {
    "not-json": ("hello {", "bad-json"),
    "an-array": ("[1,2]", "object"),
    "no-type": ('{"data":{}}', "type"),
    "bad-base64": (
        play_audio(audioContent="@@@", audioContentType="wav", id="x"),
        "audioContent",
    ),
    "truncated-wav": (
        play_audio(audioContent=WAV[:40], audioContentType="wav", id="x"),
        "audioContent",
    ),
    "raw-without-a-rate": (
        play_audio(audioContent=RAW, audioContentType="raw", id="x"),
        "sampleRate",
    ),
    "rate-11025": (
        play_audio(audioContent=RAW, audioContentType="raw", sampleRate=11025, id="x"),
        "11025",
    ),
    "unknown-content-type": (
        play_audio(audioContent=RAW, audioContentType="mp3", id="x"),
        "audioContentType",
    ),
    "content-is-a-number": (
        play_audio(audioContent=7, audioContentType="wav", id="x"),
        "audioContent",
    ),
    "20-mebibytes": (
        play_audio(audioContent="A" * (20 << 20), audioContentType="raw", sampleRate=8000),
        "large",
    ),
    "nested-deeply": ("[" * 100_000, "bad-json"),
}


async def assert_still_plays(call: Call, stream: Stream) -> None:
    """The same listen still plays what is right, and still hears."""
    before_s = stream.seconds
    played = len(stream.of_type("playDone"))
    await stream.play(tones.tone(1600, 200, 8000), 8000, "after")
    await stream.text("playDone", count=played + 1)
    await call.rtp.hear_for(0.1)
    found = tones.bursts(call.rtp.received.timeline(), 8000)
    assert tones.nearest(found[-1].freq_hz, [1600])
    await stream.audio(before_s + 0.1)


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_is_answered_and_the_listen_goes_on(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream, name: str
) -> None:
    """An error frame names the fault; what is right is played afterwards."""
    text, fragment = BAD_FRAMES[name]
    async with ListenServer() as server:
        call, stream = await connected(agent, switch, server)
        await stream.send(text)
        error = await stream.text("error")
        assert fragment in f"{error['data']['code']} {error['data']['message']}"
        if '"id": "x"' in text:
            assert error["data"]["id"] == "x"
        await assert_still_plays(call, stream)
        assert len(stream.of_type("error")) == 1
        await stream.disconnect()
        await assert_reason(switch, call, "disconnect", "ok")


async def test_binary_audio_when_nobody_streams(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream
) -> None:
    """Told once, not fifty times a second, and not heard."""
    async with ListenServer() as server:
        call, stream = await connected(agent, switch, server)
        for _ in range(20):
            await stream.send_audio(tones.tone(600, 20, 8000))
        error = await stream.text("error")
        assert "streaming" in error["data"]["message"]
        await assert_still_plays(call, stream)
        assert len(stream.of_type("error")) == 1
        found = tones.bursts(call.rtp.received.timeline(), 8000)
        assert not [burst for burst in found if tones.nearest(burst.freq_hz, [600])]


async def test_half_a_sample_is_refused(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream
) -> None:
    """A binary frame with an odd number of bytes cannot shift the audio behind it."""
    async with ListenServer() as server:
        call, stream = await connected(agent, switch, server, bidirectionalAudio=STREAMING)
        await stream.websocket.send(b"\x01\x02\x03")
        assert "odd" in (await stream.text("error"))["data"]["message"]
        await stream.send_audio(tones.tone(1600, 300, 8000))
        await call.rtp.hear(lambda track: len(track.onsets()) == 1)
        await call.rtp.hear_for(0.4)
        found = tones.bursts(call.rtp.received.timeline(), 8000)
        assert tones.order(found, [1600]) == [1600]


async def test_a_display_name_that_forges_headers(
    switch: PrivateSwitch, agent: SipAgent, bystander: Stream, server: ListenServer
) -> None:
    """A caller's name is data: the listen is served, and nothing that it spells is believed."""
    forged = "Eve%0AUnique-ID: forged%0AListen-ID: forged%0A%0A"
    call = await call_listen(agent, switch, verb(server), display_name=forged)
    stream = await server.stream_of(call.uuid)
    assert stream.first["callSid"] == call.uuid
    assert stream.first["callerName"].startswith("Eve")
    assert "\n" not in stream.first["callerName"]
    await stream.audio(0.3)
    await stream.disconnect()
    await assert_reason(switch, call, "disconnect", "ok")
    await assert_echo(call)
