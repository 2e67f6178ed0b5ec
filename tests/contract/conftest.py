"""The contract's tests run on each switch in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.backends import (
    ADOPT_TIMEOUT_MS,
    MAX_LISTENS,
    Backend,
    freeswitch_backend,
    simulator_backend,
)
from tests.freeswitch.conftest import module_path as module_path
from tests.support.freeswitch import Installation, PrivateSwitch
from tests.support.wsserver import ListenServer

BACKENDS = ["simulator", pytest.param("freeswitch", marks=pytest.mark.freeswitch)]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def contract_switch(
    freeswitch_installation: Installation, module_path: Path
) -> AsyncIterator[PrivateSwitch]:
    """The FreeSWITCH of these tests; it belongs to no event loop."""
    switch = PrivateSwitch(
        freeswitch_installation,
        module=module_path,
        settings={
            "max-listens": str(MAX_LISTENS),
            "adopt-timeout-ms": str(ADOPT_TIMEOUT_MS),
        },
    )
    try:
        await switch.start()
        yield switch
        await switch.stop()
    finally:
        await switch.remove()


@pytest.fixture(params=BACKENDS)
def real_switch(request: pytest.FixtureRequest) -> PrivateSwitch | None:
    """The FreeSWITCH for this run of a test, None for the simulator."""
    if request.param == "simulator":
        return None
    switch: PrivateSwitch = request.getfixturevalue("contract_switch")
    return switch


@pytest_asyncio.fixture
async def backend(real_switch: PrivateSwitch | None) -> AsyncIterator[Backend]:
    """A switch without calls and workers."""
    if real_switch is None:
        async with simulator_backend() as backend:
            yield backend
    else:
        async with freeswitch_backend(real_switch) as backend:
            yield backend
            await backend.hang_up_all()
            await backend.slots_are_free()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ListenServer]:
    """A WebSocket server that only listens."""
    async with ListenServer() as listener:
        yield listener
