"""``pylisten doctor``: looks at everything that a worker needs, and says how to mend what is wrong.

Each check is a small function that returns a `Finding`; `CHECKS` puts them in order. A check is
skipped when one that it builds on has failed.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pylisten import __version__
from pylisten.config import Config
from pylisten.errors import ConfigError, PylistenError, ShmError
from pylisten.esl import EslAuthError, EslDenied, EslError, one_shot

__all__ = ["CHECKS", "Check", "Finding", "Status", "doctor", "examine", "report_bad_config"]

TIMEOUT_S = 5.0


class Status(StrEnum):
    """What a check found. Only FAIL makes the command fail."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True)
class Finding:
    """What a check found, and, where something is wrong, how to mend it."""

    status: Status
    text: str
    mend: str = ""


@dataclass(frozen=True)
class Check:
    """One check: its name, what does it, and the checks that it builds on."""

    name: str
    run: Callable[[Config], Awaitable[Finding]]
    needs: tuple[str, ...] = ()


def _ok(text: str) -> Finding:
    return Finding(Status.OK, text)


# -- the checks -------------------------------------------------------------------------------


async def check_configuration(config: Config) -> Finding:
    """The configuration has been read; is it a wise one?"""
    is_local = config.esl.host in ("127.0.0.1", "::1", "localhost")
    if config.esl.password == "ClueCon" and not is_local:
        return Finding(
            Status.WARN,
            "the password of the event socket is the one that everybody knows",
            "set another one in event_socket.conf.xml, and PYLISTEN_ESL_PASSWORD",
        )
    return _ok("valid")


async def check_compiled_part(config: Config) -> Finding:
    """The C code that is shared with the switch can be loaded."""
    try:
        from pylisten import shm
    except ImportError as error:
        return Finding(
            Status.FAIL,
            f"pylisten._shm cannot be loaded: {error}",
            "install pylisten again, in a source tree by `python setup.py build_ext --inplace`",
        )
    return _ok(f"ABI {shm.ABI_MAJOR}.{shm.ABI_MINOR}")


async def check_event_socket(config: Config) -> Finding:
    """Something listens where the event socket should be."""
    host, port = config.esl.host, config.esl.port
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except (OSError, UnicodeError) as error:
        return Finding(
            Status.FAIL,
            f"nobody answers at {host}:{port}: {error or 'time-out'}",
            "start FreeSWITCH, load mod_event_socket, or set PYLISTEN_ESL_HOST and"
            " PYLISTEN_ESL_PORT to listen-ip and listen-port of event_socket.conf.xml",
        )
    return _ok(f"{host}:{port} answers")


async def check_password(config: Config) -> Finding:
    """The switch lets us in."""
    try:
        await _api(config, "status")
    except EslAuthError:
        return Finding(
            Status.FAIL,
            "the switch refused the password",
            "set PYLISTEN_ESL_PASSWORD to the one in event_socket.conf.xml",
        )
    except EslDenied:
        return Finding(
            Status.FAIL,
            "the switch refuses this address",
            "allow it by apply-inbound-acl in event_socket.conf.xml",
        )
    except EslError as error:
        return Finding(
            Status.FAIL, str(error), "is it an event socket of FreeSWITCH that listens there?"
        )
    return _ok("accepted")


async def check_module(config: Config) -> Finding:
    """mod_listen is loaded."""
    if await _api(config, "module_exists mod_listen") == "true":
        return _ok("mod_listen is loaded")
    return Finding(
        Status.FAIL,
        "mod_listen is not loaded",
        "`fs_cli -x 'load mod_listen'`, and a line for it in modules.conf.xml;"
        " `make install` puts the module in its place",
    )


async def check_versions(config: Config) -> Finding:
    """The module and this package speak the same ABI, and come from the same release."""
    from pylisten import shm

    status = await _document(config, "listen status json")
    abi, version = str(status.get("abi")), str(status.get("version"))
    same = "install mod_listen and pylisten from the same release, and restart both"
    if abi.partition(".")[0] != str(shm.ABI_MAJOR):
        ours = f"{shm.ABI_MAJOR}.{shm.ABI_MINOR}"
        return Finding(Status.FAIL, f"mod_listen speaks ABI {abi}, pylisten {ours}", same)
    if version != __version__:
        return Finding(Status.WARN, f"mod_listen is {version}, pylisten {__version__}", same)
    return _ok(f"mod_listen {version}, ABI {abi}")


