"""Real workers: `pylisten serve` as a process of its own."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

from tests.support.child import Child
from tests.support.freeswitch import ESL_PASSWORD, ROOT
from tests.support.waiting import eventually

_READY_S = 30.0


class Switch(Protocol):
    """What a worker needs of a switch, real or simulated."""

    esl_port: int

    @property
    def handoff_socket(self) -> Path: ...

    async def json(self, command: str) -> Any: ...


class Worker:
    """A worker of a private switch. It belongs to no event loop."""

    def __init__(self, switch: Switch, name: str = "w1", **env: str) -> None:
        self.name = name
        self._switch = switch
        self._directory = tempfile.TemporaryDirectory(prefix="pylisten-")
        self._child: Child | None = None
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PYLISTEN_")},
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYLISTEN_ESL_HOST": "127.0.0.1",
            "PYLISTEN_ESL_PORT": str(switch.esl_port),
            "PYLISTEN_ESL_PASSWORD": ESL_PASSWORD,
            "PYLISTEN_HANDOFF_SOCKET": str(switch.handoff_socket),
            "PYLISTEN_NAME": name,
            **env,
        }

    @property
    def child(self) -> Child:
        assert self._child is not None, "the worker was not started"
        return self._child

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.alive

    async def start(self, wait: bool = True) -> None:
        """Starts the worker and, with `wait`, waits until it says that it is ready."""
        argv = [sys.executable, "-m", "pylisten", "serve"]
        self._child = Child(f"pylisten-{self.name}", argv, Path(self._directory.name), self._env)
        if wait:
            await self._child.wait_line("pylisten ready", _READY_S)

    async def attached(self, timeout_s: float = 15.0) -> None:
        """Waits until the switch lists the worker."""

        async def is_listed() -> bool:
            answer = await self._switch.json("listen workers json")
            return self.name in [worker["name"] for worker in answer["workers"]]

        await eventually(is_listed, timeout_s, f"worker {self.name} attached")

    async def gone(self, timeout_s: float = 10.0) -> None:
        """Waits until the switch does not list the worker any more."""

        async def is_unlisted() -> bool:
            answer = await self._switch.json("listen workers json")
            return self.name not in [worker["name"] for worker in answer["workers"]]

        await eventually(is_unlisted, timeout_s, f"worker {self.name} gone")

    async def stop(self) -> None:
        """Lets the worker end as an operator would (SIGTERM) and demands that it ends well."""
        status = await self.child.terminate(20)
        self._directory.cleanup()
        assert status == 0, f"{self.child.name} ended with {status}"

    async def kill9(self) -> None:
        await self.child.kill9()

    async def remove(self) -> None:
        """Ends whatever is left, without demands."""
        if self.alive:
            await self.child.kill9()
        self._directory.cleanup()
