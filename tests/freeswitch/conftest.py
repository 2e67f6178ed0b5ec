"""One switch and one worker for all tests here; those that break things boot their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.freeswitch.scene import assert_nothing_left
from tests.support.freeswitch import MODULE, ROOT, Installation, PrivateSwitch
from tests.support.sip import SipAgent
from tests.support.worker import Worker
from tests.support.wsserver import ListenServer

EXTENSIONS = Path(__file__).parent / "extensions.xml"

BootSwitch = Callable[..., Awaitable[PrivateSwitch]]
StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture(scope="session")
def module_path(freeswitch_installation: Installation) -> Path:
    """mod_listen.so, built from the sources as they are now."""
    pkg_config = f"{freeswitch_installation.prefix}/lib/pkgconfig"
    known = os.environ.get("PKG_CONFIG_PATH")
    env = {**os.environ, "PKG_CONFIG_PATH": f"{pkg_config}:{known}" if known else pkg_config}
    made = subprocess.run(
        ["make", "-C", ROOT / "mod_listen"], capture_output=True, text=True, check=False, env=env
    )
    assert made.returncode == 0, f"mod_listen does not build\n{made.stdout}{made.stderr}"
    return MODULE


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_switch(
    freeswitch_installation: Installation, module_path: Path
) -> AsyncIterator[PrivateSwitch]:
    """The switch that most tests share."""
    switch = PrivateSwitch(freeswitch_installation, module=module_path, extensions=(EXTENSIONS,))
    try:
        await switch.start()
        yield switch
        await switch.stop()
    finally:
        await switch.remove()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_worker(shared_switch: PrivateSwitch) -> AsyncIterator[Worker]:
    """The worker that most tests share."""
    worker = Worker(shared_switch, "shared")
    try:
        await worker.start()
        yield worker
        await worker.stop()
    finally:
        await worker.remove()


@pytest_asyncio.fixture
async def switch(shared_switch: PrivateSwitch) -> AsyncIterator[PrivateSwitch]:
    """The shared switch; afterwards no channel and no listen may be left on it."""
    assert shared_switch.child.alive, "FreeSWITCH died in an earlier test"
    yield shared_switch
    assert shared_switch.child.alive, "FreeSWITCH died"
    await assert_nothing_left(shared_switch)


@pytest_asyncio.fixture
async def worker(switch: PrivateSwitch, shared_worker: Worker) -> AsyncIterator[Worker]:
    """The shared worker, attached to the shared switch."""
    assert shared_worker.alive, "the worker died in an earlier test"
    await shared_worker.attached()
    yield shared_worker
    assert shared_worker.alive, "the worker died"


@pytest_asyncio.fixture
async def boot_switch(
    freeswitch_installation: Installation, module_path: Path
) -> AsyncIterator[BootSwitch]:
    """Boots switches for one test, with settings of their own."""
    switches: list[PrivateSwitch] = []

    async def boot(**settings: str) -> PrivateSwitch:
        switch = PrivateSwitch(
            freeswitch_installation,
            module=module_path,
            extensions=(EXTENSIONS,),
            settings={name.replace("_", "-"): value for name, value in settings.items()},
        )
        switches.append(switch)
        await switch.start()
        return switch

    try:
        yield boot
        for switch in switches:
            await switch.stop()
    finally:
        for switch in switches:
            await switch.remove()


@pytest_asyncio.fixture
async def start_worker() -> AsyncIterator[StartWorker]:
    """Starts workers for one test."""
    workers: list[Worker] = []

    async def start(switch: PrivateSwitch, name: str = "w1", wait: bool = True) -> Worker:
        worker = Worker(switch, name)
        workers.append(worker)
        await worker.start(wait)
        return worker

    try:
        yield start
    finally:
        for worker in workers:
            await worker.remove()


@pytest_asyncio.fixture
async def agent(switch: PrivateSwitch) -> AsyncIterator[SipAgent]:
    """A SIP phone; it hangs up all its calls before the switch is checked for leftovers."""
    async with SipAgent() as phone:
        yield phone


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ListenServer]:
    """A WebSocket server that only listens."""
    async with ListenServer() as listener:
        yield listener
