"""Private FreeSWITCH instances: booted from freeswitch-conf/ in directories of their own.

They use free loopback ports, are ended by their process id, and leave nothing behind.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.child import Child
from tests.support.eslclient import EslClient, EslError
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / "freeswitch-conf"
MODULE = ROOT / "mod_listen" / "mod_listen.so"
CERTIFICATE = Path(__file__).parent / "tls" / "localhost.pem"
ESL_PASSWORD = "a-password-of-the-tests"

_READY_S = 30.0
_RTP_PORTS = 800
_DIRECTORIES = {
    "-log": "log",
    "-db": "db",
    "-run": "run",
    "-temp": "tmp",
    "-storage": "storage",
    "-recordings": "recordings",
    "-cache": "cache",
    "-scripts": "scripts",
    "-htdocs": "htdocs",
    "-grammar": "grammar",
    "-certs": "certs",
    "-sounds": "sounds",
}


@dataclass(frozen=True)
class Installation:
    """An installed FreeSWITCH."""

    prefix: Path
    version: str

    @property
    def binary(self) -> Path:
        return self.prefix / "bin" / "freeswitch"

    def __str__(self) -> str:
        return f"{self.version} at {self.prefix}"


def find_installation() -> Installation | None:
    """Looks where ``FREESWITCH_PREFIX`` says; without it, asks pkg-config."""
    given = os.environ.get("FREESWITCH_PREFIX")
    prefix = Path(given) if given else _pkg_config_prefix()
    if prefix is None or not os.access(prefix / "bin" / "freeswitch", os.X_OK):
        return None
    shown = subprocess.run(
        [prefix / "bin" / "freeswitch", "-version"], capture_output=True, text=True, check=False
    )
    version = re.search(r"\d+\.\d+\.\d+", shown.stdout)
    return Installation(prefix, version[0]) if version else None


def _pkg_config_prefix() -> Path | None:
    known = [os.environ.get("PKG_CONFIG_PATH"), "/usr/local/freeswitch/lib/pkgconfig"]
    env = {**os.environ, "PKG_CONFIG_PATH": ":".join(path for path in known if path)}
    try:
        shown = subprocess.run(
            ["pkg-config", "--variable=prefix", "freeswitch"],
            capture_output=True,
            text=True,
            check=False,
            env=env,
        )
    except FileNotFoundError:
        return None
    return Path(shown.stdout.strip()) if shown.returncode == 0 and shown.stdout.strip() else None


class PrivateSwitch:
    """One FreeSWITCH of our own.

    `settings` replace values of listen.conf.xml, `variables` those of vars.xml; `extensions` are
    dialplan files that are added to the context. With `module` None mod_listen is not loaded;
    without `sql` FreeSWITCH keeps no database of its channels, which spares time.
    It belongs to no event loop: fixtures of any scope may own it.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        module: Path | None = MODULE,
        settings: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        extensions: tuple[Path, ...] = (),
        sql: bool = False,
    ) -> None:
        self.installation = installation
        self.sql = sql
        self.module = module
        # Short: the path of a Unix socket has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="fs-", dir="/tmp"))
        self.esl_port = _free_port(socket.SOCK_STREAM)
        self.sip_port = _free_port(socket.SOCK_DGRAM)
        self._child: Child | None = None
        self._prepare(settings or {}, variables or {}, extensions)

    @property
    def child(self) -> Child:
        """The process; its helpers tell threads, descriptors, memory and logs."""
        assert self._child is not None, "the switch was not started"
        return self._child

    @property
    def handoff_socket(self) -> Path:
        return self.directory / "run" / "listen.sock"

    @property
    def listen_conf(self) -> Path:
        return self.directory / "conf" / "autoload_configs" / "listen.conf.xml"

    @property
    def log_path(self) -> Path:
        return self.directory / "log" / "freeswitch.log"

    async def start(self) -> None:
        """Boots the switch and waits until it is ready for calls."""
        argv: list[str | Path] = [self.installation.binary, "-nf", "-nc", "-np", "-nonat", "-nocal"]
        argv += [] if self.sql else ["-nosql"]
        argv += ["-conf", self.directory / "conf" / "minimal"]
        for option, name in _DIRECTORIES.items():
            argv += [option, self.directory / name]
        self._child = Child("freeswitch", argv, self.directory)
        self._child.log_paths.append(self.log_path)
        try:
            await eventually(self._is_ready, _READY_S, "FreeSWITCH ready for calls")
        except AssertionError as error:
            error.add_note(self._child.tail())
            if self._child.alive:
                await self._child.kill9()
            raise

    async def _is_ready(self) -> bool:
        assert self.child.alive, "FreeSWITCH ended at its start"
        try:
            async with self.esl() as esl:
                return await esl.api("fsctl ready_check") == "true"
        except EslError:
            return False

    async def stop(self) -> None:
        """Shuts the switch down, makes sure that it is gone and ended well, removes its files."""
        try:
            if self._child is not None:
                await self._shut_down(self._child)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    async def _shut_down(self, child: Child) -> None:
        try:
            status = await child.terminate(20)
        except subprocess.TimeoutExpired:
            tail = child.tail()
            await child.kill9()
            raise AssertionError(f"FreeSWITCH hung while shutting down\n{tail}") from None
        assert status == 0, f"FreeSWITCH ended with {status}\n{child.tail()}"
        assert not child.exists()

    async def restart(self) -> None:
        """Stops and starts again on the same ports, with the same configuration."""
        await self._shut_down(self.child)
        await self.start()

    async def kill9(self) -> None:
        """Ends the switch without a warning; :meth:`start` starts it again."""
        await self.child.kill9()

    async def remove(self) -> None:
        """Ends a switch that may be broken, without any demands on how it ends."""
        if self._child is not None and self._child.alive:
            await self._child.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)

    @asynccontextmanager
    async def esl(self) -> AsyncIterator[EslClient]:
        """A connection of one's own to the event socket."""
        async with EslClient(self.esl_port, ESL_PASSWORD) as client:
            yield client

    @asynccontextmanager
    async def events(self, names: str) -> AsyncIterator[EslClient]:
        """A connection that has subscribed to events, for example ``CUSTOM listen::end``."""
        async with self.esl() as client:
            await client.subscribe(names)
            yield client

    async def api(self, command: str) -> str:
        """Runs an API command."""
        try:
            async with self.esl() as client:
                return await client.api(command)
        except EslError as error:
            state = "is alive" if self.child.alive else f"died: {self.child.process.returncode}"
            raise AssertionError(f"{command!r}: {error}; FreeSWITCH {state}") from error

    async def json(self, command: str) -> Any:
        """Runs an API command that answers with JSON."""
        text = await self.api(command)
        try:
            return json.loads(text)
        except ValueError:
            raise AssertionError(f"{command!r} did not answer with JSON: {text!r}") from None

    async def variable(self, uuid: str, name: str) -> str:
        """A variable of a channel; empty if it is not set."""
        value = await self.api(f"uuid_getvar {uuid} {name}")
        assert not value.startswith("-ERR"), f"{name} of {uuid}: {value}"
        return "" if value == "_undef_" else value

    async def channels(self) -> int:
        """How many channels there are."""
        match = re.search(r"^(\d+) session\(s\) - peak", await self.api("status"), re.M)
        assert match is not None, "unknown form of status"
        return int(match[1])

    async def exists(self, uuid: str) -> bool:
        return await self.api(f"uuid_exists {uuid}") == "true"

    async def load_module(self) -> str:
        return await self.api(f"load {self.module}")

    async def unload_module(self) -> str:
        return await self.api("unload mod_listen")

    def write_settings(self, settings: Mapping[str, str]) -> None:
        """Changes values in the instance's listen.conf.xml; unknown names are an error."""
        text = self.listen_conf.read_text()
        for name, value in settings.items():
            pattern = rf'(<param name="{re.escape(name)}" value=")[^"]*(")'
            text, count = re.subn(pattern, rf"\g<1>{value}\g<2>", text)
            assert count == 1, f"listen.conf.xml has no setting {name}"
        self.listen_conf.write_text(text)

    def _prepare(
        self,
        settings: Mapping[str, str],
        variables: Mapping[str, str],
        extensions: tuple[Path, ...],
    ) -> None:
        conf = self.directory / "conf"
        shutil.copytree(CONFIGURATION, conf)
        for name in _DIRECTORIES.values():
            (self.directory / name).mkdir()
        # Made at the first start otherwise, which takes seconds.
        for name in ("dtls-srtp.pem", "wss.pem"):
            shutil.copy(CERTIFICATE, self.directory / "certs" / name)
        for path in extensions:
            shutil.copy(path, conf / "minimal" / "dialplan")
        if self.module is None:
            _substitute(
                conf / "minimal" / "autoload_configs" / "modules.conf.xml",
                r'<load module="\$\$\{listen_module\}"/>',
                "",
            )
        rtp_port = _free_port_range(_RTP_PORTS)
        given = {
            "listen_module": str(self.module),
            "esl_port": str(self.esl_port),
            "esl_password": ESL_PASSWORD,
            "sip_port": str(self.sip_port),
            "sip_codecs": "PCMU,PCMA,L16@16000h@20i,L16@8000h@20i,OPUS,G722",
            "sip_call_id_as_uuid": "true",
            "rtp_start_port": str(rtp_port),
            "rtp_end_port": str(rtp_port + _RTP_PORTS - 2),
            "switch_name": self.directory.name,
            "log_level": "info",
            **variables,
        }
        for name, value in given.items():
            _substitute(
                conf / "minimal" / "vars.xml", rf'data="{name}=[^"]*"', f'data="{name}={value}"'
            )
        self.write_settings(settings)


def _substitute(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, lambda _: replacement, path.read_text())
    assert count == 1, f"{path.name} should have {pattern} once, has it {count} times"
    path.write_text(text)


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _free_port_range(count: int) -> int:
    """The first of `count` UDP ports that are free now, below those the kernel gives away."""
    for _ in range(50):
        first = random.randrange(10000, 32000 - count, 2)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"no {count} free UDP ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
