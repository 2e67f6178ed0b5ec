"""The listen verb: what a caller of ``listen`` asks for, checked before any audio flows.

`parse_verb` takes the JSON text of a verb (or a mapping) and gives a `Verb`, or raises `VerbError`,
which names every fault at once. Properties are camelCase on the wire and snake_case here. The text
below each of them stands in the JSON Schema, too: see `pylisten.schemas`.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from pylisten.errors import Problem, VerbError
from pylisten.profiles import NOT_IN_A_PROFILE, with_profile
from pylisten.urls import HOOK_URL, SERVER_URL, checked_url
from pylisten.validation import expected, problems, refused, without_bool

__all__ = [
    "NOT_YET",
    "RATES_HZ",
    "ActionHook",
    "BidirectionalAudio",
    "Mix",
    "ProfileProperties",
    "Reconnect",
    "SampleRate",
    "Verb",
    "VerbError",
    "WsAuth",
    "is_secret",
    "parse_verb",
    "unknown_property",
]

#: Properties that are known and checked, but refused when they ask for something.
NOT_YET = frozenset({"transcribe", "channel"})

#: The size of ``metadata`` as JSON in UTF-8; a first frame larger than this helps nobody.
METADATA_LIMIT_BYTES = 1024 * 1024

Mix = Literal["mono", "stereo", "mixed"]
SampleRate = Literal[8000, 16000, 24000, 32000, 48000, 64000]

#: The sample rates of audio on the wire, both ways.
RATES_HZ: tuple[int, ...] = get_args(SampleRate)

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # all but the tab, which a header may hold
_SURROGATE = re.compile(r"[\ud800-\udfff]")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
KEYS = re.compile(r"[0-9*#A-D]*")
_EXACT = 2**53 - 1  # the largest number that every reader of JSON takes for what it is

# These belong to the connection itself (RFC 9110, 7.6.1), to the WebSocket handshake, or to us.
HANDSHAKE_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-call-id",
    }
)


def _integer(value: object) -> object:
    """JSON has one kind of number: 8000.0 is the whole number 8000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: object) -> object:
    """A whole number becomes text: ``finishOnKey=1`` in a dialplan arrives as the number 1."""
    whole = _integer(value)
    if isinstance(whole, int) and not isinstance(whole, bool) and 0 <= whole <= _EXACT:
        return str(whole)
    if isinstance(value, str) and _SURROGATE.search(value):
        raise expected("valid Unicode")
    return value


def _header_name(name: str) -> str:
    lower = name.lower()
    if not TOKEN.fullmatch(name):
        raise refused("not a header name")
    if lower in HANDSHAKE_HEADERS or lower.startswith("sec-websocket-"):
        raise refused("belongs to the connection and cannot be set")
    return name


def _header_value(value: str) -> str:
    if CONTROL.search(value):
        raise refused("holds a line break or another control character")
    return value


def _basic_username(value: str) -> str:
    if ":" in value or CONTROL.search(value):
        raise refused("holds a colon or a control character, which HTTP Basic cannot carry")
    return value


def _basic_password(value: SecretStr) -> SecretStr:
    if CONTROL.search(value.get_secret_value()):
        raise refused("holds a control character, which HTTP Basic cannot carry")
    return value


def _false_is_none(value: object) -> object:
    if value is True:
        raise expected("false or an object {attempts, maxDelay}")
    return None if value is False else value


