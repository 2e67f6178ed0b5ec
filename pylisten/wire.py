"""The text frames between a worker and the user's server.

`decode_text` reads what the server sends and gives a message, or raises `WireError`, which goes
back to the server as an ``error`` frame while the listen goes on. The encoders write what pylisten
sends. Audio travels in binary frames, which have no header and need no code here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from pylisten.errors import WireError
from pylisten.validation import expected, found, problems
from pylisten.verb import RATES_HZ, Verb

__all__ = [
    "MAX_TEXT_BYTES",
    "ClearMarks",
    "ClipId",
    "ContentType",
    "Disconnect",
    "KillAudio",
    "Mark",
    "MarkData",
    "Message",
    "Other",
    "PlayAudio",
    "PlayAudioData",
    "WireError",
    "decode_text",
    "dtmf",
    "error",
    "first_frame",
    "mark",
    "play_done",
    "resumed",
]

#: The largest text frame that is read.
MAX_TEXT_BYTES = 16 * 1024 * 1024

#: The longest id or name that a server may give: both are echoed, and stand in events and logs.
MAX_LABEL_CHARACTERS = 1024

ClipId = str | int | float
ContentType = Literal["raw", "wav", "wave"]


@dataclass(frozen=True, slots=True)
class PlayAudio:
    """Play a clip. ``content`` is base64, not yet looked into: see `pylisten.audio.decode_clip`.

    ``sample_rate`` (Hz) is always set for raw audio, and one of the six; a WAV header knows better
    than it. ``id`` is echoed as it came. ``queue_play`` is None where the server left it open.
    """

    content: str
    content_type: ContentType
    sample_rate: int | None = None
    id: ClipId | None = None
    queue_play: bool | None = None


@dataclass(frozen=True, slots=True)
class KillAudio:
    """Stop playing now, and forget what is queued."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the listen."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Tell when the audio sent before this has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class ClearMarks:
    """Forget the marks that are waiting."""


@dataclass(frozen=True, slots=True)
class Other:
    """A message that is not part of the protocol; ``raw`` is its text, unchanged."""

    type: str
    raw: str


Message = PlayAudio | KillAudio | Disconnect | Mark | ClearMarks | Other

_BARE: dict[str, Message] = {
    "killAudio": KillAudio(),
    "disconnect": Disconnect(),
    "clearMarks": ClearMarks(),
}


_DIGITS = "0|[1-9][0-9]{0,8}"


def _rate(value: object) -> object:
    """A rate is a number or a numeric string, as jambonz applications send both."""
    if isinstance(value, str) and re.fullmatch(_DIGITS, value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise expected("a whole number or a numeric string")
    return value


def _clip_id(value: object) -> object:
    """Checked by hand, as a pydantic union would report each of its branches."""
    if isinstance(value, str) and len(value) <= MAX_LABEL_CHARACTERS:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        return value
    if value is None:
        return None
    raise expected(f"a number or a string of at most {MAX_LABEL_CHARACTERS} characters")


_Label = Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)]
_ClipId = Annotated[
    ClipId | None,
    PlainValidator(_clip_id),
    WithJsonSchema({"type": ["string", "number", "null"], "maxLength": MAX_LABEL_CHARACTERS}),
]
_Rate = Annotated[
    int,
    BeforeValidator(_rate),
    WithJsonSchema({"type": ["integer", "string"], "pattern": rf"^(?:{_DIGITS})(?!\n)$"}),
]


