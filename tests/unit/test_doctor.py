"""What the doctor finds, on a simulated switch and on one in each state of disrepair."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pylisten import __version__, shm
from pylisten.config import Config, ConfigError, EslConfig
from pylisten.doctor import CHECKS, Finding, Status, doctor, examine, report_bad_config
from pylisten.simulator import SimulatedSwitch
from tests.support.esl_server import EslServer
from tests.unit.simulator_hand import hand

NOWHERE = Path("/nowhere/listen.sock")


def config_for(
    server: EslServer, handoff_socket: Path = NOWHERE, password: str = "ClueCon"
) -> Config:
    esl = EslConfig(host="127.0.0.1", port=server.port, password=password)
    return Config(esl=esl, handoff_socket=handoff_socket)


def config_of(switch: SimulatedSwitch) -> Config:
    esl = EslConfig(host="127.0.0.1", port=switch.esl_port, password=switch.esl_password)
    return Config(esl=esl, handoff_socket=switch.handoff_socket)


def module(**status: Any) -> dict[str, str]:
    """The replies of a switch with mod_listen."""
    abi = f"{shm.ABI_MAJOR}.{shm.ABI_MINOR}"
    full = {"version": __version__, "abi": abi, "handoff_socket": str(NOWHERE), **status}
    return {
        "status": "UP",
        "module_exists mod_listen": "true",
        "listen status json": json.dumps(full),
        "listen workers json": '{"workers": [{"name": "w1"}]}',
    }


def statuses(findings: dict[str, Finding]) -> dict[str, Status]:
    return {name: finding.status for name, finding in findings.items()}


async def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    """With a worker attached, every line says OK, and the exit code is 0."""
    async with SimulatedSwitch() as switch, hand(switch, "w1"):
        assert await doctor(config_of(switch)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["OK"] * len(CHECKS)
    assert "1 attached: w1" in lines[-1]


async def test_the_doctor_leaves_nothing_behind() -> None:
    """Its own attachment is no worker, then and afterwards."""
    async with SimulatedSwitch() as switch:
        findings = await examine(config_of(switch))
        assert findings["workers"].status is Status.WARN
        assert "pylisten serve" in findings["workers"].mend
        assert Status.FAIL not in statuses(findings).values()


async def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """--json is one document that a program can judge by."""
    async with SimulatedSwitch() as switch:
        assert await doctor(config_of(switch), as_json=True) == 0
        assert await doctor(Config(esl=EslConfig(port=1)), as_json=True) == 1
    well, ill = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert well["ok"] is True
    assert ill["ok"] is False
    assert [check["check"] for check in ill["checks"]] == [check.name for check in CHECKS]
    assert ill["checks"][2]["status"] == "FAIL"
    assert "PYLISTEN_ESL_HOST" in ill["checks"][2]["mend"]


async def test_no_switch() -> None:
    """Without a switch that is said once; what builds on it is skipped."""
    async with EslServer() as server:
        config = config_for(server)
        await server.close()
        findings = await examine(config)
        await server.listen(server.port)
    assert statuses(findings) == {
        "configuration": Status.OK,
        "compiled part": Status.OK,
        "event socket": Status.FAIL,
        "password": Status.SKIP,
        "module": Status.SKIP,
        "versions": Status.SKIP,
        "socket path": Status.SKIP,
        "handoff": Status.FAIL,
        "workers": Status.SKIP,
    }


async def test_wrong_password() -> None:
    """A wrong password is told apart from a switch that is not there."""
    async with EslServer(password="other") as server:
        findings = await examine(config_for(server))
    assert findings["event socket"].status is Status.OK
    assert findings["password"].status is Status.FAIL
    assert "PYLISTEN_ESL_PASSWORD" in findings["password"].mend
    assert findings["module"].status is Status.SKIP


async def test_an_address_that_is_refused() -> None:
    """An access list is told apart from a password."""
    async with EslServer() as server:
        server.reject_address = True
        findings = await examine(config_for(server))
    assert findings["password"].status is Status.FAIL
    assert "apply-inbound-acl" in findings["password"].mend


async def test_something_else_listens_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that accepts and says nothing is no event socket."""
    monkeypatch.setattr("pylisten.doctor.TIMEOUT_S", 0.3)
    async with EslServer() as server:
        server.silent = True
        findings = await examine(config_for(server))
    assert findings["password"].status is Status.FAIL
    assert "event socket" in findings["password"].mend


