"""What a `pylisten.session.Session` asks of its worker, what it counts, and what a hook says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic.alias_generators import to_snake

from pylisten.playback import Flush, Samples

if TYPE_CHECKING:
    from pylisten import wire

__all__ = [
    "Action",
    "Close",
    "CloseFlow",
    "Connect",
    "Counters",
    "Decode",
    "Discard",
    "Emit",
    "End",
    "Flush",
    "Hook",
    "Log",
    "OpenFlow",
    "Release",
    "SendBinary",
    "SendText",
    "Trim",
    "Write",
    "hook_body",
]


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the WebSocket; answered by `connected` or `connect_failed`. Headers hold secrets.

    Comes again after the connection was lost, and after each try that failed.
    """

    url: str
    call_sid: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendText:
    """Send a text frame to the server."""

    text: str


@dataclass(frozen=True, slots=True)
class SendBinary:
    """Send a binary frame to the server: 20 ms of audio."""

    data: bytes


@dataclass(frozen=True, slots=True)
class OpenFlow:
    """Let frames come; until now they gathered in the ring."""


@dataclass(frozen=True, slots=True)
class CloseFlow:
    """Let no more frames come; they gather in the ring."""


@dataclass(frozen=True, slots=True)
class Trim:
    """Give up what the ring holds but for the last ``keep_ms``; answered by `trimmed`."""

    keep_ms: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Give up what the ring still holds: it will not be sent."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the WebSocket with this code and reason, or give up opening it."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode a clip; answered by `clip_decoded` with the same ticket."""

    ticket: int
    play: wire.PlayAudio


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """Write samples (int16, mono) to the playback ring; answered by `wrote`."""

    rate_hz: int
    samples: Samples


@dataclass(frozen=True, slots=True)
class Emit:
    """Fire `listen::<event>`, with flat headers."""

    event: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class End:
    """Tell the switch that the listen is over; once at most, answered by `ended`.

    ``close_code`` is None where no connection was closed. ``bytes_sent`` counts audio; ``gap_ms``
    is audio that the server did not get: silence stood in for it, or it was given up while the
    server could not be reached.
    """

    reason: str
    error: str
    digits: str
    close_code: int | None
    close_reason: str
    bytes_sent: int
    gap_ms: int


@dataclass(frozen=True, slots=True)
class Hook:
    """Tell the verb's ``actionHook`` that the listen is over; once per listen."""

    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Release:
    """Give the slot back; the last action of a listen."""


@dataclass(frozen=True, slots=True)
class Log:
    """Something an operator should be able to read."""

    level: Literal["info", "warning"]
    text: str


Action = (
    Connect
    | SendText
    | SendBinary
    | OpenFlow
    | CloseFlow
    | Trim
    | Discard
    | Close
    | Decode
    | Write
    | Flush
    | Emit
    | End
    | Hook
    | Release
    | Log
)


@dataclass(slots=True)
class Counters:
    """What a listen has done so far. Samples are per track, at the rate of the listen.

    What a lost connection did not deliver is not counted as sent, until it is sent again.
    """

    frames_sent: int = 0
    bytes_sent: int = 0
    samples_sent: int = 0
    samples_silent: int = 0  # filled in for audio that never came
    frames_discarded: int = 0  # came after the end was decided
    frames_paused: int = 0  # silenced or dropped because an operator asked
    peak_level: int = 0  # the loudest frame: RMS of the near track, 0 … 32767
    texts_in: int = 0
    texts_sent: int = 0
    texts_dropped: int = 0  # never delivered: too many, or the server was not reached again
    binaries_in: int = 0
    binaries_refused: int = 0
    errors_sent: int = 0
    clips_queued: int = 0
    clips_done: int = 0
    clips_killed: int = 0
    reconnects: int = 0  # that succeeded
    frames_replayed: int = 0  # undelivered, and sent again
    frames_given_up: int = 0  # undelivered, and too old, or the server was not reached again
    samples_given_up: int = 0  # those, and what the ring gave up while there was no connection


def hook_body(
    listen_id: str,
    attributes: Mapping[str, str | None],
    *,
    name: str,
    reason: str,
    verb_id: str | None = None,
    duration_ms: int = 0,
    digits: str = "",
    close_code: int | None = None,
    close_reason: str = "",
    bytes_sent: int = 0,
    gap_ms: int = 0,
) -> dict[str, object]:
    """What an ``actionHook`` is told about a listen that is over; what is absent is left out.

    ``attributes`` are those of the first text frame that the switch knows, camelCase; ``digits``
    is the key that ended the listen. The defaults are those of a listen that never began.
    """
    told: dict[str, object] = {to_snake(key): value for key, value in attributes.items()}
    told |= {
        "listen_id": listen_id,
        "name": name,
        "verb_id": verb_id,
        "reason": reason,
        "digits": digits or None,
        "dial_call_duration": duration_ms // 1000,
        "listen_duration_ms": duration_ms,
        "ws_close_code": close_code,
        "ws_close_reason": close_reason or None,
        "bytes_sent": bytes_sent,
        "gap_ms": gap_ms,
    }
    return {key: value for key, value in told.items() if value is not None}