class _Data(BaseModel):
    """The ``data`` of a frame: strict in types, open for properties this release does not know."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        allow_inf_nan=False,
        extra="ignore",
        hide_input_in_errors=True,
        strict=True,
        use_attribute_docstrings=True,
    )


class _Identified(_Data):
    id: _ClipId = None
    """Comes back, as it was given, in the frames about this clip."""


class PlayAudioData(_Identified):
    """The ``data`` of ``playAudio``."""

    audio_content: str
    """The audio in base64 (RFC 4648, padded, no line breaks)."""

    audio_content_type: str
    """raw: 16-bit little-endian PCM, mono, without a header; wav or wave: a WAV file."""

    sample_rate: _Rate | None = None
    """Of raw audio, in Hz; a WAV file tells its own."""

    queue_play: bool | None = None
    """Whether the clip waits for those before it, or else stops them; the configuration of the
    worker decides where it is left out."""


class MarkData(_Data):
    """The ``data`` of ``mark``."""

    name: _Label
    """Comes back, as it was given, when the audio sent before the mark has been played."""


_AnyData = TypeVar("_AnyData", bound=_Data)


def decode_text(text: str) -> Message:
    """Read one text frame of the server.

    Raises `WireError` (``bad-json``, ``bad-message``, ``bad-audio``, ``unsupported-rate``,
    ``too-large``), and nothing else, with the clip's id where one could be read.
    """
    frame = _object(text)
    kind = frame.get("type")
    if not isinstance(kind, str):
        what = f"found {found(kind)}" if "type" in frame else "missing"
        raise WireError("bad-message", f"type: {what}, expected a string")
    if kind in _BARE:
        return _BARE[kind]
    if kind == "playAudio":
        return _play_audio(frame.get("data"))
    if kind == "mark":
        return Mark(_checked(MarkData, frame.get("data")).name)
    return Other(kind, text)


def _object(text: str) -> dict[str, object]:
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_TEXT_BYTES:
        raise WireError("too-large", f"the frame is larger than {MAX_TEXT_BYTES} bytes")
    try:
        frame = from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise WireError("bad-json", f"not valid JSON: {error}") from None
    if not isinstance(frame, dict):
        raise WireError("bad-message", f"found {found(frame)}, expected an object")
    return frame


def _play_audio(raw: object) -> PlayAudio:
    clip_id = _checked(_Identified, raw).id
    data = _checked(PlayAudioData, raw, clip_id)
    content_type = data.audio_content_type
    if content_type not in ("raw", "wav", "wave"):
        message = f"data.audioContentType: found {found(content_type)}, expected raw, wav or wave"
        raise WireError("bad-audio", message, clip_id)
    if content_type == "raw":
        _check_raw_rate(data.sample_rate, clip_id)
    return PlayAudio(
        data.audio_content,
        cast(ContentType, content_type),
        data.sample_rate,
        clip_id,
        data.queue_play,
    )


def _check_raw_rate(rate_hz: int | None, clip_id: ClipId | None) -> None:
    allowed = f"expected one of {', '.join(map(str, RATES_HZ))}"
    if rate_hz is None:
        message = f"data.sampleRate: missing for raw audio, {allowed}"
        raise WireError("bad-message", message, clip_id)
    if rate_hz not in RATES_HZ:
        message = f"data.sampleRate: found {found(rate_hz)}, {allowed}"
        raise WireError("unsupported-rate", message, clip_id)


def _checked(model: type[_AnyData], data: object, clip_id: ClipId | None = None) -> _AnyData:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = problems(error, lambda path: False, lambda keys: "unknown property")
    message = "; ".join(f"data.{fault}" if fault.path else f"data: {fault}" for fault in faults)
    raise WireError("bad-message", message, clip_id) from None


def first_frame(
    verb: Verb, attributes: Mapping[str, str | None], *, listen_id: str, resumed: bool = False
) -> str:
    """The text frame that opens every connection.

    The verb's metadata comes last and may replace an attribute, as with jambonz; ``sampleRate`` and
    ``mixType`` (and ``resumed``, after a reconnect) always tell the truth. None is left out.
    """
    truth: dict[str, Any] = {"sampleRate": verb.sample_rate, "mixType": verb.mix_type}
    described = {**attributes, "listenId": listen_id, "name": verb.name}
    present = {key: value for key, value in described.items() if value is not None}
    again = {"resumed": True} if resumed else {}
    return _text({**truth, **present, **verb.metadata, **truth, **again})


def play_done(id: ClipId | None, milliseconds: int, reason: Literal["done", "killed"]) -> str:
    """A clip has ended; ``milliseconds`` of it were really written to the call."""
    data = {"playbackMilliseconds": str(milliseconds), "reason": reason}
    return _event("playDone", {"id": id, **data})


def mark(name: str, event: Literal["playout", "cleared"]) -> str:
    """A mark was reached, or will never be."""
    return _event("mark", {"name": name, "event": event})


def error(code: str, message: str, id: ClipId | None = None) -> str:
    """A frame of the server was refused; see `WireError` for the parts."""
    return _event("error", {"code": code, "message": message, "id": id})


def dtmf(digit: str, duration: int) -> str:
    """A digit was pressed for ``duration`` timestamp units of 1/8000 s."""
    return _text({"event": "dtmf", "dtmf": digit, "duration": str(duration)})


def resumed(gap_ms: int, position_ms: int) -> str:
    """Audio goes on after a reconnect.

    ``gap_ms`` of it were given up; what follows begins ``position_ms`` after the beginning of the
    listen. Both are whole milliseconds.
    """
    return _event("resumed", {"gapMilliseconds": gap_ms, "positionMilliseconds": position_ms})


def _event(kind: str, data: Mapping[str, object]) -> str:
    present = {key: value for key, value in data.items() if value is not None}
    return _text({"type": kind, "data": present})


def _text(value: object) -> str:
    """JSON that can be sent whatever it quotes: half a surrogate pair becomes ``?``."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()
