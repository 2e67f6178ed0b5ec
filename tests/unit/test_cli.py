"""The command line, as a user and a program meet it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pylisten import __version__
from pylisten.cli import main
from pylisten.operator import WordsError, build_verb
from pylisten.simulator import SimulatedCall, SimulatedSwitch
from tests.support.esl_server import EslServer
from tests.support.tones import silence
from tests.unit.simulator_hand import hand

UUID = "3f1c7a52-7d1c-4a0e-b1e2-0d4a7b9c1111"
URL = "ws://127.0.0.1:1/"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration file, and no variables of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PYLISTEN_")]:
        monkeypatch.delenv(name)


def run(*argv: str) -> int:
    """The exit code of a command."""
    try:
        return main(argv)
    except SystemExit as end:
        return int(end.code or 0)


def write(name: str, text: str) -> None:
    """A file in the working directory."""
    Path(name).write_text(text, encoding="utf-8")


async def run_on(server: EslServer | SimulatedSwitch, *argv: str) -> int:
    """The exit code of a command on this switch; the switch goes on meanwhile."""
    if isinstance(server, EslServer):
        port, password = server.port, server.password
    else:
        port, password = server.esl_port, server.esl_password
    flags = ["--esl-port", str(port), "--esl-password", password]
    return await asyncio.to_thread(run, *argv, *flags)


# -- the command itself -----------------------------------------------------------------------


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints name and version."""
    assert run("--version") == 0
    assert capsys.readouterr().out == f"pylisten {__version__}\n"


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_as_a_module(option: str) -> None:
    """python -m pylisten is the command."""
    done = subprocess.run(
        [sys.executable, "-m", "pylisten", option],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "pylisten" in done.stdout
    assert done.stderr == ""


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names every command that there is."""
    assert run("--help") == 0
    text = capsys.readouterr().out
    for command in ("serve", "start", "stop", "pause", "resume", "list", "status"):
        assert f"\n    {command} " in text
    for command in ("simulate", "doctor", "demo"):
        assert f"\n    {command} " in text


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("unknown",),
        ("start",),
        ("start", UUID),
        ("start", "a b", URL),
        ("start", f"{UUID}\nx", URL),
        ("start", UUID, URL, "no-pair"),
        ("start", UUID, "{broken"),
        ("start", UUID, "@missing.json"),
        ("stop",),
        ("stop", UUID, "two words"),
        ("pause", UUID, "--mode", "loud"),
        ("list", ""),
        ("serve", "--workers", "many"),
        ("serve", "--name", "no/name"),
        ("status", "--esl-port", "http"),
        ("simulate", "a.wav", URL, "--verb", "[]"),
        ("--log-level", "loud", "list"),
    ],
)
def test_wrong_usage(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage is exit code 2, and a sentence on stderr."""
    assert run(*argv) == 2
    assert "pylisten" in capsys.readouterr().err


def test_what_a_light_command_loads() -> None:
    """The command itself loads none of the heavy libraries; the commands do, when they run."""
    heavy = "{'numpy', 'gevent', 'pydantic', 'websockets'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, pylisten.cli; print({heavy} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == "set()\n"


def test_reader_that_goes_away() -> None:
    """`pylisten … | head` ends without a trace of Python."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pylisten", "--check-config"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


# -- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [("--check-config",), ("--check-config", "serve")])
def test_check_config_of_defaults(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--check-config checks, says so, and does no more, wherever it stands."""
    assert run(*argv) == 0
    assert "good" in capsys.readouterr().out


def test_check_config_names_the_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """A bad file is exit code 1, and a line that names file and key."""
    write("my.toml", "[esl]\nport = 'x'\n")
    assert run("--config", "my.toml", "--check-config") == 1
    err = capsys.readouterr().err
    assert "my.toml" in err
    assert "esl.port" in err
    assert run("serve", "--config", "my.toml", "--check-config") == 1
    assert run("list", "--config", "missing.toml") == 1
    assert "missing.toml" in capsys.readouterr().err


def test_check_config_checks_flags(capsys: pytest.CaptureFixture[str]) -> None:
    """Flags are a part of the configuration."""
    assert run("serve", "--workers", "0", "--check-config") == 1
    assert "flags: workers" in capsys.readouterr().err


async def test_file_environment_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags win over the environment, and the environment over the file."""
    async with EslServer(password="right", api={"listen list json": '{"listens": []}'}) as server:
        write("pylisten.toml", f"[esl]\nport = {server.port}\npassword = 'file'\n")
        assert await asyncio.to_thread(run, "list") == 1
        monkeypatch.setenv("PYLISTEN_ESL_PASSWORD", "right")
        assert await asyncio.to_thread(run, "list") == 0
        assert await asyncio.to_thread(run, "--esl-password", "flag", "list") == 1
        assert server.commands[0] == "auth file"
        assert server.commands[-1] == "auth flag"


def test_simulate_reports_what_it_cannot_play(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code of a simulated call is that of the command."""
    assert run("simulate", "missing.wav", URL) == 1
    assert "missing.wav" in capsys.readouterr().out
    write("pylisten.toml", "nonsense = 1\n")
    assert run("simulate", "missing.wav", URL) == 1
    assert "nonsense" in capsys.readouterr().err


async def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    """doctor examines the configured switch, and says what is wrong with a configuration."""
    async with SimulatedSwitch() as switch:
        flags = ("--handoff-socket", str(switch.handoff_socket), "--json")
        assert await run_on(switch, "doctor", *flags) == 0
        assert json.loads(capsys.readouterr().out)["ok"] is True
    write("pylisten.toml", "nonsense = 1\n")
    assert await asyncio.to_thread(run, "doctor") == 1
    assert capsys.readouterr().out.startswith("FAIL  configuration")


# -- operators, on the simulated switch -------------------------------------------------------


async def test_a_listen_from_start_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    """start, list, pause, resume and stop, for people."""
    async with SimulatedSwitch() as switch, hand(switch, "w1") as worker:
        call = SimulatedCall(silence(60_000, 8000), 8000)
        switch.add(call)
        start = asyncio.create_task(run_on(switch, "start", call.uuid, URL, "name=bot"))
        listen = await worker.take()
        assert await start == 0
        assert capsys.readouterr().out == f"{listen['id']}\n"

        assert await run_on(switch, "list") == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head.split()[:4] == ["channel", "name", "listen", "worker"]
        assert row.split()[:7] == [call.uuid, "bot", listen["id"], "w1", "live", "8000", "mono"]
        assert await run_on(switch, "list", "another-channel") == 0
        assert capsys.readouterr().out == "no listens\n"

        assert await run_on(switch, "pause", call.uuid, "bot", "--mode", "drop") == 0
        paused = await worker.event("listen::command")
        assert (paused["Listen-Command"], paused["Listen-Argument"]) == ("pause", "drop")
        assert await run_on(switch, "resume", call.uuid, "bot") == 0
        assert (await worker.event("listen::command"))["Listen-Command"] == "resume"
        assert await run_on(switch, "stop", call.uuid) == 1
        assert "no such listen on this channel" in capsys.readouterr().err
        assert await run_on(switch, "stop", call.uuid, "bot") == 0
        assert (await worker.event("listen::end"))["Listen-Reason"] == "stopped"


async def test_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """--json gives one JSON document on stdout, for success and for failure."""

    def document() -> Any:
        return json.loads(capsys.readouterr().out)

    async with SimulatedSwitch() as switch, hand(switch, "w1") as worker:
        call = SimulatedCall(silence(60_000, 8000), 8000)
        switch.add(call)
        start = asyncio.create_task(run_on(switch, "start", call.uuid, URL, "--json"))
        listen = await worker.take()
        assert await start == 0
        assert document() == {"id": listen["id"]}
        assert await run_on(switch, "list", call.uuid, "--json") == 0
        assert [row["id"] for row in document()["listens"]] == [listen["id"]]
        assert await run_on(switch, "status", "--json") == 0
        status = document()
        assert status["live"] == 1
        assert [one["name"] for one in status["workers"]] == ["w1"]
        assert await run_on(switch, "stop", "another", "--json") == 1
        assert document()["error"]["code"] == "NO_SUCH_CHANNEL"


async def test_status_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """status shows counters and workers, a line each."""
    async with SimulatedSwitch() as switch, hand(switch, "w1"):
        assert await run_on(switch, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "live: 0" in lines
    assert any("name w1" in line for line in lines)


# -- operators, and what goes wrong -----------------------------------------------------------


async def test_a_bad_verb_is_refused_before_the_switch_hears_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The path and what was expected, as the worker would say it."""
    async with EslServer() as server:
        assert await run_on(server, "start", UUID, URL, "sampleRate=11025") == 1
        assert server.connections == 0
    assert "sampleRate: found 11025, expected one of 8000" in capsys.readouterr().err


async def test_the_verb_reaches_the_switch_unchanged() -> None:
    """A verb from a file goes out on one line, as it is, with what the flags add."""
    verb = {"url": URL, "metadata": {"text": "ä\n\"'", "reload": "mod_event_socket"}}
    write("verb.json", json.dumps(verb))
    async with EslServer(api=lambda command: "+OK 1\n") as server:
        assert await run_on(server, "start", UUID, "@verb.json", "mixType=stereo") == 0
    sent = server.commands[-1].removeprefix(f"api uuid_listen {UUID} start ")
    assert "\n" not in sent
    assert json.loads(sent) == {**verb, "mixType": "stereo"}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("-ERR NO_WORKER no worker is attached\n", "pylisten: no worker is attached\n"),
        ("-ERR\n", "pylisten: the switch refused\n"),
        ("-USAGE: uuid_listen <uuid>\n", "pylisten: the switch expected: uuid_listen <uuid>\n"),
        ("-ERR uuid_listen Command not found!\n", "mod_listen is not loaded"),
        ("what?", "the switch answered: what?"),
    ],
)
async def test_the_switch_says_no(
    reply: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each refusal is exit code 1, and its text on stderr."""
    async with EslServer(api=lambda command: reply) as server:
        assert await run_on(server, "stop", UUID) == 1
    assert text in capsys.readouterr().err


async def test_a_reply_that_is_no_document(capsys: pytest.CaptureFixture[str]) -> None:
    """A list that is no JSON is no traceback."""
    async with EslServer(api=lambda command: "[1]") as server:
        assert await run_on(server, "list") == 1
    assert "the switch answered: [1]" in capsys.readouterr().err


async def test_wrong_password(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the setting."""
    async with EslServer(password="other") as server:
        flags = ("--esl-port", str(server.port))
        assert await asyncio.to_thread(run, "list", *flags) == 1
    assert "PYLISTEN_ESL_PASSWORD" in capsys.readouterr().err


async def test_no_switch(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody there: exit code 1 and one line, in JSON as well."""
    async with EslServer() as server:
        await server.close()
        assert await run_on(server, "list") == 1
        assert "cannot be reached" in capsys.readouterr().err
        assert await run_on(server, "list", "--json") == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "EslLost"
        await server.listen(server.port)


# -- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ([URL], {"url": URL}),
        ([f"{URL}?a=b"], {"url": f"{URL}?a=b"}),
        (["profile=bot"], {"profile": "bot"}),
        ([URL, "sampleRate=16000"], {"url": URL, "sampleRate": 16000}),
        ([URL, "maxLength=1.5"], {"url": URL, "maxLength": 1.5}),
        ([URL, "passDtmf=true"], {"url": URL, "passDtmf": True}),
        ([URL, "finishOnKey=1"], {"url": URL, "finishOnKey": "1"}),
        ([URL, "metadata.a=007"], {"url": URL, "metadata": {"a": "007"}}),
        ([URL, "metadata.a='7'"], {"url": URL, "metadata": {"a": "7"}}),
        ([URL, 'metadata={"a": [1]}'], {"url": URL, "metadata": {"a": [1]}}),
        (
            [URL, "wsAuth.username=u", "wsAuth.password=1"],
            {"url": URL, "wsAuth": {"username": "u", "password": "1"}},
        ),
        (['{"url": "ws://h/"}', "name=a"], {"url": "ws://h/", "name": "a"}),
    ],
)
def test_verb_from_words(words: list[str], verb: dict[str, Any]) -> None:
    """Words mean what they mean in a dialplan."""
    assert build_verb(words) == verb


@pytest.mark.parametrize(
    "words",
    [
        [URL, "name=a", "name=b"],
        [URL, "a=1", "a.b=2"],
        [URL, "a.b=2", "a=1"],
        [URL, "a..b=2"],
        [URL, "a.=2"],
        [URL, "a={"],
        [URL, "=1"],
        ["{}", "1=1"],
    ],
)
def test_words_that_make_no_verb(words: list[str]) -> None:
    """What cannot be understood is refused, not guessed at."""
    with pytest.raises(WordsError):
        build_verb(words)


@pytest.fixture(autouse=True)
def _log_as_before() -> Any:
    """The command sets up logging; the tests after it want their own."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [one for one in root.handlers if one not in handlers]:
        with contextlib.suppress(ValueError):
            root.removeHandler(handler)
