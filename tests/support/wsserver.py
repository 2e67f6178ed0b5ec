"""The user's side of a listen: a WebSocket server that is scripted and keeps everything."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http
import io
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.tones import Pcm
from tests.support.waiting import within

SUBPROTOCOL = "audio.jambonz.org"
CERTIFICATE = Path(__file__).parent / "tls" / "localhost.pem"


@dataclass(frozen=True)
class Frame:
    """A binary frame; `time_ns` is CLOCK_MONOTONIC."""

    time_ns: int
    data: bytes


Behaviour = Callable[["Stream"], Awaitable[None]]
OnFrame = Callable[["Stream", bytes], Awaitable[None]]


class Stream:
    """One connection: what came, and what can be sent."""

    def __init__(self, websocket: ServerConnection) -> None:
        self.websocket = websocket
        self.first: dict[str, Any] = {}
        self.first_text = ""
        self.frames: list[Frame] = []
        self.texts: list[dict[str, Any]] = []
        self.text_times_ns: list[int] = []
        """When each of `texts` came, CLOCK_MONOTONIC."""
        self.closed = asyncio.Event()
        self.close_code: int | None = None
        self.close_reason = ""
        self._news = asyncio.Condition()

    @property
    def request_headers(self) -> Headers:
        assert self.websocket.request is not None
        return self.websocket.request.headers

    @property
    def offered_subprotocols(self) -> list[str]:
        values = self.request_headers.get_all("Sec-WebSocket-Protocol")
        return [part.strip() for value in values for part in value.split(",")]

    @property
    def rate_hz(self) -> int:
        return int(self.first["sampleRate"])

    @property
    def channels(self) -> int:
        return 2 if self.first["mixType"] == "stereo" else 1

    def pcm(self, channel: int = 0) -> Pcm:
        """All audio that came, of one channel."""
        data = b"".join(frame.data for frame in self.frames)
        return np.frombuffer(data, "<i2").reshape(-1, self.channels)[:, channel].astype(np.int16)

    @property
    def seconds(self) -> float:
        """How much audio has come, in seconds of its own sample rate."""
        count = sum(len(frame.data) for frame in self.frames)
        return count / (2 * self.channels * self.rate_hz)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The text frames of a type (or event), without the first one."""
        return [text for text in self.texts if kind in (text.get("type"), text.get("event"))]

    async def until(self, condition: Callable[[Stream], bool], timeout_s: float = 10.0) -> None:
        """Waits until the stream fulfils a condition; it is asked after each frame and the end."""
        async with within(timeout_s, self._describe), self._news:
            await self._news.wait_for(lambda: condition(self))

    def _describe(self) -> str:
        state = f"closed with {self.close_code}" if self.closed.is_set() else "open"
        return (
            f"the stream is {state}; it got {len(self.frames)} frames after {self.first_text[:200]}"
            f" and the texts {self.texts[-5:]}"
        )

    async def text(self, kind: str, count: int = 1, timeout_s: float = 10.0) -> dict[str, Any]:
        """Waits for the `count`-th text frame of a type and returns it."""
        await self.until(lambda stream: len(stream.of_type(kind)) >= count, timeout_s)
        return self.of_type(kind)[count - 1]

    async def audio(self, seconds: float, timeout_s: float | None = None) -> None:
        """Waits until so much audio has come in all."""
        await self.until(lambda stream: stream.seconds >= seconds, timeout_s or seconds + 10)

    async def wait_closed(self, timeout_s: float = 10.0) -> None:
        async with within(timeout_s, self._describe):
            await self.closed.wait()

    async def send(self, message: object) -> None:
        """Sends a text frame: a str as it is, anything else as JSON."""
        await self.websocket.send(message if isinstance(message, str) else json.dumps(message))

    async def send_audio(self, pcm: Pcm) -> None:
        """Sends binary audio, for the streaming mode."""
        await self.websocket.send(pcm.astype("<i2").tobytes())

    async def play(
        self, pcm: Pcm, rate_hz: int, clip_id: str | None = None, **extra: object
    ) -> None:
        """playAudio with raw audio."""
        data: dict[str, object] = {
            "audioContent": base64.b64encode(pcm.astype("<i2").tobytes()).decode(),
            "audioContentType": "raw",
            "sampleRate": rate_hz,
            "queuePlay": True,
        }
        if clip_id is not None:
            data["id"] = clip_id
        await self.send({"type": "playAudio", "data": data | extra})

    async def play_wav(self, content: bytes, clip_id: str | None = None) -> None:
        """playAudio with a WAV file."""
        data: dict[str, object] = {
            "audioContent": base64.b64encode(content).decode(),
            "audioContentType": "wav",
            "queuePlay": True,
        }
        if clip_id is not None:
            data["id"] = clip_id
        await self.send({"type": "playAudio", "data": data})

    async def kill(self) -> int:
        """killAudio; returns when it was sent (CLOCK_MONOTONIC)."""
        now_ns = time.monotonic_ns()
        await self.send({"type": "killAudio"})
        return now_ns

    async def mark(self, name: str) -> None:
        await self.send({"type": "mark", "data": {"name": name}})

    async def disconnect(self) -> None:
        await self.send({"type": "disconnect"})

    def send_rubbish(self, data: bytes) -> None:
        """Puts bytes on the wire that are no WebSocket frame."""
        self.websocket.transport.write(data)

    def abort(self) -> None:
        """Cuts the connection without a close frame, as a server that died."""
        self.websocket.transport.abort()

    async def run(self, behaviour: Behaviour | None, on_frame: OnFrame | None) -> None:
        """Keeps what comes until the connection ends."""
        task: asyncio.Task[None] | None = None
        try:
            async for message in self.websocket:
                await self._take(message, on_frame)
                if task is None and behaviour is not None:
                    task = asyncio.ensure_future(_as_coroutine(behaviour, self))
        except ConnectionClosed:
            pass
        finally:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                    await task
            await self._end()

    async def _take(self, message: str | bytes, on_frame: OnFrame | None) -> None:
        if isinstance(message, bytes):
            self.frames.append(Frame(time.monotonic_ns(), message))
            if on_frame is not None:
                await on_frame(self, message)
        elif not self.first_text:
            self.first_text = message
            self.first = json.loads(message)
        else:
            self.texts.append(json.loads(message))
            self.text_times_ns.append(time.monotonic_ns())
        async with self._news:
            self._news.notify_all()

    async def _end(self) -> None:
        self.close_code = self.websocket.close_code
        self.close_reason = self.websocket.close_reason or ""
        self.closed.set()
        async with self._news:
            self._news.notify_all()


