"""The part of FreeSWITCH's event socket that a worker and an operator use.

Speaks what mod_event_socket speaks: ``auth``, ``event plain CUSTOM …``, ``filter``, ``api`` and
``exit``; anything else is answered by ``-ERR command not found``. Commands of one connection run
one after another, those of several connections side by side, as in FreeSWITCH.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

__all__ = ["ApiCommand", "EslServer"]

ApiCommand = Callable[[str], Awaitable[str]]

COMMAND_MAX_BYTES: Final = 10 * 1024 * 1024
_GOODBYE: Final = "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"


@dataclass(eq=False, slots=True)
class _Client:
    writer: asyncio.StreamWriter
    authenticated: bool = False
    subclasses: set[str] = field(default_factory=set)
    filters: list[tuple[str, str]] = field(default_factory=list)

    def wants(self, headers: Mapping[str, str]) -> bool:
        """Whether the event is subscribed to and passes the filters: one match is enough."""
        if headers["Event-Subclass"] not in self.subclasses:
            return False
        return not self.filters or any(
            headers.get(name, "").casefold() == value for name, value in self.filters
        )

    def send(self, headers: Mapping[str, str], body: str = "") -> None:
        head = "".join(f"{name}: {value}\n" for name, value in headers.items())
        content = body.encode()
        if content:
            head += f"Content-Length: {len(content)}\n"
        self.writer.write(f"{head}\n".encode() + content)

    def reply(self, text: str) -> None:
        self.send({"Content-Type": "command/reply", "Reply-Text": text})


class EslServer:
    """An event socket on a loopback address; ``api`` maps command names to what answers them."""

    def __init__(self, password: str, api: Mapping[str, ApiCommand]) -> None:
        self.port = 0
        self.core_uuid = str(uuid.uuid4())
        self._password = password
        self._api = api
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sequence = itertools.count(1)
        self._common = {
            "Core-UUID": self.core_uuid,
            "FreeSWITCH-Hostname": socket.gethostname(),
            "FreeSWITCH-Switchname": "simulator",
        }

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; ``self.port`` then says where. Raises OSError if the port is taken."""
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=COMMAND_MAX_BYTES
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Disconnects everybody."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def run_api(self, command: str) -> str:
        """Runs one API command and returns its reply, errors included."""
        name, _, argument = command.strip().partition(" ")
        answer = self._api.get(name)
        if answer is None:
            return f"-ERR {name} Command not found!\n"
        return await answer(argument.strip())

    def fire(self, subclass: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Sends a CUSTOM event to all that want it; returns it as it was sent."""
        event = {
            "Event-Subclass": subclass,
            "Event-Name": "CUSTOM",
            **self._common,
            "Event-Date-Timestamp": str(time.time_ns() // 1000),
            "Event-Sequence": str(next(self._sequence)),
            # FreeSWITCH does not take a header without a value into an event.
            **{name: value for name, value in headers.items() if value},
        }
        body = "".join(f"{name}: {_encoded(value)}\n" for name, value in event.items()) + "\n"
        for client in self._clients:
            if client.wants(event):
                client.send({"Content-Type": "text/event-plain"}, body)
        return event

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer)
        self._clients.add(client)
        client.send({"Content-Type": "auth/request"})
        try:
            while await self._command(client, await _block(reader)):
                await writer.drain()
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            self._clients.discard(client)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _command(self, client: _Client, block: str) -> bool:
        """Carries out one command; False ends the connection."""
        if not block:
            return True
        verb, _, argument = block.partition("\n")[0].strip().partition(" ")
        argument = argument.strip()
        if verb == "exit":
            client.reply("+OK bye")
            client.send({"Content-Type": "text/disconnect-notice"}, _GOODBYE)
            return False
        if not client.authenticated:
            return self._authenticate(client, verb, argument)
        if verb == "api":
            client.send({"Content-Type": "api/response"}, await self.run_api(argument))
        elif verb == "event":
            client.reply(_subscribe(client, argument.split()))
        elif verb == "filter":
            client.reply(_filter(client, argument))
        else:
            client.reply("-ERR command not found")
        return True

    def _authenticate(self, client: _Client, verb: str, argument: str) -> bool:
        if verb != "auth":
            client.reply("-ERR command not found")
            return True
        client.authenticated = argument == self._password
        client.reply("+OK accepted" if client.authenticated else "-ERR invalid")
        return client.authenticated


async def _block(reader: asyncio.StreamReader) -> str:
    """The next command: lines up to an empty one."""
    return (await reader.readuntil(b"\n\n")).decode("utf-8", "replace").strip()


def _encoded(value: str) -> str:
    return quote(value, safe="/!$'()*,-._~")


def _subscribe(client: _Client, words: list[str]) -> str:
    if words[:1] != ["plain"]:
        return "-ERR the simulator knows only 'event plain'"
    # Only CUSTOM events are ever fired here; others may be asked for.
    client.subclasses.update(name for name in words if "::" in name)
    return "+OK event listener enabled plain"


def _filter(client: _Client, argument: str) -> str:
    name, _, value = argument.partition(" ")
    if not value:
        return "-ERR invalid syntax"
    client.filters.append((name, value.strip().casefold()))
    return f"+OK filter added. [{name}]=[{value.strip()}]"
