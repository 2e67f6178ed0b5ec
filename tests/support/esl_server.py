"""A FreeSWITCH event socket without FreeSWITCH: behaves like mod_event_socket, or misbehaves.

It greets, takes a password, filters and subscriptions, answers ``api`` commands from a table, and
fires plain events quoted the way FreeSWITCH quotes them. What it should do wrong is set on the
object, before or while clients are connected::

    async with EslServer(api={"status": "UP"}) as server:
        server.mute = True  # a peer that is silently gone
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote

__all__ = ["Client", "EslServer", "api_response", "plain_event"]

Answer = str | bytes | None
Api = Mapping[str, Answer] | Callable[[str], Answer]

MAX_COMMAND_BYTES = 10_485_760
SUBSCRIBED = b"Content-Type: command/reply\nReply-Text: +OK event listener enabled plain\n\n"


def plain_event(headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a ``text/event-plain`` message: each value quoted, a body as it is."""
    lines = [f"{name}: {quote(value) or '_undef_'}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    inner = "\n".join(lines).encode() + b"\n\n" + body
    return b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(inner) + inner


def api_response(answer: str | bytes) -> bytes:
    """Return the reply to an ``api`` command."""
    return _message("api/response", answer.encode() if isinstance(answer, str) else answer)


class Client:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.refused = False
        """Whether it gave a wrong password."""
        self.gone = asyncio.Event()
        self.events: set[str] = set()
        self.filters: dict[str, str] = {}

    def wants(self, headers: Mapping[str, str]) -> bool:
        """Whether this client is subscribed to such an event."""
        name = headers.get("Event-Subclass", headers.get("Event-Name", ""))
        passes = [headers.get(key) == value for key, value in self.filters.items()]
        return name in self.events and (not passes or any(passes))


class EslServer:
    """A scripted event socket on a free loopback port."""

    def __init__(self, *, password: str = "ClueCon", api: Api | None = None) -> None:
        self.password = password
        self.api: Api = api or {}
        self.commands: list[str] = []
        """Every command of every client, in order."""
        self.clients: list[Client] = []
        """Who is connected now."""
        self.connections = 0
        """How many have ever connected."""

        # What goes wrong.
        self.silent = False
        """Accept and never say a word."""
        self.hang_up_at_once = False
        """Close before the greeting."""
        self.reject_address = False
        """Refuse by the access list."""
        self.mute = False
        """Read commands and answer nothing."""
        self.deaf = False
        """Read nothing more."""
        self.deny = False
        """Refuse `api` commands: the user has no permission."""

        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.listen(0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    async def listen(self, port: int) -> None:
        """Listen on *port* (0: a free one)."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", port, limit=MAX_COMMAND_BYTES
        )
        self._port: int = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and end all connections; ``listen(server.port)`` brings it back."""
        assert self._server is not None
        self._server.close()
        self.drop()
        await self.until(lambda: not self.clients)
        await self._server.wait_closed()

    def drop(self) -> None:
        """End all connections, the way a killed switch does."""
        for client in self.clients:
            client.writer.transport.abort()
            client.gone.set()

    def finish(self) -> None:
        """End all connections in an orderly way: what was written before still arrives."""
        for client in self.clients:
            client.writer.close()
            client.gone.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds*; it is asked again after each command, connection and loss."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(holds)

    def fire(self, name: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> int:
        """Fire an event (``listen::start``, or a plain name); returns how many clients got it."""
        custom = {"Event-Name": "CUSTOM", "Event-Subclass": name}
        full = {**(custom if "::" in name else {"Event-Name": name}), **(headers or {})}
        return self.send_raw(plain_event(full, body), lambda client: client.wants(full))

    def send_raw(self, data: bytes, to: Callable[[Client], bool] = lambda client: True) -> int:
        """Send bytes as they are to those clients; returns to how many."""
        chosen = [client for client in self.clients if to(client)]
        for client in chosen:
            client.writer.write(data)
        return len(chosen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer)
        self.clients.append(client)
        self.connections += 1
        await self._notify()
        try:
            await self._converse(client)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.transport.abort()
            self.clients.remove(client)
            await self._notify()

    async def _converse(self, client: Client) -> None:
        if self.hang_up_at_once:
            return
        if self.reject_address:
            text = b"Access Denied, go away.\n"
            client.writer.write(_message("text/rude-rejection", text))
            await client.writer.drain()
            return
        if not self.silent:
            client.writer.write(b"Content-Type: auth/request\n\n")
        while True:
            if self.deaf:
                cast(asyncio.Transport, client.writer.transport).pause_reading()
                await client.gone.wait()
                return
            command = (await client.reader.readuntil(b"\n\n"))[:-2].decode("utf-8", "replace")
            self.commands.append(command)
            if not (self.silent or self.mute):
                client.writer.write(self._reply(client, command))
                await client.writer.drain()
            await self._notify()
            if client.refused:
                return

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _reply(self, client: Client, command: str) -> bytes:
        word, _, rest = command.partition(" ")
        match word:
            case "auth":
                client.refused = rest != self.password
                if not client.refused:
                    return _reply("+OK accepted")
                goodbye = b"Disconnected, goodbye.\n"
                return _reply("-ERR invalid") + _message("text/disconnect-notice", goodbye)
            case "filter":
                name, _, value = rest.partition(" ")
                client.filters[name] = value
                return _reply(f"+OK filter added. [{name}]=[{value}]")
            case "event":
                client.events.update(rest.split()[1:])
                return SUBSCRIBED
            case "api" if not self.deny:
                return self._api_reply(rest)
            case "api":
                return _reply("-ERR permission denied")
            case _:
                return _reply("-ERR command not found")

    def _api_reply(self, command: str) -> bytes:
        if callable(self.api):
            answer = self.api(command)
        else:
            missing = f"-ERR {command.split(' ')[0]} Command not found!\n"
            answer = self.api.get(command, missing)
        if answer is None:
            return b""
        return api_response(answer)


def _reply(text: str) -> bytes:
    return f"Content-Type: command/reply\nReply-Text: {text}\n\n".encode()


def _message(kind: str, body: bytes) -> bytes:
    return f"Content-Type: {kind}\nContent-Length: {len(body)}\n\n".encode() + body