_TEXT_SCHEMA = {"type": ["string", "integer"], "minimum": 0, "maximum": _EXACT}
_Text = Annotated[str, BeforeValidator(_text), WithJsonSchema(_TEXT_SCHEMA)]
_Secret = Annotated[SecretStr, BeforeValidator(_text), WithJsonSchema(_TEXT_SCHEMA)]
_Username = Annotated[_Text, AfterValidator(_basic_username)]
_Password = Annotated[_Secret, AfterValidator(_basic_password)]
_HeaderName = Annotated[str, AfterValidator(_header_name)]
_HeaderValue = Annotated[_Text, AfterValidator(_header_value)]
_Number = (BeforeValidator(_integer), BeforeValidator(without_bool))
_Rate = Annotated[SampleRate, *_Number]
_PositiveNumber = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    """What all parts of a verb share: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        strict=True,
        use_attribute_docstrings=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_null(cls, value: object) -> object:
        if value is None:
            raise expected("a value, or the property left out")
        return value


class WsAuth(_Part):
    """HTTP Basic credentials for the WebSocket upgrade (RFC 7617)."""

    username: _Username
    """The name to log in with; no colon in it."""

    password: _Password
    """The password to log in with."""

    def authorization(self) -> str:
        """The value of the ``Authorization`` header."""
        pair = f"{self.username}:{self.password.get_secret_value()}"
        return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


class BidirectionalAudio(_Part):
    """What the server may play into the call.

    ``sample_rate`` (Hz) is that of binary frames in ``streaming`` mode; in a `Verb` it is always
    set, to the listen's own rate where the verb names none.
    """

    enabled: bool = True
    """Whether the server may play audio into the call."""

    streaming: bool = False
    """Whether the server's binary frames are played."""

    sample_rate: _Rate | None = None
    """Of the server's binary frames, in Hz; that of the listen where it is left out."""


