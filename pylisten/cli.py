"""The command ``pylisten``: exit codes 0 ok, 1 failed, 2 wrong usage.

Each command imports what it needs when it runs, so that ``pylisten list`` does not load the
libraries of a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pylisten import __version__
from pylisten.errors import ConfigError, PylistenError

if TYPE_CHECKING:
    from pylisten.config import Config
    from pylisten.operator import Operator

__all__ = ["main"]

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_LEVELS = ("debug", "info", "warning", "error")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; *argv* are its arguments without its name. Returns the exit code."""
    parser = _parser()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what users typed need not be encodable
            stream.reconfigure(errors="backslashreplace")
    args = parser.parse_args(argv)
    try:
        code = _run(parser, args)
        sys.stdout.flush()
    except PylistenError as error:
        return _failed(error, as_json=getattr(args, "json", False))
    except BrokenPipeError:
        # Whoever read us has read enough; the interpreter must not try to flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if getattr(args, "check_config", False):
        return _check_config(args)
    if args.command is None:
        parser.print_usage(sys.stderr)
        print("pylisten: name a command; --help lists them", file=sys.stderr)
        return USAGE
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _failed(error: PylistenError, *, as_json: bool) -> int:
    """Say what went wrong: to people on stderr, to programs on stdout."""
    if as_json:
        code = getattr(error, "code", type(error).__name__)
        print(json.dumps({"error": {"code": code, "text": str(error)}}, ensure_ascii=False))
    else:
        print(f"pylisten: {error}", file=sys.stderr)
    return FAILED


