"""The JSON Schemas: fresh, and of one mind with the code that judges verbs and frames."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic.alias_generators import to_camel

from pylisten import schemas, wire
from pylisten.verb import Verb, VerbError, parse_verb

ROOT = Path(__file__).parents[2]
PROFILES = {"bot": {"url": "wss://bot.example.com/audio"}}


@cache
def validator(name: str) -> Draft202012Validator:
    text = (ROOT / schemas.DIRECTORY / f"{name}.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def faults(name: str, document: object) -> list[str]:
    return [
        f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(document)
    ]


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(schemas.documents()[f"{name}.schema.json"])["properties"]
    return found


# The files.


@pytest.mark.parametrize("name", schemas.documents())
def test_the_committed_schema_is_what_the_code_says(name: str) -> None:
    committed = json.loads((ROOT / schemas.DIRECTORY / name).read_text(encoding="utf-8"))
    text = f"{name} is stale: run python -m pylisten.schemas"
    assert committed == json.loads(schemas.documents()[name]), text


@pytest.mark.parametrize("name", schemas.documents())
def test_every_schema_is_one_and_explains_itself(name: str) -> None:
    schema = json.loads(schemas.documents()[name])
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    for part in (schema, *schema.get("$defs", {}).values()):
        for key, found in part["properties"].items():
            if key not in ("type", "data", "event"):
                assert found["description"], f"{key} has no description"


def test_they_are_written_where_they_shall_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "a" / "b"
    assert schemas.main([str(directory)]) == 0
    assert {path.name for path in directory.iterdir()} == set(schemas.documents())
    assert str(directory) in capsys.readouterr().out
    assert json.loads((directory / "listen.schema.json").read_text("utf-8"))["title"]


def test_the_pages_name_every_schema() -> None:
    reference = ROOT / "docs/reference"
    text = "".join((reference / page).read_text("utf-8") for page in ("verb.md", "protocol.md"))
    assert set(schemas.documents()) <= set(re.findall(r"\(schemas/([\w.-]+)\)", text))


def test_the_pages_explain_every_error_code() -> None:
    page = (ROOT / "docs/reference/protocol.md").read_text("utf-8")
    table = page.partition("### Error codes")[2].partition("\n#")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == list(schemas.ERROR_CODES)


def test_the_compatibility_page_compares_everything_and_names_its_proofs() -> None:
    page = (ROOT / "docs/reference/compatibility.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:– )?`(\w+)[`.]", page, re.MULTILINE)
    frames = {name.rpartition("-")[2].removesuffix(".schema.json") for name in schemas.documents()}
    assert {to_camel(field) for field in Verb.model_fields} <= set(rows)
    assert frames - {"listen", "frame"} <= set(rows)
    proofs = re.findall(r"\| `([\w/]+\.py)::(\w+)` \|$", page, re.MULTILINE)
    table_rows = re.findall(r"^\| (?!---)(?!.*\| proof \|$)", page, re.MULTILINE)
    assert len(proofs) == len(table_rows), "a row without a proof"
    for path, name in proofs:
        source = (ROOT / "tests" / path).read_text("utf-8")
        assert re.search(rf"def {name}\(", source), f"{path} has no {name}"


# Frames to the server.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dtmf", wire.dtmf("2", 1600)),
        ("dtmf", wire.dtmf("#", 0)),
        ("playDone", wire.play_done(None, 1240, "done")),
        ("playDone", wire.play_done("c1", 0, "killed")),
        ("playDone", wire.play_done(1.5, 0, "killed")),
        ("mark", wire.mark("m", "playout")),
        ("mark", wire.mark("", "cleared")),
        ("error", wire.error("bad-json", "not valid JSON")),
        ("error", wire.error("queue-full", "too many", 7)),
        ("resumed", wire.resumed(0, 0)),
        ("resumed", wire.resumed(1200, 61_000)),
    ],
)
def test_what_is_sent_is_valid(name: str, text: str) -> None:
    frame = json.loads(text)
    assert faults(f"to-server-{name}", frame) == []
    described = properties(f"to-server-{name}")
    assert set(frame) <= set(described)
    if "data" in frame:
        assert set(frame["data"]) <= set(described["data"]["properties"])


@pytest.mark.parametrize("resumed", [False, True])
def test_the_first_frame_is_valid(resumed: bool) -> None:
    verb = parse_verb({"url": "ws://h", "metadata": {"callSid": 5, "mixType": 1, "mine": [None]}})
    known = (
        *("callSid", "direction", "from", "to", "callerId", "callerName", "callId", "callStatus"),
        *("sipStatus", "originatingSipIp", "fsHost", "parentCallSid"),
    )
    attributes = dict.fromkeys(known, "x")
    frame = json.loads(wire.first_frame(verb, attributes, listen_id="L", resumed=resumed))
    assert faults("to-server-first-frame", frame) == []
    described = properties("to-server-first-frame")
    assert set(frame) - {"mine"} == set(described) - (set() if resumed else {"resumed"})


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("first-frame", {"sampleRate": 8000}),
        ("first-frame", {"sampleRate": 11025, "mixType": "mono", "listenId": "L", "name": "n"}),
        ("dtmf", {"event": "dtmf", "dtmf": "22", "duration": "1600"}),
        ("dtmf", {"event": "dtmf", "dtmf": "2", "duration": 1600}),
        ("playDone", {"type": "playDone"}),
        ("playDone", {"type": "playDone", "data": {"playbackMilliseconds": 5, "reason": "done"}}),
        ("mark", {"type": "mark", "data": {"name": "m", "event": "reached"}}),
        ("error", {"type": "error", "data": {"code": "x"}}),
        ("resumed", {"type": "resumed", "data": {"gapMilliseconds": 5}}),
        (
            "resumed",
            {"type": "resumed", "data": {"gapMilliseconds": -1, "positionMilliseconds": 0}},
        ),
    ],
)
def test_what_is_never_sent_is_not_valid(name: str, frame: dict[str, Any]) -> None:
    assert faults(f"to-server-{name}", frame)


# Frames from the server.

_KINDS = ("playAudio", "killAudio", "disconnect", "mark", "clearMarks")


def accepts(frame: dict[str, Any]) -> bool:
    try:
        return not isinstance(wire.decode_text(json.dumps(frame)), wire.Other)
    except wire.WireError:
        return False


def clip(**data: object) -> dict[str, Any]:
    raw = {"audioContent": "AAA=", "audioContentType": "raw", "sampleRate": 16000}
    merged = {key: value for key, value in {**raw, **data}.items() if value is not ...}
    return {"type": "playAudio", "data": merged}


@pytest.mark.parametrize(
    ("frame", "fine"),
    [
        (clip(), True),
        (clip(sampleRate="16000"), True),
        (clip(sampleRate=16000.0, id="c", queuePlay=False, textContent="hello"), True),
        (clip(audioContentType="wav", sampleRate=...), True),
        (clip(audioContentType="wave", sampleRate=11025), True),
        (clip(audioContentType="wave", sampleRate=None, id=None, queuePlay=None), True),
        (clip(id=1.5), True),
        (clip(sampleRate=...), False),
        (clip(sampleRate=None), False),
        (clip(sampleRate=11025), False),
        (clip(sampleRate="16000\n"), False),
        (clip(sampleRate="016000"), False),
        (clip(sampleRate=True), False),
        (clip(audioContentType="mp3"), False),
        (clip(audioContentType="wav", sampleRate="16k"), False),
        (clip(audioContent=...), False),
        (clip(audioContent=5), False),
        (clip(id=True), False),
        (clip(id="x" * 1025), False),
        (clip(queuePlay="yes"), False),
        ({"type": "playAudio"}, False),
        ({"type": "killAudio"}, True),
        ({"type": "killAudio", "data": 5}, True),
        ({"type": "disconnect"}, True),
        ({"type": "clearMarks"}, True),
        ({"type": "mark", "data": {"name": "m"}}, True),
        ({"type": "mark", "data": {"name": "m", "more": 1}}, True),
        ({"type": "mark", "data": {"name": 5}}, False),
        ({"type": "mark", "data": {"name": "x" * 1025}}, False),
        ({"type": "mark", "data": {}}, False),
        ({"type": "mark"}, False),
    ],
)
def test_schema_and_decoder_judge_a_frame_alike(frame: dict[str, Any], fine: bool) -> None:
    assert (faults(f"from-server-{frame['type']}", frame) == []) is fine
    assert accepts(frame) is fine


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


def _one_of(*values: object) -> st.SearchStrategy[object]:
    """Mostly what is asked for, sometimes anything."""
    return st.sampled_from(values) | st.sampled_from(values) | _JSON


_DATA = st.fixed_dictionaries(
    {},
    optional={
        "audioContent": _one_of("AAA=", ""),
        "audioContentType": _one_of("raw", "wav", "wave"),
        "sampleRate": _one_of(8000, 16000.0, "24000", 11025, "0", "00", "8k"),
        "id": _one_of("c", 7),
        "queuePlay": _one_of(True, False),
        "name": _one_of("m"),
        "more": _JSON,
    },
)


@given(st.fixed_dictionaries({"type": st.sampled_from(_KINDS)}, optional={"data": _DATA | _JSON}))
def test_schema_and_decoder_judge_any_frame_alike(frame: dict[str, Any]) -> None:
    assert (faults(f"from-server-{frame['type']}", frame) == []) is accepts(frame)


# The verb.


def parses(verb: dict[str, Any]) -> bool:
    try:
        return isinstance(parse_verb(json.dumps(verb), PROFILES), Verb)
    except VerbError:
        return False


URL = {"url": "wss://bot.example.com/audio"}
AUTH = {"username": "u", "password": "p"}


@pytest.mark.parametrize(
    "verb",
    [
        URL,
        {"profile": "bot"},
        {"url": "HTTPS://H:443/p?q=http://x@y"},
        {"url": "ws://[::1]:9000?x"},
        {"url": "ws://bücher.example/ä"},
        {
            **{"verb": "stream", "_": [None], "id": 7, "name": "a.b-c_1", "metadata": {"a": {}}},
            **{"mixType": "stereo", "sampleRate": 16000.0, "includePlayback": True},
            **{"bidirectionalAudio": {"enabled": True, "streaming": True, "sampleRate": 24000}},
            **{"disableBidirectionalAudio": False, "earlyMedia": True, "passDtmf": True},
            **{"wsAuth": {"username": "u", "password": 1234}, "headers": {"X-A": "b\tc", "X": 5}},
            **{"finishOnKey": "0#*A", "maxLength": 1.5, "timeout": 4, "playBeep": True},
            **{"actionHook": "http://h/hook?a", "reconnect": False, "channel": 1, **URL},
        },
        {**URL, "actionHook": {"url": "https://h", "method": "GET", **AUTH}, "reconnect": {}},
        {**URL, "reconnect": {"attempts": 1, "maxDelay": 0.5}, "finishOnKey": 1},
        {**URL, "headers": {"Authorization": "Bearer t"}},
        {**URL, "wsAuth": AUTH, "headers": {"X-Authorization": "t", "Hosts": "h"}},
    ],
)
def test_schema_and_parser_accept_alike(verb: dict[str, Any]) -> None:
    assert faults("listen", verb) == []
    assert parses(verb)


@pytest.mark.parametrize(
    "verb",
    [
        {},
        {"mixType": "mono"},
        *({"url": url} for url in ("/p", "ftp://h", "ws:h", "wss://u:p@h", "ws://u@h", "wss:///p")),
        *({"url": url} for url in ("ws://", "ws://:80/", "ws://a b", "ws://h\n", "ws://a\\b")),
        *({"url": url} for url in ("ws://h#f", "ws://h/#", "ws://h:x", "ws://[x]/", 5, None)),
        *({**URL, "name": name} for name in ("", "a b", "a\n", "a" * 65, -1, 1.5, None)),
        *({**URL, "sampleRate": rate} for rate in (11025, "8000", True, None, 8000.5)),
        {**URL, "bidirectionalAudio": {"sampleRate": 11025}},
        {**URL, "bidirectionalAudio": {"stream": True}},
        {**URL, "bidirectionalAudio": True},
        {**URL, "mixType": "Mono"},
        {**URL, "verb": "dial"},
        {**URL, "passDtmf": 1},
        {**URL, "playBeep": "yes"},
        *({**URL, key: v} for key in ("maxLength", "timeout") for v in (0, -1, "5", True, None)),
        {**URL, "finishOnKey": "x"},
        {**URL, "finishOnKey": "1\n"},
        {**URL, "metadata": []},
        {**URL, "wsAuth": {"username": "u"}},
        {**URL, "wsAuth": {**AUTH, "realm": "x"}},
        {**URL, "wsAuth": {"username": "a:b", "password": "p"}},
        {**URL, "wsAuth": {"username": "u", "password": "p\n"}},
        {**URL, "wsAuth": AUTH, "headers": {"authorization": "x"}},
        *({**URL, "headers": {h: "x"}} for h in ("Host", "sec-WebSocket-Key", "", "a b", "a\n")),
        {**URL, "headers": {"X": "a\r\nY: b"}},
        {**URL, "headers": {"X": None}},
        {**URL, "actionHook": "/hook"},
        {**URL, "actionHook": "ws://h/hook"},
        {**URL, "actionHook": "https://u:p@h/hook"},
        {**URL, "actionHook": "https://h/hook#rc=3"},
        {**URL, "actionHook": {"method": "GET"}},
        {**URL, "actionHook": {"url": "https://h", "method": "PUT"}},
        {**URL, "actionHook": {"url": "https://h", "username": "u"}},
        {**URL, "reconnect": True},
        {**URL, "reconnect": {"attempts": 0}},
        {**URL, "reconnect": {"maxDelay": 0}},
        {**URL, "channel": 2},
        {**URL, "channel": True},
        {**URL, "transcribe": {}},
        {**URL, "sampelRate": 8000},
    ],
)
def test_schema_and_parser_refuse_alike(verb: dict[str, Any]) -> None:
    assert faults("listen", verb)
    assert not parses(verb)


_AUTH = st.fixed_dictionaries(
    {},
    optional={
        "url": _one_of("https://h/hook", "/hook"),
        "method": _one_of("GET", "POST"),
        "username": _one_of("u", "a:b", 7),
        "password": _one_of("p", "a:b", 7),
    },
)
_VERBS = st.fixed_dictionaries(
    {"url": st.sampled_from(["wss://h/p", "ws://u@h", "https://h:8443"])},
    optional={
        "verb": _one_of("listen", "stream"),
        "name": _one_of("a.b", 7),
        "id": _one_of("x", 7.0),
        "metadata": _JSON,
        "mixType": _one_of("mono", "stereo", "mixed"),
        "sampleRate": _one_of(8000, 64000.0, 11025),
        "disableBidirectionalAudio": _one_of(True, False),
        "bidirectionalAudio": st.fixed_dictionaries(
            {}, optional={"enabled": _one_of(True), "sampleRate": _one_of(8000)}
        )
        | _JSON,
        "wsAuth": _AUTH,
        "headers": st.dictionaries(
            _one_of("X-A", "Authorization", "Host").filter(lambda key: isinstance(key, str))
            | st.text(st.characters(codec="utf-8"), max_size=4),
            _one_of("v", 7),
            max_size=2,
        ),
        "finishOnKey": _one_of("1#", 7),
        "maxLength": _one_of(5, 0.5),
        "timeout": _one_of(5, 0.5),
        "playBeep": _one_of(True),
        "actionHook": _AUTH | _one_of("http://h"),
        "reconnect": st.fixed_dictionaries(
            {}, optional={"attempts": _one_of(1, 2.0), "maxDelay": _one_of(1)}
        )
        | _one_of(False),
        "channel": _one_of(1, 2),
        "more": _JSON,
    },
)


@given(_VERBS)
def test_schema_and_parser_judge_any_verb_alike(verb: dict[str, Any]) -> None:
    assert (faults("listen", verb) == []) is parses(verb)
