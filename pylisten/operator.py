"""The operator's side of ``uuid_listen`` and ``listen``: start, stop, look at listens.

`Operator` runs one command on the switch and prints what came of it, as a table for people or as
JSON for programs. `build_verb` turns the words of a command line into a verb.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pylisten.config import EslConfig
from pylisten.errors import PylistenError
from pylisten.esl import json_argument, one_shot
from pylisten.verb import parse_verb

__all__ = ["Operator", "Refused", "WordsError", "build_verb", "read_verb"]

TIMEOUT_S = 10.0

_PAIR = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# As in a dialplan: text by definition, so that finishOnKey=1 means the key 1.
_TEXTS = frozenset({"verb", "url", "id", "name", "profile", "mixType", "finishOnKey", "actionHook"})
_TEXTS_UNDER = ("actionHook.", "wsAuth.", "headers.")

_COLUMNS = {
    "uuid": "channel",
    "name": "name",
    "id": "listen",
    "worker": "worker",
    "state": "state",
    "sample_rate": "rate Hz",
    "mix_type": "mix",
    "duration_ms": "duration",
}


class WordsError(PylistenError):
    """The words of a command line do not make a verb."""


class Refused(PylistenError):
    """The switch said no; ``code`` is for programs, ``str()`` for people."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


# -- a verb from words ------------------------------------------------------------------------


def build_verb(words: Sequence[str]) -> dict[str, Any]:
    """Return the verb that ``<url>|{json}|@file [key=value …]`` means; raises WordsError.

    Dots in a key nest. A value is ``true``, ``false``, a number, JSON that begins with ``{`` or
    ``[``, or text; a value in quotes is always text.
    """
    first, rest = words[0], words[1:]
    if first.startswith(("{", "@")):
        verb = read_verb(first)
    elif _PAIR.fullmatch(first):
        verb, rest = {}, words
    else:
        verb = {"url": first}
    for word in rest:
        _add_pair(verb, word)
    return verb


def read_verb(text: str) -> dict[str, Any]:
    """Return the JSON object that *text* is, or that stands in the file it names by ``@file``."""
    source = "the verb"
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise WordsError(f"{source}: {error}") from None
    try:
        verb = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WordsError(f"{source}: not valid JSON: {error}") from None
    if not isinstance(verb, dict):
        raise WordsError(f"{source}: expected a JSON object")
    return verb


def _add_pair(verb: dict[str, Any], word: str) -> None:
    match = _PAIR.fullmatch(word)
    if match is None:
        raise WordsError(f"{word!r}: expected key=value")
    key, text = match.groups()
    *parents, last = key.split(".")
    at = verb
    for parent in parents:
        at = at.setdefault(parent, {}) if isinstance(at, dict) else {}
    if not last or "" in parents or not isinstance(at, dict) or last in at:
        raise WordsError(f"{key}: given twice, or as a value and as an object")
    at[last] = _value(key, text)


def _value(key: str, text: str) -> object:
    if text.startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError as error:
            raise WordsError(f"{key}: not valid JSON: {error}") from None
    if len(text) >= 2 and text[0] in "'\"" and text[0] == text[-1]:
        return text[1:-1]
    if key in _TEXTS or key.startswith(_TEXTS_UNDER):
        return text
    if text in ("true", "false") or _NUMBER.fullmatch(text):
        return json.loads(text)
    return text


# -- commands ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operator:
    """Runs commands on one switch, each on a connection of its own, and prints the outcome.

    The methods raise `Refused` if the switch says no, EslError if it cannot be asked, and
    VerbError if a verb is not valid.
    """

    esl: EslConfig
    as_json: bool = False

    async def start(self, uuid: str, verb: Mapping[str, Any]) -> None:
        """Start a background listen on the channel *uuid*; prints the id of the listen."""
        parse_verb(verb)  # a refusal by the worker would say the same, but only after the start
        listen_id = await self._ok(f"uuid_listen {uuid} start {json_argument(verb)}")
        self._say({"id": listen_id}, listen_id)

    async def stop(self, uuid: str, name: str | None = None) -> None:
        """End a listen of the channel."""
        await self._act(uuid, "stop", name)

    async def pause(self, uuid: str, name: str | None = None, mode: str | None = None) -> None:
        """Pause a listen: its server hears silence, or (*mode* ``drop``) nothing at all."""
        await self._act(uuid, "pause", name, mode)

    async def resume(self, uuid: str, name: str | None = None) -> None:
        """Let a paused listen go on."""
        await self._act(uuid, "resume", name)

    async def list(self, uuid: str | None = None) -> None:
        """Print all listens, or those of one channel."""
        listens = (await self._document("listen list json"))["listens"]
        rows = [row for row in listens if not uuid or row["uuid"] == uuid]
        self._say({"listens": rows}, _table(rows) if rows else "no listens")

    async def status(self) -> None:
        """Print how the switch and its workers are."""
        status = await self._document("listen status json")
        status["workers"] = (await self._document("listen workers json"))["workers"]
        self._say(status, "\n".join(_lines(status)))

    async def _act(self, uuid: str, *words: str | None) -> None:
        payload = await self._ok(" ".join(["uuid_listen", uuid, *filter(None, words)]))
        self._say({"id": payload}, f"{words[0]}: {payload or 'ok'}")

    async def _ok(self, command: str) -> str:
        """Run a command that answers ``+OK <payload>``."""
        reply = await self._reply(command)
        if not reply.startswith("+OK"):
            raise Refused("UNEXPECTED", f"the switch answered: {reply[:200]}")
        return reply.removeprefix("+OK").strip()

    async def _document(self, command: str) -> dict[str, Any]:
        """Run a command that answers with a JSON object."""
        reply = await self._reply(command)
        try:
            document = json.loads(reply)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Refused("UNEXPECTED", f"the switch answered: {reply[:200]}")
        return document

    async def _reply(self, command: str) -> str:
        esl = self.esl
        reply = await one_shot(esl.host, esl.port, esl.password, command, TIMEOUT_S)
        if reply.startswith("-USAGE:"):
            raise Refused("USAGE", f"the switch expected{reply.removeprefix('-USAGE')}")
        if reply.endswith("Command not found!"):
            raise Refused("NO_MODULE", "mod_listen is not loaded; `pylisten doctor` says more")
        if reply.startswith("-ERR"):
            code, _, text = reply.removeprefix("-ERR").strip().partition(" ")
            raise Refused(code or "REFUSED", text or code or "the switch refused")
        return reply

    def _say(self, document: Mapping[str, object], text: str) -> None:
        print(json.dumps(document, ensure_ascii=False) if self.as_json else text)


# -- for people -------------------------------------------------------------------------------


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [list(_COLUMNS.values())]
    for row in rows:
        shown = {**row, "duration_ms": _duration(row.get("duration_ms", 0))}
        cells.append([str(shown.get(key) or "-") for key in _COLUMNS])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _duration(duration_ms: int) -> str:
    seconds = duration_ms // 1000
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _lines(document: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    for key, value in document.items():
        label = f"{indent}{key.replace('_', ' ')}:"
        if isinstance(value, dict):
            yield label if value else f"{label} none"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield label if value else f"{label} none"
            for item in value:
                yield indent + "  " + ", ".join(f"{name} {text}" for name, text in item.items())
        else:
            yield f"{label} {value}"
