"""Coverage-guided fuzzing of whatever reads input that somebody else wrote.

    python -m tests.fuzz.targets verb -max_total_time=600

Targets: ``verb``, ``wire``, ``audio``, ``esl``. Arguments after the name are libFuzzer's. A target
fails when anything but the project's own error escapes, or when libFuzzer's limits on memory and
time (``-rss_limit_mb``, ``-timeout``) are passed.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np
import soundfile

with atheris.instrument_imports(include=["pylisten"]):
    from pylisten.audio import decode_clip
    from pylisten.errors import VerbError, WireError
    from pylisten.esl_link import decode_event, decode_headers
    from pylisten.verb import parse_verb
    from pylisten.wire import PlayAudio, decode_text

RATES_HZ = (8000, 16000, 24000, 32000, 48000, 64000)


def fuzz_verb(data: bytes) -> None:
    """The verb, as it comes from a dialplan."""
    try:
        parse_verb(data)
    except VerbError as error:
        str(error)


def fuzz_wire(data: bytes) -> None:
    """Text frames of a server; a clip in one of them is decoded."""
    try:
        message = decode_text(data.decode("utf-8", "surrogateescape"))
        if isinstance(message, PlayAudio):
            decode_clip(message)
    except WireError as error:
        str(error)


def fuzz_audio(data: bytes) -> None:
    """Clips whose base64 is right: what is inside is not."""
    provider = atheris.FuzzedDataProvider(data)
    raw = provider.ConsumeBool()
    rate_hz = RATES_HZ[provider.ConsumeIntInRange(0, len(RATES_HZ) - 1)]
    content = base64.b64encode(provider.ConsumeBytes(1 << 16)).decode("ascii")
    try:
        decode_clip(PlayAudio(content, "raw" if raw else "wav", rate_hz))
    except WireError as error:
        str(error)


def fuzz_esl(data: bytes) -> None:
    """Blocks and events of the event socket, which hold what callers wrote."""
    decode_headers(data, quoted=False)
    event = decode_event(data)
    assert all("\n" not in name for name in event.headers)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "verb": fuzz_verb,
    "wire": fuzz_wire,
    "audio": fuzz_audio,
    "esl": fuzz_esl,
}


def _wav() -> bytes:
    samples = np.arange(160, dtype=np.int16)
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _play(content_type: str, content: bytes) -> bytes:
    audio = {
        "audioContent": base64.b64encode(content).decode("ascii"),
        "audioContentType": content_type,
        "sampleRate": "16000",
        "id": "a",
        "queuePlay": True,
    }
    return json.dumps({"type": "playAudio", "data": audio}).encode()


def seeds(target: str) -> list[bytes]:
    """Inputs that get past the first checks; libFuzzer changes them."""
    whole = {
        "verb": "listen",
        "url": "wss://example.com:8443/a?b=c",
        "mixType": "stereo",
        "sampleRate": 16000,
        "metadata": {"a": [1, None, {"b": "c"}]},
        "headers": {"X-A": "b"},
        "wsAuth": {"username": "u", "password": "p"},
        "bidirectionalAudio": {"enabled": True, "streaming": True, "sampleRate": 24000},
        "finishOnKey": "#*",
        "reconnect": {"attempts": 3, "maxDelay": 4.5},
        "actionHook": {"url": "https://example.com/h", "method": "GET"},
        "maxLength": 10,
        "timeout": 2.5,
    }
    event = b"Event-Name: CUSTOM\nEvent-Subclass: listen%3A%3Astart\nListen-ID: a%0Ab\n"
    return {
        "verb": [json.dumps(whole).encode(), b'{"url":"ws://[::1]:1/"}'],
        "wire": [
            _play("wav", _wav()),
            _play("raw", b"\0\1" * 80),
            b'{"type":"mark","data":{"name":"m"}}',
            b'{"type":"killAudio"}',
            b'{"type":"other","data":[1]}',
        ],
        "audio": [b"\0\0" + _wav(), b"\1\1" + b"\0\1" * 80],
        "esl": [event + b"\n", event + b"Content-Length: 3\n\nabc"],
    }[target]


def main() -> None:
    """Runs the target that is named first, from its seeds."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.targets {'|'.join(TARGETS)} [libFuzzer arguments]")
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as corpus:
        for number, seed in enumerate(seeds(name)):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
