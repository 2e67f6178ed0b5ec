"""A small event socket client for the tests: independent of the one that is tested."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from tests.support.waiting import within

Headers = dict[str, str]


class EslError(ConnectionError):
    """The event socket refused us, or went away."""


class EslClient:
    """One connection to an event socket.

    Use as an async context manager. Commands may be given one at a time; events go to
    :attr:`events`.
    """

    def __init__(self, port: int, password: str, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._password = password
        self._replies: asyncio.Queue[tuple[Headers, str] | None] = asyncio.Queue()
        self._reader_task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter
        self.events: asyncio.Queue[Headers | None] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        try:
            reader, self._writer = await asyncio.open_connection(*self._address)
        except OSError as error:
            raise EslError(f"no event socket at {self._address}: {error}") from error
        self._reader_task = asyncio.create_task(self._read(reader))
        try:
            await self._reply()  # auth/request
            reply = await self.command(f"auth {self._password}")
        except EslError:
            await self.close()
            raise
        if not reply.startswith("+OK"):
            await self.close()
            raise EslError(f"not let in: {reply}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if self._reader_task is not None:
            self._reader_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader_task

    async def command(self, text: str) -> str:
        """Gives a command and returns its reply text."""
        self._writer.write(f"{text}\n\n".encode())
        headers, _ = await self._reply()
        return headers.get("Reply-Text", "")

    async def api(self, command: str, timeout_s: float = 15.0) -> str:
        """Runs an API command and returns what it printed, without the newline at its end."""
        self._writer.write(f"api {command}\n\n".encode())
        async with asyncio.timeout(timeout_s):
            _, body = await self._reply()
        return body.rstrip("\n")

    async def execute(self, uuid: str, application: str, argument: str = "") -> str:
        """Runs a dialplan application on a channel in the background (sendmsg)."""
        return await self.command(
            f"sendmsg {uuid}\ncall-command: execute\nexecute-app-name: {application}\n"
            f"execute-app-arg: {argument}"
        )

    async def subscribe(self, events: str) -> None:
        """Subscribes to events, for example ``CHANNEL_ANSWER CUSTOM listen::start``."""
        reply = await self.command(f"event plain {events}")
        if not reply.startswith("+OK"):
            raise EslError(f"event plain {events}: {reply}")

    async def wait_event(self, name: str, timeout_s: float = 10.0, **match: str) -> Headers:
        """Waits for an event by its name or subclass; ``match`` names headers with ``_`` for ``-``.

        Events that do not match are dropped. Raises AssertionError after the time, or EslError at
        the end of the connection.
        """
        wanted = {key.replace("_", "-"): value for key, value in match.items()}
        async with within(timeout_s, lambda: f"the event {name} with {wanted}"):
            async for event in self.stream():
                if name not in (event.get("Event-Name"), event.get("Event-Subclass")):
                    continue
                if all(event.get(key) == value for key, value in wanted.items()):
                    return event
        raise EslError(f"the event socket ended before {name}")

    async def stream(self) -> AsyncIterator[Headers]:
        """The events, until the connection ends."""
        while (event := await self.events.get()) is not None:
            yield event

    async def _reply(self) -> tuple[Headers, str]:
        reply = await self._replies.get()
        if reply is None:
            self._replies.put_nowait(None)
            raise EslError("the event socket was closed")
        return reply

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                self._dispatch(*await _read_message(reader))
        except (OSError, EOFError):
            self._replies.put_nowait(None)
            self.events.put_nowait(None)

    def _dispatch(self, headers: Headers, body: str) -> None:
        kind = headers.get("Content-Type")
        if kind == "text/event-plain":
            self.events.put_nowait(_parse_headers(body.partition("\n\n")[0]))
        elif kind in ("auth/request", "command/reply", "api/response"):
            self._replies.put_nowait((headers, body))


async def _read_message(reader: asyncio.StreamReader) -> tuple[Headers, str]:
    head = (await reader.readuntil(b"\n\n")).decode()
    headers = _parse_headers(head)
    length = int(headers.get("Content-Length", "0"))
    body = (await reader.readexactly(length)).decode() if length else ""
    return headers, body


def _parse_headers(text: str) -> Headers:
    """Splits a block of headers. Decoding comes after the splitting, so no value can forge one."""
    headers: Headers = {}
    for line in text.strip("\n").split("\n"):
        name, colon, value = line.partition(": ")
        if colon:
            headers[name] = unquote(value)
    return headers
