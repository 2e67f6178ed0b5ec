"""A bot that greets its caller, repeats what it hears, and says good-bye: for the demo and tests.

It speaks the protocol as any server does: a jingle as ``playAudio`` in a WAV file, each utterance
of the caller as raw ``playAudio``, and, after the last one has been played, ``disconnect``.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any, Final

import numpy as np
import soundfile
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from pylisten.simulator.recording import Samples

__all__ = ["EchoBot", "jingle"]

JINGLE_RATE_HZ: Final = 24_000
SPEECH_PEAK: Final = 700
PAUSE_FRAMES: Final = 15  # 300 ms without a sound end an utterance


def jingle() -> Samples:
    """Three rising notes, 0.9 s, at ``JINGLE_RATE_HZ``."""
    total = np.zeros(JINGLE_RATE_HZ * 9 // 10)
    for n, hz in enumerate((523.25, 659.25, 783.99)):
        begin = n * JINGLE_RATE_HZ * 16 // 100
        at_s = np.arange(len(total) - begin) / JINGLE_RATE_HZ
        # A struck bar: a fast attack, a long decay, and a fourth partial that dies away first.
        strike = np.minimum(at_s / 0.004, 1) * np.exp(-5 * at_s)
        note = np.sin(2 * np.pi * hz * at_s) + 0.25 * np.sin(8 * np.pi * hz * at_s) * np.exp(
            -9 * at_s
        )
        total[begin:] += strike * note
    total *= np.minimum(1, np.arange(len(total), 0, -1) / (0.02 * JINGLE_RATE_HZ))
    return np.rint(total * 9000).astype(np.int16)


class EchoBot:
    """A WebSocket server on a loopback port; an async context manager.

    Ends each call after it has repeated ``utterances`` of them.
    """

    def __init__(self, utterances: int = 3) -> None:
        self.url = ""
        self._utterances = utterances
        self._server: Server | None = None

    async def __aenter__(self) -> EchoBot:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            compression=None,
            subprotocols=[Subprotocol("audio.jambonz.org")],
        )
        port = next(iter(self._server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}/echo"
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, socket: ServerConnection) -> None:
        first = json.loads(await socket.recv())
        await socket.send(_play("welcome", "wav", _wav(jingle(), JINGLE_RATE_HZ)))
        parrot = _Parrot()
        repeated = done = 0
        async for message in socket:
            if isinstance(message, bytes):
                utterance = parrot.hear(message)
                if utterance and repeated < self._utterances:
                    repeated += 1
                    rate_hz = first["sampleRate"]
                    await socket.send(_play(f"echo-{repeated}", "raw", utterance, rate_hz))
            elif _is_echo_done(json.loads(message)):
                done += 1
                if done == self._utterances:
                    await socket.send(json.dumps({"type": "disconnect"}))


class _Parrot:
    """Cuts what it hears into utterances."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._quiet = 0

    def hear(self, frame: bytes) -> bytes:
        """Takes a frame; returns the utterance that has come to its end with it, or nothing."""
        loud = np.abs(np.frombuffer(frame, "<i2").astype(np.int32)).max(initial=0) > SPEECH_PEAK
        if not loud and not self._frames:
            return b""
        self._frames.append(frame)
        self._quiet = 0 if loud else self._quiet + 1
        if self._quiet < PAUSE_FRAMES:
            return b""
        utterance = b"".join(self._frames[: -self._quiet + 1])
        self._frames.clear()
        self._quiet = 0
        return utterance


def _is_echo_done(message: dict[str, Any]) -> bool:
    clip = message.get("data", {}).get("id", "")
    return message.get("type") == "playDone" and str(clip).startswith("echo-")


def _wav(samples: Samples, rate_hz: int) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, samples, rate_hz, format="WAV", subtype="PCM_16")
    return target.getvalue()


def _play(clip: str, content_type: str, audio: bytes, rate_hz: int | None = None) -> str:
    data: dict[str, object] = {
        "id": clip,
        "audioContentType": content_type,
        "audioContent": base64.b64encode(audio).decode("ascii"),
        "queuePlay": True,
    }
    if rate_hz is not None:
        data["sampleRate"] = rate_hz
    return json.dumps({"type": "playAudio", "data": data})