# -- arguments --------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    common = _common_options()
    parser = argparse.ArgumentParser(
        prog="pylisten",
        description="Streams live audio of FreeSWITCH calls to WebSocket servers.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"pylisten {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", title="commands")

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        command.set_defaults(run=run)
        return command

    _add_serve(add("serve", _serve, "Run a worker: attach to the switch and serve its listens."))
    _add_start(add("start", _start, "Start a listen on a channel."))
    _add_channel(add("stop", _stop, "End a listen."))
    pause = add("pause", _pause, "Pause a listen.")
    _add_channel(pause)
    pause.add_argument("--mode", choices=("silence", "drop"), help="what the server gets meanwhile")
    _add_channel(add("resume", _resume, "Let a paused listen go on."))
    listing = add("list", _list, "List the listens.")
    listing.add_argument("uuid", nargs="?", type=_word, help="only of this channel")
    _add_json(listing)
    _add_json(add("status", _status, "Show how the switch and its workers are."))
    _add_simulate(add("simulate", _simulate, "Play an audio file to a server, as a call would."))
    _add_json(add("doctor", _doctor, "Check everything, and say how to mend what is wrong."))
    demo = add("demo", _demo, "A call, a worker and an echo bot, without a switch.")
    demo.add_argument("--out", type=Path, default=Path("demo-out"), help="default: %(default)s")
    return parser


def _common_options() -> argparse.ArgumentParser:
    """Options that may stand before and after the command."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", type=Path, metavar="FILE", help="the configuration (TOML)")
    common.add_argument(
        "--check-config", action="store_true", help="check the configuration, and do no more"
    )
    common.add_argument("--log-level", choices=_LEVELS)
    common.add_argument("--esl-host", metavar="HOST", help="of FreeSWITCH's event socket")
    common.add_argument("--esl-port", type=int, metavar="PORT")
    common.add_argument(
        "--esl-password", metavar="PASSWORD", help="others can see it: better PYLISTEN_ESL_PASSWORD"
    )
    common.add_argument("--handoff-socket", type=Path, metavar="PATH", help="of mod_listen")
    return common


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="answer in JSON, for programs")


def _add_channel(command: argparse.ArgumentParser) -> None:
    command.add_argument("uuid", type=_word, help="the channel")
    command.add_argument("name", type=_word, nargs="?", help="of the listen; default: listen")
    _add_json(command)


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=int, metavar="N", help="so many processes")
    command.add_argument("--name", type=_worker_name, help="of the worker, unique per switch")


def _add_start(command: argparse.ArgumentParser) -> None:
    command.add_argument("uuid", type=_word, help="the channel")
    command.add_argument(
        "verb",
        nargs="+",
        metavar="verb",
        help="<url> or {json} or @file.json, then any number of key=value",
    )
    _add_json(command)


def _add_simulate(command: argparse.ArgumentParser) -> None:
    command.add_argument("audio", type=Path, help="what the caller says")
    command.add_argument("url", help="of the server: ws://… or wss://…")
    command.add_argument("--verb", metavar="JSON", help="further properties, or @file.json")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write WAV and picture")


def _word(text: str) -> str:
    """An argument that goes into a command of the switch as one word."""
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a uuid or a name")
    return text


def _worker_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,31}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: 1 to 31 of A-Z a-z 0-9 . _ - are allowed")
    return text


# -- configuration ----------------------------------------------------------------------------


def _config(args: argparse.Namespace) -> Config:
    from pylisten.config import load_config

    names = ("log_level", "handoff_socket", "workers")
    flags = {name: getattr(args, name, None) for name in names}
    for name in ("host", "port", "password"):
        flags[f"esl.{name}"] = getattr(args, f"esl_{name}", None)
    return load_config(getattr(args, "config", None), flags)


def _check_config(args: argparse.Namespace) -> int:
    from pylisten.config import find_config

    _config(args)
    file = find_config(getattr(args, "config", None))
    print(f"the configuration is good ({file or 'no file: environment and defaults'})")
    return OK


def _log(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )


# -- commands ---------------------------------------------------------------------------------


def _serve(args: argparse.Namespace) -> int:
    config = _config(args)
    _log(config.log_level)
    from pylisten.serve import serve

    return serve(config, workers=args.workers, name=args.name)


def _operate(args: argparse.Namespace, work: Callable[[Operator], Awaitable[None]]) -> int:
    _log(getattr(args, "log_level", "warning"))
    config = _config(args)
    from pylisten.operator import Operator

    async def run() -> None:
        await work(Operator(config.esl, as_json=args.json))

    asyncio.run(run())
    return OK


def _start(args: argparse.Namespace) -> int:
    from pylisten.operator import WordsError, build_verb

    try:
        verb = build_verb(args.verb)
    except WordsError as error:
        _exit_usage(str(error))
    return _operate(args, lambda operator: operator.start(args.uuid, verb))


def _stop(args: argparse.Namespace) -> int:
    return _operate(args, lambda operator: operator.stop(args.uuid, args.name))


def _pause(args: argparse.Namespace) -> int:
    return _operate(args, lambda operator: operator.pause(args.uuid, args.name, args.mode))


def _resume(args: argparse.Namespace) -> int:
    return _operate(args, lambda operator: operator.resume(args.uuid, args.name))


def _list(args: argparse.Namespace) -> int:
    return _operate(args, lambda operator: operator.list(args.uuid))


def _status(args: argparse.Namespace) -> int:
    return _operate(args, lambda operator: operator.status())


def _doctor(args: argparse.Namespace) -> int:
    _log(getattr(args, "log_level", "error"))
    from pylisten.doctor import doctor, report_bad_config

    try:
        config = _config(args)
    except ConfigError as error:
        return report_bad_config(error, as_json=args.json)
    return asyncio.run(doctor(config, as_json=args.json))


def _simulate(args: argparse.Namespace) -> int:
    _log(getattr(args, "log_level", "warning"))
    from pylisten.operator import WordsError, read_verb
    from pylisten.simulator.simulate import simulate

    try:
        verb = read_verb(args.verb) if args.verb else None
    except WordsError as error:
        _exit_usage(str(error))
    config = _config(args)
    return asyncio.run(simulate(args.audio, args.url, verb=verb, out=args.out, config=config))


def _demo(args: argparse.Namespace) -> int:
    _log(getattr(args, "log_level", "warning"))
    from pylisten.simulator.demo import demo

    return asyncio.run(demo(out=args.out))


def _exit_usage(text: str) -> NoReturn:
    print(f"pylisten: {text}", file=sys.stderr)
    raise SystemExit(USAGE)
