"""The two switches that the contract is tested on, behind one small interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from pylisten.config import Config, EslConfig
from pylisten.simulator import SimulatedCall, SimulatedSwitch
from pylisten.worker import Worker
from tests.support.eslclient import EslClient, Headers
from tests.support.freeswitch import ESL_PASSWORD, PrivateSwitch
from tests.support.rtp import L16_8K
from tests.support.sip import Call, SipAgent
from tests.support.tones import Pcm
from tests.support.waiting import eventually

RATE_HZ = 8000
MAX_LISTENS = 8
ADOPT_TIMEOUT_MS = 2000
EVENTS = (
    "CUSTOM listen::start listen::adopt listen::command listen::end listen::connect"
    " listen::reconnect listen::dtmf listen::play_start listen::play_done listen::message"
)


class Caller(Protocol):
    """A call, seen from the telephone."""

    @property
    def uuid(self) -> str: ...

    def heard(self) -> Pcm:
        """What the caller has heard until now, at `RATE_HZ`."""

    async def press(self, digit: str, duration_ms: int = 100) -> None: ...

    async def hang_up(self) -> None: ...


class EventLog:
    """All events of listens that a switch has fired since it was opened."""

    def __init__(self, client: EslClient) -> None:
        self.all: list[Headers] = []
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._read(client))

    def of(self, name: str, **match: str) -> list[Headers]:
        """Events by name and headers (``Listen_ID`` for ``Listen-ID``), oldest first."""
        wanted = {key.replace("_", "-"): value for key, value in match.items()}
        named = [event for event in self.all if event.get("Event-Subclass") == name]
        return [e for e in named if all(e.get(key) == value for key, value in wanted.items())]

    async def wait(self, name: str, timeout_s: float = 10.0, **match: str) -> Headers:
        """The first such event, past or future."""
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(lambda: bool(self.of(name, **match)))
        return self.of(name, **match)[0]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, client: EslClient) -> None:
        async for event in client.stream():
            async with self._news:
                self.all.append(event)
                self._news.notify_all()


class Backend:
    """A switch with the interface that the tests use."""

    exact = False
    """Whether each sample arrives as it was said: no telephone line is between."""

    def __init__(
        self, esl_port: int, handoff_socket: Path, command: EslClient, events: EventLog
    ) -> None:
        self.esl_port = esl_port
        self._handoff_socket = handoff_socket
        self.events = events
        self._command = command
        self._callers: list[Caller] = []

    async def new_call(self, source: Pcm) -> Caller:
        """A call that is up, and parked; the caller says ``source`` once and is then silent."""
        caller = await self._call(source)
        self._callers.append(caller)
        return caller

    async def _call(self, source: Pcm) -> Caller:
        raise NotImplementedError

    async def hang_up_all(self) -> None:
        """Ends all calls that are still up."""
        await asyncio.gather(*(caller.hang_up() for caller in self._callers))

    async def api(self, command: str) -> str:
        """Runs an API command; the reply without the newline at its end."""
        return await self._command.api(command)

    async def json(self, command: str) -> Any:
        return json.loads(await self.api(command))

    async def start(self, caller: Caller, url: str, **properties: object) -> str:
        """Starts a listen that is accepted; returns its id."""
        verb = json.dumps({"url": url, **properties})
        reply = await self.api(f"uuid_listen {caller.uuid} start {verb}")
        assert reply.startswith("+OK "), reply
        return reply.removeprefix("+OK ").strip()

    @property
    def handoff_socket(self) -> Path:
        return self._handoff_socket

    @property
    def settings(self) -> dict[str, Any]:
        """What a worker's configuration must say to reach this switch."""
        esl = EslConfig(port=self.esl_port, password=ESL_PASSWORD)
        return {"handoff_socket": self.handoff_socket, "esl": esl}

    @asynccontextmanager
    async def worker(self, name: str = "w1", **sections: Any) -> AsyncIterator[Worker]:
        """A worker in this process, attached; ``sections`` are more of its configuration."""
        worker = Worker(Config(**{"name": name, **self.settings, **sections}))
        running = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(15):
                await worker.ready()
            yield worker
        finally:
            worker.stop()
            await running

    async def workers_are(self, *names: str) -> None:
        """Waits until exactly these workers are attached."""

        async def are() -> bool:
            rows = (await self.json("listen workers json"))["workers"]
            return sorted(row["name"] for row in rows) == sorted(names)

        await eventually(are, what=f"workers {names}")

    async def slots_are_free(self) -> None:
        """Waits until no slot is in use."""

        async def are() -> bool:
            slots = (await self.json("listen status json"))["slots"]
            return bool(slots["free"] == MAX_LISTENS)

        await eventually(are, what="all slots free")


