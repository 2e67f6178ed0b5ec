"""What somebody asks for when a listen is to begin: ``<url> [key=value …]`` or ``{json}``.

Only what the switch itself needs is looked at here, as mod_listen does it; the worker checks the
verb as a whole. The text of a JSON verb is passed on as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pylisten.shm import Mix

__all__ = ["Refusal", "Request", "parse_request"]

RATES_HZ: Final = (8000, 16000, 24000, 32000, 48000, 64000)
MIXES: Final = {"mono": Mix.MONO, "stereo": Mix.STEREO, "mixed": Mix.MIXED}

_SHOWN: Final = 60  # characters of a wrong value that are shown
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URL: Final = re.compile(r"(?:ws|wss|http|https)://([^/?#]*)(.?)", re.IGNORECASE)

_KEY: Final = re.compile(r"([A-Za-z][A-Za-z0-9_.-]{0,126})=")
_WORD: Final = re.compile(r"\S*")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_STRINGS: Final = frozenset(
    {"verb", "url", "id", "name", "profile", "mixType", "finishOnKey", "actionHook"}
)
_STRING_PARENTS: Final = ("actionHook.", "wsAuth.", "headers.")


class Refusal(Exception):
    """A request that is answered by ``-ERR <code> <text>``."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(f"{code} {text}")


@dataclass(frozen=True, slots=True)
class Request:
    """What the switch takes from a verb; ``verb`` is all of it as JSON text."""

    verb: str
    name: str
    rate_hz: int
    mix: str
    plays: bool
    includes_playback: bool


def parse_request(text: str) -> Request:
    """Reads the arguments of a start; raises Refusal (``BAD_REQUEST``) if they are wrong."""
    text = text.strip()
    if not text:
        raise _refused("url: found nothing, expected <url> [key=value ...] or {json}")
    is_json = text.startswith("{")
    verb = _from_json(text) if is_json else _from_words(text)
    if verb.get("verb", "listen") not in ("listen", "stream"):
        raise _bad("verb", verb["verb"], '"listen"')
    _check_url(verb)
    name = verb.get("name", "listen")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _bad("name", name, "1 to 64 characters of A-Z a-z 0-9 . _ -")
    mix = verb.get("mixType", "mono")
    if not isinstance(mix, str) or mix not in MIXES:
        raise _bad("mixType", mix, '"mono", "stereo" or "mixed"')
    rate_hz = _rate(verb, "sampleRate", "sampleRate")
    plays = _plays(verb)
    includes_playback = _flag(verb, "includePlayback", "includePlayback", False)
    _flag(verb, "earlyMedia", "earlyMedia", False)
    verb_text = text if is_json else json.dumps(verb, ensure_ascii=False, separators=(",", ":"))
    return Request(verb_text, name, rate_hz, mix, plays, includes_playback)


def _refused(text: str) -> Refusal:
    return Refusal("BAD_REQUEST", text)


def _bad(path: str, found: object, expected: str) -> Refusal:
    shown = json.dumps(found, ensure_ascii=False)[:_SHOWN]
    return _refused(f"{path}: found {shown}, expected {expected}")


def _from_json(text: str) -> dict[str, Any]:
    try:
        verb: dict[str, Any] = json.loads(text)
    except ValueError as error:
        # Nothing of the text is shown: it may hold a password.
        at = error.pos + 1 if isinstance(error, json.JSONDecodeError) else 1
        raise _refused(f"the verb is not JSON: fault near character {at}") from None
    return verb


def _flag(holder: Mapping[str, Any], key: str, path: str, default: bool) -> bool:
    value = holder.get(key, default)
    if not isinstance(value, bool):
        raise _bad(path, value, "true or false")
    return value


def _rate(holder: Mapping[str, Any], key: str, path: str) -> int:
    value = holder.get(key, 8000)
    if isinstance(value, bool) or value not in RATES_HZ:
        raise _bad(path, value, "8000, 16000, 24000, 32000, 48000 or 64000")
    return int(value)


def _check_url(verb: Mapping[str, Any]) -> None:
    url, profile = verb.get("url"), verb.get("profile")
    if "profile" in verb and (not isinstance(profile, str) or not profile):
        raise _bad("profile", profile, "the name of a profile")
    if "url" not in verb and profile:
        return
    match = _URL.match(url) if isinstance(url, str) else None
    if not match or not (match[1] or match[2]):
        if isinstance(url, str):  # nor is this one shown: it may hold a token
            raise _refused("url: found another kind of URL, expected ws, wss, http or https")
        if "url" in verb:
            raise _bad("url", url, "a ws, wss, http or https URL, or a profile")
        raise _refused("url: found nothing, expected a ws, wss, http or https URL, or a profile")
    if "@" in match[1]:
        # The value is not shown: it may hold a password.
        raise _refused("url: found user-info, expected credentials in wsAuth or a profile")


def _plays(verb: Mapping[str, Any]) -> bool:
    """Whether the server may play audio into the call."""
    plays = not _flag(verb, "disableBidirectionalAudio", "disableBidirectionalAudio", False)
    if "bidirectionalAudio" not in verb:
        return plays
    both = verb["bidirectionalAudio"]
    if not isinstance(both, dict):
        raise _bad("bidirectionalAudio", both, "an object")
    _flag(both, "streaming", "bidirectionalAudio.streaming", False)
    _rate(both, "sampleRate", "bidirectionalAudio.sampleRate")
    return _flag(both, "enabled", "bidirectionalAudio.enabled", plays)


def _from_words(text: str) -> dict[str, Any]:
    """Turns ``<url> key=value …`` into a verb; the URL may be left out, for a profile has one."""
    verb: dict[str, Any] = {}
    rest = text
    if not _KEY.match(rest):
        verb["url"] = rest.split(maxsplit=1)[0]
        rest = rest[len(verb["url"]) :].lstrip()
    while rest:
        key = _KEY.match(rest)
        if not key:
            raise _refused(f'found "{rest[:_SHOWN]}", expected key=value')
        value, rest = _value(key[1], rest[key.end() :])
        if rest and not rest[0].isspace():
            raise _refused(f'{key[1]}: found "{rest[:_SHOWN]}" after the value, expected a space')
        _put(verb, key[1], value)
        rest = rest.lstrip()
    return verb


def _value(key: str, text: str) -> tuple[object, str]:
    """Reads a word, a quoted text or JSON; returns it and what follows."""
    if text[:1] in ("'", '"'):
        end = text.find(text[0], 1)
        if end > 0:
            return text[1:end], text[end + 1 :]
    elif text[:1] in ("{", "["):
        try:
            value, length = json.JSONDecoder().raw_decode(text)
        except ValueError:
            pass
        else:
            return value, text[length:]
    else:
        match = _WORD.match(text)
        word = match[0] if match else ""
        return _typed(key, word), text[len(word) :]
    raise _refused(f'{key}: found "{text[:_SHOWN]}", expected a word, a quoted text or JSON')


def _typed(key: str, word: str) -> object:
    if key in _STRINGS or key.startswith(_STRING_PARENTS):
        return word
    if word in ("true", "false"):
        return word == "true"
    return json.loads(word) if _NUMBER.fullmatch(word) else word


def _put(verb: dict[str, Any], key: str, value: object) -> None:
    """Puts a value in its place; dots in the key nest."""
    *parents, leaf = key.split(".")
    at: Any = verb
    for parent in parents:
        at = at.setdefault(parent, {}) if isinstance(at, dict) and parent else None
    if not isinstance(at, dict) or not leaf or leaf in at:
        raise _refused(f"{leaf}: given twice, or as a value and as an object")
    at[leaf] = value
