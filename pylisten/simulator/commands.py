"""The API commands of the simulated switch: their syntax and their replies, as mod_listen's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pylisten import __version__
from pylisten.simulator.esl import ApiCommand
from pylisten.simulator.listen import Listen
from pylisten.simulator.report import (
    REASONS,
    compact,
    report_list,
    report_status,
    report_workers,
)
from pylisten.simulator.request import Refusal

if TYPE_CHECKING:
    from pylisten.simulator.switch import SimulatedSwitch

__all__ = ["Commands"]

DEFAULT_NAME: Final = "listen"
PAUSE_MODES: Final = ("silence", "drop")

UUID_LISTEN_SYNTAX: Final = (
    "uuid_listen <uuid> start <url> [key=value ...]|{json} | stop|kill|resume [name] | "
    "pause [name] [silence|drop] | send [name] <text> | list [json]"
)
LISTEN_SYNTAX: Final = "listen status|list|workers|reload|drain <worker> [json]"
LISTEN_CTL_SYNTAX: Final = "listen_ctl describe|accept <listen-id> | event|end <listen-id> {json}"

WORKER_EVENTS: Final = (
    "connect",
    "reconnect",
    "dtmf",
    "play_start",
    "play_done",
    "message",
    "transcription",
)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]+")
_RESERVED: Final = frozenset({"listen-version", "listen-id", "listen-name", "listen-worker"})


class _UsageError(Exception):
    """A command that is answered by its syntax."""


class Commands:
    """Answers API commands on behalf of a switch."""

    def __init__(self, switch: SimulatedSwitch) -> None:
        self._switch = switch

    def table(self) -> dict[str, ApiCommand]:
        """Command names, and what answers each."""
        return {
            "uuid_listen": _guarded(self._uuid_listen, UUID_LISTEN_SYNTAX),
            "listen": _guarded(self._listen, LISTEN_SYNTAX),
            "listen_ctl": _guarded(self._listen_ctl, LISTEN_CTL_SYNTAX),
            "uuid_kill": self._uuid_kill,
            "module_exists": self._module_exists,
            "status": self._status,
            "version": self._version,
        }

    # -- for users --------------------------------------------------------------------------------

    async def _uuid_listen(self, argument: str) -> str:
        uuid, rest = _word(argument)
        verb, rest = _word(rest)
        if verb == "start" and rest:
            listen = await self._switch.start_listen(uuid, rest)
            return f"+OK {listen.id}\n"
        if verb == "list":
            return report_list(self._switch, uuid, as_json=rest == "json")
        if verb not in ("stop", "pause", "resume", "kill", "send"):
            raise _UsageError
        listen, rest = self._find(uuid, rest, text_follows=verb == "send")
        if not _argument_ok(verb, rest):
            raise _UsageError
        if verb == "stop":
            self._switch.end(listen, "stopped")
        else:
            if verb in ("pause", "resume"):
                rest = listen.paused = (rest or "silence") if verb == "pause" else ""
            self._relay(listen, verb, rest)
        return f"+OK {listen.id}\n"

    def _find(self, uuid: str, rest: str, *, text_follows: bool) -> tuple[Listen, str]:
        """Takes the name off ``rest``, if its first word is one."""
        word, after = _word(rest)
        listen = self._named(uuid, word) if word and (after or not text_follows) else None
        if listen is not None:
            return listen, after
        if not word or text_follows or word in PAUSE_MODES:
            listen = self._named(uuid, DEFAULT_NAME)
        if listen is not None:
            return listen, rest
        if uuid in self._switch.calls:
            raise Refusal("NO_SUCH_LISTEN", "no such listen on this channel")
        raise Refusal("NO_SUCH_CHANNEL", uuid)

    def _named(self, uuid: str, name: str) -> Listen | None:
        live = self._switch.live()
        return next((each for each in live if (each.call.uuid, each.name) == (uuid, name)), None)

    def _relay(self, listen: Listen, command: str, argument: str) -> None:
        """Passes an operator's wish on to the worker."""
        if listen.worker is None:
            raise Refusal("NO_WORKER", "it waits for a worker")
        headers = {"Listen-Command": command, "Listen-Argument": argument}
        self._switch.fire("listen::command", listen, headers)

    # -- for operators ----------------------------------------------------------------------------

    async def _listen(self, argument: str) -> str:
        verb, rest = _word(argument)
        if verb == "drain":
            return self._drain(rest)
        as_json = rest == "json"
        match verb:
            case "status":
                return report_status(self._switch, as_json=as_json)
            case "list":
                return report_list(self._switch, None, as_json=as_json)
            case "workers":
                return report_workers(self._switch, as_json=as_json)
            case "reload":
                return compact({"reloaded": True, "kept": []}) if as_json else "+OK reloaded\n"
        raise _UsageError

    def _drain(self, argument: str) -> str:
        name, rest = _word(argument)
        if not name:
            raise _UsageError
        worker = next((each for each in self._switch.workers if each.name == name), None)
        if worker is None:
            raise Refusal("NO_SUCH_WORKER", name)
        moved, left = self._switch.drain(worker)
        if rest == "json":
            return compact({"worker": name, "moved": moved, "left": left})
        return f"+OK {name} is draining: {moved} listens moved, {left} stay until they end\n"

    # -- for workers ------------------------------------------------------------------------------

    async def _listen_ctl(self, argument: str) -> str:
        verb, rest = _word(argument)
        listen_id, text = _word(rest)
        actions: dict[str, Callable[[Listen], str]] = {
            "describe": lambda listen: f"+OK {compact(listen.describe())}",
            "accept": self._accept,
            "event": lambda listen: self._event(listen, _object(text)),
            "end": lambda listen: self._end(listen, _object(text)),
        }
        if not listen_id or verb not in actions or (text and verb in ("describe", "accept")):
            raise _UsageError
        listen = self._switch.listens.get(listen_id)
        if listen is None or listen.reason:
            raise Refusal("GONE", f"there is no listen {listen_id}")
        return actions[verb](listen)

    def _accept(self, listen: Listen) -> str:
        listen.accepted = True
        listen.decided.set()
        return "+OK\n"

    def _event(self, listen: Listen, document: Mapping[str, Any]) -> str:
        event, headers = document.get("event"), document.get("headers")
        if event not in WORKER_EVENTS:
            known = f"{', '.join(WORKER_EVENTS[:-1])} or {WORKER_EVENTS[-1]}"
            found = event if isinstance(event, str) else "nothing"
            raise Refusal("BAD_REQUEST", f"event: found {found}, expected {known}")
        listen.connected |= event == "connect"
        own = dict(_workers_headers(headers)) if isinstance(headers, dict) else {}
        self._switch.fire(f"listen::{event}", listen, own)
        return "+OK\n"

    def _end(self, listen: Listen, details: Mapping[str, Any]) -> str:
        reason = details.get("reason")
        if not isinstance(reason, str) or reason not in REASONS:
            found = reason if isinstance(reason, str) else "nothing"
            expected = "expected a reason for which a listen ends"
            raise Refusal("BAD_REQUEST", f"reason: found {found}, {expected}")
        self._switch.end(listen, reason, details)
        return "+OK\n"

    # -- the switch itself ------------------------------------------------------------------------

    async def _uuid_kill(self, argument: str) -> str:
        uuid, _ = _word(argument)
        call = self._switch.calls.get(uuid)
        if call is None:
            return "-ERR No such channel!\n"
        self._switch.hang_up(call)
        return "+OK\n"

    async def _module_exists(self, argument: str) -> str:
        return "true" if argument == "mod_listen" else "false"

    async def _status(self, _: str) -> str:
        calls = len(self._switch.calls)
        return f"The pylisten simulator is ready\n{calls} session(s)\n"

    async def _version(self, _: str) -> str:
        return f"pylisten simulator {__version__}\n"


def _guarded(answer: ApiCommand, syntax: str) -> ApiCommand:
    """Turns refusals into the replies that mod_listen gives."""

    async def guarded(argument: str) -> str:
        try:
            return await answer(argument)
        except Refusal as refusal:
            return f"-ERR {refusal.code} {refusal.text}\n"
        except _UsageError:
            return f"-USAGE: {syntax}\n"

    return guarded


def _word(text: str) -> tuple[str, str]:
    """The first word, empty if there is none, and the rest as it was typed."""
    word, _, rest = text.strip().partition(" ")
    return word, rest.strip()


def _argument_ok(verb: str, rest: str) -> bool:
    if verb == "pause":
        return not rest or rest in PAUSE_MODES
    return bool(rest) == (verb == "send")


def _object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refusal("BAD_REQUEST", "the argument is not a JSON object")
    return document


def _workers_headers(headers: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The headers that a worker may add to an event: its own, under ``Listen-``."""
    for key, value in headers.items():
        name = key if key.lower().startswith("listen-") else f"Listen-{key}"
        if _HEADER.fullmatch(key) and name.lower() not in _RESERVED:
            yield name, value if isinstance(value, str) else json.dumps(value)
