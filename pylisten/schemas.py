"""JSON Schemas (draft 2020-12) of the verb and of the text frames, made from the models that check.

``python -m pylisten.schemas [DIRECTORY]`` writes them, to ``docs/reference/schemas`` if no other
place is named. What a model cannot tell by itself is added here: patterns, and which properties go
together. A few rules are beyond JSON Schema and stand in the descriptions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pylisten import verb as rules
from pylisten.urls import HOOK_URL, SERVER_URL, UrlKind
from pylisten.verb import NOT_YET, RATES_HZ, Verb
from pylisten.wire import MarkData, PlayAudioData

__all__ = ["DIRECTORY", "ERROR_CODES", "documents", "main"]

#: Where the schemas stand in the tree of the project.
DIRECTORY = Path("docs/reference/schemas")

#: The codes of ``error`` frames.
ERROR_CODES = (
    *("bad-json", "bad-message", "bad-base64", "bad-audio", "unsupported-rate"),
    *("too-large", "queue-full", "not-bidirectional", "not-streaming"),
)

_Schema = dict[str, Any]

_END = r"(?!\n)$"  # in some dialects a bare $ matches before a line break, too


def documents() -> dict[str, str]:
    """The text of every schema, by its file name."""
    schemas = {
        "listen": _verb(),
        "to-server-first-frame": _first_frame(),
        "to-server-dtmf": _dtmf(),
        "to-server-playDone": _play_done(),
        "to-server-mark": _mark_event(),
        "to-server-error": _error(),
        "to-server-resumed": _resumed(),
        "from-server-playAudio": _play_audio(),
        "from-server-killAudio": _frame(
            "killAudio", "Ends what is being played, and all that waits to be."
        ),
        "from-server-disconnect": _frame("disconnect", "Ends the listen."),
        "from-server-mark": _frame(
            "mark",
            "Asks to be told when the audio sent before it has been played.",
            _of_model(MarkData),
        ),
        "from-server-clearMarks": _frame(
            "clearMarks", "Forgets the waiting marks; each is answered by a mark that is cleared."
        ),
    }
    return {
        f"{name}.schema.json": json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema},
            ensure_ascii=False,
            indent=2,
        )
        + "\n"
        for name, schema in schemas.items()
    }


# The verb.


def _verb() -> _Schema:
    schema = _of_model(Verb, without_null=True)
    properties, parts = schema["properties"], schema["$defs"]
    for name in NOT_YET:
        default = properties.pop(name).get("default")
        if default is not None:
            about = "Only this value is supported by this version."
            properties[name] = {"const": default, "description": about}
    _complete(properties["url"], {"type": "string", "pattern": _url_pattern(SERVER_URL)})
    _complete(properties["name"], {"pattern": f"^{rules.NAME.pattern}{_END}"})
    _complete(properties["finishOnKey"], {"pattern": f"^{rules.KEYS.pattern}{_END}"})
    properties["headers"] |= {
        "propertyNames": {
            "pattern": f"^{rules.TOKEN.pattern}{_END}",
            "not": {"pattern": _reserved_headers()},
        },
        "additionalProperties": {
            **properties["headers"]["additionalProperties"],
            "pattern": _without(rules.CONTROL.pattern),
        },
    }
    hook_url = _url_pattern(HOOK_URL)
    _complete(parts["ActionHook"]["properties"]["url"], {"type": "string", "pattern": hook_url})
    parts["ActionHook"]["dependentRequired"] = {"username": ["password"], "password": ["username"]}
    for part in (parts["WsAuth"], parts["ActionHook"]):
        part["properties"]["username"]["pattern"] = _without(f":|{rules.CONTROL.pattern}")
        part["properties"]["password"]["pattern"] = _without(rules.CONTROL.pattern)
    _or_else(properties["actionHook"], {"type": "string", "pattern": hook_url})
    _or_else(properties["reconnect"], {"const": False})
    properties["_"] = {"description": "A remark; ignored."}
    del schema["required"]
    return {
        "title": "The listen verb",
        "description": "What a caller of listen asks for. Not expressed here: whether a URL is"
        " valid in all its parts, the size of metadata, and whether a profile is configured.",
        **{key: value for key, value in schema.items() if key not in ("title", "description")},
        "anyOf": [{"required": ["url"]}, {"required": ["profile"]}],
        "dependentSchemas": {"wsAuth": {"properties": {"headers": _without_authorization()}}},
    }


def _url_pattern(kind: UrlKind) -> str:
    schemes = "|".join(map(_any_case, kind.schemes))
    visible = r"\x00-\x20\x7f\\#"  # what may stand nowhere
    name = rf"[^{visible}/?@:\[\]]+"
    return (
        rf"^(?:{schemes})://(?:{name}|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?(?:[/?][^{visible}]*)?{_END}"
    )


def _reserved_headers() -> str:
    names = "|".join(map(_any_case, sorted(rules.HANDSHAKE_HEADERS)))
    return rf"^(?:{names}|{_any_case('sec-websocket-')}.*)$"


def _without_authorization() -> _Schema:
    return {"propertyNames": {"not": {"pattern": f"^{_any_case('authorization')}$"}}}


def _without(pattern: str) -> str:
    """A pattern for strings without ``pattern``; numbers, which have none, are not concerned."""
    return rf"^(?![\s\S]*(?:{pattern}))"


def _any_case(word: str) -> str:
    """A pattern for ``word``; JSON Schema's have no flags."""
    return "".join(f"[{c.upper()}{c}]" if c.isalpha() else c for c in word)


