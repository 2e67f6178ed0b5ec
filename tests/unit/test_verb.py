"""The listen verb: defaults, refusals, and what a refusal says."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from pylisten.profiles import NOT_IN_A_PROFILE
from pylisten.verb import (
    METADATA_LIMIT_BYTES,
    NOT_YET,
    RATES_HZ,
    ActionHook,
    Reconnect,
    Verb,
    VerbError,
    parse_verb,
)

URL = "wss://bot.example.com/audio"


def verb(**properties: object) -> Verb:
    return parse_verb({"url": URL, **properties})


def refusal(**properties: object) -> str:
    with pytest.raises(VerbError) as caught:
        parse_verb({"url": URL, **properties})
    return str(caught.value)


def tries(attempts: int, max_delay_s: float) -> Reconnect:
    return Reconnect.model_validate({"attempts": attempts, "maxDelay": max_delay_s})


def test_a_url_is_enough() -> None:
    v = parse_verb(json.dumps({"url": URL}))
    assert (v.ws_url, v.name, v.mix_type, v.sample_rate) == (URL, "listen", "mono", 8000)
    assert v.bidirectional_audio.enabled
    assert not v.bidirectional_audio.streaming
    assert (v.include_playback, v.early_media, v.pass_dtmf) == (False, False, False)
    assert (v.metadata, v.headers, v.upgrade_headers(), v.finish_on_key) == ({}, {}, {}, "")
    assert (v.max_length, v.timeout, v.play_beep, v.action_hook) == (None, None, False, None)
    assert v.reconnect == tries(5, 10.0)


def test_every_supported_property_is_taken() -> None:
    v = parse_verb(
        b"""{"verb": "stream", "url": "https://h:8443/a?t=1", "name": "agent.1", "id": "x-7",
        "metadata": {"customer": "J\xc3\xbcrgen", "deep": [{"a": null}]}, "mixType": "stereo",
        "sampleRate": 16000, "includePlayback": true, "earlyMedia": true, "passDtmf": true,
        "bidirectionalAudio": {"enabled": true, "streaming": true, "sampleRate": 24000},
        "wsAuth": {"username": "u", "password": "p:w"}, "headers": {"X-Session": "a b"},
        "finishOnKey": "0#*A", "maxLength": 1.5, "timeout": 4, "playBeep": true,
        "actionHook": {"url": "https://h/hook?a=1", "method": "GET", "username": "u",
        "password": "p"}, "reconnect": {"attempts": 2, "maxDelay": 0.5}, "channel": 1,
        "_": "a remark"}"""
    )
    assert (v.verb, v.ws_url) == ("stream", "wss://h:8443/a?t=1")
    assert (v.name, v.id, v.mix_type, v.sample_rate) == ("agent.1", "x-7", "stereo", 16000)
    assert v.metadata == {"customer": "Jürgen", "deep": [{"a": None}]}
    assert v.bidirectional_audio.sample_rate == 24000
    assert (v.include_playback, v.early_media, v.pass_dtmf) == (True, True, True)
    assert (v.finish_on_key, v.max_length, v.timeout, v.play_beep) == ("0#*A", 1.5, 4.0, True)
    assert v.reconnect == tries(2, 0.5)
    assert v.action_hook is not None
    assert (v.action_hook.url, v.action_hook.method) == ("https://h/hook?a=1", "GET")
    assert v.action_hook.username == "u"
    assert v.action_hook.password is not None
    assert v.action_hook.password.get_secret_value() == "p"
    assert v.upgrade_headers() == {
        "X-Session": "a b",
        "Authorization": "Basic " + base64.b64encode(b"u:p:w").decode(),
    }


def test_a_verb_cannot_be_changed() -> None:
    v = verb()
    with pytest.raises(ValidationError):
        v.name = "other"


@pytest.mark.parametrize(
    ("url", "ws_url"),
    [
        ("ws://h", "ws://h/"),
        ("http://h/p", "ws://h/p"),
        ("HTTPS://H:443/p?q=http://x", "wss://h/p?q=http://x"),
        ("wss://[::1]:9000/p", "wss://[::1]:9000/p"),
        ("ws://bücher.example/ä", "ws://xn--bcher-kva.example/%C3%A4"),
    ],
)
def test_urls_are_made_ready_for_a_client(url: str, ws_url: str) -> None:
    v = parse_verb({"url": url})
    assert v.url == url
    assert v.ws_url == ws_url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://h", "expected ws://, wss://, http:// or https://"),
        ("/relative", "expected ws://, wss://, http:// or https://"),
        ("ws:h", "expected ws://, wss://, http:// or https://"),
        ("", "expected ws://, wss://, http:// or https://"),
        ("wss://user:secret@h", "holds a user name or password"),
        ("wss://@h", "holds a user name or password"),
        ("wss:///path", "has no host"),
        ("wss://", "has no host"),
        ("wss://:80/", "not a valid URL: empty host"),
        ("wss://a b", "a space"),
        ("wss://h/\r\nX: y", "a control character"),
        ("wss://good\\@evil", "a backslash"),
        ("wss://h:0", "port 0"),
        ("wss://h:65536", "invalid port"),
        ("wss://h:x", "invalid port"),
        ("wss://h/#f", "fragment"),
        (None, "found null"),
    ],
)
def test_a_url_that_cannot_be_called_is_refused_without_repeating_it(url: Any, says: str) -> None:
    text = refusal(url=url)
    assert text.startswith("url: ")
    assert says in text
    assert "secret" not in text


def test_a_missing_url_is_named() -> None:
    with pytest.raises(VerbError, match=r"^url: missing, expected a ws, wss, http or https URL$"):
        parse_verb({})


PROFILES: dict[str, dict[str, object]] = {
    "bot": {
        "url": "wss://bot.example.com/audio",
        "wsAuth": {"username": "u", "password": "hunter2"},
        "headers": {"X-Key": "k3y", "X-Region": "eu"},
        "metadata": {"tenant": "acme", "deep": {"a": 1}},
        "actionHook": {"url": "https://h/hook", "username": "u", "password": "hunter2"},
        "reconnect": {"attempts": 2},
        "maxLength": 60,
    },
    "quiet": {"reconnect": False, "timeout": 5},
    "7": {"url": "ws://seven"},
}


def with_profile(profile: str = "bot", **properties: object) -> Verb:
    return parse_verb({"profile": profile, **properties}, PROFILES)


def profile_refusal(profile: object = "bot", **properties: object) -> str:
    with pytest.raises(VerbError) as caught:
        parse_verb({"profile": profile, **properties}, PROFILES)
    assert "hunter2" not in str(caught.value)
    assert "k3y" not in str(caught.value)
    return str(caught.value)


def test_a_profile_gives_what_the_verb_leaves_out() -> None:
    v = with_profile()
    assert (v.profile, v.url, v.max_length) == ("bot", "wss://bot.example.com/audio", 60)
    assert v.upgrade_headers() == {
        "X-Key": "k3y",
        "X-Region": "eu",
        "Authorization": "Basic " + base64.b64encode(b"u:hunter2").decode(),
    }
    assert v.metadata == {"tenant": "acme", "deep": {"a": 1}}
    assert v.reconnect == tries(2, 10.0)
    assert with_profile("quiet", url=URL).reconnect is None
    assert parse_verb({"profile": 7}, PROFILES).url == "ws://seven"


def test_the_verb_has_the_last_word_and_objects_are_merged_by_key() -> None:
    v = with_profile(
        url="wss://bot.example.com:443/other",
        headers={"x-key": "mine", "X-Session": "9"},
        metadata={"tenant": "b", "deep": {"b": 2}, "n": 3},
        reconnect={"maxDelay": 3},
        maxLength=5,
    )
    assert (v.url, v.max_length) == ("wss://bot.example.com:443/other", 5)
    assert v.headers == {"X-Region": "eu", "x-key": "mine", "X-Session": "9"}
    assert v.metadata == {"tenant": "b", "deep": {"b": 2}, "n": 3}
    assert v.reconnect == tries(2, 3.0)
    assert with_profile(reconnect=False).reconnect is None
    assert with_profile("quiet", url=URL, reconnect={"attempts": 1}).reconnect == tries(1, 10)


def test_credentials_are_taken_whole_from_one_place() -> None:
    v = with_profile(wsAuth={"username": "me", "password": "mine"}, actionHook="https://h2/hook")
    assert v.upgrade_headers()["Authorization"] == "Basic " + base64.b64encode(b"me:mine").decode()
    assert v.action_hook == ActionHook(url="https://h2/hook", method="POST")
    assert profile_refusal(wsAuth={"username": "me"}) == "wsAuth.password: missing"


@pytest.mark.parametrize(
    "url", ["wss://evil.example/", "ws://bot.example.com/audio", "wss://bot.example.com:444/"]
)
def test_credentials_of_a_profile_do_not_go_to_another_server(url: str) -> None:
    text = profile_refusal(url=url, wsAuth={"username": "me", "password": "mine"})
    assert text.startswith('url: found another server than that of profile "bot"')
    profiles = {"bot": {"url": URL, "wsAuth": {"username": "u", "password": "hunter2"}}}
    own = {"username": "me", "password": "mine"}
    with pytest.raises(VerbError, match="found another server"):
        parse_verb({"profile": "bot", "url": url}, profiles)
    assert parse_verb({"profile": "bot", "url": url, "wsAuth": own}, profiles).url == url
    anywhere = {"bot": {"wsAuth": {"username": "u", "password": "hunter2"}}}
    assert parse_verb({"profile": "bot", "url": url}, anywhere).url == url


def test_an_unknown_profile_is_named_with_those_there_are() -> None:
    assert profile_refusal("x") == 'profile: found "x", expected one of bot, quiet, 7'
    assert profile_refusal("x", mixType=1).startswith(
        'profile: found "x", expected one of bot, quiet, 7; mixType: found 1, expected'
    )
    assert profile_refusal([]) == "profile: found an array, expected a string"
    with pytest.raises(VerbError, match=r'^profile: found "x", expected none: no profile is conf'):
        parse_verb({"profile": "x"})


def test_a_profile_need_not_have_a_url_but_then_the_verb_must() -> None:
    assert profile_refusal("quiet") == (
        "url: missing, expected a ws, wss, http or https URL here or in the profile"
    )


def test_parsing_changes_neither_verb_nor_profile() -> None:
    verb = {"profile": "bot", "headers": {"X-Key": "mine"}, "metadata": {"n": 1}}
    before = json.dumps([verb, PROFILES])
    parse_verb(verb, PROFILES)
    assert json.dumps([verb, PROFILES]) == before


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"sampleRate": 11025}, "sampleRate: found 11025, expected one of 8000, 16000, 24000, "),
        ({"sampleRate": "8000"}, 'sampleRate: found "8000", expected one of 8000'),
        ({"sampleRate": True}, "sampleRate: found true, expected a whole number"),
        ({"sampleRate": 8000.5}, "sampleRate: found 8000.5, expected one of 8000"),
        (
            {"bidirectionalAudio": {"sampleRate": 11025}},
            "bidirectionalAudio.sampleRate: found 11025, expected one of "
            "8000, 16000, 24000, 32000, 48000, 64000",
        ),
        ({"bidirectionalAudio": True}, "bidirectionalAudio: found true, expected an object"),
        (
            {"bidirectionalAudio": {"stream": True}},
            "bidirectionalAudio.stream: unknown property, expected one of enabled, streaming, "
            "sampleRate (did you mean streaming?)",
        ),
        ({"mixType": "Mono"}, 'mixType: found "Mono", expected one of mono, stereo, mixed'),
        ({"verb": "dial"}, 'verb: found "dial", expected one of listen, stream'),
        ({"passDtmf": "yes"}, 'passDtmf: found "yes", expected true or false'),
        ({"passDtmf": 1}, "passDtmf: found 1, expected true or false"),
        ({"earlyMedia": None}, "earlyMedia: found null, expected a value, or the property left"),
        ({"maxLength": 0}, "maxLength: found 0, expected a number above 0"),
        ({"maxLength": -1.5}, "maxLength: found -1.5, expected a number above 0"),
        ({"maxLength": "5"}, 'maxLength: found "5", expected a number'),
        ({"maxLength": float("nan")}, "maxLength: found NaN, expected a finite number"),
        ({"maxLength": True}, "maxLength: found true, expected a number"),
        ({"finishOnKey": "x"}, 'finishOnKey: found "x", expected any of the keys 0 to 9, *, #, A'),
        ({"name": "a b"}, 'name: found "a b", expected 1 to 64 letters'),
        ({"name": "a" * 65}, "expected 1 to 64 letters"),
        ({"name": "a\n"}, "expected 1 to 64 letters"),
        ({"name": ""}, "expected 1 to 64 letters"),
        ({"id": 1.5}, "id: found 1.5, expected a string"),
        ({"metadata": []}, "metadata: found an array, expected an object"),
        ({"metadata": {"a": float("inf")}}, "metadata: cannot be written as JSON"),
        ({"metadata": {"a": {1, 2}}}, "metadata: cannot be written as JSON"),
        ({"wsAuth": {"username": "u"}}, "wsAuth.password: missing"),
        ({"wsAuth": {"username": "a:b", "password": "p"}}, "wsAuth.username: holds a colon"),
        ({"timeout": "x"}, 'timeout: found "x", expected a number'),
        ({"channel": 3}, "channel: found 3, expected one of 1, 2"),
        ({"reconnect": True}, "reconnect: found true, expected false or an object {attempts, max"),
        ({"reconnect": {"attempts": 0}}, "reconnect.attempts: found 0, expected a number from 1"),
        ({"reconnect": {"attempts": 1.5}}, "reconnect.attempts: found 1.5, expected a whole num"),
        ({"reconnect": {"maxDelay": 0}}, "reconnect.maxDelay: found 0, expected a number above 0"),
        ({"timeout": 0}, "timeout: found 0, expected a number above 0"),
        ({"playBeep": 1}, "playBeep: found 1, expected true or false"),
        ({"actionHook": {"url": "https://h", "method": "PUT"}}, 'method: found "PUT", expected on'),
        ({"actionHook": {}}, "actionHook.url: missing"),
        (
            {"actionHook": {"url": "https://h", "username": "u"}},
            "actionHook: has a username or a password alone, expected both or none",
        ),
        (
            {"actionHook": {"url": "https://h", "username": "u:", "password": "p"}},
            "actionHook.username: holds a colon",
        ),
        ({"actionHook": 5}, "actionHook: found a number, expected a URL or an object {url, "),
        ({"auth": {}}, "auth: unknown property, expected one of verb, url, "),
        ({"foo": 1}, "foo: unknown property, expected one of verb, url, name, "),
        ({"sampelRate": 1}, "(did you mean sampleRate?)"),
        ({"sample_rate": 8000}, "sample_rate: unknown property"),
        ({"[key]": 1}, "[key]: unknown property"),
        ({"wsAuth": {"[key]": 1}}, "wsAuth.[key]: unknown property"),
    ],
)
def test_a_refusal_names_path_found_and_expected(properties: dict[str, Any], text: str) -> None:
    assert text in refusal(**properties)


def test_all_faults_are_told_at_once() -> None:
    text = refusal(mixType="x", sampleRate=1, foo=2, timeout=0)
    assert [fault.split(":")[0] for fault in text.split("; ")] == [
        "mixType",
        "sampleRate",
        "timeout",
        "foo",
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('{"url": }', "not valid JSON: expected value at line 1 column 9"),
        ("", "not valid JSON: EOF"),
        (b'{"url": "\xff"}', "not valid JSON: invalid unicode code point at line 1"),
        ('{"maxLength": NaN}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON: recursion limit exceeded"),
        ("[]", "found JSON that is not an object"),
    ],
)
def test_text_that_is_not_a_json_object_is_refused(source: str | bytes, text: str) -> None:
    with pytest.raises(VerbError, match=text):
        parse_verb(source)


def test_secrets_are_neither_repeated_nor_shown() -> None:
    text = refusal(wsAuth={"username": "u", "password": ["hunter2"]}, headers={"X-Key": ["k3y"]})
    assert "wsAuth.password: found an array, expected a string" in text
    assert "hunter2" not in text
    assert "k3y" not in text
    v = verb(wsAuth={"username": "u", "password": "hunter2"}, headers={"X-Key": "k3y"})
    assert "hunter2" not in repr(v)
    assert "k3y" not in repr(v)


def test_what_stands_in_the_wrong_place_is_not_repeated_either() -> None:
    text = refusal(wsAuth="u:hunter2", headers="X-Key: hunter2", actionHook=["hunter2"])
    assert "wsAuth: found a string, expected an object" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("/hook", "found another kind of URL, expected http:// or https://"),
        ("hook", "found another kind of URL"),
        ("ws://h/hook", "found another kind of URL"),
        ("http:///hook", "has no host"),
        ("https://u:hunter2@h/hook", "expected them in actionHook.username and actionHook.passw"),
        ("https://h/hook#rc=3&rp=5xx", "has a fragment (#…), which is never sent; how often a ho"),
        ("https://h:99999/hook", "invalid port"),
    ],
)
def test_a_hook_that_cannot_be_called_is_refused(url: str, says: str) -> None:
    for hook in (url, {"url": url}):
        text = refusal(actionHook=hook)
        assert text.startswith("actionHook.url: ")
        assert says in text
        assert "hunter2" not in text


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_streamed_playback_has_the_rate_of_the_listen_unless_told(rate_hz: int) -> None:
    assert verb(sampleRate=rate_hz).bidirectional_audio.sample_rate == rate_hz
    v = verb(sampleRate=rate_hz, bidirectionalAudio={"sampleRate": 24000})
    assert v.bidirectional_audio.sample_rate == 24000


def test_the_old_spelling_disables_playback() -> None:
    assert not verb(disableBidirectionalAudio=True).bidirectional_audio.enabled
    assert verb(disableBidirectionalAudio=False).bidirectional_audio.enabled
    v = verb(disableBidirectionalAudio=True, bidirectionalAudio={"streaming": True})
    assert (v.bidirectional_audio.enabled, v.bidirectional_audio.streaming) == (False, True)
    assert not verb(bidirectionalAudio={"enabled": False}).bidirectional_audio.enabled


def test_numbers_of_a_dialplan_become_text() -> None:
    """``finishOnKey=1 wsAuth.password=1234`` arrives as JSON numbers."""
    v = verb(finishOnKey=1, name=7, id=9, wsAuth={"username": 10, "password": 1234})
    assert (v.finish_on_key, v.name, v.id) == ("1", "7", "9")
    assert v.upgrade_headers()["Authorization"] == "Basic " + base64.b64encode(b"10:1234").decode()


def test_a_whole_number_may_be_written_with_a_point() -> None:
    v = parse_verb('{"url": "ws://h", "sampleRate": 16000.0, "channel": 1.0, "name": 7.0}')
    assert (v.sample_rate, v.name) == (16000, "7")
    assert type(v.sample_rate) is int


@pytest.mark.parametrize(
    "name", ["Host", "connection", "UPGRADE", "Sec-WebSocket-Key", "sec-websocket-protocol", "TE"]
)
def test_headers_of_the_connection_are_refused(name: str) -> None:
    assert refusal(headers={name: "x"}) == (
        f"headers.{name}: belongs to the connection and cannot be set"
    )


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä", "a\r\n"])
def test_header_names_are_tokens(name: str) -> None:
    assert refusal(headers={name: "x"}).endswith(": not a header name")


@pytest.mark.parametrize("value", ["a\r\nX-Forged: 1", "a\n", "a\0", "\x7f"])
def test_header_values_cannot_forge_lines(value: str) -> None:
    assert refusal(headers={"X-A": value}) == (
        "headers.X-A: holds a line break or another control character"
    )


def test_authorization_is_given_once() -> None:
    assert verb(headers={"Authorization": "Bearer t"}).upgrade_headers() == {
        "Authorization": "Bearer t"
    }
    auth = {"username": "u", "password": "p"}
    assert "expected one of the two" in refusal(wsAuth=auth, headers={"authorization": "x"})


def test_metadata_up_to_a_mebibyte_is_kept_unchanged() -> None:
    overhead = len('{"a": ""}')
    largest = {"a": "|" * (METADATA_LIMIT_BYTES - overhead)}
    assert verb(metadata=largest).metadata == largest
    assert "expected at most 1048576" in refusal(metadata={"a": largest["a"] + "|"})


def test_numbers_too_long_to_print_are_refused() -> None:
    huge = 10**5000
    assert "maxLength: found a huge number, expected" in refusal(maxLength=huge)
    assert "metadata: cannot be written as JSON" in refusal(metadata={"a": huge})


@pytest.mark.parametrize(
    "properties",
    [{"reconnect": False}, {"channel": 1}, {"playBeep": False}],
)
def test_asking_for_nothing_is_supported(properties: dict[str, Any]) -> None:
    verb(**properties)


@pytest.mark.parametrize("properties", [{"transcribe": {}}, {"channel": 2}])
def test_what_is_not_supported_yet_is_refused(properties: dict[str, Any]) -> None:
    (name,) = properties
    assert refusal(**properties) == f"{name}: not supported by this version"
    assert name in NOT_YET


def test_every_fault_can_be_read_by_programs() -> None:
    with pytest.raises(VerbError) as caught:
        parse_verb({"url": URL, "bidirectionalAudio": {"enabled": 1}})
    (fault,) = caught.value.problems
    assert (fault.path, fault.text) == (
        "bidirectionalAudio.enabled",
        "found 1, expected true or false",
    )


def test_the_reference_describes_what_is_supported() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/verb.md").read_text(encoding="utf-8")
    table, _, not_yet = page.partition("## Not in this version")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    described = {name.split(".")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    known = {to_camel(field) for field in Verb.model_fields}
    assert described == (known - NOT_YET) | {"_"}
    refused = not_yet.partition("## ")[0]
    assert set(re.findall(r"`(\w+)`", refused)) >= NOT_YET
    profiles = page.partition("## Profiles")[2].partition("## ")[0]
    assert all(f"`{name}`" in profiles for name in NOT_IN_A_PROFILE)


_NAMES = [
    *("verb", "url", "name", "id", "profile", "metadata", "mixType", "sampleRate", "headers"),
    *("disableBidirectionalAudio", "bidirectionalAudio", "includePlayback", "earlyMedia", "_"),
    *("wsAuth", "passDtmf", "finishOnKey", "maxLength", "timeout", "playBeep", "actionHook"),
    *("transcribe", "channel", "reconnect", "enabled", "streaming", "username", "password"),
]
# All of Unicode: Python's strings may hold half a surrogate pair.
_WILD_TEXT = st.text(st.characters(codec=None))
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _WILD_TEXT
    | st.sampled_from(
        [URL, "bot", "ws://h", "mono", 8000, 10**4000, "wss://u@[", "http://%zz", "listen"]
    )
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_NAMES) | _WILD_TEXT, inner, max_size=4)
    ),
    max_leaves=8,
)


def attempt(source: str | bytes | dict[str, Any]) -> Verb | VerbError:
    try:
        return parse_verb(source, PROFILES)
    except VerbError as error:
        return error


@given(st.dictionaries(st.sampled_from(_NAMES) | _WILD_TEXT, _VALUES, max_size=6))
def test_no_mapping_raises_anything_but_verb_error(source: dict[str, Any]) -> None:
    outcome = attempt(source)
    if isinstance(outcome, Verb):
        assert outcome.ws_url.isascii()
        assert json.dumps(outcome.upgrade_headers(), ensure_ascii=False).encode()
    else:
        assert str(outcome).encode()
        assert "hunter2" not in str(outcome)


@given(_WILD_TEXT | st.binary())
def test_no_text_raises_anything_but_verb_error(source: str | bytes) -> None:
    assert str(attempt(source)).encode()


@given(st.text(st.characters(codec=None), max_size=20))
def test_no_url_raises_anything_but_verb_error(rest: str) -> None:
    outcome = attempt({"url": "wss://" + rest})
    if isinstance(outcome, Verb):
        assert outcome.ws_url.startswith("wss://")
    else:
        assert str(outcome).startswith("url: ")
