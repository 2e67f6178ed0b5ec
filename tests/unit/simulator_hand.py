"""A worker by hand: attaches to a simulated switch and does only what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pylisten import shm
from pylisten.handoff import Handoff
from pylisten.simulator import SimulatedSwitch
from tests.support.eslclient import EslClient, Headers

SUBSCRIPTION = "CUSTOM listen::start listen::adopt listen::command listen::end"


@dataclass
class Hand:
    """An attached worker and its event socket."""

    name: str
    handoff: Handoff
    esl: EslClient
    items: list[shm.Item] = field(default_factory=list)

    async def event(self, name: str) -> Headers:
        """The next event of this name that is meant for this worker."""
        return await self.esl.wait_event(name)

    async def ctl(self, command: str) -> str:
        """Runs ``listen_ctl <command>``."""
        return await self.esl.api(f"listen_ctl {command}")

    async def describe(self, listen_id: str) -> dict[str, Any]:
        """What the switch says of a listen."""
        reply = await self.ctl(f"describe {listen_id}")
        assert reply.startswith("+OK "), reply
        document: dict[str, Any] = json.loads(reply[4:])
        return document

    async def take(self) -> dict[str, Any]:
        """Accepts the listen that is started next, and opens the flow of its audio."""
        event = await self.event("listen::start")
        listen = await self.describe(event["Listen-ID"])
        assert await self.ctl(f"accept {listen['id']}") == "+OK"
        self.attach(listen)
        return listen

    def attach(self, listen: dict[str, Any]) -> None:
        """Attaches to the slot of a listen, and opens the flow of its audio."""
        slot, generation = listen["slot"], listen["generation"]
        self.handoff.arena.attach(slot, generation, self.handoff.worker)
        self.handoff.arena.flow(slot, generation, True)

    async def drain_to_end(self, slot: int) -> list[shm.Item]:
        """Everything of a slot up to and with its end."""
        async with asyncio.timeout(20):
            while True:
                self.items += self.handoff.arena.drain(shm.now_ns())
                mine = [item for item in self.items if item.slot == slot]
                if mine and mine[-1].kind is shm.Kind.END:
                    return mine
                await asyncio.sleep(0.01)

    async def say(
        self, listen: dict[str, Any], rate_hz: int, samples: npt.NDArray[np.int16]
    ) -> None:
        """Writes all of it to the playback ring."""
        slot, generation = listen["slot"], listen["generation"]
        while len(samples):
            taken, _ = self.handoff.arena.play_write(slot, generation, rate_hz, samples)
            samples = samples[taken:]
            await asyncio.sleep(0.01)


async def until(is_so: Callable[[], bool]) -> None:
    """Waits, 10 s at most, for something that nothing tells of."""
    for _ in range(1000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be so")


def audio(items: list[shm.Item]) -> npt.NDArray[np.int16]:
    """The frames among the items, one after another."""
    data = b"".join(item.data for item in items if item.kind is shm.Kind.AUDIO)
    return np.frombuffer(data, np.int16)


@asynccontextmanager
async def hand(switch: SimulatedSwitch, name: str = "hand") -> AsyncIterator[Hand]:
    """A worker that is attached to the switch, and subscribed as the contract says."""
    async with EslClient(switch.esl_port, switch.esl_password) as esl:
        await esl.command(f"filter Listen-Worker {name}")
        await esl.subscribe(SUBSCRIPTION)
        handoff = await Handoff.connect(switch.handoff_socket, name)
        try:
            yield Hand(name, handoff, esl)
        finally:
            handoff.close()