class ActionHook(_Part):
    """The webhook that is told about the end of the listen; a plain string is its ``url``."""

    url: _Text
    """Where the hook goes: an absolute http or https URL, without credentials or a fragment."""

    method: Literal["GET", "POST"] = "POST"
    """The method of the request."""

    username: _Username | None = None
    """For HTTP Basic; goes with a password."""

    password: _Password | None = None
    """For HTTP Basic; goes with a user name."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        if isinstance(value, str):
            return {"url": value}
        if not isinstance(value, dict):
            raise expected("a URL or an object {url, method, username, password}")
        return value

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        checked_url(value, HOOK_URL)
        return value

    @model_validator(mode="after")
    def _both_or_none(self) -> ActionHook:
        if (self.username is None) != (self.password is None):
            raise refused("has a username or a password alone, expected both or none")
        return self


class Reconnect(_Part):
    """How often, and for how long, a lost server is tried again."""

    attempts: Annotated[int, BeforeValidator(_integer)] = Field(default=5, ge=1)
    """How many times a connection is tried, before the listen ends."""

    max_delay: _PositiveNumber = 10.0
    """Seconds that all tries together may take, from the loss of the connection."""


class Verb(_Part):
    """A valid listen verb, with its defaults filled in."""

    verb: Literal["listen", "stream"] = "listen"
    """The verb's own name; stream is a synonym."""

    url: _Text
    """The server: a ws, wss, http (means ws) or https (means wss) URL without a user name, a
    password or a fragment. A profile may bring it."""

    name: _Text = "listen"
    """Tells the listens of a channel apart: 1 to 64 of A-Z a-z 0-9 . _ -"""

    id: _Text | None = None
    """A label of yours; comes back in hooks as verb_id."""

    profile: _Text | None = None
    """The name of a profile in the configuration of the worker, which holds defaults for this
    verb."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    """Merged into the first text frame, unchanged; up to 1 MiB of JSON in UTF-8."""

    mix_type: Mix = "mono"
    """mono: this leg alone; stereo: left this leg, right what it hears; mixed: both, summed."""

    sample_rate: _Rate = 8000
    """Of the audio to the server, in Hz."""

    disable_bidirectional_audio: bool = False
    """Old spelling: true sets bidirectionalAudio.enabled to false."""

    bidirectional_audio: BidirectionalAudio = Field(
        default_factory=BidirectionalAudio, validate_default=True
    )
    """What the server may play into the call."""

    include_playback: bool = False
    """Whether what the leg hears (stereo, mixed) includes what this listen itself plays."""

    early_media: bool = False
    """Whether the call is left unanswered."""

    ws_auth: WsAuth | None = None
    """HTTP Basic credentials for the WebSocket upgrade."""

    headers: dict[_HeaderName, _HeaderValue] = Field(default_factory=dict, repr=False)
    """More headers for the WebSocket upgrade, none of which belongs to the connection."""

    pass_dtmf: bool = False
    """Whether digits go to the server as text frames."""

    finish_on_key: _Text = ""
    """Each of these keys, 0 to 9, *, #, A to D, ends the listen when pressed on this leg."""

    max_length: _PositiveNumber | None = None
    """Seconds of audio after which the listen ends."""

    timeout: _PositiveNumber | None = None
    """Seconds of silence that end the listen."""

    play_beep: bool = False
    """Whether the caller hears a beep, 500 ms at 1500 Hz, before the server is sent audio."""

    action_hook: ActionHook | None = None
    """The webhook that is told about the end of the listen."""

    transcribe: dict[str, Any] | None = None
    """A nested transcribe verb."""

    channel: Annotated[Literal[1, 2], *_Number] = 1
    """In a dial: 1 is this leg, 2 the called one."""

    reconnect: Annotated[Reconnect | None, BeforeValidator(_false_is_none)] = Reconnect()
    """How a lost server is tried again; false: not at all."""

    @model_validator(mode="before")
    @classmethod
    def _without_remark(cls, value: object) -> object:
        """The key ``_`` is a remark that jambonz applications may leave in a verb."""
        return {k: v for k, v in value.items() if k != "_"} if isinstance(value, dict) else value

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        checked_url(value, SERVER_URL)
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise expected("1 to 64 letters, digits, dots, underscores or hyphens")
        return value

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
        except (ValueError, TypeError, RecursionError) as error:
            raise refused(f"cannot be written as JSON: {error}") from None
        if size > METADATA_LIMIT_BYTES:
            raise refused(f"found {size} bytes of JSON, expected at most {METADATA_LIMIT_BYTES}")
        return value

    @field_validator("bidirectional_audio")
    @classmethod
    def _complete(cls, value: BidirectionalAudio, info: ValidationInfo) -> BidirectionalAudio:
        """Folds the old spelling in, and gives streamed playback a rate where none was named."""
        update: dict[str, object] = {}
        if value.sample_rate is None:
            update["sample_rate"] = info.data.get("sample_rate")
        if info.data.get("disable_bidirectional_audio"):
            update["enabled"] = False
        return value.model_copy(update=update)

    @field_validator("headers")
    @classmethod
    def _one_authorization(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if info.data.get("ws_auth") and any(name.lower() == "authorization" for name in value):
            raise refused("hold Authorization, which wsAuth gives as well: expected one of the two")
        return value

    @field_validator("finish_on_key")
    @classmethod
    def _check_keys(cls, value: str) -> str:
        if not KEYS.fullmatch(value):
            raise expected("any of the keys 0 to 9, *, #, A to D")
        return value

    @field_validator("*")
    @classmethod
    def _supported(cls, value: object, info: ValidationInfo) -> object:
        field = info.field_name or ""
        if to_camel(field) in NOT_YET and value != cls.model_fields[field].default:
            raise refused("not supported by this version")
        return value

    @property
    def ws_url(self) -> str:
        """``url`` for a WebSocket client: scheme ws or wss, in ASCII, nothing left to encode."""
        return re.sub(r"^http", "ws", checked_url(self.url, SERVER_URL))

    def upgrade_headers(self) -> dict[str, str]:
        """The headers that this verb adds to the upgrade request, ``Authorization`` included."""
        if self.ws_auth is None:
            return dict(self.headers)
        return {**self.headers, "Authorization": self.ws_auth.authorization()}


class _ProfileVerb(Verb):
    """A verb as far as a profile may hold one: with any URL, but nothing that the switch needs."""

    @model_validator(mode="before")
    @classmethod
    def _any_url(cls, value: object) -> object:
        return {"url": "wss://any.invalid", **value} if isinstance(value, dict) else value

    @field_validator("*", mode="before")
    @classmethod
    def _not_in_a_profile(cls, value: object, info: ValidationInfo) -> object:
        reason = NOT_IN_A_PROFILE.get(to_camel(info.field_name or ""))
        if reason and not isinstance(value, BidirectionalAudio):  # which is checked as a default
            raise refused(reason)
        return value


def _check_profile(value: dict[str, Any]) -> dict[str, Any]:
    _ProfileVerb.model_validate(value)  # its findings become those of the configuration
    return value


#: What a profile holds, for the model of the configuration.
ProfileProperties = Annotated[dict[str, Any], AfterValidator(_check_profile)]


def parse_verb(
    source: str | bytes | Mapping[str, object], profiles: Mapping[str, Mapping[str, object]] = {}
) -> Verb:
    """Check a listen verb, given as JSON text or as a mapping.

    ``profiles`` are the valid ones of the configuration, by name: see `pylisten.profiles`. Raises
    `VerbError`, and nothing else, whose text names each fault's path, what was found there and what
    is allowed. Passwords, header values and URLs are not repeated in it.
    """
    data, faults = with_profile(_read(source), profiles)
    try:
        verb = Verb.model_validate(data)
    except ValidationError as error:
        more = problems(error, is_secret, unknown_property)
        raise VerbError([*faults, *_explained(more, data, faults)]) from None
    if faults:
        raise VerbError(faults)
    return verb


def hook_of(
    source: str | bytes | Mapping[str, object], profiles: Mapping[str, Mapping[str, object]] = {}
) -> ActionHook | None:
    """The ``actionHook`` of a verb that is refused for something else, so that it can be told."""
    try:
        data, _ = with_profile(_read(source), profiles)
        return ActionHook.model_validate(data.get("actionHook"))
    except (VerbError, ValidationError):
        return None


def _read(source: str | bytes | Mapping[str, object]) -> dict[str, object]:
    if isinstance(source, Mapping):
        return dict(source)
    try:
        text = source.encode() if isinstance(source, str) else source
        data = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise VerbError([Problem("", f"not valid JSON: {error}")]) from None
    if not isinstance(data, dict):
        raise VerbError([Problem("", "found JSON that is not an object, expected a listen verb")])
    return data


def _explained(
    faults: Sequence[Problem], data: Mapping[str, object], of_profile: Sequence[Problem]
) -> Iterator[Problem]:
    """The URL is the only property that must be there, and a profile may bring it."""
    for fault in faults:
        if fault != Problem("url", "missing"):
            yield fault
        elif "profile" not in data:
            yield Problem("url", "missing, expected a ws, wss, http or https URL")
        elif not of_profile and all(other.path != "profile" for other in faults):
            where = "here or in the profile"
            yield Problem("url", f"missing, expected a ws, wss, http or https URL {where}")


def is_secret(path: str) -> bool:
    """Whether the value at this path of a verb must not be shown."""
    at_root = path.startswith(("headers", "wsAuth"))
    return at_root or path.endswith(("password", "url", "actionHook"))


def unknown_property(keys: tuple[str, ...], without: Container[str] = NOT_YET) -> str:
    """The text for an unknown property; ``keys`` is its path from the root of the verb."""
    parts: dict[str, type[_Part]] = {
        "actionHook": ActionHook,
        "bidirectionalAudio": BidirectionalAudio,
        "reconnect": Reconnect,
        "wsAuth": WsAuth,
    }
    part = parts[keys[0]] if len(keys) > 1 and keys[0] in parts else Verb
    known = [name for name in map(to_camel, part.model_fields) if name not in without]
    close = difflib.get_close_matches(keys[-1], known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown property, expected one of {', '.join(known)}{hint}"
