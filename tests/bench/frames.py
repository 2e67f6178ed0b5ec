"""What a frame costs on its way from the shared memory to a WebSocket, in one run.

Processor time of this process per frame of 20 ms at 8 kHz. Absolute figures depend on the machine;
the last column compares each step with the bare `send()` of the websockets library, measured in
the same run, so it can be compared between machines and versions.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from pylisten import shm

RATE_HZ = 8000
FRAME = np.zeros(RATE_HZ // 50, dtype=np.int16)
FRAME_NS = 20_000_000
FRAMES = 10_000  # per measurement, over all calls
ROUNDS = 3  # the best counts: what disturbs a measurement only makes it longer
CALLS = (1, 50, 200)

Step = Callable[[], Awaitable[None]]


async def swallow(websocket: ServerConnection) -> None:
    """Takes what comes."""
    async for _ in websocket:
        pass


async def serve_until_told(pipe: Connection) -> None:
    """Tells its port through `pipe`, and serves until something comes back."""
    async with serve(swallow, "127.0.0.1", 0, compression=None) as server:
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)


def run_server(pipe: Connection) -> None:
    """The server, in a process of its own, so that its time does not count."""
    asyncio.run(serve_until_told(pipe))


@contextmanager
def server_url() -> Iterator[str]:
    """A server that swallows everything."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=(theirs,))
    process.start()
    try:
        yield f"ws://127.0.0.1:{ours.recv()}"
    finally:
        ours.send(None)
        process.join()


class Calls:
    """A number of calls: their slots, and a connection for each."""

    def __init__(self, sockets: list[ClientConnection]) -> None:
        self.sockets = sockets
        self.switch = shm.Arena.create(len(sockets), ring_ms=1000)
        self.worker = shm.Arena.map(self.switch.fd)
        self.now_ns = shm.now_ns()
        for slot in range(len(sockets)):
            gen = self.switch.open_slot(slot, RATE_HZ, shm.Mix.MONO, 0, self.now_ns)
            self.worker.attach(slot, gen, 0)
            self.worker.flow(slot, gen, True)

    def close(self) -> None:
        """Gives the memory back."""
        self.worker.close()
        self.switch.close()

    async def capture(self) -> None:
        """A frame of each call goes into its ring."""
        self.now_ns += FRAME_NS
        for slot in range(len(self.sockets)):
            self.switch.capture(slot, shm.NEAR, self.now_ns, FRAME)

    async def drain(self) -> None:
        """The frames of all calls are taken out in one batch."""
        assert len(self.worker.drain(self.now_ns)) == len(self.sockets)

    async def send(self) -> None:
        """A frame that is already there is sent on each connection."""
        data = FRAME.tobytes()
        for websocket in self.sockets:
            await websocket.send(data)

    async def drain_and_send(self) -> None:
        """Each call's frame is taken out and sent on its connection."""
        for item in self.worker.drain(self.now_ns):
            await self.sockets[item.slot].send(item.data)


async def cost_us(step: Step, calls: int, before: Step | None = None) -> float:
    """Processor time of `step` per frame in µs; `before` runs before each, and does not count."""
    best = float("inf")
    for _ in range(ROUNDS):
        spent_ns = 0
        for _ in range(FRAMES // calls):
            if before:
                await before()
            began_ns = time.process_time_ns()
            await step()
            spent_ns += time.process_time_ns() - began_ns
        best = min(best, spent_ns / (FRAMES // calls * calls) / 1000)
    return best


async def measure(url: str, count: int) -> None:
    """Prints the table for `count` calls."""
    sockets = [await connect(url, compression=None, ping_interval=None) for _ in range(count)]
    calls = Calls(sockets)
    try:
        send_us = await cost_us(calls.send, count)
        rows = {
            "send (websockets alone)": send_us,
            "drain": await cost_us(calls.drain, count, before=calls.capture),
            "drain and send": await cost_us(calls.drain_and_send, count, before=calls.capture),
        }
    finally:
        calls.close()
        for websocket in sockets:
            await websocket.close()
    print(f"\n{count} calls")
    for name, us in rows.items():
        print(f"  {name:<24} {us:7.2f} µs a frame   × {us / send_us:.2f}", flush=True)


async def main() -> None:
    """Measures few and many calls."""
    with server_url() as url:
        for count in CALLS:
            await measure(url, count)


if __name__ == "__main__":
    asyncio.run(main())