# Frames from the server.


def _play_audio() -> _Schema:
    data = _of_model(PlayAudioData)
    properties = data["properties"]
    properties["audioContent"]["contentEncoding"] = "base64"
    properties["audioContentType"] = {
        "enum": ["raw", "wav", "wave"],
        "description": properties["audioContentType"]["description"],
    }
    rates = [*RATES_HZ, *map(str, RATES_HZ)]
    data["if"] = {
        "properties": {"audioContentType": {"const": "raw"}},
        "required": ["audioContentType"],
    }
    data["then"] = {"properties": {"sampleRate": {"enum": rates}}, "required": ["sampleRate"]}
    about = "Plays a clip of up to 10 minutes, sampled at one of the six rates of raw audio."
    return _frame("playAudio", about, data)


# Frames to the server.


def _first_frame() -> _Schema:
    attributes = {
        "callSid": "The channel's uuid.",
        "direction": "inbound or outbound.",
        "from": "The calling number.",
        "to": "The called number.",
        "callerId": "The number that the caller shows.",
        "callerName": "The name that the caller shows.",
        "callId": "The SIP Call-ID.",
        "callStatus": "Of the call, when the listen began.",
        "sipStatus": "The SIP status of the call, three digits.",
        "originatingSipIp": "The address that the call came from.",
        "fsHost": "The host that FreeSWITCH runs on.",
        "parentCallSid": "The uuid of the calling leg, in a dial.",
        "listenId": "The uuid of this listen.",
        "name": "The verb's name.",
        "resumed": "true after a reconnect, or where another worker goes on with the listen.",
    }
    rate = {"enum": list(RATES_HZ), "description": "Of the audio that follows, in Hz."}
    mix = {
        "enum": ["mono", "stereo", "mixed"],
        "description": "stereo is interleaved, left this leg, right what it hears.",
    }
    return {
        "title": "The first frame of a connection",
        "description": "Text, sent before anything else. All but sampleRate and mixType are"
        " strings (resumed is true), left out where they are not known; keys of the verb's"
        " metadata are added, and replace them where they are equal, with values of any type.",
        "type": "object",
        "properties": {
            "sampleRate": rate,
            "mixType": mix,
            **{key: {"description": about} for key, about in attributes.items()},
        },
        "required": ["sampleRate", "mixType", "listenId", "name"],
    }