async def _as_coroutine(behaviour: Behaviour, stream: Stream) -> None:
    await behaviour(stream)


async def echo(stream: Stream, data: bytes) -> None:
    """On-frame hook of the streaming mode: sends back what comes."""
    await stream.websocket.send(data)


class ListenServer:
    """A WebSocket server on a loopback port. Use as an async context manager.

    `behaviour` runs for each connection once its first frame has come, `on_frame` for each binary
    frame. `handshake_delay_ms` delays the upgrade; `answer_status` answers with that HTTP status
    instead of it (also 200: a server that speaks no WebSocket), with `location` for a redirect. TLS
    with `client_ca` lets in only those who have a certificate of that authority.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        on_frame: OnFrame | None = None,
        *,
        handshake_delay_ms: int = 0,
        answer_status: int | None = None,
        subprotocol: str | None = SUBPROTOCOL,
        tls: bool = False,
        client_ca: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        location: str = "",
    ) -> None:
        self.handshake_delay_ms = handshake_delay_ms
        self.answer_status = answer_status
        self.attempts = 0
        self.streams: list[Stream] = []
        self._behaviour = behaviour
        self._on_frame = on_frame
        self._subprotocol = subprotocol
        self._tls = tls
        self._client_ca = client_ca
        self._host = host
        self._port = port
        self._location = location
        self._arrived = asyncio.Condition()
        self._server: Server

    async def __aenter__(self) -> ListenServer:
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            if self._client_ca:
                context.load_verify_locations(self._client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        self._server = await serve(
            self._serve,
            self._host,
            self._port,
            ssl=context,
            compression=None,
            ping_interval=None,
            open_timeout=60,
            close_timeout=5,
            max_size=None,
            process_request=self._process_request,
            select_subprotocol=self._select_subprotocol,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        # With 1000, or its listens would wait for it to come back.
        await asyncio.gather(*(stream.websocket.close() for stream in self.streams))
        self._server.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}/"

    async def stream(self, number: int = 0, timeout_s: float = 10.0) -> Stream:
        """Waits for a connection that has sent its first frame; they are numbered from 0."""
        async with within(timeout_s, lambda: self._describe(number)):
            async with self._arrived:
                await self._arrived.wait_for(lambda: len(self.streams) > number)
            stream = self.streams[number]
            await stream.until(lambda s: bool(s.first_text) or s.closed.is_set())
        assert stream.first_text, "the connection ended before its first frame"
        return stream

    async def stream_of(self, uuid: str, timeout_s: float = 10.0) -> Stream:
        """Waits for the connection that carries the call with that channel uuid."""
        number = 0
        while (stream := await self.stream(number, timeout_s)).first.get("callSid") != uuid:
            number += 1
        return stream

    def _describe(self, number: int) -> str:
        return (
            f"connection {number} of {self.url}; "
            f"{self.attempts} were tried, {len(self.streams)} stand or stood"
        )

    async def _process_request(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        self.attempts += 1
        if self.handshake_delay_ms:
            await asyncio.sleep(self.handshake_delay_ms / 1000)
        if self.answer_status is not None:
            answer = connection.respond(http.HTTPStatus(self.answer_status), "no WebSocket here\n")
            if self._location:
                answer.headers["Location"] = self._location
            return answer
        return None

    def _select_subprotocol(self, _: ServerConnection, offered: Sequence[str]) -> Any:
        return self._subprotocol if self._subprotocol in offered else None

    async def _serve(self, websocket: ServerConnection) -> None:
        stream = Stream(websocket)
        async with self._arrived:
            self.streams.append(stream)
            self._arrived.notify_all()
        await stream.run(self._behaviour, self._on_frame)


def wav(
    pcm: Pcm,
    rate_hz: int,
    channels: Literal[1, 2] = 1,
    subtype: str = "PCM_16",
) -> bytes:
    """A WAV file with the same audio on all its channels."""
    target = io.BytesIO()
    data = np.repeat(pcm[:, None] / 32768.0, channels, axis=1)
    soundfile.write(target, data, rate_hz, format="WAV", subtype=subtype)
    return target.getvalue()


def unused_port() -> int:
    """A loopback port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def raw_server(answer: bytes | None) -> AsyncIterator[int]:
    """A TCP server that answers whatever comes with some bytes and closes; None: never answers.

    Yields its port.
    """
    open_writers: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        with contextlib.suppress(OSError):
            await reader.read(65536)
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()
        open_writers.discard(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in list(open_writers):
            writer.transport.abort()
        await server.wait_closed()
