"""What lies between a worker and its server, and breaks."""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK_BYTES = 65536


class Proxy:
    """A TCP proxy on a loopback port, before a server on another one.

    Use as an async context manager. What is forwarded when it begins to misbehave may get lost.
    """

    def __init__(self, server_port: int) -> None:
        self.attempts = 0
        """Connections that were made, let through or not."""
        self._server_port = server_port
        self._forwarding: set[asyncio.Event] = set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listening.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/"

    def cut(self) -> None:
        """Breaks all connections, both ways, at once."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Forwards no more on the connections that stand, and closes none: both ends believe that
        the other one is there. New ones are forwarded."""
        for event in self._forwarding:
            event.clear()

    def refuse(self, refusing: bool = True) -> None:
        """Lets no new connection through: it is broken as soon as it is made."""
        self._refusing = refusing

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        self._writers.add(writer)
        if self._refusing:
            writer.transport.abort()
            return
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers.add(downstream)
        forwarding = asyncio.Event()
        forwarding.set()
        self._forwarding.add(forwarding)
        for source, target in ((reader, downstream), (upstream, writer)):
            task = asyncio.create_task(_forward(source, target, forwarding))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _forward(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, forwarding: asyncio.Event
) -> None:
    """Copies until either end is closed, and closes the other one."""
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK_BYTES):
            await forwarding.wait()
            target.write(data)
            await target.drain()
            await forwarding.wait()
    await forwarding.wait()
    target.close()
