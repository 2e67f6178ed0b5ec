"""What all tests share: whether a FreeSWITCH is there, and the logs of processes on failures."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.child import running
from tests.support.freeswitch import Installation, find_installation

_installation = pytest.StashKey[Installation | None]()
_not_run = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_installation] = find_installation()
    config.stash[_not_run] = 0


# Calls that run in real time, against deadlines of milliseconds: on a machine that others share,
# one of many hundreds meets a stall now and then. A fault of ours fails three times; a stall does
# not. Every repetition is shown in the summary.
_REAL_TIME = ("conformance", "contract", "freeswitch")
_REPETITIONS = 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a switch its tests are skipped, all for one reason."""
    for item in items:
        if item.path.parent.name in _REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=_REPETITIONS))
    if config.stash[_installation] is not None:
        return
    skip = pytest.mark.skip(reason="no FreeSWITCH: set FREESWITCH_PREFIX, or teach pkg-config")
    for item in items:
        if item.get_closest_marker("freeswitch"):
            item.add_marker(skip)
            config.stash[_not_run] += 1


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Says in every run whether a real switch took part."""
    installation = config.stash[_installation]
    if installation is not None:
        terminalreporter.write_line(f"FreeSWITCH: {installation}", green=True)
        return
    count = config.stash[_not_run]
    terminalreporter.write_line(
        f"FreeSWITCH: not found, {count} tests of the real switch did not run", red=True, bold=True
    )


@pytest.fixture(scope="session")
def freeswitch_installation(pytestconfig: pytest.Config) -> Installation:
    """The installed FreeSWITCH; tests that ask for it must be marked ``freeswitch``."""
    installation = pytestconfig.stash[_installation]
    assert installation is not None, "a test that needs FreeSWITCH lacks the mark freeswitch"
    return installation


def pytest_runtest_setup() -> None:
    for child in running():
        child.mark()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the processes that take part logged during the test."""
    report = yield
    if report.failed:
        for child in running():
            report.sections.append((f"{child.name} {child.pid}", child.new_text()))
    return report