async def test_missing_module() -> None:
    """A switch without mod_listen: how to load it."""
    async with EslServer(api={"status": "UP", "module_exists mod_listen": "false"}) as server:
        findings = await examine(config_for(server))
    assert findings["module"].status is Status.FAIL
    assert "load mod_listen" in findings["module"].mend
    assert findings["versions"].status is Status.SKIP


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"abi": "99.0"}, Status.FAIL),
        ({"version": "0.0.1"}, Status.WARN),
        ({"abi": f"{shm.ABI_MAJOR}.99"}, Status.OK),
    ],
)
async def test_versions(status: dict[str, str], expected: Status) -> None:
    """Another ABI cannot work; another release may."""
    async with EslServer(api=module(**status)) as server:
        findings = await examine(config_for(server))
    assert findings["versions"].status is expected


async def test_a_module_that_answers_nonsense() -> None:
    """A reply that cannot be read is a finding, not a traceback."""
    replies = {**module(), "listen status json": "-ERR what?", "listen workers json": "[]"}
    async with EslServer(api=replies) as server:
        findings = await examine(config_for(server))
    assert "-ERR what?" in findings["versions"].text
    assert findings["workers"].status is Status.FAIL


async def test_the_switch_uses_another_socket(tmp_path: Path) -> None:
    """Two different paths are the most likely reason that nothing works."""
    theirs = tmp_path / "theirs.sock"
    async with EslServer(api=module(handoff_socket=str(theirs))) as server:
        findings = await examine(config_for(server))
        assert findings["socket path"].status is Status.WARN
        assert f"PYLISTEN_HANDOFF_SOCKET={theirs}" in findings["socket path"].mend
        link = tmp_path / "link.sock"
        link.symlink_to(theirs)
        assert (await examine(config_for(server, link)))["socket path"].status is Status.OK


@contextmanager
def without_root() -> Iterator[None]:
    """Root may do anything; be somebody else for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_socket_without_rights(tmp_path: Path) -> None:
    """A socket that this user may not connect to: which setting gives the right."""
    path = tmp_path / "listen.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600 if os.geteuid() == 0 else 0)
        async with EslServer(api=module()) as server:
            config = config_for(server, path)
            with without_root():
                findings = await examine(config)
    assert findings["handoff"].status is Status.FAIL
    assert "permission denied" in findings["handoff"].text
    assert "handoff-group" in findings["handoff"].mend


async def test_a_user_that_the_switch_does_not_allow() -> None:
    """The switch itself may refuse the user, whatever the rights of the socket say."""
    async with SimulatedSwitch(allowed_uids=frozenset()) as switch:
        findings = await examine(config_of(switch))
    assert findings["handoff"].status is Status.FAIL
    assert "handoff-group" in findings["handoff"].mend


async def test_a_socket_that_is_not_there() -> None:
    """A missing socket is one that the module has not made, or that is elsewhere."""
    async with EslServer(api=module()) as server:
        findings = await examine(config_for(server))
    assert findings["handoff"].status is Status.FAIL
    assert "PYLISTEN_HANDOFF_SOCKET" in findings["handoff"].mend


async def test_the_password_that_everybody_knows() -> None:
    """FreeSWITCH's default password is fine on this machine, and unwise in a network."""
    local = Config(esl=EslConfig(port=1))
    remote = Config(esl=EslConfig(host="192.0.2.1", port=1))
    check = CHECKS[0].run
    assert (await check(local)).status is Status.OK
    assert (await check(remote)).status is Status.WARN


def test_a_bad_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a valid configuration there is one finding, and exit code 1."""
    assert report_bad_config(ConfigError("pylisten.toml: esl.port: found 0")) == 1
    assert capsys.readouterr().out.startswith("FAIL  configuration  pylisten.toml: esl.port")