async def check_socket_path(config: Config) -> Finding:
    """The switch listens on the handoff socket that we are going to use."""
    status = await _document(config, "listen status json")
    theirs, ours = Path(str(status.get("handoff_socket"))), config.handoff_socket
    if _same_place(theirs, ours):
        return _ok(str(theirs))
    return Finding(
        Status.WARN,
        f"the switch uses {theirs}, pylisten {ours}",
        f"set PYLISTEN_HANDOFF_SOCKET={theirs}, unless that is this path inside a container",
    )


def _same_place(one: Path, other: Path) -> bool:
    return one == other or one.resolve() == other.resolve()


async def check_handoff(config: Config) -> Finding:
    """The switch hands its memory over to us, as it would to a worker."""
    from pylisten.handoff import Handoff, HandoffError

    try:
        handoff = await Handoff.connect(config.handoff_socket, f"doctor-{os.getpid()}")
    except (HandoffError, ShmError) as error:
        return Finding(Status.FAIL, str(error), _mend_handoff(error))
    handoff.close()
    return _ok(f"{config.handoff_socket} hands over")


def _mend_handoff(error: Exception) -> str:
    if isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
        return "load mod_listen, or set PYLISTEN_HANDOFF_SOCKET to its handoff-socket"
    if isinstance(error.__cause__, PermissionError) or getattr(error, "status", 0) == 3:
        return (
            "run pylisten as a member of the group that handoff-group in listen.conf.xml names;"
            " the directories above the socket must let it through as well"
        )
    return "the log of FreeSWITCH says more"


async def check_workers(config: Config) -> Finding:
    """Somebody is there to serve listens."""
    workers = (await _document(config, "listen workers json")).get("workers", [])
    names = [str(worker["name"]) for worker in workers]
    names = [name for name in names if not name.startswith("doctor-")]
    if not names:
        return Finding(
            Status.WARN, "no worker is attached: listens end with no-worker", "`pylisten serve`"
        )
    return _ok(f"{len(names)} attached: {', '.join(names)}")


CHECKS = (
    Check("configuration", check_configuration),
    Check("compiled part", check_compiled_part),
    Check("event socket", check_event_socket),
    Check("password", check_password, ("event socket",)),
    Check("module", check_module, ("password",)),
    Check("versions", check_versions, ("module", "compiled part")),
    Check("socket path", check_socket_path, ("module",)),
    Check("handoff", check_handoff, ("compiled part",)),
    Check("workers", check_workers, ("module",)),
)


async def _api(config: Config, command: str) -> str:
    esl = config.esl
    return await one_shot(esl.host, esl.port, esl.password, command, TIMEOUT_S)


async def _document(config: Config, command: str) -> dict[str, Any]:
    """Run a command that answers with a JSON object; raises PylistenError if it does not."""
    reply = await _api(config, command)
    try:
        document = json.loads(reply)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise PylistenError(f"'{command}' was answered by: {reply[:100]}")
    return document


# -- running and reporting --------------------------------------------------------------------


async def examine(config: Config) -> dict[str, Finding]:
    """Run all checks, in order; returns the findings by the names of the checks."""
    findings: dict[str, Finding] = {}
    for check in CHECKS:
        missing = [
            need for need in check.needs if findings[need].status in (Status.FAIL, Status.SKIP)
        ]
        if missing:
            findings[check.name] = Finding(Status.SKIP, f"needs {' and '.join(missing)}")
            continue
        try:
            findings[check.name] = await check.run(config)
        except PylistenError as error:
            findings[check.name] = Finding(
                Status.FAIL, str(error), "the log of FreeSWITCH says more"
            )
    return findings


async def doctor(config: Config, *, as_json: bool = False) -> int:
    """Run all checks and print what they found; returns the exit code, 1 if one failed."""
    return _report(await examine(config), as_json=as_json)


def report_bad_config(error: ConfigError, *, as_json: bool = False) -> int:
    """Print what `doctor` has to say where there is no valid configuration to begin with."""
    text = "; ".join(str(error).splitlines())
    finding = Finding(Status.FAIL, text, "correct it; `pylisten --check-config` says if it is good")
    return _report({"configuration": finding}, as_json=as_json)


def _report(findings: dict[str, Finding], *, as_json: bool) -> int:
    failed = any(finding.status is Status.FAIL for finding in findings.values())
    if as_json:
        checks = [{"check": name, **asdict(finding)} for name, finding in findings.items()]
        print(json.dumps({"ok": not failed, "checks": checks}, ensure_ascii=False))
        return int(failed)
    for name, finding in findings.items():
        mend = f" → {finding.mend}" if finding.mend else ""
        print(f"{finding.status:4}  {name:13}  {finding.text}{mend}")
    return int(failed)
