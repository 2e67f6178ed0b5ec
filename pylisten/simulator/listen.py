"""One listen as the switch sees it."""

from __future__ import annotations

import asyncio
import time
import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass, field

from pylisten.simulator.call import SimulatedCall
from pylisten.simulator.handoff import Worker
from pylisten.simulator.request import Request

__all__ = ["Listen"]


@dataclass(eq=False, slots=True)
class Listen:
    """A listen from its start until its slot is free again.

    ``lost`` is the name of the worker that served it before. ``decided`` is set when its worker has
    ``accepted`` it, or when it has ended. ``connected``: a worker reported its WebSocket open.
    ``counters`` are the slot's, and final, once ``freed`` is set.
    """

    request: Request
    call: SimulatedCall
    slot: int
    generation: int
    worker: Worker | None
    start_ns: int
    id: str = field(default_factory=lambda: str(uuids.uuid4()))
    start_epoch_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    adopted: bool = False
    lost: str = ""
    end_ns: int = 0
    reason: str = ""
    error: str = ""
    connected: bool = False
    counters: Mapping[str, int] = field(default_factory=dict)
    accepted: bool = False
    paused: str = ""
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    deadline: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """The label by which the listens of one call are told apart."""
        return self.request.name

    @property
    def worker_name(self) -> str:
        """The name of the worker that serves it, empty if none does."""
        return self.worker.name if self.worker else ""

    def headers(self) -> dict[str, str]:
        """The headers that every event of this listen carries."""
        return {
            "Listen-Version": "1",
            "Listen-ID": self.id,
            "Listen-Name": self.name,
            "Listen-Worker": self.worker_name,
            "Unique-ID": self.call.uuid,
        }

    def describe(self) -> dict[str, object]:
        """All that a worker needs to serve it."""
        return {
            "id": self.id,
            "uuid": self.call.uuid,
            "name": self.name,
            "slot": self.slot,
            "generation": self.generation,
            "worker": self.worker_name,
            "verb": self.request.verb,
            "attributes": self.call.attributes,
            "sample_rate": self.request.rate_hz,
            "mix_type": self.request.mix,
            "adopted": self.adopted,
            "paused": self.paused,
            "blocking": False,
            "start_epoch_ms": self.start_epoch_ms,
        }
