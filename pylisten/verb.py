"""The listen verb: what a caller of ``listen`` asks for, checked before any audio flows.

`parse_verb` takes the JSON text of a verb (or a mapping) and gives a `Verb`, or raises `VerbError`,
which names every fault at once. Properties are camelCase on the wire and snake_case here.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
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
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import Url, from_json

from pylisten.errors import Problem, VerbError
from pylisten.validation import expected, problems, refused, without_bool

__all__ = [
    "NOT_YET",
    "RATES_HZ",
    "ActionHook",
    "BidirectionalAudio",
    "Mix",
    "Reconnect",
    "SampleRate",
    "Verb",
    "VerbError",
    "WsAuth",
    "parse_verb",
]

#: Properties that are known and checked, but refused when they ask for something.
NOT_YET = frozenset(
    {"actionHook", "playBeep", "timeout", "transcribe", "channel", "profile", "reconnect"}
)

#: The size of ``metadata`` as JSON in UTF-8; a first frame larger than this helps nobody.
METADATA_LIMIT_BYTES = 1024 * 1024

Mix = Literal["mono", "stereo", "mixed"]
SampleRate = Literal[8000, 16000, 24000, 32000, 48000, 64000]

#: The sample rates of audio on the wire, both ways.
RATES_HZ: tuple[int, ...] = get_args(SampleRate)

_AUTHORITY = re.compile(r"(?:ws|wss|http|https)://([^/?#\\]*)", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # all but the tab, which a header may hold
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEYS = re.compile(r"[0-9*#A-D]*")

# These belong to the connection itself (RFC 9110, 7.6.1), to the WebSocket handshake, or to us.
_HANDSHAKE_HEADERS = frozenset(
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


def _text(value: object) -> object:
    """A whole number becomes text: ``finishOnKey=1`` in a dialplan arrives as the number 1."""
    exact_in_a_double = 2**53
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < exact_in_a_double:
        return str(value)
    if isinstance(value, str) and _SURROGATE.search(value):
        raise expected("valid Unicode")
    return value


def _header_name(name: str) -> str:
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        raise refused("not a header name")
    if lower in _HANDSHAKE_HEADERS or lower.startswith("sec-websocket-"):
        raise refused("belongs to the connection and cannot be set")
    return name


def _header_value(value: str) -> str:
    if _CONTROL.search(value):
        raise refused("holds a line break or another control character")
    return value


def _false_is_none(value: object) -> object:
    if value is True:
        raise expected("false or an object {attempts, maxDelay}")
    return None if value is False else value


_Text = Annotated[str, BeforeValidator(_text)]
_Secret = Annotated[SecretStr, BeforeValidator(_text)]
_HeaderName = Annotated[str, AfterValidator(_header_name)]
_HeaderValue = Annotated[_Text, AfterValidator(_header_value)]
_Rate = Annotated[SampleRate, BeforeValidator(without_bool)]
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
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_null(cls, value: object) -> object:
        if value is None:
            raise expected("a value, or the property left out")
        return value


class WsAuth(_Part):
    """HTTP Basic credentials for the WebSocket upgrade (RFC 7617)."""

    username: _Text
    password: _Secret

    @field_validator("username")
    @classmethod
    def _no_colon(cls, value: str) -> str:
        if ":" in value or _CONTROL.search(value):
            raise refused("holds a colon or a control character, which HTTP Basic cannot carry")
        return value

    @field_validator("password")
    @classmethod
    def _no_control(cls, value: SecretStr) -> SecretStr:
        if _CONTROL.search(value.get_secret_value()):
            raise refused("holds a control character, which HTTP Basic cannot carry")
        return value

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
    streaming: bool = False
    sample_rate: _Rate | None = None


class ActionHook(_Part):
    """The webhook that is told about the end of the listen; a plain string is its ``url``."""

    url: str
    method: Literal["GET", "POST"] = "POST"
    username: _Text | None = None
    password: _Secret | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        if isinstance(value, str):
            return {"url": value}
        if not isinstance(value, dict):
            raise expected("a URL or an object {url, method, username, password}")
        return value


class Reconnect(_Part):
    """How often, and after at most how many seconds each, a lost server is tried again."""

    attempts: int = Field(default=5, ge=1)
    max_delay: _PositiveNumber = 10.0


class Verb(_Part):
    """A valid listen verb, with its defaults filled in."""

    verb: Literal["listen", "stream"] = "listen"
    url: _Text
    name: _Text = "listen"
    id: _Text | None = None
    profile: _Text | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    mix_type: Mix = "mono"
    sample_rate: _Rate = 8000
    disable_bidirectional_audio: bool = False
    bidirectional_audio: BidirectionalAudio = Field(
        default_factory=BidirectionalAudio, validate_default=True
    )
    include_playback: bool = False
    early_media: bool = False
    ws_auth: WsAuth | None = None
    headers: dict[_HeaderName, _HeaderValue] = Field(default_factory=dict, repr=False)
    pass_dtmf: bool = False
    finish_on_key: _Text = ""
    max_length: _PositiveNumber | None = None
    timeout: _PositiveNumber | None = None
    play_beep: bool = False
    action_hook: ActionHook | None = None
    transcribe: dict[str, Any] | None = None
    channel: Annotated[Literal[1, 2], BeforeValidator(without_bool)] = 1
    reconnect: Annotated[Reconnect | None, BeforeValidator(_false_is_none)] = None

    @model_validator(mode="before")
    @classmethod
    def _without_remark(cls, value: object) -> object:
        """The key ``_`` is a remark that jambonz applications may leave in a verb."""
        return {k: v for k, v in value.items() if k != "_"} if isinstance(value, dict) else value

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        _websocket_url(value)
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
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
        if not _KEYS.fullmatch(value):
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
        return _websocket_url(self.url)

    def upgrade_headers(self) -> dict[str, str]:
        """The headers that this verb adds to the upgrade request, ``Authorization`` included."""
        if self.ws_auth is None:
            return dict(self.headers)
        return {**self.headers, "Authorization": self.ws_auth.authorization()}


def parse_verb(source: str | bytes | Mapping[str, object]) -> Verb:
    """Check a listen verb, given as JSON text or as a mapping.

    Raises `VerbError`, and nothing else, whose text names each fault's path, what was found there
    and what is allowed. Passwords, header values and URLs are not repeated in it.
    """
    data = _read(source)
    try:
        return Verb.model_validate(data)
    except ValidationError as error:
        faults = problems(error, _is_secret, _unknown)
    raise VerbError(list(_explained(faults, has_profile="profile" in data)))


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


def _explained(faults: Iterable[Problem], *, has_profile: bool) -> Iterator[Problem]:
    """A profile may bring the URL; without one the URL is the only property that must be there."""
    for fault in faults:
        if fault != Problem("url", "missing"):
            yield fault
        elif not has_profile:
            yield Problem("url", "missing, expected a ws, wss, http or https URL")


def _is_secret(path: str) -> bool:
    return path.endswith("password") or path.startswith("headers") or path.endswith(("url", "Hook"))


def _unknown(keys: tuple[str, ...]) -> str:
    """The text for an unknown property; ``keys`` is its path from the root of the verb."""
    parts: dict[str, type[_Part]] = {
        "actionHook": ActionHook,
        "bidirectionalAudio": BidirectionalAudio,
        "reconnect": Reconnect,
        "wsAuth": WsAuth,
    }
    part = parts[keys[0]] if len(keys) > 1 and keys[0] in parts else Verb
    known = [name for name in map(to_camel, part.model_fields) if name not in NOT_YET]
    close = difflib.get_close_matches(keys[-1], known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown property, expected one of {', '.join(known)}{hint}"


def _websocket_url(text: str) -> str:
    """``text`` with scheme ws or wss and everything else encoded for the wire.

    Raises pydantic's custom errors, none of which repeats the URL: it may hold a token.
    """
    match = _AUTHORITY.match(text)
    if not match:
        raise refused("found another kind of URL, expected ws://, wss://, http:// or https://")
    authority = match.group(1)
    if "@" in authority:
        raise refused("holds a user name or password, expected them in wsAuth")
    if not authority or re.search(r"[\x00-\x20\x7f\\]", text):
        raise refused("has no host, or holds a space, a backslash or a control character")
    try:
        url = Url(text)
    except ValidationError as error:
        reason = error.errors(include_input=False)[0]["msg"].rpartition("URL, ")[2]
        raise refused(f"not a valid URL: {reason}") from None
    if url.port == 0:
        raise refused("not a valid URL: port 0")
    if url.fragment is not None:
        raise refused("has a fragment (#…), which a WebSocket URL cannot have (RFC 6455)")
    return re.sub(r"^http", "ws", str(url))
