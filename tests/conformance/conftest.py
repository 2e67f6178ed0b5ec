"""The SDK, installed once, and the switches of the contract's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.sdk import Application, NotInstallable, Sdk, install, running_application
from tests.contract.conftest import backend as backend
from tests.contract.conftest import contract_switch as contract_switch
from tests.contract.conftest import module_path as module_path
from tests.contract.conftest import real_switch as real_switch

NOT_RUN = "no jambonz SDK: "

_installed: list[Sdk] = []


@pytest.fixture(scope="session")
def sdk() -> Sdk:
    """The installed SDK; where it cannot be had, what asks for it is skipped, for one reason."""
    try:
        found = install()
    except NotInstallable as exc:
        pytest.skip(f"{NOT_RUN}{exc}")
    _installed.append(found)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says whether an application made with the SDK took part."""
    if _installed:
        terminalreporter.write_line(f"jambonz SDK: {_installed[0]}", green=True)
        return
    reasons = [_reason(report) for report in terminalreporter.stats.get("skipped", [])]
    missed = [reason for reason in reasons if reason.startswith(NOT_RUN)]
    if missed:
        reason = missed[0].removeprefix(NOT_RUN)
        line = f"jambonz SDK: {reason}, {len(missed)} conformance tests did not run"
        terminalreporter.write_line(line, red=True, bold=True)


def _reason(report: pytest.TestReport) -> str:
    return report.longrepr[2].removeprefix("Skipped: ") if type(report.longrepr) is tuple else ""


@pytest_asyncio.fixture
async def application(sdk: Sdk) -> AsyncIterator[Application]:
    """A server that was made for jambonz."""
    async with running_application(sdk) as server:
        yield server
