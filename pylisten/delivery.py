"""Which frames have arrived: what has to be sent again when a connection breaks.

TCP says what the next machine's kernel has, and a proxy's kernel is not the server. A pong says
more: it comes after everything that stood before its ping has been read by the server's WebSocket
library (RFC 6455 section 5.5.3, and frames keep their order). So pings go out between the frames,
and what no pong has answered counts as undelivered. That may be a little too much, never too
little: `positionMilliseconds` in the `resumed` frame tells the server what it has already.
"""

from __future__ import annotations

import asyncio
from collections import deque

from websockets.asyncio.client import ClientConnection

__all__ = ["Delivery"]

# A ping after half a second of audio bounds what is sent twice, for a six-byte frame.
_FRAMES_PER_PING = 25


class Delivery:
    """Sends over one connection, and remembers what has not been answered for."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._unanswered: deque[str | bytes] = deque()
        self._sent = 0
        self._answered = 0
        self._since_ping = 0

    async def send(self, data: str | bytes) -> None:
        """Sends one frame; waits while the connection's buffer is full.

        Raises websockets' ConnectionClosed.
        """
        self._unanswered.append(data)
        self._sent += 1
        self._since_ping += 1
        await self._ws.send(data)
        # A text is sent twice only if the connection breaks before its own pong.
        if isinstance(data, str) or self._since_ping >= _FRAMES_PER_PING:
            await self._ping()

    def undelivered(self) -> list[str | bytes]:
        """What may not have arrived, in order."""
        return list(self._unanswered)

    async def _ping(self) -> None:
        self._since_ping = 0
        sent = self._sent
        pong = await self._ws.ping()

        def on_pong(waiter: asyncio.Future[float]) -> None:
            if not waiter.cancelled() and waiter.exception() is None:
                self._answer(sent)

        asyncio.ensure_future(pong).add_done_callback(on_pong)

    def _answer(self, sent: int) -> None:
        while self._answered < sent:
            self._unanswered.popleft()
            self._answered += 1
