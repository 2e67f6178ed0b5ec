"""What counts as delivered, over real connections that answer, or do not any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from pylisten.delivery import Delivery
from tests.contract.proxy import Proxy
from tests.support.waiting import eventually


@dataclass
class Scene:
    """A connection, what its server got, and the proxy between."""

    ws: ClientConnection
    proxy: Proxy
    got: list[str | bytes] = field(default_factory=list)

    async def settled(self, delivery: Delivery, left: int) -> None:
        """Waits until so much counts as undelivered."""

        async def is_settled() -> bool:
            return len(delivery.undelivered()) == left

        await eventually(is_settled, 5, f"{left} undelivered")


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    got: list[str | bytes] = []

    async def keep(connection: ServerConnection) -> None:
        got.extend([message async for message in connection])

    async with serve(keep, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with (
            Proxy(port) as proxy,
            connect(proxy.url, compression=None, ping_interval=None, close_timeout=1) as ws,
        ):
            yield Scene(ws, proxy, got)
            ws.transport.abort()


def frame(number: int) -> bytes:
    return number.to_bytes(2, "little") * 160


async def test_nothing_is_undelivered_at_first() -> None:
    async with scene() as s:
        assert Delivery(s.ws).undelivered() == []


async def test_audio_counts_as_delivered_in_batches() -> None:
    """A ping after 25 frames asks for all of them; what follows waits for the next one."""
    async with scene() as s:
        delivery = Delivery(s.ws)
        for number in range(24):
            await delivery.send(frame(number))
        assert delivery.undelivered() == [frame(number) for number in range(24)]
        await delivery.send(frame(24))
        await s.settled(delivery, 0)
        for number in range(25, 53):
            await delivery.send(frame(number))
        await s.settled(delivery, 3)
        assert delivery.undelivered() == [frame(number) for number in range(50, 53)]


async def test_a_text_is_asked_for_at_once() -> None:
    """And with it the audio before it."""
    async with scene() as s:
        delivery = Delivery(s.ws)
        await delivery.send("first")
        await s.settled(delivery, 0)
        await delivery.send(frame(1))
        await delivery.send("second")
        await delivery.send(frame(2))
        await s.settled(delivery, 1)
        assert delivery.undelivered() == [frame(2)]


async def test_what_was_sent_into_the_void_is_undelivered_in_order() -> None:
    """TCP took all of it; the server answers for nothing that was sent after the network broke."""
    async with scene() as s:
        delivery = Delivery(s.ws)
        await delivery.send("arrived")
        await s.settled(delivery, 0)
        s.proxy.freeze()
        sent: list[str | bytes] = [frame(1), "text", *map(frame, range(2, 60)), "last"]
        for item in sent:
            await delivery.send(item)
        assert delivery.undelivered() == sent
        s.ws.transport.abort()
        await s.ws.wait_closed()
        assert delivery.undelivered() == sent


async def test_a_frame_that_the_connection_does_not_take_is_undelivered() -> None:
    async with scene() as s:
        delivery = Delivery(s.ws)
        s.ws.transport.abort()
        with pytest.raises(ConnectionClosed):
            await delivery.send("too late")
        assert delivery.undelivered() == ["too late"]


async def test_a_frame_that_waits_to_be_sent_is_undelivered() -> None:
    """Even if it waits for ever, and whoever sends it is told to stop."""
    async with scene() as s:
        delivery = Delivery(s.ws)
        await delivery.send("arrived")
        await s.settled(delivery, 0)
        s.proxy.freeze()
        sent = []

        async def send_until_it_waits() -> None:
            while True:
                sent.append("x" * 1_000_000)
                await delivery.send(sent[-1])

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await send_until_it_waits()
        assert delivery.undelivered() == sent
