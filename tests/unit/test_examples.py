"""The examples are run as a user runs them: as programs, with a plain WebSocket client."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

EXAMPLES = Path(__file__).parents[2] / "examples"
FIRST_FRAME = {"sampleRate": 8000, "mixType": "mono", "callSid": "c0ffee", "from": "+4930123"}
OFFERED = [Subprotocol("audio.jambonz.org"), Subprotocol("audio.drachtio.org")]


class Program:
    """A running example, its output line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """The next line of output, without its end."""
        assert self._process.stdout is not None
        raw = await asyncio.wait_for(self._process.stdout.readline(), timeout=30)
        return raw.decode().rstrip("\n")

    async def stop(self) -> None:
        """Ends the program and waits for it."""
        self._process.terminate()
        await self._process.wait()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Program, str]]:
    """The echo server on a free port, and its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "echo.py"), "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    program = Program(process)
    try:
        greeting = await program.line()
        yield program, greeting.removeprefix("listening on ")
    finally:
        await program.stop()


async def test_echo_plays_the_caller_back(echo: tuple[Program, str]) -> None:
    """Each audio frame comes back as it was sent, in order."""
    _, url = echo
    frames = [bytes([n]) * 320 for n in range(50)]
    async with asyncio.timeout(30), connect(url, compression=None) as websocket:
        await websocket.send(json.dumps(FIRST_FRAME))
        for frame in frames:
            await websocket.send(frame)
        assert [await websocket.recv() for _ in frames] == frames


async def test_echo_accepts_the_subprotocols_of_the_verb(echo: tuple[Program, str]) -> None:
    """It serves a client that offers the subprotocols which a worker offers."""
    _, url = echo
    async with asyncio.timeout(30), connect(url, subprotocols=OFFERED) as websocket:
        await websocket.send(json.dumps(FIRST_FRAME))
        await websocket.send(b"\x01\x02")
        assert await websocket.recv() == b"\x01\x02"


async def test_echo_tells_of_calls_and_digits(echo: tuple[Program, str]) -> None:
    """Whoever runs it sees calls begin and end, and digits."""
    program, url = echo
    digit = json.dumps({"event": "dtmf", "dtmf": "2", "duration": "1600"})
    async with asyncio.timeout(30), connect(url, compression=None) as websocket:
        await websocket.send(json.dumps(FIRST_FRAME))
        assert await program.line() == "call c0ffee from +4930123, 8000 Hz"
        await websocket.send(digit)
        assert await program.line() == digit
    assert await program.line() == "call ended"
