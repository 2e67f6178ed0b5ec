"""The SDK of jambonz, installed as a user would, and an application made with it.

The packages are those of `package-lock.json`. They come from the npm registry, once, into
`build/conformance`; nothing of them is in the tree.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.tones import Pcm

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "conformance"
MANIFESTS = ("package.json", "package-lock.json")
SERVER = "server.mjs"
HOOK_SECRET = "a secret that both sides know"

_NODE_MIN = 18
_INSTALL_S = 90
_LINE_MAX_BYTES = 16 * 1024 * 1024

# What npm says when the registry cannot be reached, or is unwell. Any other failure is a fault.
_UNREACHABLE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH"
    r"|ERR_SOCKET_TIMEOUT|\bE(429|5\d\d)\b"
)


class NotInstallable(Exception):
    """The SDK cannot be had on this machine; `str()` is the reason, for people."""


@dataclass(frozen=True)
class Sdk:
    """The installed packages, and the Node.js that runs them."""

    node: str
    node_version: str
    directory: Path

    def package(self, name: str) -> Path:
        """The directory of an installed package."""
        return self.directory / "node_modules" / name

    def __str__(self) -> str:
        manifest = json.loads((self.package("@jambonz/sdk") / "package.json").read_text())
        return f"@jambonz/sdk {manifest['version']} on Node.js {self.node_version}"


def install() -> Sdk:
    """Installs what the lock file names, unless that has been done.

    Raises NotInstallable where Node.js or the registry is missing, and AssertionError where npm
    finds fault with the packages themselves.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotInstallable("no node and npm in PATH")
    version = _output([node, "--version"]).removeprefix("v")
    if int(version.partition(".")[0]) < _NODE_MIN:
        raise NotInstallable(f"node {version} is too old, the SDK needs {_NODE_MIN}")
    sdk = Sdk(node, version, CACHE)
    _install_packages(npm)
    shutil.copyfile(HERE / SERVER, CACHE / SERVER)
    return sdk


