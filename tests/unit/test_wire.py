"""The text frames: what is read from a server, what is refused, what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylisten import wire
from pylisten.verb import RATES_HZ, parse_verb
from pylisten.wire import (
    MAX_TEXT_BYTES,
    ClearMarks,
    Disconnect,
    KillAudio,
    Mark,
    Message,
    Other,
    PlayAudio,
    WireError,
    decode_text,
)


def play_audio(**data: object) -> str:
    raw = {"audioContent": "AAA=", "audioContentType": "raw", "sampleRate": 16000}
    merged = {key: value for key, value in {**raw, **data}.items() if value is not ...}
    return json.dumps({"type": "playAudio", "data": merged})


def refusal(text: str) -> WireError:
    with pytest.raises(WireError) as caught:
        decode_text(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"killAudio"}', KillAudio()),
        ('{"type":"disconnect","data":{"why":1}}', Disconnect()),
        ('{"type":"clearMarks"}', ClearMarks()),
        ('{"type":"mark","data":{"name":"m 1","more":2}}', Mark("m 1")),
        ('{"type":"transfer", "to":[1]}', Other("transfer", '{"type":"transfer", "to":[1]}')),
    ],
)
def test_messages_are_told_apart(text: str, message: Message) -> None:
    assert decode_text(text) == message


def test_play_audio_with_everything() -> None:
    text = play_audio(id="c1", queuePlay=True, textContent="hello")
    assert decode_text(text) == PlayAudio("AAA=", "raw", 16000, "c1", True)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("spelling", [int, float, str])
def test_raw_audio_has_one_of_the_six_rates(rate_hz: int, spelling: type) -> None:
    message = decode_text(play_audio(sampleRate=spelling(rate_hz)))
    assert isinstance(message, PlayAudio)
    assert message.sample_rate == rate_hz


@pytest.mark.parametrize("kind", ["wav", "wave"])
def test_a_wav_needs_no_rate(kind: str) -> None:
    text = play_audio(audioContentType=kind, sampleRate=...)
    assert decode_text(text) == PlayAudio("AAA=", kind)  # type: ignore[arg-type]
    text = play_audio(audioContentType=kind, sampleRate=11025)
    assert decode_text(text) == PlayAudio("AAA=", kind, 11025)  # type: ignore[arg-type]


@pytest.mark.parametrize("clip_id", ["", "x", "ü", 0, 7, -1, 1.5, 10**30, "7"])
def test_ids_come_back_as_they_were_given(clip_id: str | int | float) -> None:
    message = decode_text(play_audio(id=clip_id))
    assert isinstance(message, PlayAudio)
    answer = json.loads(wire.play_done(message.id, 20, "done"))
    assert answer["data"]["id"] == clip_id
    assert type(answer["data"]["id"]) is type(clip_id)


def test_null_is_the_same_as_absent() -> None:
    text = play_audio(id=None, queuePlay=None)
    assert decode_text(text) == PlayAudio("AAA=", "raw", 16000, None, None)


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        ({"sampleRate": 11025}, "unsupported-rate", "data.sampleRate: found 11025, expected one "),
        ({"sampleRate": "44100"}, "unsupported-rate", "data.sampleRate: found 44100, expected one"),
        ({"sampleRate": -8000}, "unsupported-rate", "data.sampleRate: found -8000"),
        ({"sampleRate": 1e300}, "unsupported-rate", "data.sampleRate: found a huge number"),
        ({"sampleRate": ...}, "bad-message", "data.sampleRate: missing for raw audio, expected "),
        ({"sampleRate": "08000"}, "bad-message", 'data.sampleRate: found "08000", expected a who'),
        ({"sampleRate": "16k"}, "bad-message", 'data.sampleRate: found "16k", expected a whole'),
        ({"sampleRate": "9" * 5000}, "bad-message", 'data.sampleRate: found "999'),
        ({"sampleRate": "٨٠٠٠"}, "bad-message", "data.sampleRate: found"),
        ({"sampleRate": True}, "bad-message", "data.sampleRate: found true, expected a whole num"),
        ({"sampleRate": 8000.5}, "bad-message", "data.sampleRate: found 8000.5, expected a whole"),
        ({"audioContent": ...}, "bad-message", "data.audioContent: missing"),
        ({"audioContent": 5}, "bad-message", "data.audioContent: found 5, expected a string"),
        ({"audioContentType": "mp3"}, "bad-audio", 'found "mp3", expected raw, wav or wave'),
        ({"audioContentType": 1}, "bad-message", "data.audioContentType: found 1, expected a str"),
        ({"audioContentType": ...}, "bad-message", "data.audioContentType: missing"),
        ({"queuePlay": "yes"}, "bad-message", 'data.queuePlay: found "yes", expected true or fal'),
    ],
)
def test_a_refused_clip_is_named(data: dict[str, Any], code: str, message: str) -> None:
    error = refusal(play_audio(id="c9", **data))
    assert (error.code, error.id) == (code, "c9")
    assert message in error.message


@pytest.mark.parametrize("clip_id", [True, [], {}, "x" * 1025])
def test_an_id_that_cannot_be_echoed_is_refused(clip_id: object) -> None:
    error = refusal(play_audio(id=clip_id))
    assert (error.code, error.id) == ("bad-message", None)
    assert "data.id: found" in error.message


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "bad-json", "EOF"),
        ("hello", "bad-json", "at line 1 column 1"),
        ('{"type":"killAudio",}', "bad-json", "trailing comma at line 1 column 21"),
        ('{"type":"x","v":NaN}', "bad-json", "at line 1"),
        ("[" * 200_000, "bad-json", "recursion limit exceeded"),
        ('{"type":"x","v":' + "9" * 100_000 + "}", "bad-json", "number out of range"),
        ('{"type":"\ud800"}', "bad-json", "invalid unicode"),
        ("[]", "bad-message", "found an array, expected an object"),
        ("null", "bad-message", "found null, expected an object"),
        ("{}", "bad-message", "type: missing, expected a string"),
        ('{"type":5}', "bad-message", "type: found 5, expected a string"),
        ('{"type":"playAudio"}', "bad-message", "data: found null, expected an object"),
        ('{"type":"playAudio","data":[]}', "bad-message", "data: found an array, expected an obj"),
        ('{"type":"mark"}', "bad-message", "data: found null, expected an object"),
        ('{"type":"mark","data":{"name":1}}', "bad-message", "data.name: found 1, expected a str"),
        ('{"type":"mark","data":{}}', "bad-message", "data.name: missing"),
    ],
)
def test_a_frame_that_makes_no_sense_is_refused(text: str, code: str, message: str) -> None:
    error = refusal(text)
    assert (error.code, error.id) == (code, None)
    assert message in error.message


def test_frames_up_to_the_limit_are_read() -> None:
    room = MAX_TEXT_BYTES - len(play_audio(audioContent=""))
    message = decode_text(play_audio(audioContent="A" * room))
    assert isinstance(message, PlayAudio)
    assert len(message.content) == room
    assert refusal(play_audio(audioContent="A" * (room + 1))).code == "too-large"


def test_the_limit_counts_bytes() -> None:
    text = json.dumps({"type": "x", "v": "€" * (MAX_TEXT_BYTES // 3)}, ensure_ascii=False)
    assert len(text) < MAX_TEXT_BYTES
    assert refusal(text).code == "too-large"


def first_frame(
    verb: dict[str, Any], attributes: dict[str, str | None] | None = None, *, resumed: bool = False
) -> dict[str, Any]:
    parsed = parse_verb({"url": "ws://h", **verb})
    text = wire.first_frame(parsed, attributes or {}, listen_id="L1", resumed=resumed)
    frame = json.loads(text)
    assert isinstance(frame, dict)
    return frame


def test_the_first_frame_in_order() -> None:
    frame = first_frame(
        {"sampleRate": 16000, "mixType": "stereo", "name": "n", "metadata": {"zip": "01234"}},
        {"callSid": "u-1", "from": None, "direction": "inbound"},
    )
    assert list(frame.items()) == [
        ("sampleRate", 16000),
        ("mixType", "stereo"),
        ("callSid", "u-1"),
        ("direction", "inbound"),
        ("listenId", "L1"),
        ("name", "n"),
        ("zip", "01234"),
    ]


def test_metadata_replaces_attributes_but_not_the_truth_about_the_audio() -> None:
    metadata = {"callSid": "mine", "sampleRate": 1, "mixType": "x", "resumed": "?"}
    frame = first_frame({"metadata": metadata}, {"callSid": "u-1"}, resumed=True)
    assert (frame["callSid"], frame["sampleRate"], frame["mixType"]) == ("mine", 8000, "mono")
    assert frame["resumed"] is True
    assert "resumed" not in first_frame({})


@pytest.mark.parametrize(
    "value",
    [
        "a|b",
        "quote\" ' \\ \n\t",
        "Ünïcödé €",
        "🙂",
        [1, [2.5, None, {}]],
        10**20,
        {"a": {"b": True}},
    ],
)
def test_metadata_arrives_unchanged(value: object) -> None:
    assert first_frame({"metadata": {"v": value}})["v"] == value


def test_answers_have_the_shape_of_the_protocol() -> None:
    assert wire.play_done(None, 1240, "done") == (
        '{"type":"playDone","data":{"playbackMilliseconds":"1240","reason":"done"}}'
    )
    assert wire.play_done(3, 20, "killed") == (
        '{"type":"playDone","data":{"id":3,"playbackMilliseconds":"20","reason":"killed"}}'
    )
    assert wire.mark("m", "playout") == '{"type":"mark","data":{"name":"m","event":"playout"}}'
    assert wire.error("bad-json", "no") == (
        '{"type":"error","data":{"code":"bad-json","message":"no"}}'
    )
    assert wire.error("queue-full", "no", "c") == (
        '{"type":"error","data":{"code":"queue-full","message":"no","id":"c"}}'
    )
    assert wire.dtmf("2", 1600) == '{"event":"dtmf","dtmf":"2","duration":"1600"}'
    assert wire.resumed(40, 61_000) == (
        '{"type":"resumed","data":{"gapMilliseconds":40,"positionMilliseconds":61000}}'
    )


def test_whatever_a_switch_says_can_be_sent() -> None:
    assert first_frame({}, {"callerName": "\udce4"})["callerName"] == "?"


_TEXT = st.text(st.characters(codec=None))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    ["audioContent", "audioContentType", "sampleRate", "id", "queuePlay", "name"]
)
_VALUES = _JSON | st.sampled_from(["raw", "wav", "16000", 8000, "AAA=", 1.5])
_FRAMES = st.fixed_dictionaries(
    {"type": st.sampled_from(["playAudio", "mark", "killAudio", "x"]) | _JSON},
    optional={"data": st.dictionaries(_KEYS, _VALUES) | _JSON},
)


@given(_TEXT | st.builds(json.dumps, _JSON | _FRAMES, ensure_ascii=st.booleans()))
def test_no_text_raises_anything_but_wire_error(text: str) -> None:
    try:
        decode_text(text)
    except WireError as error:
        answer = wire.error(error.code, error.message, error.id)
    else:
        answer = wire.mark("m", "playout")
    assert answer.encode()
    json.loads(answer)