class _SimulatedCaller:
    def __init__(self, switch: SimulatedSwitch, call: SimulatedCall) -> None:
        self._switch = switch
        self._call = call

    @property
    def uuid(self) -> str:
        return self._call.uuid

    def heard(self) -> Pcm:
        return self._call.what_was_heard(RATE_HZ)

    async def press(self, digit: str, duration_ms: int = 100) -> None:
        self._call.press(digit, duration_ms=duration_ms)

    async def hang_up(self) -> None:
        self._switch.hang_up(self._call)


class SimulatorBackend(Backend):
    """The simulator."""

    exact = True
    switch: SimulatedSwitch

    async def _call(self, source: Pcm) -> Caller:
        call = SimulatedCall(source, RATE_HZ, hang_up_at_end=False)
        self.switch.add(call)
        return _SimulatedCaller(self.switch, call)


class _SipCaller:
    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def uuid(self) -> str:
        return self._call.uuid

    def heard(self) -> Pcm:
        return self._call.rtp.received.timeline()

    async def press(self, digit: str, duration_ms: int = 100) -> None:
        await self._call.rtp.digit(digit, duration_ms)

    async def hang_up(self) -> None:
        await self._call.hangup()


class FreeSwitchBackend(Backend):
    """A private FreeSWITCH with mod_listen, called by SIP."""

    switch: PrivateSwitch
    agent: SipAgent

    async def _call(self, source: Pcm) -> Caller:
        call = await self.agent.call(
            self.switch.sip_port,
            "park",
            codec=L16_8K,
            before_answer=lambda call: call.rtp.say(source),
        )
        return _SipCaller(call)


@asynccontextmanager
async def simulator_backend(
    *, ring_ms: int = 10_000, max_listens: int = MAX_LISTENS
) -> AsyncIterator[SimulatorBackend]:
    """A simulator of its own."""
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(
            SimulatedSwitch(
                esl_password=ESL_PASSWORD,
                max_listens=max_listens,
                ring_ms=ring_ms,
                adopt_timeout_ms=ADOPT_TIMEOUT_MS,
            )
        )
        command, events = await _clients(stack, switch.esl_port)
        backend = SimulatorBackend(switch.esl_port, switch.handoff_socket, command, events)
        backend.switch = switch
        yield backend


@asynccontextmanager
async def freeswitch_backend(switch: PrivateSwitch) -> AsyncIterator[Backend]:
    """A FreeSWITCH that is running already; its calls are hung up at the end."""
    async with AsyncExitStack() as stack:
        command, events = await _clients(stack, switch.esl_port)
        backend = FreeSwitchBackend(switch.esl_port, switch.handoff_socket, command, events)
        backend.switch = switch
        backend.agent = await stack.enter_async_context(SipAgent())
        yield backend


async def _clients(stack: AsyncExitStack, esl_port: int) -> tuple[EslClient, EventLog]:
    command = await stack.enter_async_context(EslClient(esl_port, ESL_PASSWORD))
    listener = await stack.enter_async_context(EslClient(esl_port, ESL_PASSWORD))
    await listener.subscribe(EVENTS)
    events = EventLog(listener)
    stack.push_async_callback(events.close)
    return command, events