def _dtmf() -> _Schema:
    properties = {
        "event": {"const": "dtmf"},
        "dtmf": _string("The key.", pattern="^[0-9*#A-Da-d]$"),
        "duration": _digits("How long it was pressed, in units of 1/8000 s."),
    }
    return {
        "title": "A digit",
        "description": "A key was pressed, on this leg or at the far end; with passDtmf.",
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _play_done() -> _Schema:
    heard = _digits("How much of the clip was written to the call, in milliseconds.")
    how = {"enum": ["done", "killed"], "description": "Whether it was played to its end."}
    data = {"id": _clip_id(), "playbackMilliseconds": heard, "reason": how}
    return _event("playDone", "A clip has ended, or was stopped.", data, {"id"})


def _mark_event() -> _Schema:
    what = (
        "playout: the audio sent before the mark has been written to the call; cleared: it never"
        " will be, or the mark was given up."
    )
    event = {"enum": ["playout", "cleared"], "description": what}
    data = {"name": _string("As the server gave it."), "event": event}
    return _event("mark", "A mark was reached, or never will be.", data)


def _error() -> _Schema:
    data = {
        "code": _string("For programs; later releases may know more.", examples=list(ERROR_CODES)),
        "message": _string("For people: what was found, and what is allowed."),
        "id": _clip_id(),
    }
    return _event("error", "A frame was refused; the listen goes on.", data, {"id"})


def _resumed() -> _Schema:
    whole = {"type": "integer", "minimum": 0}
    data = {
        "gapMilliseconds": {**whole, "description": "How much audio was given up."},
        "positionMilliseconds": {
            **whole,
            "description": "Where the audio that follows begins, in milliseconds from the"
            " beginning of the listen.",
        },
    }
    return _event("resumed", "Audio goes on after a reconnect.", data)


def _clip_id() -> _Schema:
    about = "As the server gave it; left out if it gave none."
    return {"type": ["string", "number"], "description": about}


def _string(about: str, **more: object) -> _Schema:
    return {"type": "string", **more, "description": about}


def _digits(about: str) -> _Schema:
    return _string(about, pattern="^[0-9]+$")


def _event(
    kind: str, about: str, properties: Mapping[str, _Schema], optional: Iterable[str] = ()
) -> _Schema:
    required = [key for key in properties if key not in set(optional)]
    data = {"type": "object", "properties": dict(properties), "required": required}
    return _frame(kind, about, data)


def _frame(kind: str, about: str, data: _Schema | None = None) -> _Schema:
    properties: _Schema = {"type": {"const": kind}}
    if data is not None:
        properties["data"] = data
    return {
        "title": f"The frame {kind}",
        "description": about,
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


# What pydantic makes of a model, in the manner of this project.


def _of_model(model: type[BaseModel], *, without_null: bool = False) -> _Schema:
    schema = model.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("title", None)
        part.pop("description", None)
        for name, found in part["properties"].items():
            part["properties"][name] = _property(found, without_null)
    return schema


def _property(schema: _Schema, without_null: bool) -> _Schema:
    """Without pydantic's title, which only repeats the name, and without null where it is none."""
    obvious = (("default", None), ("additionalProperties", True))
    kept = {k: v for k, v in schema.items() if k != "title" and (k, v) not in obvious}
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].split())
    if without_null and "anyOf" in kept:
        (one,) = (choice for choice in kept.pop("anyOf") if choice != {"type": "null"})
        kept = {**one, **kept}
    return kept


def _complete(schema: _Schema, more: _Schema) -> None:
    """Adds what pydantic does not know; a string has no use for the limits of a number."""
    if more.get("type") == "string":
        schema.pop("minimum", None)
        schema.pop("maximum", None)
    schema.update(more)


def _or_else(schema: _Schema, other: _Schema) -> None:
    """Makes the part that ``schema`` refers to one of two choices."""
    schema["anyOf"] = [other, {"$ref": schema.pop("$ref")}]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes every schema; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pylisten.schemas", description="write schemas")
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    directory: Path = parser.parse_args(argv).directory
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (directory / name).write_text(text, encoding="utf-8")
    print(f"{len(documents())} schemas written to {directory}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
