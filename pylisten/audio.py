"""Decodes the clips that a server sends in ``playAudio``: raw L16, or a WAV file."""

from __future__ import annotations

import binascii
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile

from pylisten.errors import WireError
from pylisten.verb import RATES_HZ
from pylisten.wire import ClipId, PlayAudio

__all__ = ["MAX_CLIP_S", "Clip", "decode_clip"]

#: The longest clip. A frame of 16 MiB can carry 26 minutes of 8-bit audio at 8000 Hz, and clips
#: wait decoded: without a bound, ten of them per call could take a worker's memory away.
MAX_CLIP_S = 600

_ENCODINGS = frozenset({"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})

# Engines that write to a pipe cannot know the size of the data chunk. They leave 0, or the largest
# number they know: 0xFFFFFFFF, 0x7FFFFFFF, or 0x7FFFF000 (espeak, SoX). A frame is 16 MiB at most.
_UNKNOWN_SIZE_FROM = 0x7FFFF000


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Decoded audio: ``samples`` is mono int16 of shape (n,), at ``rate_hz``; n may be 0."""

    rate_hz: int
    samples: npt.NDArray[np.int16]

    @property
    def duration_ms(self) -> int:
        """Whole milliseconds, rounded down."""
        return len(self.samples) * 1000 // self.rate_hz


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One RIFF chunk: ``size`` is what its header claims, ``rest`` all that follows the header."""

    tag: bytes
    size: int
    rest: memoryview


def decode_clip(play: PlayAudio) -> Clip:
    """The audio of a ``playAudio`` message.

    Raises `WireError`, and nothing else, with the clip's id: ``bad-base64``, ``bad-audio``,
    ``unsupported-rate`` or ``too-large``. Takes up to a second for the largest clips.
    """
    try:
        data = binascii.a2b_base64(play.content, strict_mode=True)
    except ValueError as error:
        raise WireError("bad-base64", f"data.audioContent: {error}", play.id) from None
    if play.content_type == "raw":
        return _decode_raw(data, play)
    return _decode_wav(data, play.id)


def _decode_raw(data: bytes, play: PlayAudio) -> Clip:
    if len(data) % 2:
        raise _bad(f"found {len(data)} bytes, expected 16-bit samples, two bytes each", play.id)
    rate_hz = _checked_rate(play.sample_rate or 0, play.id)
    _check_length(len(data) // 2, rate_hz, play.id)
    return Clip(rate_hz, np.frombuffer(data, "<i2").astype(np.int16))


def _decode_wav(data: bytes, clip_id: ClipId | None) -> Clip:
    try:
        with soundfile.SoundFile(io.BytesIO(_plain_wav(data, clip_id))) as file:
            if file.subtype not in _ENCODINGS:
                raise _bad(f"found a WAV of {file.subtype}, expected PCM or G.711", clip_id)
            if file.channels > 2:
                raise _bad(f"found {file.channels} channels, expected 1 or 2", clip_id)
            rate_hz = _checked_rate(file.samplerate, clip_id)
            _check_length(file.frames, rate_hz, clip_id)
            return Clip(rate_hz, _mono(file.read(dtype="float32", always_2d=True)))
    except soundfile.LibsndfileError as error:
        raise _bad(f"not a readable WAV: {error.error_string}", clip_id) from None


def _mono(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Averages the channels of (n, 1 or 2) samples; what is above full scale is clipped.

    float32 holds 16-bit samples exactly. libsndfile is not asked for int16 itself, as it would not
    scale a file of floats.
    """
    finite = np.nan_to_num(samples, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
    mono: npt.NDArray[np.float32] = np.clip(finite, -1.0, 1.0, out=finite).mean(axis=1)
    scaled: npt.NDArray[np.float32] = np.rint(mono * np.float32(32768))
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def _plain_wav(data: bytes, clip_id: ClipId | None) -> bytes:
    """A WAV of the format and data chunks of ``data`` alone, with sizes that are true.

    libsndfile reads truncated files as if they were whole, tells other containers from the content,
    and parses every chunk; here only the two that matter reach it.
    """
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        raise _bad("not a WAV file: it does not begin with RIFF or RF64 and WAVE", clip_id)
    form = b""
    for chunk in _chunks(data):
        if chunk.tag == b"fmt ":
            form = bytes(chunk.rest[: chunk.size])
        elif chunk.tag == b"data":
            return _wav(form, _audio_of(chunk, data, clip_id))
    raise _bad("truncated WAV: it has no data chunk", clip_id)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    view, start, size_in_ds64 = memoryview(data), 12, 0
    while start + 8 <= len(data):
        tag, size = struct.unpack_from("<4sI", data, start)
        rest = view[start + 8 :]
        if tag == b"ds64" and len(rest) >= 16:
            (size_in_ds64,) = struct.unpack_from("<Q", rest, 8)
        if tag == b"data" and size == 0xFFFFFFFF and size_in_ds64:
            size = size_in_ds64
        yield _Chunk(tag, size, rest)
        start += 8 + size + size % 2


def _audio_of(chunk: _Chunk, data: bytes, clip_id: ClipId | None) -> bytes:
    (size_in_riff,) = struct.unpack_from("<I", data, 4)
    honestly_empty = chunk.size == 0 and size_in_riff + 8 == len(data)
    if chunk.size >= _UNKNOWN_SIZE_FROM or (chunk.size == 0 and not honestly_empty):
        return bytes(chunk.rest)
    if chunk.size > len(chunk.rest):
        claim = f"its header claims {chunk.size} bytes of audio, {len(chunk.rest)} were found"
        raise _bad(f"truncated WAV: {claim}", clip_id)
    return bytes(chunk.rest[: chunk.size])


def _wav(form: bytes, audio: bytes) -> bytes:
    """A WAV file; chunks begin at even offsets."""
    body = b"WAVE"
    for tag, content in ((b"fmt ", form), (b"data", audio)):
        body += struct.pack("<4sI", tag, len(content)) + content + bytes(len(content) % 2)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def _checked_rate(rate_hz: int, clip_id: ClipId | None) -> int:
    if rate_hz not in RATES_HZ:
        allowed = ", ".join(map(str, RATES_HZ))
        message = f"data.audioContent: found {rate_hz} Hz, expected one of {allowed}"
        raise WireError("unsupported-rate", message, clip_id)
    return rate_hz


def _check_length(samples: int, rate_hz: int, clip_id: ClipId | None) -> None:
    if samples > MAX_CLIP_S * rate_hz:
        message = f"data.audioContent: found {samples / rate_hz:.0f} s, expected at most"
        raise WireError("too-large", f"{message} {MAX_CLIP_S} s", clip_id)


def _bad(text: str, clip_id: ClipId | None) -> WireError:
    return WireError("bad-audio", f"data.audioContent: {text}", clip_id)