def _install_packages(npm: str) -> None:
    wanted = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in MANIFESTS)).hexdigest()
    stamp = CACHE / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in MANIFESTS:
        shutil.copyfile(HERE / name, CACHE / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000"]
    try:
        done = subprocess.run(
            command, cwd=CACHE, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotInstallable(f"npm ci was not done within {_INSTALL_S} s") from None
    if unreachable := done.returncode and _UNREACHABLE.search(done.stderr):
        raise NotInstallable(f"the npm registry cannot be reached ({unreachable.group()})")
    assert done.returncode == 0, f"npm ci failed\n{done.stdout}{done.stderr}"
    stamp.write_text(wanted)


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


class Application:
    """The running application: what it saw, and what it can be told to do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.seen: list[dict[str, Any]] = []
        self.audio: defaultdict[str, list[bytes]] = defaultdict(list)
        self._process = process
        self._at_end = False
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def listening(self) -> None:
        """Waits until it serves."""
        addresses = await self.event("listening", timeout_s=30)
        self.audio_port = int(addresses["audio"].rpartition(":")[2])
        self.audio_url: str = addresses["audio"] + "/audio"
        self.echo_url: str = addresses["audio"] + "/echo"
        self.hook_url: str = addresses["hook"]

    def events(self, name: str, **match: object) -> list[dict[str, Any]]:
        """The events of that name until now, oldest first."""
        named = [event for event in self.seen if event["event"] == name]
        return [e for e in named if all(e.get(key) == value for key, value in match.items())]

    async def event(
        self, name: str, count: int = 1, timeout_s: float = 10.0, **match: object
    ) -> dict[str, Any]:
        """Waits for the ``count``-th such event, and returns it."""
        what = f"{name} {count} {match}"
        await self.until(lambda: len(self.events(name, **match)) >= count, what, timeout_s)
        return self.events(name, **match)[count - 1]

    async def until(
        self, condition: Callable[[], bool], what: str, timeout_s: float = 10.0
    ) -> None:
        """Waits until a condition holds; it is asked after each event."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: condition() or self._at_end)
        except TimeoutError:
            raise AssertionError(f"no {what}; seen: {self.seen}") from None
        assert condition(), f"no {what}, the application has ended; seen: {self.seen}"

    async def stream(self, call: str) -> Stream:
        """Waits until a call's audio stream is connected."""
        return Stream(self, call, await self.event("connection", call=call))

    async def verb(self, **properties: object) -> dict[str, Any]:
        """The listen verb as the SDK's builder makes it, checked against jambonz's schema."""
        count = len(self.events("built"))
        await self.tell({"build": properties})
        verb: dict[str, Any] = (await self.event("built", count + 1))["verb"]
        return verb

    async def tell(self, command: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def end(self) -> None:
        """Ends the process, by the end of its input."""
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            event = json.loads(line)
            async with self._news:
                if event["event"] == "audio":
                    self.audio[event["call"]].append(base64.b64decode(event["pcm"]))
                else:
                    self.seen.append(event)
                self._news.notify_all()
        async with self._news:
            self._at_end = True
            self._news.notify_all()


class Stream:
    """The SDK's ``AudioStream`` of a call: its events, and its methods."""

    def __init__(self, application: Application, call: str, connection: dict[str, Any]) -> None:
        self._application = application
        self._call = call
        self.metadata: dict[str, Any] = connection["metadata"]
        self.headers: dict[str, str] = connection["headers"]
        self.url: str = connection["url"]

    @property
    def frames(self) -> list[bytes]:
        """The audio that the SDK handed out, one item per event."""
        return self._application.audio[self._call]

    @property
    def pcm(self) -> Pcm:
        """All of it; the samples of stereo are interleaved."""
        return np.frombuffer(b"".join(self.frames), "<i2").astype(np.int16)

    async def event(self, name: str, count: int = 1) -> Any:
        """Waits for the ``count``-th event of the stream, and returns what came with it."""
        return (await self._application.event(name, count, call=self._call))["data"]

    def events(self, name: str) -> list[Any]:
        return [event["data"] for event in self._application.events(name, call=self._call)]

    async def audio(self, frames: int) -> None:
        """Waits until so many events with audio have come in all."""
        await self._application.until(lambda: len(self.frames) >= frames, f"frame {frames}")

    async def play(self, content: bytes, **options: object) -> None:
        """``playAudio``; the options are those of the SDK, and left to it where not given."""
        await self._do("playAudio", base64.b64encode(content).decode(), options)

    async def send_audio(self, pcm: Pcm) -> None:
        await self._do("sendAudio", base64.b64encode(pcm.astype("<i2").tobytes()).decode())

    async def send_mark(self, name: str) -> None:
        await self._do("sendMark", name)

    async def clear_marks(self) -> None:
        await self._do("clearMarks")

    async def kill_audio(self) -> None:
        await self._do("killAudio")

    async def disconnect(self) -> None:
        await self._do("disconnect")

    async def close(self) -> None:
        """Closes the WebSocket, which is not the protocol's ``disconnect``."""
        await self._do("close")

    async def _do(self, method: str, *arguments: object) -> None:
        command = {"call": self._call, "do": method, "with": arguments}
        await self._application.tell(command)


@asynccontextmanager
async def running_application(sdk: Sdk, audio_port: int = 0) -> AsyncIterator[Application]:
    """An application of its own, on any free port if none is given.

    What it writes to its standard error goes to ours.
    """
    process = await asyncio.create_subprocess_exec(
        sdk.node,
        SERVER,
        cwd=sdk.directory,
        env={**os.environ, "HOOK_SECRET": HOOK_SECRET, "AUDIO_PORT": str(audio_port)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_MAX_BYTES,
    )
    application = Application(process)
    try:
        await application.listening()
        yield application
    finally:
        await application.end()
